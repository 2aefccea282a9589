"""The TABLE_MAP event: which table the row events after it belong to, and how its columns are stored.

Layout: MySQL's ``Table_map_event`` (``libs/mysql/binlog/event/rows_event.h``); MariaDB's is the same, with two column
types of its own and without optional metadata unless ``binlog_row_metadata`` requests it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum


class Type(IntEnum):
    """Column types as a binlog has them (``enum_field_types``)."""

    TINY = 1
    SHORT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    NULL = 6
    TIMESTAMP = 7
    LONGLONG = 8
    INT24 = 9
    DATE = 10
    TIME = 11
    DATETIME = 12
    YEAR = 13
    NEWDATE = 14
    VARCHAR = 15
    BIT = 16
    TIMESTAMP2 = 17
    DATETIME2 = 18
    TIME2 = 19
    BLOB_COMPRESSED = 140
    VARCHAR_COMPRESSED = 141
    VECTOR = 242
    JSON = 245
    NEWDECIMAL = 246
    ENUM = 247
    SET = 248
    TINY_BLOB = 249
    MEDIUM_BLOB = 250
    LONG_BLOB = 251
    BLOB = 252
    VAR_STRING = 253
    STRING = 254
    GEOMETRY = 255


INTEGERS = {Type.TINY: 1, Type.SHORT: 2, Type.INT24: 3, Type.LONG: 4, Type.LONGLONG: 8}
"""Bytes of each."""

NUMERIC = frozenset({*INTEGERS, Type.FLOAT, Type.DOUBLE, Type.NEWDECIMAL, Type.YEAR})
"""Types that have a bit in the optional metadata about signs."""

BLOBS = frozenset(
    {
        Type.TINY_BLOB,
        Type.MEDIUM_BLOB,
        Type.LONG_BLOB,
        Type.BLOB,
        Type.BLOB_COMPRESSED,
        Type.JSON,
        Type.GEOMETRY,
        Type.VECTOR,
    }
)
"""Types stored after a length; the metadata says how many bytes that length has."""

_ONE_BYTE = BLOBS | {Type.FLOAT, Type.DOUBLE, Type.TIME2, Type.DATETIME2, Type.TIMESTAMP2}
_LITTLE = frozenset({Type.VARCHAR, Type.VAR_STRING, Type.VARCHAR_COMPRESSED})
_PAIR = frozenset({Type.STRING, Type.ENUM, Type.SET, Type.NEWDECIMAL, Type.BIT})

_SIGNEDNESS, _COLUMN_NAME = 1, 4


class UnknownColumn(ValueError):
    """An unknown column type: where its values end cannot be known."""


@dataclass(frozen=True, slots=True)
class Column:
    """How one column is stored.

    :ivar size: as the metadata has it: the longest value in bytes (strings), bytes of the length (blobs), bytes (ENUM,
        SET), whole bytes (BIT), precision (NEWDECIMAL), digits of the fraction (TIME2 and its like)
    :ivar more: bits beyond whole bytes (BIT), scale (NEWDECIMAL)
    :ivar unsigned: None if the metadata does not say
    :ivar name: "" if the metadata does not say
    """

    type: Type
    size: int = 0
    more: int = 0
    unsigned: bool | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class TableMap:
    """:ivar table_id: the number by which row events of the same statement refer to it"""

    table_id: int
    schema: str
    table: str
    columns: tuple[Column, ...]

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}"


def parse_table_map(body: bytes) -> TableMap:
    """Decode the event's body (no header, no checksum).

    :raises ValueError: it is damaged; :raises UnknownColumn: it has a column of an unknown type
    """
    try:
        return _parse(body)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"a table map that cannot be read: {error}") from error


def packed(body: bytes, position: int) -> tuple[int, int]:
    """A length-encoded integer, and the position after it."""
    first = body[position]
    if first < 251:
        return first, position + 1
    width = {252: 2, 253: 3, 254: 8}.get(first)
    if width is None or position + 1 + width > len(body):
        raise IndexError(f"no integer at {position}")
    end = position + 1 + width
    return int.from_bytes(body[position + 1 : end], "little"), end


def _parse(body: bytes) -> TableMap:
    table_id = int.from_bytes(body[:6], "little")
    schema, position = _name(body, 8)
    table, position = _name(body, position)
    count, position = packed(body, position)
    types = body[position : position + count]
    if len(types) != count:
        raise IndexError("fewer column types than columns")
    meta_bytes, position = packed(body, position + count)
    meta = body[position : position + meta_bytes]
    position += meta_bytes + (count + 7) // 8
    names, unsigned = _optional(body, position, types)
    columns = []
    at = 0
    for number, code in enumerate(types):
        column, at = _column(code, meta, at, unsigned.get(number), names.get(number, ""))
        columns.append(column)
    return TableMap(table_id, schema, table, tuple(columns))


def _name(body: bytes, position: int) -> tuple[str, int]:
    end = position + 1 + body[position]
    return body[position + 1 : end].decode(), end + 1


def _column(
    code: int, meta: bytes, at: int, unsigned: bool | None, name: str
) -> tuple[Column, int]:
    try:
        kind = Type(code)
    except ValueError:
        raise UnknownColumn(f"a column of type {code}, which is not known here") from None
    if kind in _ONE_BYTE:
        return Column(kind, meta[at], 0, unsigned, name), at + 1
    if kind in _LITTLE:
        return Column(kind, meta[at] | meta[at + 1] << 8, 0, unsigned, name), at + 2
    if kind in _PAIR:
        first, second = meta[at], meta[at + 1]
        if kind is Type.STRING:
            return _string(first, second, name), at + 2
        if kind is Type.BIT:
            return Column(kind, second, first, None, name), at + 2
        return Column(kind, first, second, unsigned, name), at + 2
    return Column(kind, 0, 0, unsigned, name), at


def _string(first: int, second: int, name: str) -> Column:
    """CHAR, BINARY, ENUM and SET share a code; two bits of a length above 255 hide in the real one."""
    if first & 0x30 != 0x30:
        kind, size = Type(first | 0x30), second | ((first & 0x30) ^ 0x30) << 4
    else:
        kind, size = Type(first), second
    return Column(kind, size, 0, None, name)


def _optional(body: bytes, position: int, types: bytes) -> tuple[dict[int, str], dict[int, bool]]:
    """Column names and signs, as far as they are present."""
    names: dict[int, str] = {}
    unsigned: dict[int, bool] = {}
    while position < len(body):
        field = body[position]
        length, start = packed(body, position + 1)
        value, position = body[start : start + length], start + length
        if field == _SIGNEDNESS:
            numbers = [n for n, code in enumerate(types) if code in NUMERIC]
            for bit, number in enumerate(numbers):
                unsigned[number] = bool(value[bit // 8] & (0x80 >> bit % 8))
        elif field == _COLUMN_NAME:
            at = 0
            for number in range(len(types)):
                size, at = packed(value, at)
                names[number], at = value[at : at + size].decode(), at + size
    return names, unsigned
