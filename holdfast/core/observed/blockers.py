"""What prevents a primary from stopping writes: long transactions, statements and locks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from holdfast.core.wording import lasting


class Holds(StrEnum):
    """TRANSACTION: open, with changes or row locks. STATEMENT: running; it may write or hold tables. LOCK: LOCK TABLES,
    a global read lock, or the like."""

    TRANSACTION = "transaction"
    STATEMENT = "statement"
    LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Blocker:
    """One client's session.

    :ivar seconds: how old the transaction, statement or lock is
    :ivar statement: the beginning of the statement that it runs, or ran last; "" if the server does not show it
    """

    session: int
    user: str
    host: str
    holds: Holds
    seconds: float
    statement: str = ""

    def __str__(self) -> str:
        return self.text()

    def text(self, where: str = "") -> str:
        """:param where: the member, as ``on m3``"""
        said = f": {self.statement}" if self.statement else ""
        who = f"connection {self.session} ({self.user}@{self.host})"
        does = " ".join(filter(None, (_DOES[self.holds], where)))
        return f"{who} {does} for " + lasting(self.seconds) + said


_DOES = {
    Holds.TRANSACTION: "has had a transaction open",
    Holds.STATEMENT: "has run a statement",
    Holds.LOCK: "has held a lock",
}
