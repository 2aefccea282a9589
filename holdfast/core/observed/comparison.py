"""What a comparison of a member's tables with the primary's has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """A verification found a table to differ from the primary's.

    :ivar ranges: which rows, in words
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
    :ivar halted: why not all tables are compared, and no comparison runs now; "" while it is under way, and after it
        was completed; :ivar failed: it was not halted on purpose
    :ivar interrupted: how many times it has continued after an interruption
    :ivar ordered: by an operator; :ivar repair: the operator wants a clone if something differs
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
