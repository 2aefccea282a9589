"""What a comparison of a member's tables with the primary's has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """A verification found a table to differ from the primary's.

    :ivar ranges: which rows, for people
    """

    table: str
    ranges: str

    def __str__(self) -> str:
        return f"{self.table} ({self.ranges})"


@dataclass(frozen=True, slots=True)
class Verification:
    """The last comparison of all tables with the primary's.

    :ivar began, ended: by the wall clock of the member's host, in seconds since 1970; ``ended`` 0: it is not over
    :ivar tables: how many have been compared; :ivar skipped: how many cannot be
    :ivar rows: how many have been compared; :ivar different: in how many tables something differs
    :ivar halted: why not all tables are compared, and nobody compares them now; "" while it is under way, and where it
        was carried through; :ivar failed: nobody wanted that
    :ivar interrupted: how many times it has gone on after an interruption
    :ivar ordered: by an operator; :ivar repair: who ordered it wants a clone where something differs
    """

    began: float
    ended: float
    primary: str
    tables: int
    skipped: int
    rows: int
    different: int
    halted: str = ""
    failed: bool = False
    interrupted: int = 0
    ordered: bool = False
    repair: bool = False
