"""Members that real agents clone: from nothing, from behind, from another history; and interrupted anywhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pymysql
import pytest
import yaml

from holdfast.core.commands import (
    Clone,
    Command,
    Cut,
    Fence,
    Promise,
    Promote,
    SetAcks,
    Start,
)
from holdfast.core.gtid import Flavor, parse
from holdfast.core.rules.attachment import with_everything_of
from holdfast.core.view import MemberState, ServerStatus
from holdfast.http.wire import CommandReply
from holdfast.sandbox.servers import template, trees
from holdfast.server.data.backup import find_tools
from holdfast.server.process.process import ServerProcess
from tests.integration import servers
from tests.integration.slow_road import SlowRoad
from tests.integration.test_agent_real import Member, rows, write

BULK_ROWS = 24
FAST_BYTES = 1 << 30
SLOW_BYTES = 16 * 1024 * 1024
"""Bytes a second of a copy that is to be interrupted."""
CRAWL_BYTES = 2 * 1024 * 1024
"""Bytes a second of a copy that must not end before the test has done its work."""

THROTTLE = """
import pathlib, subprocess, sys, time
if "--backup" not in sys.argv:
    sys.exit(subprocess.call(sys.argv[1:]))
rate = int(pathlib.Path(__file__).with_suffix(".rate").read_text())
with subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE) as tool:
    while piece := tool.stdout.read(rate // 10):
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        time.sleep(0.1)
sys.exit(tool.returncode)
"""


class Pair:
    """m1 is the primary, alone, with rows in app.t and megabytes in app.bulk; each test prepares m2.

    :ivar term: of the manager that the test plays
    :ivar road: the path of MySQL's copies
    """

    def __init__(self, first: Member, second: Member) -> None:
        self.first, self.second = first, second
        self.road = SlowRoad(first.port, FAST_BYTES)
        self.term = 1
        self.number = 10

    def do(self, command: Command) -> CommandReply:
        return self.second.do(self.term, command)

    def ask(self, command: Command) -> CommandReply:
        return self.second.ask(self.term, command)

    def clone(self, discard: bool = False) -> Clone:
        """m2 from m1."""
        first = self.first
        url = f"http://127.0.0.1:{first.agent_port}"
        return Clone("m1", "127.0.0.1", self.road.port, url, self.present(), discard)

    def at(self, rate: int) -> None:
        """Bytes a second of copies that begin from now on; MySQL's also of a running one."""
        if self.first.flavor is Flavor.MARIADB:
            limit(self.first, rate)
        else:
            self.road.rate = rate

    def present(self) -> str:
        """What the primary has, and all that it will ever issue."""
        state = self.first.until(lambda state: state.up and state.applied)
        return str(with_everything_of(state))

    def written(self) -> int:
        """Write one more row on the primary."""
        self.number += 1
        write(self.first, self.number)
        return self.number

    def empty(self) -> None:
        """Remove everything on m2."""
        self.do(Fence())
        clear(self.second.datadir)
        self.second.until(lambda state: state.unfit == "its data directory is empty")

    def halfway(self, done: int = SLOW_BYTES // 4) -> MemberState:
        """Returns while data arrives."""
        return self._admitted(lambda s: s.progress is None or s.progress.done > done)

    def _admitted(self, what: Callable[[MemberState], bool]) -> MemberState:
        """Ask again, as a manager does, while MySQL's donor has not noticed that its recipient is gone."""
        for _ in range(60):
            state = self.second.until(what, 90)
            if "Too many concurrent clone" not in state.unfit:
                return state
            time.sleep(1)
            self.do(self.clone())
        raise AssertionError(log(self.second))

    def cloned(self) -> MemberState:
        """Wait for the end of a clone, and check that the copy is good: whole, read-only, without a source."""
        second = self.second
        state = self._admitted(lambda state: state.progress is None)
        assert (state.unfit, state.reason, state.suspects) == ("", "", ()), log(second)
        assert state.up
        assert not state.writable
        assert state.replication.source == ""
        for left in ("cloning", "relaxed", "recovering", "primary"):
            assert not (second.folder / "state" / left).exists(), left
        assert not (second.datadir / ".holdfast-incoming").exists()
        assert self.first.seen().state.applied_set().contains(state.applied_set())
        return state

    def join(self) -> None:
        """The copy follows, and has what the primary had and has."""
        first, second = self.first, self.second
        self.do(second.follow(first))
        self.written()
        applied = first.until(lambda state: self.number in rows(first)).applied
        second.until(lambda state: state.applied_set().contains(parse(first.flavor, applied)))
        second.until(lambda state: rows(second) == rows(first))
        same = "SELECT SUM(CRC32(filler)) FROM app.bulk"
        assert sql(second, same) == sql(first, same)

    def failed(self, *said: str) -> None:
        """Wait for the end of a clone that fails: the member says why, and what is left cannot be started."""
        second = self.second
        state = second.until(lambda state: state.progress is None, 90)
        assert any(word in state.unfit for word in said), (state.unfit, log(second))
        assert "has to be cloned" in self.ask(Start()).message
        assert second.seen().state.server is ServerStatus.DOWN, log(second)

    def saved(self) -> list[str]:
        """What was saved before data was given up, as text."""
        return [path.read_text() for path in (self.second.folder / "state").glob("*/*.txt")]

    def begin_with_a_replica(self) -> None:
        """Clean up after the test before. Copies are slow only in tests about what happens meanwhile."""
        self.at(FAST_BYTES)
        state = self.second.until(lambda state: state.progress is None, 90)
        if state.unfit:
            self.do(self.clone(discard=True))
            self.cloned()
        elif not state.up:
            self.second.boot(self.term)
        self.join()
        for path in (self.second.folder / "state" / "pending").glob("*"):
            path.unlink()


@pytest.fixture
def pair(hosts: Pair) -> Pair:
    hosts.begin_with_a_replica()
    return hosts


@pytest.fixture(scope="module")
def hosts(flavor: Flavor) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="hf") as folder:  # short: sockets live in it
        made: list[Member] = []
        try:
            for number in (1, 2):
                made.append(Member(Path(folder) / f"m{number}", flavor, number))
            throttle(made[0])
            begin(made[0])
            both = Pair(*made)
            yield both
            both.road.close()
        finally:
            for each in made:
                each.end()


def throttle(first: Member) -> None:
    """Make MariaDB's copies, which its agent gives, slow enough to be interrupted."""
    if first.flavor is Flavor.MARIADB:
        script = first.folder / "throttle.py"
        script.write_text(THROTTLE)
        config = yaml.safe_load(first.config.read_text())
        tool = find_tools(first.command_line).backup
        config["server"]["backup_command"] = [sys.executable, str(script), *tool]
        first.config.write_text(yaml.safe_dump(config))
        limit(first, FAST_BYTES)
        first.kill_agent()
        first.start_agent()


def limit(first: Member, rate: int) -> None:
    (first.folder / "throttle.rate").write_text(str(rate))


def begin(first: Member) -> None:
    first.boot(1)
    if first.flavor is Flavor.MYSQL:
        grants = [f"GRANT BACKUP_ADMIN ON *.* TO 'repl{number}'@'%'" for number in (1, 2)]
        sql(first, "SET GLOBAL super_read_only = 0", "SET sql_log_bin = 0", *grants)
    first.do(1, Promote(acks=0, serial=1))
    with closing(first.client()) as client, client.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n INT PRIMARY KEY)")
        cursor.execute("CREATE TABLE bulk (n INT PRIMARY KEY, filler LONGBLOB)")
        for number in range(BULK_ROWS):
            cursor.execute("INSERT INTO bulk VALUES (%s, RANDOM_BYTES(1024))", (number,))
            cursor.execute("UPDATE bulk SET filler = REPEAT(filler, 1000) WHERE n = %s", (number,))
    write(first, 1, 2, 3)


