"""What a replica's relay log holds: whole transactions that it received, applied or not.

A relay log is a binlog with events of another server: they carry their position in the source's file, the source's
format description and rotations are among them, and a transaction may begin in one file and end in the next. A
transaction cut off by a lost connection is followed by the whole of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.binlog.events.group import OpenGroup
from holdfast.binlog.events.gtid_event import OPENING_TYPES, Gtid
from holdfast.binlog.events.reader import (
    FORMAT_DESCRIPTION,
    ROTATE,
    START_ENCRYPTION,
    STOP,
    Binlog,
    Torn,
    Unreadable,
)
from holdfast.core.gtid import Flavor, GtidSet, Interval

_BETWEEN = frozenset({FORMAT_DESCRIPTION, ROTATE, STOP})


def received(files: Sequence[Path], flavor: Flavor, check: Callable[[], None]) -> GtidSet:
    """All whole transactions in these files, oldest file first.

    :param check: called now and then; raises if there is no time left
    :raises Unreadable: a file is encrypted or damaged
    """
    found: list[Gtid] = []
    current: OpenGroup | None = None
    for path in files:
        check()
        if not path.stat().st_size:
            continue
        with path.open("rb", buffering=0) as file:
            log = Binlog(path, file, positions=False)
            if log.format.flavor is not flavor:
                raise Unreadable(path, 0, f"it is {log.format.flavor}'s")
            current = _received(log, current, found)
    return _as_set(found, flavor)


def _received(log: Binlog, current: OpenGroup | None, found: list[Gtid]) -> OpenGroup | None:
    """Add the transactions that end in this file.

    :param current: a transaction that began in an earlier file
    :returns: a transaction that has not ended
    """
    for event in log.events():
        if isinstance(event, Torn):
            break
        if event.type == START_ENCRYPTION:
            raise Unreadable(log.path, event.offset, "the relay log is encrypted")
        if event.type in OPENING_TYPES:
            current = OpenGroup(event.offset, event.type, log.opening(event), own=False)
        elif current is not None and event.type not in _BETWEEN and log.ending(current, event):
            if current.gtid is not None:
                found.append(current.gtid)
            current = None
    return current


def _as_set(found: Sequence[Gtid], flavor: Flavor) -> GtidSet:
    numbers: dict[str, set[int]] = {}
    for gtid in found:
        numbers.setdefault(gtid.stream, set()).add(gtid.sequence)
    if flavor is Flavor.MARIADB:
        return GtidSet(flavor, {stream: ((1, max(each)),) for stream, each in numbers.items()})
    return GtidSet(flavor, {stream: _runs(sorted(each)) for stream, each in numbers.items()})


def _runs(numbers: Sequence[int]) -> tuple[Interval, ...]:
    runs: list[Interval] = []
    for number in numbers:
        if runs and runs[-1][1] + 1 == number:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)
