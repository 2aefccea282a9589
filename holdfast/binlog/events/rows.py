"""Row events: decoded into images, and encoded again as their inverse.

Layout: MySQL's ``Rows_event`` (``rows_event.h``), versions 1 (which MariaDB writes) and 2; MariaDB's compressed ones
(``log_event.h``: the same, with the images behind the column bitmaps compressed by zlib).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from holdfast.binlog.events.table_map import BLOBS, INTEGERS, Column, TableMap, Type, packed

STATEMENT_END = 0x1
NO_FOREIGN_KEY_CHECKS = 0x2
_HEAD = struct.Struct("<6sH")

_FIXED_BYTES = INTEGERS | {
    Type.NULL: 0,
    Type.FLOAT: 4,
    Type.DOUBLE: 8,
    Type.YEAR: 1,
    Type.DATE: 3,
    Type.NEWDATE: 3,
    Type.TIME: 3,
    Type.TIMESTAMP: 4,
    Type.DATETIME: 8,
}
_WITH_FRACTION = {Type.TIMESTAMP2: 4, Type.DATETIME2: 5, Type.TIME2: 3}
_STRINGS = frozenset({Type.VARCHAR, Type.VAR_STRING, Type.STRING, Type.VARCHAR_COMPRESSED})
DECIMAL_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""Bytes for this many digits; nine digits take four."""


class Action(Enum):
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


_INSERT, _UPDATE, _DELETE = Action.INSERT, Action.UPDATE, Action.DELETE
_OPPOSITE = {_INSERT: _DELETE, _DELETE: _INSERT, _UPDATE: _UPDATE}


@dataclass(frozen=True, slots=True)
class _Kind:
    action: Action
    version: int
    compressed: bool = False


KINDS = {
    23: _Kind(_INSERT, 1),
    24: _Kind(_UPDATE, 1),
    25: _Kind(_DELETE, 1),
    30: _Kind(_INSERT, 2),
    31: _Kind(_UPDATE, 2),
    32: _Kind(_DELETE, 2),
    166: _Kind(_INSERT, 1, True),
    167: _Kind(_UPDATE, 1, True),
    168: _Kind(_DELETE, 1, True),
    169: _Kind(_INSERT, 2, True),
    170: _Kind(_UPDATE, 2, True),
    171: _Kind(_DELETE, 2, True),
}
"""Event types; MySQL's PARTIAL_UPDATE_ROWS (39) is not among them: its images are incomplete."""

_CODES = {(kind.action, kind.version): code for code, kind in KINDS.items() if not kind.compressed}


@dataclass(frozen=True, slots=True)
class Row:
    """One changed row; images as they are stored, each with its bitmap of NULLs in front.

    :ivar before: None for INSERT; :ivar after: None for DELETE
    """

    before: bytes | None
    after: bytes | None

    @property
    def size(self) -> int:
        return len(self.before or b"") + len(self.after or b"")


@dataclass(frozen=True, slots=True)
class Rows:
    """One row event, without its rows.

    :ivar whole: its images have every column
    :ivar present, present_after: bitmaps of the columns that the images have
    :ivar data: the images, uncompressed
    """

    table_id: int
    action: Action
    version: int
    flags: int
    width: int
    present: bytes
    present_after: bytes
    data: bytes

    @property
    def whole(self) -> bool:
        full = (1 << self.width) - 1
        return all(
            int.from_bytes(bitmap, "little") & full == full
            for bitmap in (self.present, self.present_after)
        )


def parse_rows(code: int, body: bytes) -> Rows:
    """Decode an event's body (no header, no checksum). :raises ValueError: it is damaged"""
    kind = KINDS[code]
    try:
        table, flags = _HEAD.unpack_from(body)
        position = _HEAD.size
        if kind.version == 2:
            position += int.from_bytes(body[position : position + 2], "little")
        width, position = packed(body, position)
        size = (width + 7) // 8
        present = present_after = body[position : position + size]
        position += size
        if kind.action is Action.UPDATE:
            present_after = body[position : position + size]
            position += size
        if len(present_after) != size:
            raise IndexError("it ends within a bitmap of columns")
        data = body[position:]
        if kind.compressed:
            data = uncompress(data)
    except (IndexError, struct.error, zlib.error) as error:
        raise ValueError(f"a row event that cannot be read: {error}") from error
    table_id = int.from_bytes(table, "little")
    return Rows(table_id, kind.action, kind.version, flags, width, present, present_after, data)