def sql(member: Member, *statements: str) -> Any:
    """As the administrator; returns the first value of the last statement."""
    account = servers.ADMIN
    with (
        closing(
            pymysql.connect(
                unix_socket=str(member.folder / "s"),
                user=account.user,
                password=account.password,
                autocommit=True,
            )
        ) as session,
        session.cursor() as cursor,
    ):
        for statement in statements:
            cursor.execute(statement)
        row = cursor.fetchone()
        return row and row[0]


def log(member: Member) -> str:
    return (member.folder / "agent.log").read_text()[-6000:]


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def pid(member: Member) -> int:
    return int(member.until(lambda state: state.incarnation).incarnation.split("-")[1])


def test_an_empty_member_is_cloned_and_follows(pair: Pair) -> None:
    first, second = pair.first, pair.second
    pair.empty()
    for command in (Cut("m1", pair.present()), Start()):
        assert "its data directory is empty" in pair.ask(command).message
    pair.at(SLOW_BYTES)
    pair.do(pair.clone())
    seen = pair.halfway().progress
    assert seen is not None, log(second)
    assert seen.what.startswith("cloning from m1")
    assert seen.total > seen.done
    assert seen.rate > 0
    refused: tuple[Command, ...] = (Promise(), Start(), second.follow(first), Promote(0, 1))
    for unwanted in refused:
        reply = pair.ask(unwanted)
        assert (reply.error, "is being cloned" in reply.message) == ("Refused", True)
    pair.do(pair.clone())  # a repeated order leaves it alone
    pair.term += 1  # and a new manager does not disturb it
    assert pair.ask(Promise()).state.term == pair.term
    assert second.seen().state.progress is not None
    pair.written()
    pair.cloned()
    pair.join()


