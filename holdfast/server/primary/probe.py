"""A small write on a primary, and whether there is a reason for one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pymysql.constants import ER

from holdfast.core.gtid import Flavor
from holdfast.errors import Refused
from holdfast.server.base import Account, Deadline
from holdfast.server.connection import processlist
from holdfast.server.connection.sql import Connection, StatementRefused
from holdfast.server.replication import barring
from holdfast.server.replication.proof import PROBE_TABLE

SETTINGS = "lock_wait_timeout = 1, innodb_lock_wait_timeout = 1"
"""A backup's lock, or an operator's, blocks a write on purpose."""
ROWS = 64
"""Each session has one of these, so that none waits for a row of another that hangs."""

DISK_ERRORS = frozenset({3, 20, 1021, 1026, 1030, 1036, 1114, 1180, 1598, 1874, 1877})
"""Writing failed, disk full, error from the engine, table full or read-only, error during commit, no binlog, InnoDB
read-only. Any other error is about our table or our privileges, and no primary is replaced because of those."""

CONNECT_SECONDS = 1.0

# in the statement itself: a server that became read-only meanwhile must not be written to
WRITE = f"""
    INSERT INTO holdfast.probe (id, at)
        SELECT CONNECTION_ID() MOD {ROWS}, NOW(6) FROM (SELECT 1) AS one WHERE @@global.read_only = 0
    ON DUPLICATE KEY UPDATE at = NOW(6)
"""

WRITES = ("insert", "insert_select", "update", "update_multi", "delete", "delete_multi", "replace", "replace_select",
          "load", "commit", "xa_commit")  # fmt: skip
ATTEMPTS = "SHOW GLOBAL STATUS WHERE Variable_name IN ({})".format(
    ", ".join(f"'Com_{each}'" for each in WRITES)
)
_AT_WORK = ("Query", "Execute", "Commit")


class DiskFailed(Refused):
    """A write was answered with an error that comes from the disk."""


class WriteLocked(Refused):
    """Another session holds a lock against every write."""


@dataclass(frozen=True, slots=True)
class Activity:
    """:ivar attempts: how many writes were begun so far, by any session; :ivar at_work: sessions that are at work"""

    attempts: int
    at_work: frozenset[int]


class Probe:
    """Two sessions: one that writes and may wait, one that looks meanwhile. For one thread each."""

    def __init__(self, flavor: Flavor, socket: Path, admin: Account) -> None:
        self._catalog = barring.CATALOGS[flavor]
        self._hand = Connection(socket, admin, SETTINGS)
        self._eye = Connection(socket, admin)

    def activity(self, deadline: Deadline) -> Activity:
        """The activity of other sessions than these two.

        :raises DiskFailed: a look needs a temporary table, and there is no room for it
        """
        try:
            attempts = sum(int(row["Value"]) for row in self._eye.look(ATTEMPTS, deadline))
            rows = processlist.look(self._eye, self._catalog.sessions, deadline, lambda _: True)
        except StatementRefused as error:
            if error.code in DISK_ERRORS:
                raise DiskFailed(str(error)) from error
            raise
        own = {self._hand.session_id, self._eye.session_id}
        return Activity(
            attempts,
            frozenset(
                int(row["id"])
                for row in rows
                if row["command"] in _AT_WORK and int(row["id"]) not in own
            ),
        )

    def write(self, deadline: Deadline) -> bool:
        """Commit a row; whether that was possible. False on a server that is read-only.

        :raises DiskFailed: the disk does not allow it
        :raises WriteLocked: after a second: a session holds a lock
        """
        self._hand.look("SELECT 1", deadline.afresh(min(CONNECT_SECONDS, deadline.left)))
        for statement in (WRITE, *PROBE_TABLE, WRITE):
            try:
                self._hand.run(statement, deadline)
            except StatementRefused as error:
                if error.code == ER.OPTION_PREVENTS_STATEMENT:
                    return False
                if error.code == ER.LOCK_WAIT_TIMEOUT:
                    raise WriteLocked("a session holds a lock") from error
                if error.code in DISK_ERRORS:
                    raise DiskFailed(str(error)) from error
                if error.code not in (ER.NO_SUCH_TABLE, ER.BAD_DB_ERROR):
                    raise
            else:
                if statement is WRITE:
                    return True
        return False

    def close(self) -> None:
        self._hand.close()
        self._eye.close()
