"""What administrators do to a server behind the cluster's back, over SQL.

Only the cluster undoes it. Some of it makes the server commit without any acknowledgement: the answers of such commits
promise nothing, which is recorded as an excuse. All tables must be the same in the end nevertheless.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Any

import pymysql

from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError
from holdfast.sandbox.lab.lab import Lab
from holdfast.sandbox.lab.plan import CLIENT
from tests.chaos.faults import Fault, Harm
from tests.chaos.history import Excuse
from tests.chaos.members import Members
from tests.integration.replica_client import ReplicaClient

ERRORS = (pymysql.err.MySQLError, OSError, HoldfastError)
STATEMENT_SECONDS = 10.0
KILL_EVERY_SECONDS = 0.15
RELEASED_SECONDS = 3.0
"""Within this time the cluster makes the primary's commits wait again, after an administrator had turned that off."""
SHUTDOWN_SECONDS = 12.0
"""Within this time a server that is shutting down has ended."""
STATEMENT_OF_A_KILL_SECONDS = 1.0
UNLOCK_SECONDS = 5.0
"""Within this time an operator has read that the stranger's account was locked, and unlocks it."""
UNLOCK_EVERY_SECONDS = 0.5

WAITS: dict[Flavor, tuple[str, ...]] = {
    Flavor.MARIADB: (
        "rpl_semi_sync_master_enabled = 0",
        "rpl_semi_sync_master_timeout = 50",
        "rpl_semi_sync_master_wait_no_slave = 0",
        "rpl_semi_sync_slave_enabled = 0",
        "rpl_semi_sync_slave_enabled = 1",
    ),
    Flavor.MYSQL: (
        "rpl_semi_sync_source_enabled = 0",
        "rpl_semi_sync_source_timeout = 50",
        "rpl_semi_sync_source_wait_no_replica = 0",
        "rpl_semi_sync_source_wait_for_replica_count = 2",
        "rpl_semi_sync_replica_enabled = 0",
        "rpl_semi_sync_replica_enabled = 1",
    ),
}
WRITES: dict[Flavor, tuple[str, ...]] = {
    Flavor.MARIADB: ("read_only = 0", "read_only = 1"),
    Flavor.MYSQL: ("read_only = 0", "super_read_only = 0", "read_only = 1", "super_read_only = 1"),
}
OPENS = frozenset({"read_only = 0"})
"""A replica then takes clients' writes, which no voter acknowledges, until its agent closes it."""
THREADS = (
    ("STOP {}",),
    ("STOP {} IO_THREAD",),
    ("STOP {} SQL_THREAD",),
    ("STOP {}", "START {}"),
    ("STOP {} SQL_THREAD", "START {} SQL_THREAD"),
)
RESETS: dict[Flavor, tuple[tuple[str, ...], ...]] = {
    Flavor.MARIADB: (
        ("STOP SLAVE", "RESET SLAVE"),
        ("RESET MASTER",),
        (
            "STOP SLAVE SQL_THREAD",
            "SET GLOBAL replicate_wild_ignore_table = 'app.%'",
            "START SLAVE SQL_THREAD",
        ),
    ),
    Flavor.MYSQL: (
        ("STOP REPLICA", "RESET REPLICA"),
        ("RESET BINARY LOGS AND GTIDS",),
        (
            "STOP REPLICA SQL_THREAD",
            "CHANGE REPLICATION FILTER REPLICATE_WILD_IGNORE_TABLE = ('app.%')",
            "START REPLICA SQL_THREAD",
        ),
    ),
}
"""On a replica: removes what was received, its own history, or what it applies from then on."""
FLUSHES = (
    "FLUSH LOGS",
    "FLUSH ERROR LOGS",
    "FLUSH SLOW LOGS",
    "FLUSH BINARY LOGS",
    "FLUSH TABLES",
    "ANALYZE TABLE mysql.user",
)
OWN_TABLE = "app.hands"
STRANGER = "m7"
"""The replication account that it uses: there is no such member."""


