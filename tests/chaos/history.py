"""What clients were told, and what the servers held at the end: all that the checker judges by.

Every moment is CLOCK_MONOTONIC in seconds: clients, faults and checker run on one machine, whose network namespaces
share that clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Outcome(StrEnum):
    """REFUSED: surely not done: nothing was sent, or the server said so. UNKNOWN: it may have been done."""

    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Write:
    """One transaction: the rows ``first`` to ``last`` of this writer, which nobody else writes, and never again.

    A writer does one thing at a time, and its numbers grow.
    """

    writer: int
    first: int
    last: int
    begin: float
    end: float
    server: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows of ``writer`` above ``low`` a read found: ``seen``, in order."""

    writer: int
    low: int
    seen: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """What one statement on one server found; those that ended in an error are in no history.

    :ivar heads: the highest row of each writer that has one; None where it was not asked
    """

    reader: int
    begin: float
    end: float
    server: str
    windows: tuple[Window, ...] = ()
    heads: dict[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """What one server holds after all.

    :ivar rows: of each writer, in order; what is there twice stands there twice
    :ivar executed: its GTID set, made comparable
    :ivar checksum: of the tables
    """

    rows: dict[int, tuple[int, ...]]
    executed: str = ""
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """:ivar whole_seconds: from the last heal until the cluster was whole; None: it was not within the patience
    :ivar reigns: the recorded primaries, in the order of their terms; None where that is not known
    """

    holdings: dict[str, Holding]
    whole_seconds: float | None
    reigns: tuple[str, ...] | None = None
    why_not_whole: str = ""


@dataclass(slots=True)
class History:
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)

    def of_server(self) -> dict[str, tuple[int, int]]:
        """How many writes each server acknowledged, and how many reads it answered."""
        found: dict[str, tuple[int, int]] = {}
        for write in self.writes:
            if write.outcome is Outcome.OK:
                writes, reads = found.get(write.server, (0, 0))
                found[write.server] = (writes + 1, reads)
        for read in self.reads:
            writes, reads = found.get(read.server, (0, 0))
            found[read.server] = (writes, reads + 1)
        return found


def line(entry: Write | Read) -> str:
    """One operation as a line of a file."""
    if isinstance(entry, Write):
        fields: list[Any] = [
            "w",
            entry.writer,
            entry.first,
            entry.last,
            entry.begin,
            entry.end,
            entry.server,
            entry.outcome.value,
        ]
    else:
        windows = [(each.writer, each.low, _runs(each.seen)) for each in entry.windows]
        heads = None if entry.heads is None else list(entry.heads.items())
        fields = ["r", entry.reader, entry.begin, entry.end, entry.server, windows, heads]
    return json.dumps(fields, separators=(",", ":"))


def load(paths: Iterable[Path]) -> History:
    """:raises ValueError: a line is no operation"""
    history = History()
    for path in paths:
        with path.open() as file:
            for entry in map(_parsed, file):
                if isinstance(entry, Write):
                    history.writes.append(entry)
                else:
                    history.reads.append(entry)
    return history


def _parsed(text: str) -> Write | Read:
    kind, *fields = json.loads(text)
    if kind == "w":
        return Write(*fields[:-1], Outcome(fields[-1]))
    if kind == "r":
        reader, begin, end, server, windows, heads = fields
        found = tuple(Window(writer, low, tuple(_numbers(runs))) for writer, low, runs in windows)
        return Read(reader, begin, end, server, found, None if heads is None else dict(heads))
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
