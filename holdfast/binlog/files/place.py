"""What a server had logged when it had written its binlog up to some position."""

from __future__ import annotations

from pathlib import Path

from holdfast.binlog.events.group import FileEnd
from holdfast.binlog.events.reader import open_binlog
from holdfast.binlog.files.history import beginning
from holdfast.core.gtid import Flavor, GtidSet, Interval


def logged_at(path: Path, offset: int) -> GtidSet:
    """The GTIDs before and within the first ``offset`` bytes of this file. On MariaDB that is ``@@gtid_binlog_state``
    at that moment, which no backup contains: backups name only the last GTID of each domain.

    :raises Unreadable: the file is damaged, encrypted, or does not say what came before it
    """
    before = beginning(path)
    streams: dict[str, list[Interval]] = {}
    with open_binlog(path) as log:
        flavor = log.format.flavor
        for item in log.groups():
            if isinstance(item, FileEnd) or item.offset >= offset:
                break
            if item.gtid is not None and item.complete:
                spans = streams.setdefault(item.gtid.stream, [])
                number = item.gtid.sequence
                if flavor is Flavor.MARIADB:
                    spans[:] = [(1, number)]
                elif spans and spans[-1][1] + 1 == number:
                    spans[-1] = (spans[-1][0], number)
                else:
                    spans.append((number, number))
    return before.union(GtidSet(flavor, {name: tuple(spans) for name, spans in streams.items()}))
