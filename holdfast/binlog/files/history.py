"""What a binlog file says about the files before it: the GTIDs that were in the binlog when the file began.

MySQL's ``Previous_gtids`` event (35; ``Gtid_set::encode`` in ``rpl_gtid_set.cc``), MariaDB's ``Gtid_list`` (163).
"""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

from holdfast.binlog.events.reader import (
    CHECKSUM_BYTES,
    HEADER,
    START_ENCRYPTION,
    Binlog,
    Torn,
    Unreadable,
    open_binlog,
)
from holdfast.core.gtid import Flavor, GtidSet, parse

PREVIOUS_GTIDS = 35
GTID_LIST = 163
_COUNT_BITS = 0x0FFFFFFF
_EVENTS_BEFORE = 8
"""How many events of a file are searched for it: it stands right after the format description."""


def beginning(file: Path) -> GtidSet:
    """The GTIDs before those of this file.

    :raises Unreadable: it is encrypted or damaged, or does not say
    """
    with open_binlog(file) as log:
        return _beginning(log)


def _beginning(log: Binlog) -> GtidSet:
    for number, event in enumerate(log.events()):
        if isinstance(event, Torn) or number >= _EVENTS_BEFORE:
            break
        if event.type == START_ENCRYPTION:
            raise Unreadable(log.path, event.offset, "the binlog is encrypted")
        if event.type in (PREVIOUS_GTIDS, GTID_LIST):
            trailer = CHECKSUM_BYTES if log.format.checksum else 0
            body = log.read_at(event.offset + HEADER.size, event.size - HEADER.size - trailer)
            try:
                if event.type == GTID_LIST:
                    return _gtid_list(body)
                return _previous_gtids(body)
            except (struct.error, IndexError, ValueError) as error:
                what = f"a list of GTIDs that cannot be read: {error}"
                raise Unreadable(log.path, event.offset, what) from error
    raise Unreadable(log.path, 0, "it does not say which transactions came before it")


def _gtid_list(body: bytes) -> GtidSet:
    count = struct.unpack_from("<I", body)[0] & _COUNT_BITS
    gtids = [struct.unpack_from("<IIQ", body, 4 + 16 * number) for number in range(count)]
    return parse(Flavor.MARIADB, ",".join(f"{d}-{server}-{n}" for d, server, n in gtids))


def _previous_gtids(body: bytes) -> GtidSet:
    """With tags (since 8.3) the first and the last byte of the count are 1, and a tag follows each UUID."""
    head = struct.unpack_from("<Q", body)[0]
    tagged = head >> 56 == 1
    count = head >> 8 & 0xFFFFFFFFFFFF if tagged else head
    position = 8
    parts = []
    for _ in range(count):
        stream = str(UUID(bytes=body[position : position + 16]))
        position += 16
        if tagged:
            length = body[position] >> 1
            tag = body[position + 1 : position + 1 + length].decode("ascii")
            position += 1 + length
            stream += f":{tag}" if tag else ""
        intervals = struct.unpack_from("<Q", body, position)[0]
        position += 8
        for _ in range(intervals):
            low, behind = struct.unpack_from("<QQ", body, position)
            position += 16
            parts.append(f"{stream}:{low}-{behind - 1}")
    return parse(Flavor.MYSQL, ",".join(parts))
