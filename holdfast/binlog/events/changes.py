"""What the events of a transaction changed; also the events inside MySQL's compressed transactions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import zstandard

from holdfast.binlog.events.gtid_event import OPENING_TYPES
from holdfast.binlog.events.query_event import parse_statement
from holdfast.binlog.events.reader import (
    CHECKSUM_BYTES,
    HEADER,
    QUERY,
    TRANSACTION_PAYLOAD,
    XID,
    Binlog,
    Torn,
    Unreadable,
)
from holdfast.binlog.events.rows import KINDS, Rows, parse_rows
from holdfast.binlog.events.table_map import TableMap, packed, parse_table_map

TABLE_MAP = 19
ROWS_QUERY = 29
ANNOTATE_ROWS = 160
LARGEST_PAYLOAD = 256 * 1024 * 1024
"""Bytes of a compressed transaction after uncompressing: it is held in memory."""

_SILENT = OPENING_TYPES | {XID, ROWS_QUERY, ANNOTATE_ROWS, 4, 35, 163, 161}
"""Events that change nothing: openings, the commit, comments, and what may stand between two transactions."""

_END_MARK, _COMPRESSION, _SIZE = 0, 2, 3
_ZSTD, _PLAIN = 0, 255


class Body(NamedTuple):
    """Where an event's body is, without header and checksum."""

    type: int
    source: Binlog | bytes
    start: int
    end: int

    def read(self) -> bytes:
        if isinstance(self.source, bytes):
            return self.source[self.start : self.end]
        return self.source.read_at(self.start, self.end - self.start)


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row event. :ivar table_body: body of the table map to which it refers"""

    table: TableMap
    table_body: bytes
    body: Body

    def rows(self) -> Rows:
        """:raises ValueError: it is damaged"""
        return parse_rows(self.body.type, self.body.read())


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that was logged as text; COMMIT and ROLLBACK too, but no BEGIN."""

    schema: str
    text: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """A change that is not understood, or a row event whose table is missing."""

    what: str


Change = RowChange | Statement | Opaque


def changes(log: Binlog, start: int, end: int) -> Iterator[Change]:
    """What the transaction from ``start`` to ``end`` changed, in order; bodies of row events are not read."""
    tables: dict[int, tuple[TableMap, bytes] | str] = {}
    try:
        for body in bodies(log, start, end):
            change = _change(body, tables)
            if change is not None:
                yield change
    except (ValueError, IndexError, zstandard.ZstdError) as error:
        yield Opaque(f"events that cannot be read: {error}")


def bodies(log: Binlog, start: int, end: int) -> Iterator[Body]:
    trailer = CHECKSUM_BYTES if log.format.checksum else 0
    for event in log.events(start, end):
        if isinstance(event, Torn):
            raise Unreadable(log.path, event.offset, "it ends in the middle of an event")
        body = Body(event.type, log, event.offset + HEADER.size, event.end - trailer)
        if event.type == TRANSACTION_PAYLOAD:
            yield from _inside(body.read())
        else:
            yield body


def _change(body: Body, tables: dict[int, tuple[TableMap, bytes] | str]) -> Change | None:
    if body.type == TABLE_MAP:
        raw = body.read()
        table_id = int.from_bytes(raw[:6], "little")
        try:
            tables[table_id] = parse_table_map(raw), raw
        except ValueError as error:
            tables[table_id] = str(error)
        return None
    if body.type in KINDS:
        head = body._replace(end=min(body.end, body.start + 6)).read()
        found = tables.get(int.from_bytes(head, "little"), "rows of a table that was not named")
        return Opaque(found) if isinstance(found, str) else RowChange(*found, body)
    if body.type == QUERY:
        schema, text = parse_statement(body.read())
        return None if text == "BEGIN" else Statement(schema, text)
    return None if body.type in _SILENT else Opaque(f"an event of type {body.type}")


def _inside(body: bytes) -> Iterator[Body]:
    """The events of a compressed transaction; they carry no checksums (``payload_event.h``)."""
    position, compression, size = 0, _PLAIN, 0
    while True:
        field, position = packed(body, position)
        if field == _END_MARK:
            break
        length, position = packed(body, position)
        value, position = body[position : position + length], position + length
        if field == _COMPRESSION:
            compression = packed(value, 0)[0]
        elif field == _SIZE:
            size = packed(value, 0)[0]
    plain = body[position:]
    if compression == _ZSTD:
        if size > LARGEST_PAYLOAD:
            raise ValueError(f"a transaction of {size} bytes, compressed")
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(plain)
    elif compression != _PLAIN:
        raise ValueError(f"a transaction compressed in the unknown way {compression}")
    offset = 0
    while offset < len(plain):
        _, kind, _, length, _, _ = HEADER.unpack_from(plain, offset)
        if length < HEADER.size:
            raise ValueError(f"an event of {length} bytes in a compressed transaction")
        yield Body(kind, plain, offset + HEADER.size, offset + length)
        offset += length
