"""What each server really logs of maintenance on a replica, and how that is repaired while the receiver runs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.agent.commands.judge import Judging
from holdfast.agent.disk.term import TermFile
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.promise.receipts import Receipts
from holdfast.core.commands import Forget, Judge
from holdfast.core.gtid import Flavor
from holdfast.core.members.own_writes import to_commit
from holdfast.core.view import MemberState, SemiSync, ServerStatus
from holdfast.errors import CalledOff, Refused
from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection
from tests.integration.rewinding import Patient, gtids, present
from tests.integration.servers import BareServer, bare_servers, wait_until

SECONDS = 20.0
BOTH = (
    "FLUSH STATUS",
    "FLUSH PRIVILEGES",
    "FLUSH TABLES",
    "FLUSH ERROR LOGS",
    "flush error logs, slow logs",
    "FLUSH USER_RESOURCES",
    "FLUSH TABLES app.t",
    "ANALYZE TABLE app.t",
    "OPTIMIZE TABLE app.t",
)
LOGGED = {
    Flavor.MARIADB: (*BOTH, "FLUSH HOSTS", "ANALYZE TABLE app.t PERSISTENT FOR ALL"),
    Flavor.MYSQL: (*BOTH, "ANALYZE TABLE app.t UPDATE HISTOGRAM ON n WITH 8 BUCKETS"),
}
NOT_LOGGED = ("FLUSH LOGS", "CHECK TABLE app.t", "PURGE BINARY LOGS BEFORE '2001-01-01'")
HARMFUL = ("REPAIR TABLE app.t", "CREATE USER mon@'%' IDENTIFIED BY 'pW_1x'", "DROP USER mon@'%'")


class Replica(Patient):
    """A replica with the code that judges it."""

    def start_agent(self) -> None:
        super().start_agent()
        self.killed: list[str] = []
        server_run = cast("ServerRun", SimpleNamespace(kill=self.killed.append))
        self.receipts = Receipts(
            self.server.adapter,
            server_run,
            self.folder,
            lambda why, _: self.killed.append(why),
            lambda _: False,
            TermFile(self.folder),
        )
        self.judging = Judging(
            self.published,
            self.server.adapter,
            self.rewinder,
            self.rewinding,
            self.server.datadir / "binlog.index",
            self.receipts.forgetting,
        )

    def look(self) -> MemberState:
        """As the agent's observer does."""
        seen = self.server.adapter.observe(Deadline(SECONDS))
        self.receipts.seen(replace(seen, semi_sync=SemiSync(replica=True)), "a")
        self.published.change(
            server=ServerStatus.UP,
            incarnation="a",
            origin=seen.origin,
            applied=seen.applied,
            received=seen.received,
            replication=seen.replication,
        )
        return self.published.state

    def judge(self, deadline: Deadline | None = None) -> MemberState:
        self.look()
        within = deadline or Deadline(SECONDS)
        self.judging.judge(Judge("m0", present(self.primary)), within, self.steps.append)
        return self.published.state

    def forget(self, deadline: Deadline | None = None) -> None:
        self.look()
        within = deadline or Deadline(SECONDS)
        self.judging.forget(Forget("m0", present(self.primary)), within, self.steps.append)


@pytest.fixture(scope="module")
def pair(flavor: Flavor) -> Iterator[list[BareServer]]:
    with bare_servers(flavor, 2) as servers:
        servers[0].sql(
            "SET GLOBAL read_only = 0",
            "CREATE DATABASE IF NOT EXISTS app",
            "CREATE TABLE app.t (n INT PRIMARY KEY)",
            "CREATE TABLE app.mem (n INT PRIMARY KEY) ENGINE = MEMORY",
        )
        yield servers


@pytest.fixture
def member(pair: list[BareServer], tmp_path: Path) -> Replica:
    made = Replica(pair[0], pair[1], tmp_path / "state")
    made.catch_up()
    return made


def make_good(member: Replica) -> None:
    """As a manager has it done."""
    if member.server.flavor is Flavor.MARIADB:
        member.forget()
    else:
        first = replace(member.published.state, applied=str(gtids(member.primary)))
        wanted = to_commit(first, [member.published.state], 99)
        member.primary.adapter.commit_empty(wanted.split(","), Deadline(SECONDS))
    wait_until(
        lambda: gtids(member.server) == gtids(member.primary), SECONDS, "both have the same GTIDs"
    )


def called_off(work: Callable[[Deadline], object], then: Callable[[], None]) -> int:
    """Repeat it until it is done; each time a newer term cancels it a little later. Returns how often that was.

    :param then: checks what is left after that
    """

    def asked_more_often_than(most: int) -> Callable[[], bool]:
        asked = itertools.count()
        return lambda: next(asked) >= most

    for often in range(1000):
        try:
            work(Deadline(SECONDS, asked_more_often_than(often)))
        except CalledOff:
            then()
        else:
            return often
    raise AssertionError("it is called off for ever")


