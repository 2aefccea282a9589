"""The events that undo a part of a binlog, in the order in which they must be applied.

The images of the rows are inverted, the last change first: what was inserted is deleted, what was deleted is inserted,
what was updated goes back to what it was. ``mariadb-binlog --flashback`` does the same, but neither for all types of
MySQL's nor as one transaction.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack

from holdfast.binlog.events.changes import TABLE_MAP, RowChange, changes
from holdfast.binlog.events.reader import CHECKSUM_BYTES, HEADER, Binlog, open_binlog
from holdfast.binlog.events.rows import Row, split, undo
from holdfast.binlog.pending.errant import Errant
from holdfast.binlog.pending.save import format_description

EVENT_BYTES = 128 * 1024
"""Bytes of images in one event, unless a single row has more."""
STATEMENT_BYTES = 512 * 1024
"""Bytes of events in one BINLOG statement, unless a single one is larger."""


def format_statement(errant: Errant) -> str:
    """The BINLOG statement that must come first: it gives the format of all the others."""
    with open_binlog(errant.stretches[-1].file) as log:
        return _binlog_statement(format_description(log))


def undo_statements(errant: Errant, one_by_one: bool = False) -> Iterator[str]:
    """BINLOG statements that undo everything, to be run in one transaction after :func:`format_statement`.

    :param one_by_one: one row per event. MySQL looks rows of a table without a primary key up in batches, in an order
        of its own, in which unique keys may collide
    :raises ValueError: an event cannot be read; :func:`holdfast.binlog.pending.errant.examine` would have reported that
    """
    with ExitStack() as stack:
        newest = stack.enter_context(open_binlog(errant.stretches[-1].file))
        encoder = _Encoder(newest)
        pieces: list[bytes] = []
        size = 0
        for piece in _events(errant, encoder, one_by_one):
            if pieces and size + len(piece) > STATEMENT_BYTES:
                yield _binlog_statement(*pieces)
                pieces, size = [], 0
            pieces.append(piece)
            size += len(piece)
        if pieces:
            yield _binlog_statement(*pieces)


def _events(errant: Errant, encoder: _Encoder, one_by_one: bool) -> Iterator[bytes]:
    for stretch in reversed(errant.stretches):
        with open_binlog(stretch.file) as log:
            for start, end in zip(reversed(stretch.starts), reversed(stretch.ends), strict=True):
                done = [c for c in changes(log, start, end) if isinstance(c, RowChange)]
                for change in reversed(done):
                    yield from _inverse(change, encoder, one_by_one)


def _inverse(change: RowChange, encoder: _Encoder, one_by_one: bool) -> Iterator[bytes]:
    """Each event with its own table map, so that it may stand in any BINLOG statement."""
    rows = change.rows()
    table = encoder.event(TABLE_MAP, change.table_body)
    chunks: list[list[Row]] = []
    size = 0
    for row in split(rows, change.table):
        if not chunks or one_by_one or size + row.size > EVENT_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(row)
        size += row.size
    for chunk in reversed(chunks):
        yield table + encoder.event(*undo(rows, chunk, change.table))


class _Encoder:
    """Makes events in the layout that the format description gives."""

    def __init__(self, log: Binlog) -> None:
        self._checksum = log.format.checksum
        self._server_id = log.format.event.server_id

    def event(self, code: int, body: bytes) -> bytes:
        size = HEADER.size + len(body) + (CHECKSUM_BYTES if self._checksum else 0)
        raw = HEADER.pack(0, code, self._server_id, size, 0, 0) + body
        return raw + (struct.pack("<I", zlib.crc32(raw)) if self._checksum else b"")


def _binlog_statement(*events: bytes) -> str:
    # each event in base64 on a line of its own, as the servers' tools write it
    return f"BINLOG '{chr(10).join(base64.b64encode(event).decode() for event in events)}'"
