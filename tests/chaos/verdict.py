"""What can be wrong with what clients were told; ``checker.py`` defines each kind."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NEVER = float("inf")


class Kind(StrEnum):
    LOST = "lost"
    TWICE = "twice"
    REVIVED = "revived"
    STALE = "stale"
    UNREPEATED = "unrepeated"
    VANISHED = "vanished"
    TORN = "torn"
    STRANGE = "strange"
    DIFFERENT = "different"
    NOT_WHOLE = "not whole"
    TWO_WRITERS = "two writers"


@dataclass(frozen=True, slots=True)
class Violation:
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """:ivar violations: the first of each kind; :ivar counts: of all"""

    violations: tuple[Violation, ...]
    counts: dict[Kind, int]

    @property
    def good(self) -> bool:
        return not self.counts
