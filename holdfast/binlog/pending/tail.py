"""Finds the pending tail: what a crashed primary's binlog holds and the new primary lacks.

Precondition, which no binlog can show: the server was primary under semi-sync AFTER_SYNC with a time-out that never
ended. Then transactions that it issued and the new primary lacks were never acknowledged, and are only prepared in the
engine. Transactions that were committed without an acknowledgement must be rewound instead; so must those that it had
applied from another server, as a replica.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from holdfast.binlog.events.group import FileEnd, Group
from holdfast.binlog.events.gtid_event import Gtid
from holdfast.binlog.events.reader import ROTATE, STOP, Format, Unreadable, open_binlog
from holdfast.binlog.files.index import read_index
from holdfast.binlog.pending.rollback import leaves_nothing, obstacle
from holdfast.core.gtid import Flavor


@dataclass(frozen=True, slots=True)
class TailPosition:
    """A position in a binlog at which a transaction begins."""

    file: Path
    offset: int


@dataclass(frozen=True, slots=True)
class Pieces:
    """The whole transactions of the tail in one file: ``start`` to ``end`` (exclusive)."""

    file: Path
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a tail holds, for operators and for the history.

    :ivar transactions: whole ones
    :ivar first: None if not even the first GTID event was written completely
    :ivar torn: it ends in a transaction that was not written completely
    :ivar streams: the streams of its transactions (see ``core/gtid.py``)
    """

    transactions: int
    first: Gtid | None
    last: Gtid | None
    torn: bool
    streams: frozenset[str] = frozenset()

    def __str__(self) -> str:
        names = f" ({self.first} … {self.last})" if self.first != self.last else f" ({self.first})"
        count = f"{self.transactions} transaction{'' if self.transactions == 1 else 's'}"
        return count + (names if self.first is not None else "") + (", torn" if self.torn else "")


@dataclass(frozen=True, slots=True)
class Clean:
    """Nothing is pending: start the server."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A tail that can be cut: save it, cut it, then start the server.

    :ivar start: where to cut
    :ivar pieces: what is to be saved, in order
    :ivar bytes: how much the cut removes
    """

    index: Path
    start: TailPosition
    pieces: tuple[Pieces, ...]
    summary: Summary
    bytes: int


class Remedy(Enum):
    """What remains to be done about a server whose tail cannot be cut."""

    REWIND = "rewind it (or clone it)"
    CLONE = "clone it"


@dataclass(frozen=True, slots=True)
class Unsafe:
    """There is a tail, or something unreadable, and cutting would be wrong.

    :ivar reason: one sentence that names the next step
    :ivar start: where the tail begins, if that is known
    """

    reason: str
    remedy: Remedy
    start: TailPosition | None
    summary: Summary | None


Tail = Clean | Pending | Unsafe


@dataclass(frozen=True, slots=True)
class _Missing:
    """What one file holds that the new primary lacks."""

    start: int
    whole_end: int
    summary: Summary


@dataclass(frozen=True, slots=True)
class _Scan:
    """The verdict on one file.

    :ivar present: how many of its transactions the new primary has
    :ivar came_back: the first transaction that the new primary has after one that it lacks
    :ivar applied: the first transaction that the new primary lacks and that this server did not issue itself
    :ivar obstacle: why the first transaction that cannot roll back cannot
    """

    file: Path
    format: Format
    end: FileEnd
    present: int
    missing: _Missing | None
    came_back: Gtid | None
    applied: Gtid | None
    obstacle: str | None


def inspect(index_file: Path, has: Callable[[Gtid], bool]) -> Tail:
    """Judge the binlogs of a server that is not running; ``has``: does the new primary have it?

    Files are read newest first, down to one of which the new primary has all transactions; a file without transactions
    says nothing. The memory needed does not depend on the files.

    :raises Refused: the index, or a file that it names, is missing
    """
    scans: list[_Scan] = []
    try:
        for file in reversed(read_index(index_file)):
            scan = _scan(file, has)
            scans.insert(0, scan)
            if scan.present and scan.missing is None:
                break
    except Unreadable as error:
        return Unsafe(f"{error}: clone this server", Remedy.CLONE, None, None)
    return _judge(index_file, scans)


def reaches_into(tail: Pending, commits: Iterable[tuple[str, int]]) -> str:
    """Why the engine has committed some of a tail, or "".

    Engine and binlog commit in one order: so something of the tail is committed exactly if a commit ends in it.

    :param commits: file and offset in the binlog at which committed transactions end, including the last ones
    """
    sizes = {piece.file.name: piece.end for piece in tail.pieces}
    starts = {piece.file.name: piece.start for piece in tail.pieces}
    for file, end in commits:
        if file in sizes and starts[file] < end <= sizes[file]:
            return f"its engine has committed what ends at {end} in {file}"
    return ""