def test_no_copy_is_made_that_leaves_tables_empty(pair: Pair) -> None:
    """MySQL's clone copies InnoDB's tables only; its GTIDs would claim that the others are there, too."""
    first, second = pair.first, pair.second
    made = "CREATE TABLE app.plain (n INT PRIMARY KEY) ENGINE = MyISAM"
    sql(first, made, "INSERT INTO app.plain VALUES (1)")
    if first.flavor is Flavor.MYSQL:
        reply = pair.ask(pair.clone())
        assert reply.error == "Refused"
        assert "would leave the tables app.plain empty" in reply.message
        assert second.seen().state.clone_refused == reply.message.removeprefix("m2: ")
        assert second.seen().state.up  # and it continues with what it has
        sql(first, "ALTER TABLE app.plain ENGINE = InnoDB")
    pair.do(pair.clone())
    pair.cloned()
    assert sql(second, "SELECT n FROM app.plain") == 1
    assert second.seen().state.clone_refused == ""
    sql(first, "DROP TABLE app.plain")


def test_a_member_whose_transactions_are_purged_elsewhere_is_cloned(pair: Pair) -> None:
    first, second = pair.first, pair.second
    pair.do(Fence())
    pair.written()
    sql(first, "FLUSH BINARY LOGS")
    *old, newest = sorted(first.datadir.glob("binlog.0*"))

    def purged() -> bool:
        """MariaDB keeps a file until a checkpoint has come, and MySQL one that it sends from, without an error."""
        sql(first, f"PURGE BINARY LOGS TO '{newest.name}'")
        return not any(path.exists() for path in old)

    servers.wait_until(purged, 20, "the primary purges its binlogs")
    second.boot(pair.term)
    pair.do(second.follow(first))
    second.until(lambda state: state.replication.purged)
    pair.do(pair.clone())
    pair.cloned()
    assert pair.saved() == []
    pair.join()


