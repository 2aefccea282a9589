"""Digests of tables, the same on every server that holds the same rows; and the position in the history that they
belong to.

The position must be exact. MariaDB reports the binlog position of a consistent snapshot, so no lock is needed. MySQL
does not: there the tables are locked for as long as it takes to begin the snapshot and to read ``gtid_executed``. What
other tables do meanwhile does not matter.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pymysql.constants import ER

from holdfast.core.gtid import Flavor, parse
from holdfast.errors import Refused
from holdfast.server.base import Account, Deadline
from holdfast.server.connection.admin_session import AdminSession
from holdfast.server.connection.sql import Row, StatementRefused

ABSENT = "absent"
"""Digest of a table that does not exist."""

LOCK_SECONDS = 1
"""How long to wait for a lock: writers queue behind it. The minimum of MySQL."""

STALLED_SECONDS = 0.5
"""If no commit has been acknowledged for so long although some wait, no lock is requested: commits would have to wait
for it, too."""

LOOK_SECONDS = 0.02
"""How often to check whether the applier has reached its position."""

_NO_SUCH_TABLE = frozenset({ER.NO_SUCH_TABLE, ER.BAD_DB_ERROR, ER.BAD_TABLE_ERROR})
_BLOBS = ("tiny", "", "medium", "long")
_HASHED = frozenset({"char", "varchar", "binary", "varbinary"}) | {
    f"{size}{kind}" for size in _BLOBS for kind in ("text", "blob")
}
_NUMBERED = frozenset({"bit", "enum", "set"})
_SHAPES = ("point", "linestring", "polygon")
_GEOMETRY = frozenset({"geometry", "geometrycollection", "geomcollection", *_SHAPES}) | {
    f"multi{shape}" for shape in _SHAPES
}


@dataclass(frozen=True, slots=True)
class HistoryPlace:
    """A moment in a primary's history.

    :ivar gtids: MySQL: the executed set; MariaDB: the last GTID of each domain
    :ivar file, offset: MariaDB: the same as a position in the binlog
    """

    server_id: int
    gtids: str
    file: str = ""
    offset: int = 0


Table = tuple[str, str]
"""Schema and name."""


class Digester:
    """Takes digests on the local server, in sessions of its own."""

    def __init__(self, flavor: Flavor, socket: Path, admin: Account) -> None:
        self._flavor = flavor
        self._socket = socket
        self._admin = admin

    def take(
        self, tables: Sequence[Table], deadline: Deadline, begun: Callable[[HistoryPlace], None]
    ) -> Mapping[Table, str]:
        """On a primary: digests of ``tables`` at one moment; ``begun`` is called with that moment as soon as it is
        chosen.

        :raises Refused: commits wait, or another session holds a lock on a table: try again later
        """
        with self.session() as session:
            self.set_up(session, deadline)
            begun(self.begin(session, tables, deadline))
            return self._digests(session, tables, deadline)

    def here(self, tables: Sequence[Table], deadline: Deadline) -> Mapping[Table, str]:
        """The digests, on a replica whose applier is stopped."""
        with self.session() as session:
            self.set_up(session, deadline)
            session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT", deadline)
            return self._digests(session, tables, deadline)

    def apply_until(self, place: HistoryPlace, deadline: Deadline) -> None:
        """On a replica whose applier is stopped: apply exactly up to ``place``; the applier is stopped after that.

        :raises Refused: it follows another server, or cannot apply the next transactions
        """
        with self.session() as session:
            status = self._status(session, deadline)
            if int(status["source_id"]) != place.server_id:
                raise Refused("it does not follow the server that it must be compared with")
            if not self._may_start(status):
                raise Refused("its receiver has stopped")
            if self._reached(status, place):
                return
            if self._flavor is Flavor.MARIADB:
                until = "START REPLICA SQL_THREAD UNTIL MASTER_LOG_FILE = %s, MASTER_LOG_POS = %s"
                session.run(until, deadline, (place.file, place.offset))
            else:
                until = "START REPLICA SQL_THREAD UNTIL SQL_AFTER_GTIDS = %s"
                session.run(until, deadline, (place.gtids,))
            while (status := self._status(session, deadline))["applier"] != "No":
                deadline.check("applying up to the place of the comparison")
                if self._reached(status, place):
                    session.run("STOP REPLICA SQL_THREAD", deadline)
                deadline.clock.sleep(LOOK_SECONDS)
            if status["error"] or not self._reached(status, place):
                raise Refused(
                    f"its applier has stopped: {status['error'] or 'it was stopped by hand'}"
                )

    def _reached(self, status: Row, place: HistoryPlace) -> bool:
        """Whether an applier that was started up to ``place`` has reached it. MariaDB's stops only when another event
        follows."""
        has = parse(self._flavor, str(status["applied"]))
        return has.covers(parse(self._flavor, place.gtids))

    def release(self, deadline: Deadline) -> None:
        """Start the applier again, unless that would drop what was received: then Follow starts it."""
        with self.session() as session:
            rows = session.look("SHOW REPLICA STATUS", deadline)
            if rows and self._may_start(self._status(session, deadline)):
                session.run("START REPLICA SQL_THREAD", deadline)

    def _may_start(self, status: Row) -> bool:
        """Whether the applier may be started alone. MariaDB drops the relay log when a thread is started while both are
        stopped (MDEV-4698)."""
        return self._flavor is Flavor.MYSQL or status["receiver"] != "No"

    def begin(
        self, session: AdminSession, tables: Sequence[Table], deadline: Deadline
    ) -> HistoryPlace:
        """On a primary: begin a transaction that sees these tables at one moment, which is returned."""
        server_id = int(session.look("SELECT @@server_id AS id", deadline)[0]["id"])
        if self._flavor is Flavor.MARIADB:
            session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT", deadline)
            rows = session.look("SHOW STATUS LIKE 'binlog_snapshot_%'", deadline)
            found = {str(row["Variable_name"]).lower(): str(row["Value"]) for row in rows}
            file, offset = found["binlog_snapshot_file"], int(found["binlog_snapshot_position"])
            position = "SELECT BINLOG_GTID_POS(%s, %s) AS gtids"
            row = session.look(position, deadline, (file, offset))[0]
            return HistoryPlace(server_id, str(row["gtids"] or ""), file, offset)
        self._refuse_while_commits_wait(session, deadline)
        there = [table for table in tables if self._columns(session, table, deadline)]
        # the lock ends with its session
        patience = Deadline(2 * LOCK_SECONDS, deadline.cancelled, deadline.clock)
        with self.session() as locker:
            locker.run(f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}", patience)
            if there:
                locks = ", ".join(f"{quoted(table)} READ" for table in there)
                locker.run(f"LOCK TABLES {locks}", patience)
            session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT", patience)
            row = session.look("SELECT @@global.gtid_executed AS gtids", patience)[0]
            locker.run("UNLOCK TABLES", patience)
        return HistoryPlace(server_id, gtids=str(row["gtids"]).replace("\n", ""))

    def _refuse_while_commits_wait(self, session: AdminSession, deadline: Deadline) -> None:
        """On a busy primary some commit always waits: what counts is whether any is acknowledged."""
        waiting, acknowledged = self._acknowledging(session, deadline)
        patience = deadline.afresh(STALLED_SECONDS)
        while waiting:
            deadline.clock.sleep(0.005)
            waiting, now = self._acknowledging(session, deadline)
            if now != acknowledged:
                return
            if waiting and not patience.left:
                raise Refused("commits wait for an acknowledgement: a lock would wait behind them")

    def _acknowledging(self, session: AdminSession, deadline: Deadline) -> tuple[int, int]:
        """How many sessions wait, and how many transactions have been acknowledged so far."""
        prefix = "Rpl_semi_sync_source_"
        rows = session.look(
            f"SHOW GLOBAL STATUS WHERE Variable_name IN ('{prefix}wait_sessions', '{prefix}yes_tx')",
            deadline,
        )
        found = {str(row["Variable_name"]).lower(): int(row["Value"]) for row in rows}
        return (
            found.get(f"{prefix}wait_sessions".lower(), 0),
            found.get(f"{prefix}yes_tx".lower(), 0),
        )

    def _digests(
        self, session: AdminSession, tables: Sequence[Table], deadline: Deadline
    ) -> Mapping[Table, str]:
        found = {}
        for table in tables:
            # after each, what was locked against ALTER TABLE is free again
            session.run("SAVEPOINT digest", deadline)
            found[table] = self.digest(session, table, deadline)
            session.run("ROLLBACK TO SAVEPOINT digest", deadline)
        return found

    def digest(
        self,
        session: AdminSession,
        table: Table,
        deadline: Deadline,
        where: str = "",
        values: Sequence[object] = (),
    ) -> str:
        """The digest of the table's rows, or ``ABSENT``. :param where: a condition with its keyword and ``values``"""
        columns = self._columns(session, table, deadline)
        if not columns:
            return ABSENT
        names = [quote(str(row["name"])) for row in columns]
        nulls = f"CONCAT({', '.join(f'ISNULL({name})' for name in names)})"
        parts = [
            self._expression(name, str(row["type"]))
            for name, row in zip(names, columns, strict=True)
        ]
        row_hash = f"SHA2(CONCAT_WS(',', {nulls}, {', '.join(parts)}), 256)"
        sql = (
            "SELECT COUNT(*) AS count, SUM(CAST(CONV(LEFT(hash, 15), 16, 10) AS UNSIGNED)) AS sum, "
            "BIT_XOR(CAST(CONV(SUBSTRING(hash, 17, 16), 16, 10) AS UNSIGNED)) AS xored "
            f"FROM (SELECT {row_hash} AS hash FROM {quoted(table)}"
        )
        sql = f"{literal(sql) if values else sql}{where}) AS hashes"
        try:
            row = session.look(sql, deadline, values)[0]
        except StatementRefused as error:
            if error.code in _NO_SUCH_TABLE:
                return ABSENT
            raise
        layout = hashlib.sha256(repr([(r["name"], r["type"]) for r in columns]).encode())
        return f"{row['count']}-{row['sum'] or 0}-{row['xored']}-{layout.hexdigest()[:16]}"

    def _columns(self, session: AdminSession, table: Table, deadline: Deadline) -> list[Row]:
        rows = session.look(
            "SELECT COLUMN_NAME AS name, DATA_TYPE AS type FROM information_schema.COLUMNS "
            "WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION",
            deadline,
            table,
        )
        return [{name: text_of(value) for name, value in row.items()} for row in rows]

    def _expression(self, name: str, kind: str) -> str:
        """A short text for the column, different for each value; numbers and times as the server prints them."""
        kind = kind.lower()
        if kind in _HASHED:
            return f"SHA2({name}, 256)"
        if kind == "json":
            return f"SHA2(CAST({name} AS CHAR), 256)"
        if kind in _GEOMETRY:
            return f"ST_SRID({name}), SHA2(ST_AsBinary({name}), 256)"
        if kind == "vector":
            return f"SHA2(HEX({name}), 256)"
        if kind in _NUMBERED:
            return f"{name} + 0"
        if kind in ("float", "double"):
            return f"CAST({name} + 0e0 AS CHAR)"  # a FLOAT is printed with too few digits
        return f"CAST({name} AS CHAR)"

    def _status(self, session: AdminSession, deadline: Deadline) -> Row:
        rows = session.look("SHOW REPLICA STATUS", deadline)
        if not rows:
            raise Refused("it follows nobody")
        row = rows[0]
        mysql = self._flavor is Flavor.MYSQL
        variable = "gtid_executed" if mysql else "gtid_slave_pos"
        applied = session.look(f"SELECT @@global.{variable} AS gtids", deadline)[0]["gtids"]
        return {
            "applied": text_of(applied).replace("\n", ""),
            "source_id": row["Source_Server_Id" if mysql else "Master_Server_Id"],
            "receiver": row["Replica_IO_Running" if mysql else "Slave_IO_Running"],
            "applier": row["Replica_SQL_Running" if mysql else "Slave_SQL_Running"],
            "error": row["Last_SQL_Error"],
        }

    def set_up(self, session: AdminSession, deadline: Deadline) -> None:
        """What every digest must be taken with, to be the same on each server."""
        limit = "max_statement_time" if self._flavor is Flavor.MARIADB else "max_execution_time"
        session.run(
            f"SET SESSION time_zone = '+00:00', sql_mode = '', {limit} = 0, "
            f"lock_wait_timeout = {LOCK_SECONDS}",
            deadline,
        )
        session.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", deadline)

    def session(self) -> AbstractContextManager[AdminSession]:
        """A new one, which is closed at the end."""
        return contextlib.closing(AdminSession(self._socket, self._admin))


def table_name(table: Table) -> str:
    """The table's name for display; :func:`parse_table` gives the table back."""
    schema, name = table
    plain = all(part.replace("$", "_").isidentifier() or part.isalnum() for part in table)
    return f"{schema}.{name}" if plain else quoted(table)


def parse_table(text: str) -> Table:
    """:raises ValueError: this is not what :func:`table_name` makes"""
    if not text.startswith("`"):
        schema, dot, name = text.partition(".")
        if not dot or not schema or not name:
            raise ValueError(f"no schema.table: {text!r}")
        return schema, name
    schema, dot, name = text[1:-1].partition("`.`")
    if not dot or not text.endswith("`"):
        raise ValueError(f"no `schema`.`table`: {text!r}")
    return schema.replace("``", "`"), name.replace("``", "`")


def quoted(table: Table) -> str:
    return f"{quote(table[0])}.{quote(table[1])}"


def quote(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def literal(sql: str) -> str:
    """The statement for use with arguments: names in it may contain per cent signs."""
    return sql.replace("%", "%%")


def text_of(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