def test_nothing_is_concluded_from_what_a_newer_term_calls_off(member: Replica) -> None:
    """A failover that began while a member forgot a harmless transaction once found it diverged, and named no
    primary."""
    member.let_write()
    member.server.sql("FLUSH PRIVILEGES")

    def unjudged() -> None:
        assert (member.published.state.judged, member.published.state.harmless) == ("", "")

    assert called_off(member.judge, unjudged)
    found = member.published.state.harmless
    assert found

    def as_harmless() -> None:
        assert member.published.state.harmless == found
        assert (member.fitness.unfit, member.killed) == ("", [])

    if member.server.flavor is Flavor.MARIADB:
        assert called_off(member.forget, as_harmless) > 3
    make_good(member)
    assert (member.fitness.unfit, member.fitness.repair, member.killed) == ("", None, [])


def test_a_locked_table_does_not_keep_a_member_from_another_command(member: Replica) -> None:
    """Forgetting waits for all locks. Cancelled, it leaves nothing behind, even if more is logged before the next
    attempt."""
    if member.server.flavor is Flavor.MYSQL:
        return  # nothing is forgotten there
    member.let_write()
    member.server.sql("FLUSH PRIVILEGES")
    member.judge()
    begun = time.monotonic()
    with closing(member.server.connect()) as client, client.cursor() as cursor:
        cursor.execute("LOCK TABLES app.t WRITE")
        with pytest.raises(CalledOff, match="READ LOCK"):
            member.forget(Deadline(SECONDS, lambda: time.monotonic() > begun + 1))
        waiting = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'FLUSH TABLES%'"
        wait_until(lambda: not member.server.sql(waiting), 0.9, "nobody waits for the lock")
        assert member.fitness.repair is None
        member.settle()
    member.server.sql("FLUSH STATUS")
    member.settle()
    member.judge()
    make_good(member)
    assert (member.fitness.unfit, member.killed) == ("", [])


def test_what_servers_log_of_maintenance_is_recognised_and_made_good(member: Replica) -> None:
    """The receiver runs all the time, nothing that was received is lost, and the data is the same."""
    member.let_write()  # MySQL accepts some of them only so
    for statement in LOGGED[member.server.flavor]:
        before = gtids(member.server)
        member.server.sql(statement)
        assert gtids(member.server) != before, statement
    before = gtids(member.server)
    for statement in NOT_LOGGED:
        member.server.sql(statement)
    assert gtids(member.server) == before
    flushing = member.server.value("SELECT @@global.innodb_flush_log_at_trx_commit")
    member.primary.sql("INSERT INTO app.t SELECT 1 + COALESCE(MAX(n), 0) FROM app.t")
    time.sleep(0.3)  # MariaDB's applier stops at that one
    state = member.judge()
    assert state.harmless
    assert state.harmless == state.judged
    make_good(member)
    member.look()
    assert member.killed == []  # what it forgot does not count as lost
    member.primary.sql("INSERT INTO app.t SELECT 1 + MAX(n) FROM app.t")
    member.catch_up()
    assert member.server.sql("SELECT n FROM app.t") == member.primary.sql("SELECT n FROM app.t")
    assert member.server.value("SELECT @@global.innodb_flush_log_at_trx_commit") == flushing
    assert not member.fitness.repair


def lists_tables(member: Replica, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries on its tables when it begins to follow again."""
    asked: list[str] = []
    look = Connection.look

    def noted(self: Connection, statement: str, *args: Any) -> Any:
        asked.append(statement)
        return look(self, statement, *args)

    member.server.sql("STOP SLAVE")
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "look", noted)
        member.follow()
    return [statement for statement in asked if "information_schema.TABLES" in statement]


def test_a_memory_table_that_a_restart_emptied_is_recognised_by_the_server_s_own_words(
    member: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    member.primary.sql("REPLACE INTO app.mem VALUES (1)")
    member.catch_up()
    member.server.restart()
    member.follow()
    before = gtids(member.server)
    member.server.sql("SELECT * FROM app.mem")
    if member.server.flavor is Flavor.MYSQL:
        assert gtids(member.server) != before
        assert member.judge().harmless
        make_good(member)
    else:  # it was opened, unlogged, before the server followed
        assert gtids(member.server) == before
        assert lists_tables(member, monkeypatch) == [], "once in a run: a failover waits for it"
        member.server.restart()
        member.server.adapter.ping(Deadline(SECONDS))
        assert len(lists_tables(member, monkeypatch)) == 1


@pytest.mark.parametrize("statement", HARMFUL)
def test_anything_else_is_not_harmless(member: Replica, statement: str) -> None:
    member.let_write()
    member.server.sql(statement)
    state = member.judge()
    assert state.judged
    assert not state.harmless
    if member.server.flavor is Flavor.MARIADB:
        with pytest.raises(Refused):
            member.forget()
        assert not member.published.state.harmless
    start_over(member)


def start_over(member: Replica) -> None:
    """The statement took effect nowhere else: for the next test only its GTID is taken back."""
    member.part()
    mysql = member.server.flavor is Flavor.MYSQL
    member.server.sql("RESET BINARY LOGS AND GTIDS" if mysql else "RESET MASTER")
    variable = "gtid_purged" if mysql else "gtid_binlog_state"
    member.server.sql(f"SET GLOBAL {variable} = '{gtids(member.primary)}'")
    if not mysql:
        position = member.primary.value("SELECT @@global.gtid_binlog_pos")
        member.server.sql(f"SET GLOBAL gtid_slave_pos = '{position}'")