def _scan(file: Path, has: Callable[[Gtid], bool]) -> _Scan:
    present = 0
    missing: _Missing | None = None
    came_back: Gtid | None = None
    applied: Gtid | None = None
    found: str | None = None
    with open_binlog(file) as log:
        end = FileEnd(0, log.size, None)
        for item in log.groups():
            if isinstance(item, FileEnd):
                end = item
            elif item.gtid is None and item.complete:
                raise Unreadable(file, item.offset, "a transaction without a GTID")
            elif item.complete and item.gtid is not None and has(item.gtid):
                present += 1
                if missing is not None and not leaves_nothing(item):
                    came_back = came_back or item.gtid
            else:
                missing = _grown(missing, item)
                found = found or obstacle(log.format.flavor, item)
                if item.complete and not item.own:
                    applied = applied or item.gtid
        return _Scan(file, log.format, end, present, missing, came_back, applied, found)


def _grown(missing: _Missing | None, group: Group) -> _Missing:
    if missing is None:
        missing = _Missing(group.offset, group.offset, Summary(0, group.gtid, group.gtid, False))
    was = missing.summary
    return _Missing(
        start=missing.start,
        whole_end=group.end if group.complete else missing.whole_end,
        summary=Summary(
            was.transactions + group.complete,
            was.first,
            group.gtid or was.last,
            not group.complete,
            was.streams | ({group.gtid.stream} if group.gtid is not None else frozenset()),
        ),
    )


def _judge(index: Path, scans: list[_Scan]) -> Tail:
    """The verdict on the files that were read, oldest first."""
    tail = [scan for scan in scans if scan.missing is not None]
    if not tail:
        return Clean()
    affected = scans[scans.index(tail[0]) :]
    missing = [scan.missing for scan in tail if scan.missing is not None]
    start = TailPosition(tail[0].file, missing[0].start)
    summary = Summary(
        transactions=sum(part.summary.transactions for part in missing),
        first=missing[0].summary.first,
        last=next((m.summary.last for m in reversed(missing) if m.summary.last), None),
        torn=missing[-1].summary.torn,
        streams=frozenset().union(*(part.summary.streams for part in missing)),
    )
    refusal = (
        _without_common_history(scans)
        or _interleaved(affected)
        or _irreversible(affected)
        or _replicated(affected)
        or _committed(affected)
    )
    if refusal is not None:
        reason, remedy = refusal
        return Unsafe(f"{summary}: {reason}; {remedy.value}", remedy, start, summary)
    return Pending(
        index=index,
        start=start,
        pieces=tuple(
            Pieces(scan.file, part.start, part.whole_end)
            for scan, part in zip(tail, missing, strict=True)
            if part.whole_end > part.start
        ),
        summary=summary,
        bytes=sum(scan.end.size for scan in affected) - start.offset,
    )


def _without_common_history(scans: list[_Scan]) -> tuple[str, Remedy] | None:
    """Why nothing may be cut, if nothing shows that the two servers ever had a common history; None if something
    does."""
    if any(scan.present for scan in scans):
        return None
    return "the new primary has nothing that is in these binlogs", Remedy.CLONE


def _interleaved(affected: list[_Scan]) -> tuple[str, Remedy] | None:
    for number, scan in enumerate(affected):
        later = scan.came_back or (number > 0 and scan.present > 0)
        if later:
            name = scan.came_back or f"transactions in {scan.file.name}"
            return f"the new primary has {name} behind them: histories differ", Remedy.CLONE
    return None


def _irreversible(affected: list[_Scan]) -> tuple[str, Remedy] | None:
    found = next((scan.obstacle for scan in affected if scan.obstacle), None)
    return (f"{found}, and cutting would not undo it", Remedy.CLONE) if found else None


def _replicated(affected: list[_Scan]) -> tuple[str, Remedy] | None:
    """An applier does not wait for acknowledgements: it commits right after it has written the binlog."""
    found = next((scan.applied for scan in affected if scan.applied), None)
    return (
        (f"{found} was applied from another server, so it is committed", Remedy.REWIND)
        if found
        else None
    )


def _committed(affected: list[_Scan]) -> tuple[str, Remedy] | None:
    """Whether a later start, stop or rotation has committed what was pending.

    Every file but the last must have been rotated away from, not left by a crash; the last must still be marked as in
    use, and not closed by a shutdown. (A start makes a new file at once, so a last file that ends in a rotation was
    left by a crash during the rotation.) MySQL rotates only once nothing is prepared any more, and recovers from its
    last binlog alone; MariaDB may rotate with transactions waiting, and its recovery goes back to the file that the
    last checkpoint names.
    """
    *earlier, last = affected
    if any(scan.end.last_type != ROTATE for scan in earlier):
        return "the server was started again since it crashed, which commits them", Remedy.REWIND
    if last.end.last_type == STOP:
        return "the server was shut down, which commits them", Remedy.REWIND
    rotated = bool(earlier) or last.end.last_type == ROTATE
    if rotated and last.format.flavor is Flavor.MYSQL:
        return "MySQL rotated its binlog behind them, so they are committed", Remedy.REWIND
    if last.end.last_type != ROTATE and not last.format.in_use:
        return "crash recovery has run since, which commits them", Remedy.REWIND
    checkpoint = next((s.end.checkpoint for s in reversed(affected) if s.end.checkpoint), None)
    if checkpoint is not None and checkpoint in {scan.file.name for scan in affected[1:]}:
        return f"recovery goes back to {checkpoint} only, so they are committed", Remedy.REWIND
    return None