class Hands:
    """:ivar excuses: commits without an acknowledgement that these acts have caused, so far
    :ivar members: members that operators removed"""

    def __init__(self, lab: Lab, tables: Sequence[str]) -> None:
        self.excuses: list[Excuse] = []
        self.members = Members(lab)
        self._lab = lab
        self._tables = tables
        self._flavor = lab.plan.flavor

    def do(self, fault: Fault, host: str) -> Callable[[], None]:
        """Begin; the function that it returns ends what runs until then."""
        match fault.harm:
            case Harm.KILLS:
                return self._kills(host)
            case Harm.VARIABLE:
                choices = (*WAITS[self._flavor], *WRITES[self._flavor])
                choice = choices[int(fault.draw * len(choices))]
                if choice in WAITS[self._flavor] or choice in OPENS:
                    self._excuse(host, RELEASED_SECONDS, opened=choice in OPENS)
                return self._begin(host, f"SET GLOBAL {choice}")
            case Harm.THREADS:
                word = "SLAVE" if self._flavor is Flavor.MARIADB else "REPLICA"
                chosen = THREADS[int(fault.draw * len(THREADS))]
                return self._begin(host, *(each.format(word) for each in chosen))
            case Harm.RESET:
                resets = RESETS[self._flavor]
                return self._begin(host, *resets[int(fault.draw * len(resets))])
            case Harm.FLUSH:
                return self._begin(host, FLUSHES[int(fault.draw * len(FLUSHES))])
            case Harm.STRANGER:
                return self._stranger(host)
            case Harm.SHUTDOWN:
                self._excuse(host, SHUTDOWN_SECONDS)
                return self._begin(host, "SHUTDOWN")
            case _:
                return self._begin(host, *self._definitions(fault))

    def _definitions(self, fault: Fault) -> tuple[str, ...]:
        table = self._tables[int(fault.draw * len(self._tables))]
        column = f"c{int(fault.draw * 1e6)}"
        return (
            f"ALTER TABLE {table} ADD COLUMN {column} INT NULL",
            f"CREATE TABLE IF NOT EXISTS {OWN_TABLE} (a INT)",
            f"DROP TABLE {OWN_TABLE}",
        )

    def _excuse(self, host: str, seconds: float, opened: bool = False) -> None:
        begun = time.monotonic()
        self.excuses.append(Excuse(host, begun, begun + seconds, opened=opened))

    def _begin(self, host: str, *statements: str) -> Callable[[], None]:
        """As an administrator, in a thread: it may hang."""

        def run() -> None:
            with suppress(*ERRORS):
                options: dict[str, Any] = {"read_timeout": STATEMENT_SECONDS}
                with closing(self._lab.connect(host, self._lab.accounts.admin, **options)) as at:
                    for statement in statements:
                        at.query(statement)

        threading.Thread(target=run, name=f"hand on {host}", daemon=True).start()
        return _nothing

    def _kills(self, host: str) -> Callable[[], None]:
        """Kill clients' statements and connections, with their own account, one after another."""
        ended = threading.Event()

        def run() -> None:
            with suppress(*ERRORS), closing(self._lab.connect(host, read_timeout=2.0)) as at:
                number = 0
                while not ended.wait(KILL_EVERY_SECONDS):
                    number += 1
                    with at.cursor() as cursor:
                        cursor.execute("SHOW PROCESSLIST")
                        own = at.thread_id()
                        there = [row for row in cursor.fetchall() if row[0] != own]
                        busy = [row for row in there if row[4] != "Sleep"] or there
                        if busy:
                            self._kill(host, cursor, int(busy[number % len(busy)][0]), number)

        threading.Thread(target=run, name=f"kills on {host}", daemon=True).start()
        return ended.set

    def _stranger(self, host: str) -> Callable[[], None]:
        """A replica that is no member acknowledges what it receives, until its session is ended."""
        ended = threading.Event()

        def run() -> None:
            with suppress(*ERRORS):
                begun = time.monotonic()
                try:
                    with self._following(host) as stranger:
                        while not (stranger.ended.wait(0.05) or ended.is_set()):
                            pass
                finally:
                    self.excuses.append(Excuse(host, begun, time.monotonic()))
                end = time.monotonic() + UNLOCK_SECONDS
                while time.monotonic() < end:
                    time.sleep(UNLOCK_EVERY_SECONDS)
                    self._unlock()

        threading.Thread(target=run, name=f"a stranger on {host}", daemon=True).start()
        return ended.set

    def mend(self) -> None:
        """Do what status asks operators for: the stranger has gone, so its account is unlocked; and members are added
        again."""
        self._unlock()
        with suppress(HoldfastError):  # a missing member is noticed in the end
            self.members.all_back()

    def _unlock(self) -> None:
        """On the primary, as status says."""
        user = self._lab.accounts.replication(STRANGER).user
        with suppress(*ERRORS):
            admin = self._lab.accounts.admin
            with (
                closing(self._lab.connect(self._lab.primary(), admin, read_timeout=2.0)) as at,
                at.cursor() as cursor,
            ):
                cursor.execute(f"SHOW CREATE USER {user}")
                if "ACCOUNT LOCK" in cursor.fetchone()[0]:
                    cursor.execute("SET sql_log_bin = 0")
                    cursor.execute(f"ALTER USER {user} ACCOUNT UNLOCK")

    def _following(self, host: str) -> ReplicaClient:
        mysql = self._flavor is Flavor.MYSQL
        with (
            closing(self._lab.connect(host, self._lab.accounts.admin)) as at,
            at.cursor() as cursor,
        ):
            cursor.execute("SHOW BINARY LOG STATUS" if mysql else "SHOW MASTER STATUS")
            file, end = cursor.fetchone()[:2]
        member = self._lab.plan.member(host)
        account = self._lab.accounts.replication(STRANGER)
        with self._lab.inside(CLIENT):
            return ReplicaClient(
                self._flavor,
                member.port,
                account,
                (str(file), int(end)),
                semi_sync=True,
                host=member.host,
            )

    def _kill(self, host: str, cursor: Any, connection: int, number: int) -> None:
        begun = time.monotonic()
        excuse = Excuse(host, begun, begun + STATEMENT_OF_A_KILL_SECONDS, connection)
        self.excuses.append(excuse)
        with suppress(pymysql.err.MySQLError):
            cursor.execute(f"KILL {'QUERY ' if number % 2 else ''}{connection}")


def _nothing() -> None:
    pass
