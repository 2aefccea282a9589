"""Tables in pieces: ranges of the primary key, each with a digest of its rows at one position in the primary's history.

A piece is small enough that a replica's applier can be stopped for it. Its end is chosen on the primary, in the
snapshot that the digest is taken of, so that both sides read the same range whatever is written meanwhile.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from holdfast.errors import BadInput
from holdfast.server.base import Deadline
from holdfast.server.connection.admin_session import AdminSession
from holdfast.server.connection.sql import Row
from holdfast.server.data.digest import (
    ABSENT,
    Digester,
    HistoryPlace,
    Table,
    literal,
    quote,
    quoted,
    text_of,
)

Key = tuple[str, ...]
"""The values of a key: ``i:`` number, ``s:`` text or ``b:`` bytes in hexadecimal digits; (): before or after all."""

SYSTEM_SCHEMAS = ("mysql", "information_schema", "performance_schema", "sys")
_ORDERED = frozenset(
    {"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year", "date", "datetime"}
    | {"timestamp", "char", "varchar", "binary", "varbinary"}
)
"""Types whose values survive the way through text unchanged, and are ordered in the same way on both servers."""
NOT_COMPARED = {"MEMORY": "its rows are lost at each restart", "PERFORMANCE_SCHEMA": "no data"}
LARGEST_WHOLE = 500_000
"""Rows of a table without a usable primary key that are still read in one piece."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The rows of ``table`` after the key ``after``, up to and including ``upto``."""

    table: Table
    after: Key = ()
    upto: Key = ()


@dataclass(frozen=True, slots=True)
class TableFacts:
    """:ivar rows: about how many, by the server's estimate
    :ivar key: columns of the primary key by which it can be read in pieces
    :ivar skipped: why it is not compared, or ""
    """

    table: Table
    rows: int
    key: tuple[str, ...]
    skipped: str = ""


class ChunkDigester:
    """Takes digests of pieces on the local server, in sessions of :class:`Digester`."""

    def __init__(self, digester: Digester) -> None:
        self._digester = digester

    def apply_until(self, place: HistoryPlace, deadline: Deadline) -> None:
        """See :meth:`Digester.apply_until`."""
        self._digester.apply_until(place, deadline)

    def tables(self, deadline: Deadline) -> list[TableFacts]:
        """All tables that clients can have created, ordered by name."""
        marks = ", ".join(["%s"] * len(SYSTEM_SCHEMAS))
        with self._digester.session() as session:
            self._digester.set_up(session, deadline)
            rows = session.look(
                "SELECT TABLE_SCHEMA AS db, TABLE_NAME AS name, TABLE_ROWS AS number, ENGINE AS engine "
                f"FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN ({marks}) "
                "AND TABLE_TYPE = 'BASE TABLE' ORDER BY TABLE_SCHEMA, TABLE_NAME",
                deadline,
                SYSTEM_SCHEMAS,
            )
            return [self._facts(session, row, deadline) for row in rows]

    def running(self, deadline: Deadline) -> int:
        """How many threads of the server are at work now."""
        with self._digester.session() as session:
            rows = session.look("SHOW GLOBAL STATUS LIKE 'Threads_running'", deadline)
            return int(rows[0]["Value"])

    def take_chunk(
        self,
        table: Table,
        after: Key,
        rows: int,
        deadline: Deadline,
        begun: Callable[[HistoryPlace, Key, Key], None],
        last: Key = (),
    ) -> tuple[str, tuple[str, ...]]:
        """On a primary: the digest of the next rows after ``after``, at most this many, at one moment; and the columns
        of the key.

        The piece in which fewer rows than that are left up to ``last`` is the last one, and has no end: what clients
        append meanwhile is in it, otherwise the comparison might never catch up with them.

        :param last: the table's last key when its first piece was taken; (): this is the first one
        :param begun: called with that moment, the key of the piece's last row (() for the last piece), and ``last``,
            before rows are read
        :raises Refused: commits wait, or another session holds a lock on the table: try again later
        """
        with self._digester.session() as session:
            self._digester.set_up(session, deadline)
            place = self._digester.begin(session, [table], deadline)
            key = self._key(session, table, deadline)
            last = last or self._last(session, table, key, deadline)
            upto = self._end(session, Chunk(table, after, last), key, rows, deadline)
            begun(place, upto, last)
            return self._piece(session, key, Chunk(table, after, upto), deadline), key

    def chunk_here(self, chunk: Chunk, deadline: Deadline) -> str:
        """The digest of the piece, on a replica whose applier is stopped."""
        with self._digester.session() as session:
            self._digester.set_up(session, deadline)
            session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT", deadline)
            key = self._key(session, chunk.table, deadline)
            if len(key) < max(len(chunk.after), len(chunk.upto)):
                return "it has another primary key"
            return self._piece(session, key, chunk, deadline)

    def _facts(self, session: AdminSession, row: Row, deadline: Deadline) -> TableFacts:
        table = (text_of(row["db"]), text_of(row["name"]))
        number, engine = int(row["number"] or 0), text_of(row["engine"] or "")
        key = self._key(session, table, deadline)
        skipped = NOT_COMPARED.get(engine.upper(), "")
        if not skipped and not key and number > LARGEST_WHOLE:
            skipped = f"it has no primary key to read its {number} rows in pieces by"
        return TableFacts(table, number, key, skipped)

    def _piece(
        self, session: AdminSession, key: Sequence[str], chunk: Chunk, deadline: Deadline
    ) -> str:
        where, values = _where(key, chunk)
        return self._digester.digest(session, chunk.table, deadline, where, values)

    def _end(
        self, session: AdminSession, left: Chunk, key: Sequence[str], rows: int, deadline: Deadline
    ) -> Key:
        """The key of the last of the next ``rows`` rows; () if fewer are left."""
        if not left.upto:
            return ()
        columns = literal(", ".join(quote(name) for name in key))
        where, values = _where(key, left)
        found = session.look(
            f"SELECT {columns} FROM {literal(quoted(left.table))} FORCE INDEX (PRIMARY){where} "
            f"ORDER BY {columns} LIMIT %s, 1",
            deadline,
            (*values, max(rows, 1) - 1),
        )
        return _key_of(found[0], key) if found else ()

    def _last(
        self, session: AdminSession, table: Table, key: Sequence[str], deadline: Deadline
    ) -> Key:
        """The table's last key; () if it has no rows, or no key."""
        if not key:
            return ()
        columns = ", ".join(quote(name) for name in key)
        order = ", ".join(f"{quote(name)} DESC" for name in key)
        found = session.look(
            f"SELECT {columns} FROM {quoted(table)} FORCE INDEX (PRIMARY) ORDER BY {order} LIMIT 1",
            deadline,
        )
        return _key_of(found[0], key) if found else ()

    def _key(self, session: AdminSession, table: Table, deadline: Deadline) -> tuple[str, ...]:
        """The first columns of its primary key whose order can be relied on."""
        rows = session.look(
            "SELECT s.COLUMN_NAME AS name, s.SUB_PART AS part, c.DATA_TYPE AS type "
            "FROM information_schema.STATISTICS s JOIN information_schema.COLUMNS c "
            "ON (c.TABLE_SCHEMA, c.TABLE_NAME, c.COLUMN_NAME) = (s.TABLE_SCHEMA, s.TABLE_NAME, s.COLUMN_NAME) "
            "WHERE s.TABLE_SCHEMA = %s AND s.TABLE_NAME = %s AND s.INDEX_NAME = 'PRIMARY' "
            "ORDER BY s.SEQ_IN_INDEX",
            deadline,
            table,
        )
        usable = takewhile(lambda r: not r["part"] and text_of(r["type"]) in _ORDERED, rows)
        return tuple(text_of(row["name"]) for row in usable)