def test_what_only_the_member_has_is_saved_before_its_data_goes(pair: Pair) -> None:
    first, second = pair.first, pair.second
    pair.do(Fence())
    second.boot(pair.term)
    off = "SET GLOBAL super_read_only = 0" if first.flavor is Flavor.MYSQL else "SELECT 1"
    sql(second, off, "INSERT INTO app.t VALUES (1001)", "DROP TABLE app.bulk")
    pair.do(Fence())
    # down, so that only its binlogs can show it
    pair.do(pair.clone())
    pair.cloned()
    (text,) = pair.saved()
    assert "1001" in text
    assert "DROP TABLE" in text
    assert 1001 not in rows(second)
    pair.join()


def test_another_clusters_data_is_not_wiped_without_an_order(pair: Pair) -> None:
    second = pair.second
    pair.do(Fence())
    foreign(second)
    before = sorted(path.name for path in second.datadir.rglob("*"))
    reply = pair.ask(pair.clone())
    assert reply.error == "Refused"
    assert "holdfast member clone m2 --discard" in reply.message
    assert "stranger" in reply.message
    assert sorted(path.name for path in second.datadir.rglob("*")) == before
    assert second.seen().state.progress is None
    pair.do(pair.clone(discard=True))
    pair.cloned()
    assert not (second.datadir / "stranger").exists()
    pair.join()


def foreign(member: Member) -> None:
    """A server whose history begins anew, with a table that no other has."""
    clear(member.datadir)
    member.datadir.rmdir()
    image = template.make_template(trees.find(member.flavor.value), servers.statements())
    template.copy_template(image, member.datadir)
    running = ServerProcess(
        member.command_line, member.option_file, member.datadir, member.folder / "out"
    ).start()
    member.until(lambda state: state.up)
    off = "SET GLOBAL super_read_only = 0" if member.flavor is Flavor.MYSQL else "SELECT 1"
    was = member.seen().state.applied
    sql(member, off, "CREATE DATABASE stranger", "CREATE TABLE stranger.t (n INT)")
    member.until(lambda state: state.applied != was)  # the agent has seen it before it goes
    running.kill_and_wait(10)
    member.until(lambda state: state.server is ServerStatus.DOWN)


def test_a_donor_that_dies_leaves_a_member_that_can_be_cloned_again(pair: Pair) -> None:
    first = pair.first
    pair.at(SLOW_BYTES)
    pair.do(pair.clone())
    pair.halfway()
    os.kill(pid(first), signal.SIGKILL)
    pair.failed("mariadb-backup ended", "the server of m1 ended")
    first.until(lambda state: state.server is ServerStatus.DOWN)
    first.boot(pair.term)
    first.do(pair.term, Promote(acks=0, serial=pair.term))
    pair.at(FAST_BYTES)
    pair.do(pair.clone())
    pair.cloned()
    pair.join()


def test_a_donors_agent_that_dies_ends_the_clone_where_the_data_came_through_it(
    pair: Pair,
) -> None:
    first = pair.first
    url = f"http://127.0.0.1:{first.agent_port}/v1/backup"
    assert httpx.get(url).status_code == 401
    pair.at(SLOW_BYTES)
    pair.do(pair.clone())
    pair.halfway()
    first.kill_agent()
    if first.flavor is Flavor.MARIADB:
        pair.failed("the stream ended before its end", "broke off")
        first.start_agent()
        pair.at(FAST_BYTES)
        pair.do(pair.clone())
    else:
        pair.second.until(lambda state: state.progress is None, 90)
        first.start_agent()
        first.until(lambda state: state.up)
    pair.cloned()
    pair.join()


def test_an_agent_that_was_killed_finds_that_its_clone_was_interrupted(pair: Pair) -> None:
    first, second = pair.first, pair.second
    pair.at(SLOW_BYTES)
    pair.do(pair.clone())
    pair.halfway()
    second.kill_agent()
    second.start_agent()
    assert second.seen().state.unfit == "its clone from m1 was interrupted"
    assert "has to be cloned" in pair.ask(Promise()).message
    assert "has to be cloned" in pair.ask(second.follow(first)).message
    pair.do(pair.clone())
    pair.halfway()
    begun = time.monotonic()
    pair.do(Fence())
    assert time.monotonic() - begun < 2
    pair.failed("called off by a fence")
    pair.at(FAST_BYTES)
    pair.do(pair.clone())
    pair.cloned()
    pair.join()


