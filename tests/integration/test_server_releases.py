"""Commits that are released without an acknowledgement, in every way that an operator has: the server counts it, and
the agent sees it.

Then the server dies, and its committed transactions at the binlog's end are found before anything is cut.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pymysql
import pytest
from pymysql.constants import ER
from pymysql.cursors import DictCursor

from holdfast.binlog.files import run
from holdfast.binlog.pending import tail
from holdfast.binlog.pending.cut import cut
from holdfast.binlog.pending.tail import Pending, inspect
from holdfast.core.gtid import Flavor, parse
from holdfast.core.rules.releases import Release, holds_back, let_through
from holdfast.core.view import SemiSync
from holdfast.errors import DeadlinePassed
from holdfast.server.base import Deadline
from holdfast.server.connection.sql import StatementRefused
from holdfast.server.data.committed import last_commits
from tests.integration.servers import CLIENT, BareServer, bare_servers, wait_until


@pytest.fixture(params=list(Flavor), scope="module")
def servers(request: pytest.FixtureRequest) -> Iterator[list[BareServer]]:
    with bare_servers(request.param, 2) as servers:
        yield servers


@pytest.fixture
def pair(servers: list[BareServer]) -> list[BareServer]:
    """A primary that waits for its replica without a time limit, after a restart."""
    primary, replica = servers
    if primary.adapter.observe(soon()).semi_sync.source:
        primary.restart()
    replica.adapter.follow(primary.source(replica), True, soon())
    primary.adapter.prepare_primary(1, soon())
    primary.adapter.wait_for_ackers(1, soon())
    primary.adapter.prove(1, 1, soon())
    primary.adapter.open(soon())
    primary.sql("CREATE TABLE IF NOT EXISTS app.t (id INT AUTO_INCREMENT PRIMARY KEY, v TEXT)")
    return servers


ROWS = "SELECT COUNT(*) FROM app.t WHERE v LIKE 'waiter%'"


def soon() -> Deadline:
    return Deadline(8)


def waits(primary: BareServer) -> SemiSync:
    return primary.adapter.observe(soon()).semi_sync


class Waiters:
    """Clients whose commits wait, one after another: the replica receives nothing any more."""

    def __init__(self, primary: BareServer, count: int) -> None:
        self.sessions: list[int] = []
        self.answered = 0
        self._threads = []
        for number in range(count):
            wire = primary.connect(CLIENT)
            with wire.cursor() as cursor:
                cursor.execute("SELECT CONNECTION_ID() AS id")
                self.sessions.append(int(cursor.fetchall()[0]["id"]))
            thread = threading.Thread(target=self._write, args=(wire, f"waiter {number}"))
            thread.start()
            self._threads.append(thread)
            wait_until(lambda: waits(primary).waiting > 0, 5, "it waits")

    def _write(self, wire: pymysql.connections.Connection[DictCursor], value: str) -> None:
        with suppress(pymysql.err.MySQLError):
            wire.cursor().execute("INSERT INTO app.t (v) VALUES (%s)", (value,))
            self.answered += 1

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


def kill(what: str) -> Callable[[BareServer, Waiters], None]:
    def do(primary: BareServer, waiters: Waiters) -> None:
        """By the application's own account."""
        for session in waiters.sessions:
            primary.sql(f"KILL {what} {session}", account=CLIENT)

    return do


def turn(*settings: str) -> Callable[[BareServer, Waiters], None]:
    """``{0}`` stands for the prefix of the variables."""

    def do(primary: BareServer, _: Waiters) -> None:
        names = primary.adapter.dialect.names
        for setting in settings:
            text = setting.format(names.prefix, names.without_replicas)
            primary.sql(f"SET GLOBAL {text}")
            with suppress(pymysql.err.MySQLError):
                thread = threading.Thread(target=_write_briefly, args=(primary,), daemon=True)
                thread.start()
                thread.join(0.3)

    return do


def _write_briefly(primary: BareServer) -> None:
    with suppress(pymysql.err.MySQLError):
        primary.sql("INSERT INTO app.t (v) VALUES ('meanwhile')", account=CLIENT)


BOTH = {
    "semi-sync off and on again": turn("{0}_enabled = 0", "{0}_enabled = 1"),
    "not waiting while no replica is connected": turn("{1} = 0", "{1} = 1"),
    "a time-out for a moment": turn("{0}_timeout = 100", "{0}_timeout = 4294967295"),
}
NEXT_ONE = ("not waiting while no replica is connected", "a time-out for a moment")
MARIADB = {"KILL QUERY": kill("QUERY"), "KILL": kill("CONNECTION")}


