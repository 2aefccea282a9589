"""Finds what a server has in its binlogs and the primary lacks, whether the server runs or not.

Everything from the first such transaction on is undone, also what the primary has: only then is the server back in a
state that it shared with the primary.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.binlog.events.changes import Opaque, RowChange, Statement, changes
from holdfast.binlog.events.group import FileEnd, Group, GroupEnding
from holdfast.binlog.events.gtid_event import Gtid, MariadbGtid
from holdfast.binlog.events.reader import Binlog, Unreadable, open_binlog
from holdfast.binlog.events.statements import changes_nothing
from holdfast.binlog.files.history import beginning
from holdfast.binlog.files.index import read_index
from holdfast.binlog.pending.rollback import leaves_nothing
from holdfast.core.gtid import Flavor, GtidSet, Interval

LARGEST_BYTES = 512 * 1024**2
"""Bytes to undo, at 10 to 15 MB/s (measured): with more than that a clone is faster, and a command would take too
long."""

_SYSTEM_SCHEMAS = frozenset({"mysql", "sys", "information_schema", "performance_schema"})
_HARMLESS = ("SAVEPOINT ",)
_TEXT_BYTES = 120


@dataclass(slots=True)
class Stretch:
    """The transactions of one file that must be undone; arrays, because there may be millions.

    :ivar lacking: for each, 1 when the primary lacks it
    """

    file: Path
    starts: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))
    lacking: bytearray = field(default_factory=bytearray)

    def errant(self) -> Iterator[tuple[int, int]]:
        """Where the transactions that the primary lacks begin and end."""
        for start, end, lacking in zip(self.starts, self.ends, self.lacking, strict=True):
            if lacking:
                yield start, end


@dataclass(frozen=True, slots=True)
class Errant:
    """Everything from the first transaction that the primary lacks to the end of the binlogs.

    :ivar stretches: oldest first
    :ivar transactions: how many the primary lacks; :ivar again: how many it has
    :ivar undone: GTIDs of both
    :ivar before: MariaDB: the last number of each stream just before the first of them; None if not known
    :ivar obstacle: why they cannot be undone, or ""
    """

    flavor: Flavor
    stretches: tuple[Stretch, ...]
    first: Gtid | None
    last: Gtid | None
    transactions: int
    again: int
    bytes: int
    undone: GtidSet
    before: GtidSet | None
    obstacle: str

    def __str__(self) -> str:
        count = f"{self.transactions} transaction{'' if self.transactions == 1 else 's'}"
        if self.first is None:
            return count
        names = f"{self.first}" if self.first == self.last else f"{self.first} … {self.last}"
        return f"{count} ({names})"


@dataclass(frozen=True, slots=True)
class Examination:
    """:ivar tables: (schema, table) that the transactions touched
    :ivar largest: bytes of the largest row event
    :ivar obstacle: why they cannot be undone, or ""
    """

    tables: frozenset[tuple[str, str]]
    largest: int
    obstacle: str


Check = Callable[[], None]
"""Called now and then; raises if there is no time left."""


def find(index_file: Path, present: GtidSet, check: Check = lambda: None) -> Errant:
    """What ``present``, the primary's GTIDs, does not have; ``transactions`` is 0 if there is nothing.

    A file that cannot be read is an obstacle; what the other files have is still found.

    :raises Refused: the index, or a file that it names, is missing
    """
    finding = _Finding(present, check)
    for file in _not_older_than_needed(read_index(index_file), present, finding):
        try:
            with open_binlog(file) as log:
                finding.read(log)
        except Unreadable as error:
            finding.hinder(str(error))
    return finding.found()


def examine(errant: Errant, check: Check = lambda: None) -> Examination:
    """Read everything that must be undone, event by event, unless there is an obstacle already."""
    tables: set[tuple[str, str]] = set()
    obstacle, largest = errant.obstacle, 0
    if errant.bytes > LARGEST_BYTES:
        obstacle = obstacle or f"they are {errant.bytes} bytes, more than {LARGEST_BYTES}"
    if obstacle:
        return Examination(frozenset(), 0, obstacle)
    for stretch in errant.stretches:
        with open_binlog(stretch.file) as log:
            for start, end in zip(stretch.starts, stretch.ends, strict=True):
                check()
                rows = False
                for change in changes(log, start, end):
                    if isinstance(change, RowChange):
                        rows = True
                        tables.add((change.table.schema, change.table.table))
                        largest = max(largest, change.body.end - change.body.start)
                    obstacle = obstacle or _obstacle(change, rows)
    return Examination(frozenset(tables), largest, obstacle)


def _obstacle(change: RowChange | Statement | Opaque, rows: bool) -> str:
    match change:
        case Opaque(what=what):
            return f"they hold {what}"
        case Statement(text=text):
            if text.startswith(_HARMLESS) or (text == "COMMIT" and not rows):
                return ""
            if changes_nothing(text):
                return ""
            if text in ("COMMIT", "ROLLBACK"):
                return "they changed tables that do not know transactions"
            return f"they hold a statement, {_short(text)}"
        case RowChange(table=table):
            if table.schema in _SYSTEM_SCHEMAS:
                return f"they changed the system table {table}"
            try:
                whole = change.rows().whole
            except ValueError as error:
                return str(error)
            return "" if whole else f"rows of {table} were not logged whole (binlog_row_image)"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_BYTES else line[:_TEXT_BYTES] + "…"


def _not_older_than_needed(
    files: tuple[Path, ...], present: GtidSet, finding: _Finding
) -> tuple[Path, ...]:
    """The files from the one on before which there is nothing that the primary lacks; all, if there is none."""
    for number in reversed(range(len(files))):
        try:
            before = beginning(files[number])
        except Unreadable as error:
            finding.hinder(str(error))
            continue
        if present.contains(before):
            finding.begin(before)
            return files[number:]
    if files:
        finding.hinder("the binlogs in which they begin are there no longer")
    return files


class _Finding:
    """What has been found so far."""

    def __init__(self, present: GtidSet, check: Check) -> None:
        self._present = present
        self._check = check
        self._stretches: list[Stretch] = []
        self._first: Gtid | None = None
        self._last: Gtid | None = None
        self._transactions = 0
        self._again = 0
        self._bytes = 0
        self._undone: dict[str, list[Interval]] = {}
        self._before: dict[str, tuple[Interval, ...]] | None = None
        self._obstacle = ""

    def begin(self, before: GtidSet) -> None:
        self._before = dict(before.streams)

    def hinder(self, obstacle: str) -> None:
        self._obstacle = self._obstacle or obstacle

    def read(self, log: Binlog) -> None:
        stretch = Stretch(log.path)
        for item in log.groups():
            self._check()
            if isinstance(item, FileEnd) or not item.complete:
                continue  # what was not written completely was rolled back, or is being written
            gtid = item.gtid
            lacking = gtid is None or not self._present.has(gtid.stream, gtid.sequence)
            if not lacking and not self._transactions:
                self._passed(gtid)
                continue
            if lacking:
                self._transactions += 1
                self._first = self._first or gtid
                self._last = gtid or self._last
            else:
                self._again += 1
            self._bytes += item.end - item.offset
            self._undo(gtid)
            self.hinder(_group_obstacle(log.format.flavor, item))
            stretch.starts.append(item.offset)
            stretch.ends.append(item.end)
            stretch.lacking.append(lacking)
        if stretch.starts:
            self._stretches.append(stretch)

    def found(self) -> Errant:
        flavor = self._present.flavor
        undone = {stream: tuple(spans) for stream, spans in self._undone.items()}
        return Errant(
            flavor=flavor,
            stretches=tuple(self._stretches),
            first=self._first,
            last=self._last,
            transactions=self._transactions,
            again=self._again,
            bytes=self._bytes,
            undone=GtidSet(flavor, {}).union(GtidSet(flavor, undone)),
            before=None if self._before is None else GtidSet(flavor, self._before),
            obstacle=self._obstacle,
        )

    def _passed(self, gtid: Gtid | None) -> None:
        if isinstance(gtid, MariadbGtid) and self._before is not None:
            self._before[gtid.stream] = ((1, gtid.sequence),)

    def _undo(self, gtid: Gtid | None) -> None:
        if gtid is None:
            return
        spans = self._undone.setdefault(gtid.stream, [])
        if spans and spans[-1][1] + 1 == gtid.sequence:
            spans[-1] = spans[-1][0], gtid.sequence
        else:
            spans.append((gtid.sequence, gtid.sequence))


def _group_obstacle(flavor: Flavor, group: Group) -> str:
    """The obstacle that the outside of a transaction shows; :func:`examine` looks inside."""
    if leaves_nothing(group) and group.gtid is not None:
        return ""
    if group.gtid is None:
        return f"there is a transaction without a GTID at {group.offset}"
    if group.xa or group.ending is GroupEnding.XA_PREPARE:
        return f"{group.gtid} is part of an XA transaction"
    if flavor is Flavor.MARIADB and group.ddl:
        text = group.query.text if group.query is not None else ""
        return f"{group.gtid} is a data definition, {_short(text)}"
    if not group.transactional:
        return f"{group.gtid} changed tables that do not know transactions"
    return ""