def test_a_copy_that_waits_for_its_donors_commits_leaves_the_old_data_and_frees_the_donor(
    pair: Pair,
) -> None:
    """MySQL's CLONE and MariaDB's backup wait for a commit that waits for an acknowledgement."""
    first, second = pair.first, pair.second
    pair.do(Fence())
    first.do(pair.term, SetAcks(1))
    commit = threading.Thread(target=pair.written, daemon=True)
    try:
        commit.start()
        first.until(lambda state: state.semi_sync.waiting)
        pair.do(pair.clone())
        servers.wait_until(lambda: held_up(pair), 30, "the copy waits for the commit")
        time.sleep(1.0)
        assert held_up(pair)
        assert commit.is_alive()
        assert list((second.datadir / "app").glob("bulk.ibd")), (
            "the old data went before the copy came"
        )
        assert second.seen().state.cloning == "m1"
        pair.do(Fence())
        pair.failed("called off by a fence")
        assert list((second.datadir / "app").glob("bulk.ibd"))
        servers.wait_until(lambda: not copying(pair), 5, "the donor gives no copy any more")
        assert commit.is_alive(), "and its commit was not released by that"
    finally:
        first.do(pair.term, SetAcks(0))
        commit.join(20)
    pair.do(pair.clone())
    state = second.until(lambda state: state.progress is None, 90)
    assert (state.unfit, state.cloning, state.clone_failed) == ("", "", ()), log(second)
    pair.join()


def copying(pair: Pair) -> Any:
    """What a donor does for a copy, as its server reports; None where it does nothing."""
    if pair.first.flavor is Flavor.MYSQL:
        return sql(
            pair.first,
            "SELECT STATE FROM performance_schema.processlist WHERE COMMAND = 'clone' "
            "ORDER BY STATE LIKE '%page copy%' DESC LIMIT 1",
        )
    return sql(
        pair.first,
        "SELECT STATE FROM information_schema.processlist WHERE INFO LIKE 'BACKUP STAGE%'",
    )


def held_up(pair: Pair) -> bool:
    return copying(pair) in ("clone (page copy)", "Waiting for backup lock")


def test_a_disk_that_runs_full_is_told_and_can_be_mended(pair: Pair) -> None:
    second = pair.second
    pair.do(Fence())
    clear(second.datadir)
    with mounted(second.datadir, 10):
        kept = second.datadir / "lost+found"
        kept.mkdir()
        pair.do(pair.clone())
        pair.failed("make room")
        # enough by what the donor says, but not when the data arrives
        resize(second.datadir, 800)
        pair.at(CRAWL_BYTES)
        pair.do(pair.clone())
        assert pair.halfway(CRAWL_BYTES // 2).progress is not None
        fill(second.datadir, 1 << 20)
        pair.failed("No space left", "Errcode: 28")
        resize(second.datadir, 800)
        pair.at(FAST_BYTES)
        pair.do(pair.clone())
        pair.cloned()
        assert kept.exists()
        pair.join()
        pair.do(Fence())


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[None]:
    """A small file system of its own."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(folder)],
        check=True,
    )
    try:
        yield
    finally:
        # lazily: a server that a failed test left keeps it busy, and dies with the test
        subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(folder: Path, megabytes: int) -> None:
    option = f"remount,size={megabytes}m"
    subprocess.run(["mount", "-o", option, str(folder)], check=True, capture_output=True)


def fill(folder: Path, left: int) -> None:
    """Leave about so many bytes free, at once, while others take some."""
    for _ in range(20):
        found = os.statvfs(folder)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        with suppress(subprocess.CalledProcessError):  # others have taken more than that meanwhile
            resize(folder, (used + left >> 20) + 1)
            return
    raise AssertionError("it was not made smaller")