def test_whatever_lets_a_commit_through_is_counted_by_the_server(pair: list[BareServer]) -> None:
    """Also where it is over by the time of the look: each way begins and ends between two looks."""
    primary, replica = pair
    ways = BOTH | (MARIADB if primary.flavor is Flavor.MARIADB else {})
    for way, do in ways.items():
        before = primary.adapter.prove(1, 1, soon())
        assert holds_back(before)
        assert let_through(1, before.tally, waits(primary)) is None, way
        replica.adapter.stop_receiver(soon())
        wait_until(lambda: waits(primary).clients == 0, 5, "the replica has gone")
        # while one waits, no other gets so far that it could be released
        waiters = Waiters(primary, 0 if way in NEXT_ONE else 1)
        assert let_through(1, before.tally, waits(primary)) is None, f"{way}: it waits only"
        do(primary, waiters)
        release = let_through(1, before.tally, waits(primary))
        print(f"{primary.flavor}: {way}: {release}")
        assert isinstance(release, Release), way
        if way in ("KILL QUERY", "KILL"):
            assert release.count == 1
        if way == "a time-out for a moment":
            primary.adapter.set_acks(1, soon())
            assert waits(primary).degraded, "all go on until a replica acknowledges"
        primary.adapter.set_acks(1, soon(), again=True)
        assert not waits(primary).degraded, "the next one waits"
        replica.adapter.follow(primary.source(replica), True, soon())
        wait_until(lambda: waits(primary).clients == 1, 5, "the replica is back")
        waiters.join()


def test_mysql_goes_on_waiting_when_its_waiters_are_killed(pair: list[BareServer]) -> None:
    primary, replica = pair
    if primary.flavor is Flavor.MARIADB:
        return
    before = primary.adapter.prove(1, 1, soon())
    replica.adapter.stop_receiver(soon())
    primary_has = primary.value(ROWS)
    waiters = Waiters(primary, 2)
    kill("QUERY")(primary, waiters)
    kill("CONNECTION")(primary, waiters)
    assert let_through(1, before.tally, waits(primary)) is None
    assert waits(primary).waiting
    assert primary.value(ROWS) == primary_has
    replica.adapter.follow(primary.source(replica), True, soon())
    waiters.join()


def test_a_row_that_was_let_through_proves_nothing(pair: list[BareServer]) -> None:
    """An operator kills the session that waits with it."""
    primary, replica = pair
    replica.adapter.stop_receiver(soon())
    wait_until(lambda: waits(primary).clients == 0, 5, "the replica has gone")
    found: list[object] = []

    def prove() -> None:
        try:
            found.append(primary.adapter.prove(1, 2, Deadline(1.5)))
        except DeadlinePassed as error:
            found.append(error)

    thread = threading.Thread(target=prove)
    thread.start()
    wait_until(lambda: waits(primary).waiting > 0, 5, "its row waits")
    primary.sql(f"KILL QUERY {primary.adapter.sessions.proof.session_id}")
    thread.join(10)
    assert isinstance(found[0], DeadlinePassed)
    replica.adapter.follow(primary.source(replica), True, soon())
    assert holds_back(primary.adapter.prove(1, 3, soon()))


def crash_with_waiters(primary: BareServer, replica: BareServer, released: bool) -> Pending:
    """Its binlog as the replica's source, dead, with two transactions that the replica lacks, or three.

    :param released: the first of them was released, after the last look
    """
    state = "gtid_executed" if primary.flavor is Flavor.MYSQL else "gtid_binlog_state"
    primary.adapter.prove(1, 4, soon())
    replica.adapter.stop_receiver(soon())
    wait_until(lambda: waits(primary).clients == 0, 5, "the replica has gone")
    if released:
        first = Waiters(primary, 1)
        if primary.flavor is Flavor.MARIADB:
            kill("QUERY")(primary, first)
        else:
            turn("{0}_enabled = 0")(primary, first)
            turn("{0}_enabled = 1")(primary, first)
        first.join()
    waiters = Waiters(primary, 2)
    wait_until(lambda: primary.adapter.observe(soon()).semi_sync.waiting > 0, 5, "they wait")
    primary.kill()
    waiters.join()
    present = parse(
        primary.flavor, str(replica.value(f"SELECT @@global.{state}")).replace("\n", "")
    )
    found = inspect(primary.datadir / "binlog.index", lambda g: present.has(g.stream, g.sequence))
    assert isinstance(found, Pending)  # the files alone cannot tell the two apart
    return found


