"""The replicas' sessions on a primary: which servers they belong to, which of them acknowledge, and how they are ended.

MySQL shows the variables that a replica has set in its session: ``@rpl_semi_sync_replica``, which the source itself
uses, and ``@replica_uuid``. MariaDB shows neither; its error log does (``server/process/error_log.py``).

No query here waits behind commits that wait, and nothing is written to the binlog.
"""

from __future__ import annotations

from pathlib import Path

from pymysql.constants import ER

from holdfast.core.gtid import Flavor
from holdfast.core.observed.dumps import Acks, Dump
from holdfast.server.base import Account, Deadline, DumpLook
from holdfast.server.connection import processlist
from holdfast.server.connection.session_settings import SIDE_SETTINGS
from holdfast.server.connection.sql import Connection, Row, StatementRefused
from holdfast.server.process.error_log import ErrorLog
from holdfast.server.replication import barring

MYSQL = """
    SELECT t.PROCESSLIST_ID AS id, t.PROCESSLIST_USER AS user, t.PROCESSLIST_HOST AS host,
        (SELECT MAX(CAST(v.VARIABLE_VALUE AS CHAR) <> '0')
            FROM performance_schema.user_variables_by_thread AS v WHERE v.THREAD_ID = t.THREAD_ID
            AND v.VARIABLE_NAME IN ('rpl_semi_sync_replica', 'rpl_semi_sync_slave')) AS semi_sync,
        (SELECT CAST(v.VARIABLE_VALUE AS CHAR)
            FROM performance_schema.user_variables_by_thread AS v WHERE v.THREAD_ID = t.THREAD_ID
            AND v.VARIABLE_NAME = 'replica_uuid') AS server
    FROM performance_schema.threads AS t
    WHERE t.PROCESSLIST_COMMAND LIKE 'Binlog Dump%%' AND COALESCE(t.PROCESSLIST_STATE, '') <> %s
"""

MARIADB = """
    SELECT ID AS id, USER AS user, HOST AS host FROM information_schema.PROCESSLIST
    WHERE COMMAND LIKE 'Binlog Dump%'
"""

CLIENTS = "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_clients'"

OTHERS = """
    SELECT COUNT(*) AS others FROM information_schema.PROCESSLIST
    WHERE USER = %s AND COMMAND NOT LIKE 'Binlog Dump%%'
"""

FRESH_SECONDS = 0.25
"""For so long MariaDB's sessions are assumed to be the same if its log says nothing new."""


class DumpSessions:
    """Implements ``Dumps``, by a session of its own, which waits for no other."""

    def __init__(self, flavor: Flavor, socket: Path, admin: Account) -> None:
        self._flavor = flavor
        self._admin = admin.user
        self._catalog = barring.CATALOGS[flavor]
        self._connection = Connection(socket, admin, SIDE_SETTINGS)
        self._log = ErrorLog()
        self._last = DumpLook()
        self._due = 0.0

    def look(self, deadline: Deadline, fresh: bool = True) -> DumpLook:
        """:param fresh: do not rely on what was seen a moment ago"""
        if self._flavor is Flavor.MYSQL:
            rows = self._connection.look(MYSQL, deadline, (self._catalog.mute,))
            return DumpLook(tuple(map(_mysql, rows)))
        news = self._log.read_on(self._connection.server_pid())
        recent = deadline.clock.monotonic() < self._due
        if not news and not fresh and recent and self._as_before(deadline):
            return self._last
        rows = self._replicas(deadline)
        if not self._log.whole:
            self._log.read_on(self._connection.server_pid())  # the session was new
        dumps = tuple(map(self._mariadb, rows))
        clients = 0
        if any(dump.acks is Acks.UNKNOWN for dump in dumps):
            clients = self._clients(deadline)
            # a session that came meanwhile is counted: it must be in the list, too
            rows += self._replicas(deadline)
            dumps = tuple({dump.session: dump for dump in map(self._mariadb, rows)}.values())
        self._last = DumpLook(dumps, clients)
        self._due = deadline.clock.monotonic() + FRESH_SECONDS
        return self._last

    def _replicas(self, deadline: Deadline) -> list[Row]:
        return processlist.look(
            self._connection,
            MARIADB,
            deadline,
            lambda row: str(row["command"]).startswith("Binlog Dump"),
        )

    def _as_before(self, deadline: Deadline) -> bool:
        return self._log.whole or self._clients(deadline) == self._last.clients

    def _clients(self, deadline: Deadline) -> int:
        return int(self._connection.look(CLIENTS, deadline)[0]["Value"])

    def end(self, sessions: tuple[int, ...], deadline: Deadline) -> None:
        """When this returns, nothing that these sessions send is received any more."""
        barring.end(self._connection, self._catalog, sessions, deadline)

    def shut_out(self, account: str, deadline: Deadline) -> bool:
        """Lock an account that is used by replicas only; whether that was done."""
        others = self._connection.look(OTHERS, deadline, (account,))[0]["others"]
        if others or account == self._admin:
            return False
        if not self._connection.look(self._catalog.hosts, deadline, (account,)):
            return False  # there is no account of that name: an anonymous one, or one by proxy
        try:
            barring.lock(self._connection, self._catalog, account, deadline)
        except StatementRefused as error:
            if error.code != ER.OPTION_PREVENTS_STATEMENT:
                raise
            return False  # it is not open yet
        return True

    def applied(self, deadline: Deadline) -> str:
        row = self._connection.look(f"SELECT {self._catalog.applied} AS applied", deadline)[0]
        return str(row["applied"]).replace("\n", "")

    def close(self) -> None:
        self._connection.close()
        self._log.close()

    def _mariadb(self, row: Row) -> Dump:
        told = self._log.told.get(int(row["id"]))
        if told is None:
            acks = Acks.NO if self._log.whole else Acks.UNKNOWN
        else:
            acks = Acks.YES if told.semi_sync else Acks.NO
        server = told.server if told else ""
        return Dump(int(row["id"]), str(row["user"]), _host(row), server, acks)


def _mysql(row: Row) -> Dump:
    acks = Acks.YES if row["semi_sync"] else Acks.NO
    return Dump(int(row["id"]), str(row["user"]), _host(row), str(row["server"] or ""), acks)


def _host(row: Row) -> str:
    """The host without the port, which changes each time."""
    return str(row["host"] or "").partition(":")[0]
