"""Walks a binlog file of MySQL or MariaDB from event to event, in constant memory.

Bodies are skipped, except for the few bytes that show where a transaction begins and how it ends. A file left by a
crash may end in the middle of an event. Layouts and numbers: the servers' ``binlog_event.h`` (MySQL) and
``log_event.h`` (MariaDB).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

from holdfast.binlog.events.group import FileEnd, Group, GroupEnding, OpenGroup
from holdfast.binlog.events.gtid_event import (
    MARIADB_GTID,
    OPENING_TYPES,
    GroupOpening,
    MariadbFlags,
    parse_opening,
)
from holdfast.binlog.events.query_event import QueryHead, parse_query
from holdfast.core.gtid import Flavor
from holdfast.errors import Refused

MAGIC = b"\xfebin"
ENCRYPTED_MAGIC = b"\xfdbin"
HEADER = struct.Struct("<IBIIIH")
CHECKSUM_BYTES = 4
_unpack_header = HEADER.unpack_from
_skim_header = struct.Struct("<4xB4xI6x").unpack_from

QUERY = 2
STOP = 3
ROTATE = 4
INTVAR = 5
APPEND_BLOCK = 9
RAND = 13
USER_VAR = 14
FORMAT_DESCRIPTION = 15
XID = 16
BEGIN_LOAD_QUERY = 17
XA_PREPARE = 38
TRANSACTION_PAYLOAD = 40
BINLOG_CHECKPOINT = 161
START_ENCRYPTION = 164

IN_USE = 0x1
IN_USE_OFFSET = len(MAGIC) + 17
"""Offset of the flags of the format description: its checksum does not cover them."""

_UNKNOWN_OPENING = GroupOpening(None, MariadbFlags.TRANSACTIONAL)
_BEFORE_STATEMENT = frozenset({INTVAR, APPEND_BLOCK, RAND, USER_VAR, BEGIN_LOAD_QUERY})
_FORMAT_FIXED_BYTES = 2 + 50 + 4 + 1
_MARIADB_EVENT_TYPES = 160
_WINDOW_BYTES = 64 * 1024
_HEAD_BYTES = 4096


class Unreadable(Refused):
    """The file is encrypted, damaged or of an unknown kind; it was left as it is.

    :ivar path: the file
    :ivar offset: where reading ended
    """

    def __init__(self, path: Path, offset: int, what: str) -> None:
        super().__init__(f"{path} at {offset}: {what}")
        self.path = path
        self.offset = offset


_ENDING_TYPES = {
    XID: GroupEnding.XID,
    XA_PREPARE: GroupEnding.XA_PREPARE,
    TRANSACTION_PAYLOAD: GroupEnding.COMPRESSED,
}


class BinlogEvent(NamedTuple):
    """An event's header; ``offset`` continues past 4 GiB, where the header's own position wraps.

    A tuple, as making one is a third of the time that reading a large file takes.
    """

    offset: int
    size: int
    type: int
    server_id: int
    timestamp: int
    flags: int

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class Torn:
    """The file ends in the middle of the event that begins at ``offset``."""

    offset: int


@dataclass(frozen=True, slots=True)
class Format:
    """What the format description at the start of a file says about the rest of it."""

    flavor: Flavor
    server_version: str
    checksum: bool
    event: BinlogEvent

    @property
    def in_use(self) -> bool:
        return bool(self.event.flags & IN_USE)


class Binlog:
    """An open binlog file, its format description already read. Made by :func:`open_binlog`.

    :param positions: events carry the position in this very file at which they end
    """

    def __init__(self, path: Path, file: BinaryIO, positions: bool = True) -> None:
        self.path = path
        self._positions = positions
        self.size = os.fstat(file.fileno()).st_size
        self._file = file
        self._window = b""
        self._window_offset = 0
        self.format = self._read_format()

    def events(
        self, start: int = len(MAGIC), end: int | None = None
    ) -> Iterator[BinlogEvent | Torn]:
        """All events from the format description (or from ``start``) on; a torn end is the last item."""
        offset = start
        while offset < (self.size if end is None else end):
            event = self._header(offset)
            yield event
            if isinstance(event, Torn):
                return
            offset += event.size

    def last_transactions(self, count: int) -> int:
        """Where the last ``count`` transactions begin, or as many as there are: six times as fast as reading them."""
        begins: deque[int] = deque([len(MAGIC)], maxlen=count)
        offset = len(MAGIC)
        while True:
            start = offset - self._window_offset
            if start < 0 or start + HEADER.size > len(self._window):
                if len(self.read_at(offset, HEADER.size)) < HEADER.size:
                    break
                start = 0
            kind, size = _skim_header(self._window, start)
            if kind in OPENING_TYPES:
                begins.append(offset)
            if size < HEADER.size:
                break  # its end is torn, or it is damaged: groups() says which
            offset += size
        return begins[0]

    def groups(self, start: int = len(MAGIC)) -> Iterator[Group | FileEnd]:
        """All transactions in order, from one that begins at ``start`` on, then the one :class:`FileEnd`."""
        current: OpenGroup | None = None
        last_type = FORMAT_DESCRIPTION
        checkpoint: str | None = None
        for event in self.events(start):
            if isinstance(event, Torn):
                current = current or OpenGroup(event.offset, MARIADB_GTID, _UNKNOWN_OPENING, True)
                break
            last_type = event.type
            if event.type in OPENING_TYPES:
                if current is not None:
                    raise self._damaged(event.offset, "a transaction begins inside another")
                # events that were replicated keep the id of the server that wrote them first
                own = event.server_id == self.format.event.server_id
                current = OpenGroup(event.offset, event.type, self.opening(event), own)
            elif event.type == START_ENCRYPTION:
                raise Unreadable(self.path, event.offset, "the binlog is encrypted")
            elif event.type == BINLOG_CHECKPOINT:
                checkpoint = self._checkpoint(event)
            elif current is not None:
                current.events += 1
                ending = self.ending(current, event)
                if ending is not None:
                    yield current.closed(event.end, ending)
                    current = None
            elif event.type in (QUERY, XID):
                raise self._damaged(event.offset, "a change that belongs to no transaction")
        if current is not None:
            yield current.closed(self.size, GroupEnding.TORN)
        yield FileEnd(last_type, self.size, checkpoint)

    def ending(self, group: OpenGroup, event: BinlogEvent) -> GroupEnding | None:
        """How this event ends the group; None if the group continues."""
        if event.type in _ENDING_TYPES:
            return _ENDING_TYPES[event.type]
        if event.type in (ROTATE, STOP):
            raise self._damaged(event.offset, "the file was closed inside a transaction")
        if event.type == QUERY:
            query = self._query(event)
            if query.text in ("COMMIT", "ROLLBACK"):
                return GroupEnding.COMMIT
            first, group.query = group.query is None, group.query or query
            return GroupEnding.STATEMENT if first and self._stands_alone(group, query) else None
        if group.standalone and event.type not in _BEFORE_STATEMENT:
            return GroupEnding.STATEMENT
        return None

    def _stands_alone(self, group: OpenGroup, query: QueryHead) -> bool:
        """Whether a group's first query is the whole group. MySQL begins all others with BEGIN."""
        if self.format.flavor is Flavor.MARIADB:
            return group.standalone
        return query.text != "BEGIN" and not query.text.startswith("XA START")

    def _header(self, offset: int) -> BinlogEvent | Torn:
        start = offset - self._window_offset
        if start < 0 or start + HEADER.size > len(self._window):
            if len(self.read_at(offset, HEADER.size)) < HEADER.size:
                return Torn(offset)
            start = 0
        timestamp, kind, server_id, size, position, flags = _unpack_header(self._window, start)
        if size < HEADER.size:
            if self._zeros_from(offset):
                return Torn(offset)
            raise self._damaged(offset, f"an event of {size} bytes")
        if self._positions and position and position != (offset + size) & 0xFFFFFFFF:
            raise self._damaged(offset, f"an event that says it ends at {position}")
        if offset + size > self.size:
            return Torn(offset)
        return BinlogEvent(offset, size, kind, server_id, timestamp, flags)

    def opening(self, event: BinlogEvent) -> GroupOpening:
        if event.size > _HEAD_BYTES:
            raise self._damaged(event.offset, f"a GTID event of {event.size} bytes")
        raw = self.read_at(event.offset, event.size)
        if self.format.checksum:
            raw, stored = raw[:-CHECKSUM_BYTES], raw[-CHECKSUM_BYTES:]
            if zlib.crc32(raw) != int.from_bytes(stored, "little"):
                raise self._damaged(event.offset, "a GTID event whose checksum is wrong")
        try:
            return parse_opening(event.type, event.server_id, raw[HEADER.size :])
        except ValueError as error:
            raise self._damaged(event.offset, str(error)) from error

    def _query(self, event: BinlogEvent) -> QueryHead:
        trailer = CHECKSUM_BYTES if self.format.checksum else 0
        body_bytes = event.size - HEADER.size - trailer
        body = self.read_at(event.offset + HEADER.size, min(body_bytes, _HEAD_BYTES))
        try:
            query = parse_query(body)
            return query if body_bytes <= _HEAD_BYTES else replace(query, whole=False)
        except ValueError as error:
            raise self._damaged(event.offset, str(error)) from error

    def _checkpoint(self, event: BinlogEvent) -> str:
        body = self.read_at(event.offset + HEADER.size, min(event.size - HEADER.size, _HEAD_BYTES))
        name_bytes = int.from_bytes(body[:4], "little")
        return Path(os.fsdecode(body[4 : 4 + name_bytes])).name

    def _read_format(self) -> Format:
        magic = self.read_at(0, len(MAGIC))
        if magic == ENCRYPTED_MAGIC:
            raise Unreadable(self.path, 0, "the binlog is encrypted")
        if magic != MAGIC:
            raise Unreadable(self.path, 0, "this is no binlog file")
        event = self._header(len(MAGIC)) if self.size > len(MAGIC) else Torn(len(MAGIC))
        if isinstance(event, Torn) or event.type != FORMAT_DESCRIPTION or event.size > _HEAD_BYTES:
            raise self._damaged(len(MAGIC), "no format description")
        body = self.read_at(event.offset + HEADER.size, event.size - HEADER.size)
        if len(body) < _FORMAT_FIXED_BYTES + 1 + CHECKSUM_BYTES:
            raise self._damaged(event.offset, "a format description of an old server")
        if body[_FORMAT_FIXED_BYTES - 1] != HEADER.size:
            raise self._damaged(event.offset, "event headers of an unknown length")
        # By the number of event types that it knows: @@version can be overridden by a setting.
        types = len(body) - _FORMAT_FIXED_BYTES - 1 - CHECKSUM_BYTES
        return Format(
            flavor=Flavor.MARIADB if types >= _MARIADB_EVENT_TYPES else Flavor.MYSQL,
            server_version=body[2:52].rstrip(b"\0").decode("utf-8", "replace"),
            checksum=body[-1 - CHECKSUM_BYTES] == 1,
            event=event,
        )

    def _zeros_from(self, offset: int) -> bool:
        """Whether the rest is blank, as some file systems leave it after a power failure."""
        while offset < self.size:
            piece = self.read_at(offset, _WINDOW_BYTES)
            if piece.strip(b"\0"):
                return False
            offset += len(piece)
        return True

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes, fewer at the end of the file."""
        start = offset - self._window_offset
        if start < 0 or start + length > len(self._window):
            self._file.seek(offset)
            self._window = self._file.read(max(length, _WINDOW_BYTES))
            self._window_offset = offset
            start = 0
        return self._window[start : start + length]

    def _damaged(self, offset: int, found: str) -> Unreadable:
        return Unreadable(self.path, offset, f"the binlog is damaged ({found})")


@contextmanager
def open_binlog(path: Path) -> Iterator[Binlog]:
    """Open a file to which no server writes; :class:`Unreadable` if it is not a plain binlog."""
    with path.open("rb", buffering=0) as file:
        yield Binlog(path, file)
