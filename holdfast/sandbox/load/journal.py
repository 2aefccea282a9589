"""What clients were told: which writes were acknowledged, when, and by which server."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

Row = tuple[int, int]
"""Writer and number; with the run they name one row."""


@dataclass(slots=True)
class Journal:
    """The writes of one writer, which alone adds to it. Times are Unix seconds.

    :ivar unknown: numbers of the writes that ended in an error: they may have been done, or may still be done
    :ivar errors: how often each error occurred, by its code
    :ivar searches: it belongs to a search for a server to write to, which meets errors all the time
    """

    writer: int
    numbers: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    unknown: list[int] = field(default_factory=list)
    errors: Counter[int] = field(default_factory=Counter)
    searches: bool = False

    def acknowledge(self, number: int, at: float) -> None:
        self.numbers.append(number)
        self.times.append(at)

    def fail(self, number: int, code: int) -> None:
        self.unknown.append(number)
        self.errors[code] += 1


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without any acknowledged write, from the last one before it to the first one after."""

    begin: float
    end: float

    @property
    def ms(self) -> float:
        return (self.end - self.begin) * 1000


class WriteReport:
    """All journals of one run."""

    def __init__(self, run: int, journals: Iterable[Journal]) -> None:
        self.run = run
        self.journals = tuple(journals)

    @property
    def acknowledged(self) -> int:
        return sum(len(journal.numbers) for journal in self.journals)

    @property
    def unknown(self) -> int:
        return sum(len(journal.unknown) for journal in self.journals)

    @property
    def errors(self) -> Counter[int]:
        return sum((journal.errors for journal in self.journals), Counter())

    def acknowledged_rows(self) -> Iterator[Row]:
        for journal in self.journals:
            yield from ((journal.writer, number) for number in journal.numbers)

    def times(self) -> list[float]:
        return sorted(at for journal in self.journals for at in journal.times)

    def gaps_after(self, moment: float) -> list[Gap]:
        """Every gap that ended after this moment, the longest first."""
        times = self.times()
        gaps = [Gap(begin, end) for begin, end in pairwise(times) if end > moment]
        return sorted(gaps, key=lambda gap: gap.begin - gap.end)
