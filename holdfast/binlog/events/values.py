"""Stored values as readable text; a value that cannot be decoded with certainty is shown as hex."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

from holdfast.binlog.events.rows import DECIMAL_BYTES
from holdfast.binlog.events.table_map import BLOBS, INTEGERS, Column, Type

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPES = str.maketrans(
    {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
)
_BINARY = frozenset({Type.JSON, Type.GEOMETRY, Type.VECTOR, Type.BLOB_COMPRESSED})


def text(raw: bytes | None, column: Column) -> str:
    """One value: NULL, a number, a quoted text or ``0x…``. Times of TIMESTAMP columns are UTC.

    An integer whose sign is not known, and matters, is shown in both ways.
    """
    if raw is None:
        return "NULL"
    try:
        return _text(raw, column)
    except (ValueError, IndexError, struct.error, OverflowError):
        return _hex(raw)


def _text(raw: bytes, column: Column) -> str:
    kind = column.type
    if kind in INTEGERS:
        return _integer(raw, column.unsigned)
    if kind is Type.NEWDECIMAL:
        return _decimal(raw, column.size, column.more)
    if kind is Type.FLOAT:
        return f"{struct.unpack('<f', raw)[0]:.9g}"
    if kind is Type.DOUBLE:
        return repr(struct.unpack("<d", raw)[0])
    if kind is Type.YEAR:
        return str(1900 + raw[0]) if raw[0] else "0000"
    if kind in (Type.DATE, Type.NEWDATE):
        number = int.from_bytes(raw, "little")
        return f"'{number >> 9:04}-{number >> 5 & 15:02}-{number & 31:02}'"
    if kind is Type.DATETIME2:
        return _datetime(raw, column.size)
    if kind is Type.TIMESTAMP2:
        return _timestamp(raw, column.size)
    if kind is Type.TIME2:
        return _time(raw, column.size)
    if kind is Type.BIT:
        return f"b'{int.from_bytes(raw, 'big'):b}'"
    if kind in (Type.ENUM, Type.SET):
        return str(int.from_bytes(raw, "little"))
    if kind is Type.VARCHAR_COMPRESSED or kind in _BINARY:
        return _hex(raw)
    if kind in BLOBS or kind in (Type.VARCHAR, Type.VAR_STRING, Type.STRING):
        return _quoted(raw)
    return _hex(raw)


def _integer(raw: bytes, unsigned: bool | None) -> str:
    signed = int.from_bytes(raw, "little", signed=True)
    positive = int.from_bytes(raw, "little")
    if unsigned is None and signed < 0:
        return f"{signed} (or unsigned: {positive})"
    return str(positive if unsigned else signed)


def _quoted(raw: bytes) -> str:
    said = raw.decode()  # what is not UTF-8 is shown as hex
    if any((ord(char) < 32 and char not in "\n\r\t") or ord(char) == 127 for char in said):
        return _hex(raw)
    return f"'{said.translate(_ESCAPES)}'"


def _hex(raw: bytes) -> str:
    return f"0x{raw.hex().upper()}" if raw else "''"


def _decimal(raw: bytes, precision: int, scale: int) -> str:
    """Groups of nine digits, big endian; the first bit is the sign, negative values have all bits inverted."""
    negative = not raw[0] & 0x80
    digits = bytearray(raw)
    digits[0] ^= 0x80
    if negative:
        digits = bytearray(byte ^ 0xFF for byte in digits)
    whole, fraction = precision - scale, scale
    sizes = [whole % 9, *[9] * (whole // 9)]
    parts, position = [], 0
    for count in (*sizes, *[9] * (fraction // 9), fraction % 9):
        width = DECIMAL_BYTES[count]
        number = int.from_bytes(digits[position : position + width], "big")
        parts.append(f"{number:0{count}}" if count else "")
        position += width
    left = "".join(parts[: len(sizes)]).lstrip("0") or "0"
    right = "".join(parts[len(sizes) :])
    return f"{'-' if negative else ''}{left}{'.' if right else ''}{right}"


def _fraction(raw: bytes, digits: int) -> tuple[int, str]:
    """The stored fraction as microseconds, and as text."""
    if not digits:
        return 0, ""
    micros = int.from_bytes(raw, "big") * 10 ** (6 - 2 * ((digits + 1) // 2))
    return micros, f".{micros:06}"[: digits + 1]


def _datetime(raw: bytes, digits: int) -> str:
    number = int.from_bytes(raw[:5], "big") - 0x8000000000
    months, clock = number >> 22, number & 0x1FFFF
    day, (year, month) = number >> 17 & 31, divmod(months, 13)
    hour, minute, second = clock >> 12, clock >> 6 & 63, clock & 63
    fraction = _fraction(raw[5:], digits)[1]
    return f"'{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}'"


def _timestamp(raw: bytes, digits: int) -> str:
    seconds = int.from_bytes(raw[:4], "big")
    if not seconds:
        return "'0000-00-00 00:00:00'"
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"'{moment:%Y-%m-%d %H:%M:%S}{_fraction(raw[4:], digits)[1]}'"


def _time(raw: bytes, digits: int) -> str:
    """A negative time is stored with its fraction as one number, counted down."""
    width = (digits + 1) // 2
    number = int.from_bytes(raw, "big") - (0x800000 << 8 * width)
    sign, number = ("-" if number < 0 else ""), abs(number)
    clock, rest = number >> 8 * width, number & ((1 << 8 * width) - 1)
    fraction = _fraction(rest.to_bytes(width, "big"), digits)[1] if width else ""
    return f"'{sign}{clock >> 12 & 0x3FF:02}:{clock >> 6 & 63:02}:{clock & 63:02}{fraction}'"
