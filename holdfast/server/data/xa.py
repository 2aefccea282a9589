"""XA transactions that are prepared on a server: listed, and ended as its binlog says.

Both servers keep them over a crash, replicate them, and let any session end them on a replica that was promoted
(``tests/integration/test_server_xa.py``). MySQL's recovery reads of them in the binlog; MariaDB's does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from holdfast.core.gtid import Flavor
from holdfast.core.observed.xid import sql_form
from holdfast.server.base import Account, Deadline
from holdfast.server.connection.admin_session import AdminSession
from holdfast.server.connection.sql import Connection, Row, StatementRefused

LOOK_SECONDS = 5.0
"""How often to look for transactions that stay prepared."""

_RECOVER = {Flavor.MARIADB: "XA RECOVER", Flavor.MYSQL: "XA RECOVER CONVERT XID"}


class PreparedWatch:
    """The transactions that were prepared at two looks in a row, because most are ended within milliseconds; at the
    first look at a run of the server, all that it came up with."""

    def __init__(self, flavor: Flavor, eyes: Connection) -> None:
        self._statement = _RECOVER[flavor]
        self._eyes = eyes
        self._last: frozenset[str] | None = None
        self._lasting: tuple[str, ...] = ()
        self._again_at = 0.0

    def begin(self) -> None:
        """Call this when the server may be another run."""
        self._last, self._again_at = None, 0.0

    def look(self, deadline: Deadline) -> tuple[str, ...]:
        now = deadline.clock.monotonic()
        if now >= self._again_at:
            self._again_at = now + LOOK_SECONDS
            try:
                found = _names(self._eyes.look(self._statement, deadline))
            except StatementRefused:  # MySQL requires a privilege of its own
                found = frozenset()
            lasting = found if self._last is None else found & self._last
            self._lasting = tuple(sorted(lasting))
            self._last = found
        return self._lasting


class PreparedTransactions:
    """In a session of its own."""

    def __init__(self, flavor: Flavor, socket: Path, admin: Account) -> None:
        self._flavor = flavor
        self._socket = socket
        self._admin = admin

    def now(self, deadline: Deadline) -> frozenset[str]:
        with contextlib.closing(AdminSession(self._socket, self._admin)) as session:
            return _names(session.look(_RECOVER[self._flavor], deadline))

    def end(self, xid: str, commit: bool, deadline: Deadline) -> None:
        """End the transaction as the binlog already says: so it is not logged again. :param xid: as :func:`sql_form`
        gives it"""
        with contextlib.closing(AdminSession(self._socket, self._admin)) as session:
            session.run("SET SESSION sql_log_bin = 0", deadline)
            session.run(f"XA {'COMMIT' if commit else 'ROLLBACK'} {xid}", deadline)

    def unprotected(self, deadline: Deadline) -> frozenset[tuple[str, str]]:
        """(schema, table) of tables that know no transactions, and keep their rows over a restart."""
        with contextlib.closing(AdminSession(self._socket, self._admin)) as session:
            rows = session.look(
                "SELECT TABLE_SCHEMA AS place, TABLE_NAME AS name FROM information_schema.TABLES "
                "WHERE TABLE_TYPE = 'BASE TABLE' AND ENGINE IN ('MyISAM', 'Aria', 'CSV', 'ARCHIVE') "
                "AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')",
                deadline,
            )
        return frozenset((str(row["place"]), str(row["name"])) for row in rows)

    def in_memory(self, deadline: Deadline) -> frozenset[str]:
        """``schema.table`` of tables whose rows every restart removes, on any server."""
        with contextlib.closing(AdminSession(self._socket, self._admin)) as session:
            rows = session.look(
                "SELECT TABLE_SCHEMA AS place, TABLE_NAME AS name FROM information_schema.TABLES "
                "WHERE ENGINE = 'MEMORY' AND TABLE_SCHEMA <> 'information_schema'",
                deadline,
            )
        return frozenset(f"{row['place']}.{row['name']}" for row in rows)


def _names(rows: Sequence[Row]) -> frozenset[str]:
    return frozenset(_name(row) for row in rows)


def _name(row: Row) -> str:
    data = row["data"]
    if isinstance(data, str):
        data = bytes.fromhex(data[2:]) if data.startswith("0x") else data.encode()
    first, second = int(row["gtrid_length"]), int(row["bqual_length"])
    return sql_form(int(row["formatID"]), data[:first], data[first : first + second])