def check_key(values: Sequence[str]) -> Key:
    """:raises BadInput: it is no key"""
    for each in values:
        _decoded(each)
    return tuple(values)


def absent(digest: str) -> bool:
    """Whether this is the digest of a table that does not exist."""
    return digest == ABSENT


def rows_of(digest: str) -> int:
    """The number of rows that a digest covers."""
    number = digest.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def described(chunk: Chunk, key: Sequence[str]) -> str:
    """The rows of the piece in words."""
    if not key or not (chunk.after or chunk.upto):
        return "somewhere in the whole table"
    name = key[0] if len(key) == 1 else f"({', '.join(key)})"
    first = f"behind {_shown(chunk.after)}" if chunk.after else ""
    last = f"up to {_shown(chunk.upto)}" if chunk.upto else ""
    return f"{name} {' '.join(filter(None, (first, last)))}"


def _shown(key: Key) -> str:
    values = [value[2:] if value[0] != "b" else f"0x{value[2:]}" for value in key]
    return values[0] if len(values) == 1 else f"({', '.join(values)})"


def _where(key: Sequence[str], chunk: Chunk) -> tuple[str, list[object]]:
    """Which rows are in the piece: a condition with its keyword, and its arguments."""
    conditions: list[str] = []
    values: list[object] = []
    for bound, comparison in ((chunk.after, ">"), (chunk.upto, "<")):
        if bound:
            condition, wanted = beyond(key, bound, comparison)
            conditions.append(condition)
            values += wanted
    return f" WHERE {' AND '.join(conditions)}" if conditions else "", values


def _key_of(row: Row, key: Sequence[str]) -> Key:
    return tuple(_encoded(row[name]) for name in key)


def beyond(key: Sequence[str], bound: Key, comparison: str) -> tuple[str, list[object]]:
    """A condition that is true of keys on one side of ``bound``; for ``<`` also of the bound itself.

    It has a form in which both servers read a range of the index: the first column by itself, then the rest.
    """
    values = [_decoded(each) for each in bound]
    names = [literal(quote(name)) for name in key[: len(bound)]]
    last = "<=" if comparison == "<" else comparison
    condition, wanted = f"{names[-1]} {last} %s", [values[-1]]
    for name, value in list(zip(names, values, strict=True))[-2::-1]:
        condition = f"({name} {comparison} %s OR ({name} = %s AND {condition}))"
        wanted = [value, value, *wanted]
    if len(names) > 1:
        condition = f"({names[0]} {comparison}= %s AND {condition})"
        wanted = [values[0], *wanted]
    return condition, wanted


def _encoded(value: object) -> str:
    match value:
        case bytes():
            return f"b:{value.hex()}"
        case int():
            return f"i:{value}"
        case str() | decimal.Decimal() | datetime.date():  # a datetime is a date, too
            return f"s:{value}"
    raise BadInput("key", f"{value!r} is no value of a key")


_DECODERS: dict[str, Callable[[str], object]] = {"i": int, "s": str, "b": bytes.fromhex}


def _decoded(text: str) -> object:
    """:raises BadInput: this is no part of a key"""
    kind, _, value = text.partition(":")
    try:
        return _DECODERS[kind](value)
    except (KeyError, ValueError):
        raise BadInput("key", f"{text!r} is no value of a key") from None