def uncompress(data: bytes) -> bytes:
    """What MariaDB's ``binlog_buf_compress`` wrote: a head byte, the length (big endian), zlib's bytes."""
    length_bytes = data[0] & 7
    length = int.from_bytes(data[1 : 1 + length_bytes], "big")
    plain = zlib.decompress(data[1 + length_bytes :])
    if not data[0] & 0x80 or len(plain) != length:
        raise IndexError("a compressed part of another length than it says")
    return plain


def split(rows: Rows, table: TableMap) -> Iterator[Row]:
    """The rows of an event, in order. :raises ValueError: they do not fit the table"""
    if len(table.columns) != rows.width:
        raise ValueError(f"rows of {rows.width} columns for {table} with {len(table.columns)}")
    before = _columns(table, rows.present)
    after = _columns(table, rows.present_after)
    data, position = rows.data, 0
    try:
        while position < len(data):
            start = position
            position = _end_of_image(data, position, before)
            first = data[start:position]
            if rows.action is Action.INSERT:
                yield Row(None, first)
            elif rows.action is Action.DELETE:
                yield Row(first, None)
            else:
                start = position
                position = _end_of_image(data, position, after)
                yield Row(first, data[start:position])
    except IndexError as error:
        raise ValueError(f"a row of {table} that cannot be read: {error}") from error


def undo(rows: Rows, changed: Sequence[Row], table: TableMap) -> tuple[int, bytes]:
    """Type and body of the event that undoes ``changed``, some rows of ``rows``.

    They are undone in reverse order: a row may have taken over the value of another in a unique key. The event ends a
    statement of its own, and foreign keys are not checked: a cascade was not logged.
    """
    body = [_HEAD.pack(table.table_id.to_bytes(6, "little"), STATEMENT_END | NO_FOREIGN_KEY_CHECKS)]
    if rows.version == 2:
        body.append(struct.pack("<H", 2))  # partitions are looked up again
    body += [pack(rows.width), rows.present_after]
    if rows.action is Action.UPDATE:
        body.append(rows.present)
    for row in reversed(changed):
        body += [row.after or b"", row.before or b""]
    return _CODES[_OPPOSITE[rows.action], rows.version], b"".join(body)


def pack(number: int) -> bytes:
    """A length-encoded integer."""
    if number < 251:
        return bytes([number])
    return b"\xfc" + struct.pack("<H", number)


def values(image: bytes, table: TableMap, present: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Number and stored bytes of each column in an image; None for NULL, strings and blobs without their length."""
    columns = _columns(table, present)
    position = (len(columns) + 7) // 8
    for number, (place, column) in enumerate(columns):
        if image[number // 8] >> number % 8 & 1:
            yield place, None
            continue
        start, end = _extent(image, position, column)
        yield place, image[start:end]
        position = end


def _columns(table: TableMap, present: bytes) -> list[tuple[int, Column]]:
    return [
        (number, column)
        for number, column in enumerate(table.columns)
        if present[number // 8] >> number % 8 & 1
    ]


def _end_of_image(data: bytes, position: int, columns: list[tuple[int, Column]]) -> int:
    nulls = position
    position += (len(columns) + 7) // 8
    for number, (_, column) in enumerate(columns):
        if not data[nulls + number // 8] >> number % 8 & 1:
            position = _extent(data, position, column)[1]
    if position > len(data):
        raise IndexError("it is longer than its event")
    return position


def _extent(data: bytes, position: int, column: Column) -> tuple[int, int]:
    """Where a value's bytes begin (after their length, if they have one) and end."""
    kind = column.type
    fixed = _FIXED_BYTES.get(kind)
    if fixed is not None:
        return position, position + fixed
    if kind in _WITH_FRACTION:
        return position, position + _WITH_FRACTION[kind] + (column.size + 1) // 2
    if kind in _STRINGS or kind in BLOBS:
        width = column.size if kind in BLOBS else 1 + (column.size > 255)
        start = position + width
        return start, start + int.from_bytes(data[position:start], "little")
    if kind is Type.NEWDECIMAL:
        return position, position + decimal_bytes(column.size, column.more)
    if kind is Type.BIT:
        return position, position + column.size + (column.more > 0)
    return position, position + column.size  # ENUM, SET


def decimal_bytes(precision: int, scale: int) -> int:
    whole, fraction = divmod(precision - scale, 9), divmod(scale, 9)
    return 4 * (whole[0] + fraction[0]) + DECIMAL_BYTES[whole[1]] + DECIMAL_BYTES[fraction[1]]
