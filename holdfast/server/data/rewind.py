"""Undoes row events on the local server, and repairs its GTID state.

The undo is one transaction, which also inserts a *note*, the name of this rewind: if the note exists, the undo is done,
and only the GTID state remains. So it can be interrupted anywhere, and nothing is undone twice. The undo is not written
to the binlog (``sql_log_bin = 0``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pymysql.constants import ER

from holdfast.core.gtid import Flavor, parse
from holdfast.errors import HoldfastError, Refused
from holdfast.server.base import Account, Deadline
from holdfast.server.connection.admin_session import AdminSession
from holdfast.server.connection.sql import Row, StatementRefused
from holdfast.server.replication.barring import kill

LARGEST_PACKET = 1024**3
"""The maximum of both servers."""

RESETS = 5
"""Attempts to set the GTID state while other sessions run statements like FLUSH that are logged."""

LOCK_SECONDS = 10
"""How long to wait for a lock: no other session should be there."""

ENDING_SECONDS = 0.5
"""How long it may take to end a statement that was given up."""

RESET_SECONDS = 5.0
"""Minimum time for a reset and the new GTID state, once they have begun."""

NOTE_SCHEMA = (
    "CREATE DATABASE IF NOT EXISTS holdfast",
    "CREATE TABLE IF NOT EXISTS holdfast.rewind ("
    "id int NOT NULL PRIMARY KEY, name varchar(64) NOT NULL) ENGINE=InnoDB",
)

NOTE = "SELECT name FROM holdfast.rewind WHERE id = 1 LOCK IN SHARE MODE"
"""Waits for a COMMIT that is under way."""

LOCKED_OUT = frozenset({1205, 1213, 3572})
"""Another session holds a lock."""

Table = tuple[str, str]
"""Schema and name."""


class Unrewindable(Refused):
    """These changes cannot be undone here, now or later; nothing was done."""


class Disturbed(Refused):
    """Another session wrote on this server after its changes were undone; its GTID state cannot be repaired."""


@dataclass(frozen=True, slots=True)
class RewindRepair:
    """The change of the GTID state.

    :ivar name: the same whenever the same transactions are undone
    :ivar was: ``gtid_executed`` or ``gtid_binlog_state`` when the undo is decided
    :ivar becomes: the new value
    :ivar slave_pos: MariaDB: the new ``gtid_slave_pos``
    :ivar rows: rows are undone, too; else only GTIDs are forgotten that changed none
    """

    name: str
    was: str
    becomes: str
    slave_pos: str = ""
    rows: bool = True


@dataclass(frozen=True, slots=True)
class Undo:
    """The statements of an undo.

    :ivar layout: run first, outside of the transaction
    :ivar statements: makes the statements to be run within it; ``True``: one row per event
    :ivar largest: bytes of the longest row event
    """

    layout: str
    statements: Callable[[bool], Iterable[str]]
    largest: int


class Rewinder:
    """The local server while it is rewound: read-only, following no source."""

    def __init__(self, flavor: Flavor, socket: Path, admin: Account) -> None:
        self._flavor = flavor
        self._mysql = flavor is Flavor.MYSQL
        self._socket = socket
        self._admin = admin

    # looking

    def gtid_state(self, deadline: Deadline) -> tuple[str, str]:
        """``was`` as in :class:`RewindRepair`, and MariaDB's ``gtid_slave_pos``."""
        with self._session() as session:
            return self._state(session, deadline), self._slave_pos(session, deadline)

    def columns(self, schema: str, table: str, deadline: Deadline) -> list[tuple[str, str]]:
        """Name and type of each column, in order."""
        with self._session() as session:
            rows = session.look(
                "SELECT COLUMN_NAME AS name, COLUMN_TYPE AS type FROM information_schema.COLUMNS "
                "WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION",
                deadline,
                (schema, table),
            )
        return [(_text(row["name"]), _text(row["type"])) for row in rows]

    def obstacle(self, tables: Iterable[Table], deadline: Deadline) -> str:
        """Why rows of these tables cannot be undone here, or ""."""
        with self._session() as session:
            if not self._mysql:
                found = session.look("SELECT @@slave_run_triggers_for_rbr AS triggers", deadline)
                if found[0]["triggers"] != "NO":
                    return "triggers would be run (slave_run_triggers_for_rbr)"
            for schema, table in sorted(tables):
                rows = self._engine(session, schema, table, deadline)
                if not rows:
                    return f"{schema}.{table} is not there any more"
                if rows[0]["kind"] != "BASE TABLE" or rows[0]["engine"] != "InnoDB":
                    return f"{schema}.{table} is no plain InnoDB table"
        return ""

    def in_memory(self, tables: Iterable[Table], deadline: Deadline) -> bool:
        """Whether all of these are MEMORY tables."""
        with self._session() as session:
            return all(
                [str(row["engine"]) for row in self._engine(session, *table, deadline)]
                == ["MEMORY"]
                for table in tables
            )

    def _engine(
        self, session: AdminSession, schema: str, table: str, deadline: Deadline
    ) -> Sequence[Row]:
        return session.look(
            "SELECT ENGINE AS engine, TABLE_TYPE AS kind FROM information_schema.TABLES "
            "WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s",
            deadline,
            (schema, table),
        )

    @contextlib.contextmanager
    def flushing_kept(self, deadline: Deadline) -> Iterator[None]:
        """For a server that continues as a replica afterwards: its flushing stays as it was."""
        flushing = "innodb_flush_log_at_trx_commit"
        with self._session() as session:
            was = int(session.look(f"SELECT @@global.{flushing} AS was", deadline)[0]["was"])
            try:
                yield
            finally:
                session.run(f"SET GLOBAL {flushing} = {was}", deadline.to_its_end(ENDING_SECONDS))

    def cascades(self, tables: Iterable[Table], deadline: Deadline) -> set[Table]:
        """Tables that foreign keys may have changed along with these, which no binlog shows."""
        with self._session() as session:
            rows = session.look(
                "SELECT CONSTRAINT_SCHEMA AS schema_name, TABLE_NAME AS child, "
                "UNIQUE_CONSTRAINT_SCHEMA AS parent_schema, REFERENCED_TABLE_NAME AS parent "
                "FROM information_schema.REFERENTIAL_CONSTRAINTS "
                "WHERE DELETE_RULE IN ('CASCADE', 'SET NULL', 'SET DEFAULT') "
                "OR UPDATE_RULE IN ('CASCADE', 'SET NULL', 'SET DEFAULT')",
                deadline,
            )
        children: dict[Table, set[Table]] = {}
        for row in rows:
            parent = _text(row["parent_schema"]), _text(row["parent"])
            children.setdefault(parent, set()).add((_text(row["schema_name"]), _text(row["child"])))
        known = set(tables)
        found: set[Table] = set()
        ahead = list(known)
        while ahead:
            for child in children.get(ahead.pop(), set()) - known:
                known.add(child)
                found.add(child)
                ahead.append(child)
        return found

    def is_undone(self, repair: RewindRepair, deadline: Deadline) -> bool:
        """Whether the note exists; without rows to undo, whether the old GTID state is gone."""
        with self._session() as session:
            if repair.rows:
                return self._noted(session, repair, deadline)
            now = parse(self._flavor, self._state(session, deadline))
            return not now.contains(parse(self._flavor, repair.was))

    # doing

    def leave(self, deadline: Deadline) -> None:
        """Stop following. What was received and not applied is dropped; no replication thread may run."""
        with self._session() as session:
            session.run("STOP REPLICA", deadline)
            session.run("RESET REPLICA ALL", deadline)

    def undo(self, repair: RewindRepair, undo: Undo, deadline: Deadline) -> None:
        """Undo the rows and leave the note, in one transaction.

        :raises Unrewindable: the rows are not what the binlog says; :raises Refused: nothing was done
        """
        refused: StatementRefused | None = None
        for one_by_one in (False, True):
            with self._packets(undo.largest, deadline), self._session() as session:
                self._prepare(session, deadline)
                for statement in NOTE_SCHEMA:
                    session.run(statement, deadline)
                try:
                    return self._transaction(session, repair, undo, one_by_one, deadline)
                except StatementRefused as error:
                    if error.code in LOCKED_OUT:
                        raise
                    refused = error
                finally:
                    self._close_again(deadline)
        raise Unrewindable(f"the rows are not as the binlog left them: {refused}")

    def repair(self, repair: RewindRepair, deadline: Deadline) -> None:
        """Set the GTID state, once the undo is done; then delete the note. Can be repeated.

        It can be called off only while it waits for the lock. Between reset and new state the server has no history;
        its agent would think that it was reset by hand, and kill it.

        :raises Disturbed: the state is neither the old one nor on its way to the new one: nothing was done
        """
        with self._session() as session:
            self._prepare(session, deadline)
            self._lock(session, deadline)
            deadline = deadline.to_its_end(RESET_SECONDS)
            if (
                not self._mysql
            ):  # else its reset may wait for the engine, which flushes once a second
                session.run("FLUSH LOCAL ENGINE LOGS", deadline)
            state = self._state(session, deadline)
            if not self._same(state, repair.becomes):
                if state and not self._same(state, repair.was):
                    raise Disturbed(
                        f"clients wrote here while it was rewound: its GTIDs are {state}, not {repair.was}"
                    )
                self._set_state(session, bool(state), repair, deadline)
            session.run("UNLOCK TABLES", deadline)
            if not self._mysql and not self._same(
                self._slave_pos(session, deadline), repair.slave_pos
            ):  # it cannot be set while a receiver runs
                session.run("SET GLOBAL gtid_slave_pos = %s", deadline, (repair.slave_pos,))
            session.run("DROP TABLE IF EXISTS holdfast.rewind", deadline)
        self._close_again(deadline)

    def _lock(self, session: AdminSession, deadline: Deadline) -> None:
        number = session.session_id
        try:
            session.run("FLUSH TABLES WITH READ LOCK", deadline)
        except HoldfastError:
            # otherwise it blocks all other sessions, for another second on MariaDB, and for good on MySQL
            with contextlib.suppress(HoldfastError), self._session() as other:
                kill(other, number, deadline.afresh(ENDING_SECONDS))
            raise

    def _set_state(
        self, session: AdminSession, reset: bool, repair: RewindRepair, deadline: Deadline
    ) -> None:
        """Set the state. The lock stops writes but not FLUSH, which is logged: so this may take several attempts."""
        variable = "gtid_purged" if self._mysql else "gtid_binlog_state"
        for attempt in range(1, RESETS + 1):
            if reset or attempt > 1:
                session.run(self._reset, deadline)
            try:
                if repair.becomes:
                    session.run(f"SET GLOBAL {variable} = %s", deadline, (repair.becomes,))
                return
            except StatementRefused:
                if attempt == RESETS:
                    raise

    # parts

    _reset_statement: ClassVar[dict[Flavor, str]] = {
        Flavor.MARIADB: "RESET MASTER",
        Flavor.MYSQL: "RESET BINARY LOGS AND GTIDS",
    }

    @property
    def _reset(self) -> str:
        return self._reset_statement[self._flavor]

    def _session(self) -> AbstractContextManager[AdminSession]:
        return contextlib.closing(AdminSession(self._socket, self._admin))

    @contextlib.contextmanager
    def _packets(self, largest: int, deadline: Deadline) -> Iterator[None]:
        """Within it new sessions accept statements with rows of this size."""
        needed = 2 * largest + 1024 * 1024
        with self._session() as session:
            now = int(session.look("SELECT @@global.max_allowed_packet AS n", deadline)[0]["n"])
            if needed <= now:
                yield
                return
            session.run(f"SET GLOBAL max_allowed_packet = {LARGEST_PACKET}", deadline)
            try:
                yield
            finally:
                with contextlib.suppress(HoldfastError):
                    session.run(f"SET GLOBAL max_allowed_packet = {now}", deadline)

    def _prepare(self, session: AdminSession, deadline: Deadline) -> None:
        """Prepare the session: nothing of it goes to the binlog, and it may write."""
        session.run("SET SESSION sql_log_bin = 0, foreign_key_checks = 0", deadline)
        session.run(
            f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}, "
            f"innodb_lock_wait_timeout = {LOCK_SECONDS}",
            deadline,
        )
        if self._mysql:
            session.run("SET SESSION rbr_exec_mode = 'STRICT'", deadline)
            session.run("SET GLOBAL super_read_only = 0", deadline)
        else:
            session.run("SET GLOBAL slave_exec_mode = 'STRICT'", deadline)
        session.run("SET GLOBAL innodb_flush_log_at_trx_commit = 1", deadline)

    def _close_again(self, deadline: Deadline) -> None:
        """Best effort: Follow sets it again."""
        if self._mysql:
            with contextlib.suppress(HoldfastError), self._session() as session:
                session.run("SET GLOBAL super_read_only = 1", deadline)

    def _transaction(
        self,
        session: AdminSession,
        repair: RewindRepair,
        undo: Undo,
        one_by_one: bool,
        deadline: Deadline,
    ) -> None:
        session.run(undo.layout, deadline)
        if self._mysql:  # the layout leaves it undetermined
            session.run("SET SESSION gtid_next = 'AUTOMATIC'", deadline)
        session.run("START TRANSACTION", deadline)
        # waits for an earlier attempt whose COMMIT is under way; a note of another name is left from other data
        session.run(
            "DELETE FROM holdfast.rewind WHERE id = 1 AND name <> %s", deadline, (repair.name,)
        )
        try:
            session.run("INSERT INTO holdfast.rewind VALUES (1, %s)", deadline, (repair.name,))
        except StatementRefused as error:
            if error.code == ER.DUP_ENTRY:
                return  # that attempt has undone it
            raise
        for statement in undo.statements(one_by_one):
            session.run(statement, deadline)
        if not self._same(self._state(session, deadline), repair.was):
            raise Disturbed("clients write on this server: it can be rewound once they stop")
        session.run("COMMIT", deadline)

    def _noted(self, session: AdminSession, repair: RewindRepair, deadline: Deadline) -> bool:
        try:
            rows = session.look(NOTE, deadline)
        except StatementRefused as error:
            if error.code in (ER.NO_SUCH_TABLE, ER.BAD_DB_ERROR):
                return False
            raise
        return bool(rows) and rows[0]["name"] == repair.name

    def _state(self, session: AdminSession, deadline: Deadline) -> str:
        variable = "gtid_executed" if self._mysql else "gtid_binlog_state"
        row: Row = session.look(f"SELECT @@global.{variable} AS state", deadline)[0]
        return _text(row["state"]).replace("\n", "")

    def _slave_pos(self, session: AdminSession, deadline: Deadline) -> str:
        if self._mysql:
            return ""
        return _text(session.look("SELECT @@global.gtid_slave_pos AS pos", deadline)[0]["pos"])

    def _same(self, one: str, other: str) -> bool:
        return parse(self._flavor, one) == parse(self._flavor, other)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
