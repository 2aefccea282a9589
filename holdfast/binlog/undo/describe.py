"""Writes transactions as readable text: what was changed, when, by which server, row by row."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from holdfast.binlog.events.changes import Opaque, RowChange, Statement, changes
from holdfast.binlog.events.gtid_event import OPENING_TYPES, parse_opening
from holdfast.binlog.events.reader import HEADER, Binlog, Torn, open_binlog
from holdfast.binlog.events.rows import split, values
from holdfast.binlog.events.table_map import NUMERIC, Column, TableMap, Type
from holdfast.binlog.events.values import text
from holdfast.binlog.files.durable import sync_folder
from holdfast.binlog.pending.errant import Check, Errant

DESCRIBED_BYTES = 128 * 1024**2
"""Bytes of the binlog that are described, at 4 to 5 MB/s (measured): the rest is only in the raw file, and the text
says so."""
SHOWN_BYTES = 65536
"""Bytes shown of one value: the rest is in the raw file."""

_LABEL = re.compile(r"'((?:[^']|'')*)'")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ColumnName:
    """A column as the server has it now.

    :ivar type: as in ``information_schema.columns.COLUMN_TYPE``
    """

    name: str
    type: str


Lookup = Callable[[str, str], Sequence[ColumnName]]
"""The columns of a table (schema, table), in order; none if they are not known."""


def nameless(schema: str, table: str) -> Sequence[ColumnName]:
    """For a server that cannot be asked: columns are shown as ``@1``, ``@2`` …"""
    return ()


def describe(
    errant: Errant,
    target: Path,
    heading: Sequence[str],
    columns: Lookup,
    check: Check = lambda: None,
) -> None:
    """Write the transactions that the primary lacks; when this returns, the file is complete, on disk and has its name.

    Needs as much memory as the largest row event.
    """
    known: dict[tuple[str, str], Sequence[ColumnName]] = {}

    def lookup(schema: str, table: str) -> Sequence[ColumnName]:
        if (schema, table) not in known:
            known[schema, table] = columns(schema, table)
        return known[schema, table]

    part = target.with_name(f".{target.name}.part")
    with part.open("w", encoding="utf-8", errors="backslashreplace") as output:
        os.fchmod(output.fileno(), 0o600)
        for line in heading:
            output.write(f"# {line}\n")
        left = DESCRIBED_BYTES
        for stretch in errant.stretches:
            with open_binlog(stretch.file) as log:
                for start, end in stretch.errant():
                    if end - start <= left:
                        _transaction(log, start, end, output, lookup, check)
                        left -= end - start
                    else:
                        left = 0
        if not left:
            output.write("\nMORE TRANSACTIONS than are shown here are in the binlog file.\n")
        output.flush()
        os.fsync(output.fileno())
    part.replace(target)
    sync_folder(target.parent)


def _transaction(
    log: Binlog, start: int, end: int, output: TextIO, lookup: Lookup, check: Check
) -> None:
    output.write(f"\nTRANSACTION {_opening(log, start)}\n")
    for change in changes(log, start, end):
        check()
        for line in _lines(change, lookup):
            output.write(f"  {line}\n")


def _opening(log: Binlog, start: int) -> str:
    event = next(log.events(start))
    if isinstance(event, Torn) or event.type not in OPENING_TYPES:
        return "without a GTID"
    body = log.read_at(start + HEADER.size, event.size - HEADER.size)
    gtid = parse_opening(event.type, event.server_id, body).gtid
    at = datetime.fromtimestamp(event.timestamp, UTC)
    return f"{gtid or 'without a GTID'} at {at:%Y-%m-%d %H:%M:%S} UTC by server {event.server_id}"


def _lines(change: RowChange | Statement | Opaque, lookup: Lookup) -> Iterator[str]:
    match change:
        case Statement(text="COMMIT"):
            return
        case Statement(schema=schema, text=said):
            yield f"STATEMENT {f'in {schema}' if schema else ''}: {_one_line(said)}"
        case Opaque(what=what):
            yield f"NOT SHOWN, see the binlog file: {what}"
        case RowChange():
            yield from _rows(change, lookup)


def _rows(change: RowChange, lookup: Lookup) -> Iterator[str]:
    table = change.table
    columns = _shown(table, lookup(table.schema, table.table))
    try:
        rows = change.rows()
        for row in split(rows, table):
            images = [
                _image(image, columns, table, present)
                for image, present in (
                    (row.before, rows.present),
                    (row.after, rows.present_after),
                )
                if image is not None
            ]
            yield f"{rows.action.value} {table} {' -> '.join(images)}"
    except ValueError as error:
        yield f"NOT DECODED {table}, see the binlog file ({error}): 0x{_raw(change).hex()}"


def _raw(change: RowChange) -> bytes:
    return change.body._replace(end=min(change.body.end, change.body.start + SHOWN_BYTES)).read()


def _image(image: bytes, columns: Sequence[_Shown], table: TableMap, present: bytes) -> str:
    shown = (
        f"{columns[number].name}={_value(raw, columns[number])}"
        for number, raw in values(image, table, present)
    )
    return f"({', '.join(shown)})"


def _value(raw: bytes | None, shown: _Shown) -> str:
    if raw is not None and len(raw) > SHOWN_BYTES:
        digest = hashlib.sha256(raw).hexdigest()
        return f"0x{raw[:64].hex().upper()}… ({len(raw)} bytes, sha256 {digest})"
    if raw is None or shown.column.type not in (Type.ENUM, Type.SET):
        return text(raw, shown.column)
    number = int.from_bytes(raw, "little")
    if not shown.labels:
        return f"{number} (number of the {shown.column.type.name} value)"
    if shown.column.type is Type.SET:
        return f"'{','.join(x for n, x in enumerate(shown.labels) if number >> n & 1)}'"
    return f"'{shown.labels[number - 1]}'" if 0 < number <= len(shown.labels) else "''"


@dataclass(frozen=True, slots=True)
class _Shown:
    """A column as it is shown. :ivar labels: of an ENUM or SET, if they are known"""

    name: str
    column: Column
    labels: tuple[str, ...] = ()


def _shown(table: TableMap, known: Sequence[ColumnName]) -> list[_Shown]:
    """The columns with what the server knows of them now, if it still has the same number."""
    if len(known) != len(table.columns):
        return [_Shown(c.name or f"@{number}", c) for number, c in enumerate(table.columns, 1)]
    shown = []
    for column, now in zip(table.columns, known, strict=True):
        sure = column
        if column.type in NUMERIC and column.unsigned is None:
            sure = replace(column, unsigned="unsigned" in now.type.lower())
        labels = tuple(found.replace("''", "'") for found in _LABEL.findall(now.type))
        shown.append(_Shown(now.name, sure, labels))
    return shown


def _one_line(said: str) -> str:
    return _UNPRINTABLE.sub("?", " ".join(said.split("\n")))
