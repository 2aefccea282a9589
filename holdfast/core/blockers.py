"""What stands in the way of a primary that is to stop taking writes: long transactions, statements and locks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Holds(StrEnum):
    """TRANSACTION: open, with changes or row locks. STATEMENT: runs, and may write or hold tables. LOCK: LOCK TABLES, a
    global read lock, or the like."""

    TRANSACTION = "transaction"
    STATEMENT = "statement"
    LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Blocker:
    """One client's session.

    :ivar seconds: how old the transaction, statement or lock is
    :ivar statement: the beginning of what it runs, or ran last; "" where the server does not say
    """

    session: int
    user: str
    host: str
    holds: Holds
    seconds: float
    statement: str = ""

    def __str__(self) -> str:
        said = f": {self.statement}" if self.statement else ""
        return f"{self.holds} of connection {self.session} ({self.user}@{self.host}), {self.seconds:.0f} s old{said}"
