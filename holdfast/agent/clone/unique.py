"""What a server holds that no other member has: judged before its data directory is given up.

The rule: data is removed only if the primary has it too, or it was saved first, or an operator ordered its removal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from holdfast.agent.disk import datadir as files
from holdfast.binlog.events.group import FileEnd
from holdfast.binlog.events.reader import Unreadable, open_binlog
from holdfast.binlog.files.history import beginning
from holdfast.binlog.files.index import read_index
from holdfast.binlog.files.place import logged_at
from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.errors import Refused

HEADLESS_BYTES = {Flavor.MARIADB: 290, Flavor.MYSQL: 150}
"""A shorter file has no room for a transaction: the server died when it had just begun the file."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """:ivar unique: the binlogs hold transactions that the primary lacks: they must be saved before the data is removed
    :ivar obstacle: why the data must not be removed without an order, or \"\"
    """

    unique: bool = False
    obstacle: str = ""


def judge(
    flavor: Flavor,
    datadir: Path,
    index: Path,
    present: GtidSet,
    executed: GtidSet | None,
    copied: GtidSet,
    check: Callable[[], None],
    ours: bool = False,
) -> Holdings:
    """Judge a data directory; the server may run, as long as no client writes on it.

    :param present: what the primary has, and all that it will ever issue
    :param executed: what a running server says that it has executed; None for one that is down
    :param copied: what the data had when it was copied here: MySQL's binlogs do not contain it
    :param check: called now and then; raises when there is no time left
    :param ours: the data is this cluster's for certain, and a loss of power took what had not been flushed, or an
        operator reset its binary log: binlogs that are missing, damaged or new had held what the server had received
    """
    binlogs = index.exists() or any(index.parent.glob(f"{index.stem}.[0-9]*"))
    empty = files.is_empty(datadir)
    if empty and not binlogs:
        return Holdings()
    if not empty and not binlogs and not files.is_server_s(datadir):
        return Holdings(obstacle=f"{datadir} holds files, and none of a database server")
    data = files.user_data(datadir, flavor)
    if executed is not None and present.contains(executed):
        history = executed.union(copied)
        return Holdings(obstacle="" if ours else _foreign(flavor, datadir, data, history, present))
    if executed is None and not binlogs:
        no_binlogs = data and not ours
        return Holdings(
            obstacle=f"it holds data ({data}), and has no binlogs" if no_binlogs else ""
        )
    try:
        history, lost, unique = _read(flavor, index, present, check)
    except (Refused, OSError) as error:
        check()
        return Holdings(obstacle="" if ours else f"what it has is not known: {error}")
    history = history.union(copied)
    if executed is not None:
        lost = lost.union(executed.subtract(present).subtract(history))
        history = history.union(executed)
    obstacle = "" if ours else _foreign(flavor, datadir, data, history, present)
    if not obstacle and lost:
        obstacle = (
            f"the primary lacks transactions ({lost}) that it has and its binlogs do not hold"
        )
    return Holdings(unique, obstacle)


def _foreign(flavor: Flavor, datadir: Path, data: str, history: GtidSet, present: GtidSet) -> str:
    """Why this is another cluster's data, or "". On MariaDB equal GTIDs prove nothing: by default every server numbers
    from 0-1-1."""
    if not data:
        return ""
    shared = history.subtract(history.subtract(present))
    if not shared:
        return f"it holds data ({data}), and its history has nothing in common with the cluster's"
    if flavor is Flavor.MARIADB and not files.has_proof(datadir):
        return (
            f"it holds data ({data}), and no table holdfast.proof, which the cluster's members have"
        )
    return ""


def _read(
    flavor: Flavor, index: Path, present: GtidSet, check: Callable[[], None]
) -> tuple[GtidSet, GtidSet, bool]:
    """Return all that was ever logged, as far as the newest file tells; what the primary lacks and no file holds any
    more; and whether the files hold what the primary lacks. Reads the newest file first, back to a file before which
    there is nothing that the primary lacks."""
    nothing = parse(flavor, "")
    history: GtidSet | None = None
    lost, unique = nothing, False
    for file in reversed(read_index(index)):
        check()
        try:
            before = beginning(file)
        except Unreadable:
            if history is None and file.stat().st_size < HEADLESS_BYTES[flavor]:
                continue
            raise
        if before.flavor is not flavor:
            raise Unreadable(file, 0, f"it is {before.flavor}'s")
        if history is None:
            history = logged_at(file, file.stat().st_size)
        unique |= _lacks(file, present, check)
        lost = before.subtract(present)
        if not lost:
            break
    return history or nothing, lost, unique


def _lacks(file: Path, present: GtidSet, check: Callable[[], None]) -> bool:
    """Whether the file holds transactions that the primary lacks."""
    lacks = False
    with open_binlog(file) as log:
        for item in log.groups():
            if isinstance(item, FileEnd) or not item.complete:
                continue
            check()
            if item.gtid is None:
                raise Unreadable(file, item.offset, "a transaction without a GTID")
            lacks |= not present.has(item.gtid.stream, item.gtid.sequence)
    return lacks
