"""What clients were told, and what the servers held at the end: all that the checker judges by.

Every moment is CLOCK_MONOTONIC in seconds: clients, faults and checker run on one machine, whose network namespaces
share that clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar


class Outcome(StrEnum):
    """REFUSED: not done for certain: nothing was sent, or the server refused. UNKNOWN: it may have been done. RELEASED:
    an administrator made the server commit it without any acknowledgement: it may be there, and may vanish, also after
    it was seen."""

    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Write:
    """One transaction: the rows ``first`` to ``last`` of this writer, which no other writes, and which are never
    rewritten.

    A writer does one thing at a time, and its numbers grow.

    :ivar connection: as the server numbers it
    """

    writer: int
    first: int
    last: int
    begin: float
    end: float
    server: str
    outcome: Outcome
    connection: int = 0


class Verb(StrEnum):
    """SET, DELETE: a register, both of its rows in one transaction. ADD: one to a counter."""

    SET = "set"
    DELETE = "delete"
    ADD = "add"


@dataclass(frozen=True, slots=True)
class Change:
    """One transaction on a row that is changed again and again.

    A register belongs to one writer, and has two rows with the same content: ``version``, which grows with each change.
    All writers add to counters.

    :ivar key: of the register or counter
    """

    writer: int
    verb: Verb
    key: int
    version: int
    begin: float
    end: float
    server: str
    outcome: Outcome
    connection: int = 0


@dataclass(frozen=True, slots=True)
class Glance:
    """What one statement found in the registers, or in the counters.

    :ivar registers: of each that has a row, the content of its two rows; None: that row is not there
    """

    reader: int
    begin: float
    end: float
    server: str
    registers: dict[int, tuple[int | None, int | None]] | None = None
    counters: dict[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Excuse:
    """An administrator made this server commit without any acknowledgement: its answers to clients then promise
    nothing.

    :ivar connection: only this one; 0: all
    :ivar opened: a replica was opened, so clients took it for the primary: its answers were old
    """

    server: str
    begin: float
    end: float
    connection: int = 0
    opened: bool = False

    def covers(self, entry: Write | Change) -> bool:
        return self._meets(entry) and self.connection in (0, entry.connection)

    def misled(self, entry: Read | Glance) -> bool:
        return self.opened and self._meets(entry)

    def _meets(self, entry: Entry) -> bool:
        return entry.server == self.server and entry.begin <= self.end and entry.end >= self.begin


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows of ``writer`` above ``low`` a read found: ``seen``, in order."""

    writer: int
    low: int
    seen: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """What one statement on one server found; reads that ended in an error are in no history.

    :ivar heads: the highest row of each writer that has one; None where it was not read
    """

    reader: int
    begin: float
    end: float
    server: str
    windows: tuple[Window, ...] = ()
    heads: dict[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """What one server holds in the end.

    :ivar rows: of each writer, in order; a row that is there twice is listed twice
    :ivar executed: its GTID set, made comparable
    :ivar checksum: of the tables
    :ivar registers, counters: as in :class:`Glance`
    """

    rows: dict[int, tuple[int, ...]]
    executed: str = ""
    checksum: str = ""
    registers: dict[int, tuple[int | None, int | None]] = field(default_factory=dict)
    counters: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ending:
    """:ivar whole_seconds: from the last heal until the cluster was whole; None: it was not within the limit
    :ivar reigns: the recorded primaries, in the order of their terms; None where that is not known
    """

    holdings: dict[str, Holding]
    whole_seconds: float | None
    reigns: tuple[str, ...] | None = None
    why_not_whole: str = ""


_Told = TypeVar("_Told", Write, Change)


@dataclass(slots=True)
class History:
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    glances: list[Glance] = field(default_factory=list)

    def excused(self, excuses: Sequence[Excuse]) -> History:
        """The history with excused commits as RELEASED, and without reads that were misled."""

        def doubted(entry: _Told) -> _Told:
            if entry.outcome is not Outcome.REFUSED and any(each.covers(entry) for each in excuses):
                return replace(entry, outcome=Outcome.RELEASED)
            return entry

        writes = [doubted(write) for write in self.writes]
        return replace(
            self,
            writes=writes,
            changes=[doubted(change) for change in self.changes],
            reads=[each for each in self.reads if not any(e.misled(each) for e in excuses)],
            glances=[each for each in self.glances if not any(e.misled(each) for e in excuses)],
        )

    def of_server(self) -> dict[str, tuple[int, int]]:
        """How many writes each server acknowledged, and how many reads it answered."""
        found: dict[str, tuple[int, int]] = {}
        written: list[Write | Change] = [*self.writes, *self.changes]
        for write in written:
            if write.outcome is Outcome.OK:
                writes, reads = found.get(write.server, (0, 0))
                found[write.server] = (writes + 1, reads)
        answered: list[Read | Glance] = [*self.reads, *self.glances]
        for read in answered:
            writes, reads = found.get(read.server, (0, 0))
            found[read.server] = (writes, reads + 1)
        return found


Entry = Write | Read | Change | Glance


def line(entry: Entry) -> str:
    """One operation as a line of a file."""
    fields: list[Any]
    match entry:
        case Write() | Change():
            fields = ["w" if isinstance(entry, Write) else "c", *astuple(entry)]
        case Read():
            windows = [(each.writer, each.low, _runs(each.seen)) for each in entry.windows]
            heads = None if entry.heads is None else list(entry.heads.items())
            fields = ["r", entry.reader, entry.begin, entry.end, entry.server, windows, heads]
        case Glance(registers=registers, counters=counters):
            told = [None if each is None else list(each.items()) for each in (registers, counters)]
            fields = ["g", entry.reader, entry.begin, entry.end, entry.server, *told]
    return json.dumps(fields, separators=(",", ":"))


def load(paths: Iterable[Path]) -> History:
    """:raises ValueError: a line is no operation"""
    history = History()
    for path in paths:
        with path.open() as file:
            for entry in map(_parsed, file):
                match entry:
                    case Write():
                        history.writes.append(entry)
                    case Change():
                        history.changes.append(entry)
                    case Read():
                        history.reads.append(entry)
                    case Glance():
                        history.glances.append(entry)
    return history


def _parsed(text: str) -> Entry:
    kind, *fields = json.loads(text)
    if kind == "w":
        writer, first, last, begin, end, server, outcome, connection = fields
        return Write(writer, first, last, begin, end, server, Outcome(outcome), connection)
    if kind == "c":
        writer, verb, key, number, begin, end, server, outcome, connection = fields
        told = Verb(verb), key, number, begin, end, server, Outcome(outcome)
        return Change(writer, *told, connection)
    if kind == "g":
        reader, begin, end, server, registers, counters = fields
        found = (
            None if registers is None else {key: (one, other) for key, (one, other) in registers}
        )
        return Glance(
            reader, begin, end, server, found, None if counters is None else dict(counters)
        )
    if kind == "r":
        reader, begin, end, server, windows, heads = fields
        seen = tuple(Window(writer, low, tuple(_numbers(runs))) for writer, low, runs in windows)
        return Read(reader, begin, end, server, seen, None if heads is None else dict(heads))
    raise ValueError(f"{kind!r} is no kind of operation")


def _runs(numbers: Iterable[int]) -> list[int]:
    """First and last of each run without a hole, one after the other."""
    found: list[int] = []
    for number in numbers:
        if found and found[-1] == number - 1:
            found[-1] = number
        else:
            found += (number, number)
    return found


def _numbers(runs: list[int]) -> Iterator[int]:
    for first, last in zip(runs[::2], runs[1::2], strict=True):
        yield from range(first, last + 1)