def commits_of(primary: BareServer) -> list[tuple[str, int]]:
    command = (*primary.tree.command,)
    said = Path(primary.datadir.parent / "engine.out")
    found = last_commits(command, primary.option_file, primary.datadir, said, soon())
    return [(each.file, each.end) for each in found]


def test_mariadb_tells_before_the_cut_what_its_engine_has_committed(pair: list[BareServer]) -> None:
    primary, replica = pair
    if primary.flavor is Flavor.MYSQL:
        return
    for released in (False, True):
        found = crash_with_waiters(primary, replica, released)
        log = primary.datadir / "binlog.index"
        before = [file.read_bytes() for file in sorted(log.parent.glob("binlog.0*"))]
        why = tail.reaches_into(found, commits_of(primary))
        assert bool(why) is released, why
        assert [file.read_bytes() for file in sorted(log.parent.glob("binlog.0*"))] == before
        assert tail.reaches_into(found, commits_of(primary)) == why  # the question can be repeated
        count = int(str(replica.value(ROWS)))
        if not released:
            cut(found)
        primary.start()
        assert primary.value(ROWS) >= count + 2 if released else primary.value(ROWS) == count
        if not released:
            again(pair)


def mysql_shows_after_the_cut_what_its_engine_had_committed(pair: list[BareServer]) -> None:
    primary, replica = pair
    found = crash_with_waiters(primary, replica, released=True)
    assert found.summary.first is not None
    assert found.summary.last is not None
    cut(found)
    primary.start()
    executed = parse(primary.flavor, str(primary.value("SELECT @@global.gtid_executed")))
    stream, first, last = found.summary.first.stream, found.summary.first, found.summary.last
    assert executed.has(stream, first.sequence)
    assert not executed.has(stream, last.sequence)


def again(pair: list[BareServer]) -> None:
    primary, replica = pair
    replica.adapter.follow(primary.source(replica), True, soon())
    primary.adapter.prepare_primary(1, soon())
    primary.adapter.wait_for_ackers(1, soon())
    primary.adapter.prove(1, 1, soon())
    primary.adapter.open(soon())


def a_reset_lets_through_what_waits_and_its_counters_go_down(pair: list[BareServer]) -> None:
    primary, replica = pair
    before = primary.adapter.prove(1, 1, soon())
    replica.adapter.stop_receiver(soon())
    waiters = Waiters(primary, 1)
    primary.sql("RESET MASTER")
    waiters.join()
    assert waiters.answered == 1
    release = let_through(1, before.tally, waits(primary))
    assert release is not None
    assert "set to 0" in release.reason


def test_what_leaves_a_pair_apart(pair: list[BareServer]) -> None:
    """The last test of the pair: a RESET on MariaDB (MySQL's waits for the commits), and a cut on MySQL of committed
    ones."""
    if pair[0].flavor is Flavor.MARIADB:
        a_reset_lets_through_what_waits_and_its_counters_go_down(pair)
    else:
        mysql_shows_after_the_cut_what_its_engine_had_committed(pair)


def test_the_files_tell_whether_another_run_wrote_them(servers: list[BareServer]) -> None:
    server = servers[1]
    index = server.datadir / "binlog.index"
    mark = run.began(index)
    assert mark is not None
    server.adapter.stop_receiver(soon())
    for _ in range(2):
        server.sql("FLUSH BINARY LOGS")
    assert run.began(index) != mark
    assert run.started_since(index, mark) == ""
    server.kill()
    assert run.started_since(index, mark) == ""
    server.start()
    server.kill()
    assert server.socket.exists(), "a crash leaves it"
    assert "started again" in run.started_since(index, mark)
    server.start()
    server.sql("RESET MASTER" if server.flavor is Flavor.MARIADB else "RESET BINARY LOGS AND GTIDS")
    assert run.started_since(index, mark) != ""
    server.sql("SHUTDOWN")
    wait_until(lambda: not server.socket.exists(), 5, "a shutdown removes it first")


def test_without_its_plugin_nothing_can_be_asked_of_mysql(servers: list[BareServer]) -> None:
    server = servers[0]
    if server.flavor is Flavor.MARIADB:
        return
    server.sql(
        "SET GLOBAL super_read_only = 0",
        "SET GLOBAL read_only = 0",
        "UNINSTALL PLUGIN rpl_semi_sync_source",
    )
    with pytest.raises(StatementRefused) as refused:
        server.adapter.observe(soon())
    assert refused.value.code == ER.UNKNOWN_SYSTEM_VARIABLE
