"""A lease as arithmetic: its present state, and what is to be done when. Time is an argument.

``now`` and all moments are seconds on one clock of the agent's host; see ``agent/runtime/boottime.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum, auto

from holdfast.core.lease import Electorate, LeaseHolder, upheld
from holdfast.core.timing import ASK_PEERS_AT, Timing

ASK_AGAIN = 0.25
"""After this share of a lease the peers are asked again, while too few of them vouch."""


class Due(Enum):
    """What is to be done now. FENCE: the lease is over. ASK: no manager renews it, ask the peers."""

    NOTHING = auto()
    ASK = auto()
    FENCE = auto()


@dataclass(frozen=True, slots=True)
class Question:
    """Peers are asked at ``at``, before anything is sent: their confirmations count from that moment."""

    number: int
    at: float


class LeaseState:
    """One member's lease. Not for several threads at once.

    :ivar known: the members whose votes are needed to replace the primary; None: not known, so no peer can stand in for
        a manager
    :ivar length: of a lease, in seconds
    :ivar until: when the lease ends
    :ivar by: who upheld it last
    :ivar enforced: the server is open as primary, or about to be opened
    :param ask_at: the share of a lease that is left when peers are to be asked
    """

    def __init__(
        self,
        known: Electorate | None = None,
        length: float = Timing().lease,
        ask_at: float = ASK_PEERS_AT,
    ) -> None:
        self.known = known
        self.length = length
        self.until = -math.inf
        self.by = LeaseHolder.NOBODY
        self.enforced = False
        self.renewed_at = -math.inf
        self._ask_at = ask_at
        self._question = Question(0, -math.inf)
        self._vouching: set[str] = set()

    def held(self, now: float) -> bool:
        return now < self.until

    def grant(self, now: float, until: float, length: float) -> bool:
        """Take a manager's grant, for no longer than a lease from now; returns whether it was of use."""
        until = min(until, now + length)
        if until <= now:
            return False
        self.length = length
        self.until = max(self.until, until)
        self.by = LeaseHolder.MANAGER
        self.renewed_at = now
        return True

    def fed(self, until: float) -> bool:
        """Another process of this host holds the same lease, and voters confirmed it there; returns whether that
        prolongs it."""
        if until <= self.until:
            return False
        self.until = until
        self.by = LeaseHolder.PEERS
        return True

    def entrust(self, electorate: Electorate) -> bool:
        """Take over an electorate; returns whether it differs from the former. An older one never replaces a later one.

        Where two of one configuration differ, confirmations by both are needed: it cannot be determined which is later.
        """
        known = self.known
        self.known = merged(known, electorate)
        return self.known != known

    def enforce(self, now: float, grace: bool) -> None:
        """From now on the server lives no longer than its lease.

        :param grace: the server takes clients already: there is one lease's time to have the lease upheld
        """
        self.enforced = True
        if grace and not self.held(now):
            self.until = now + self.length
            self.by = LeaseHolder.NOBODY

    def release(self) -> None:
        """The server is gone, or follows another. A lease that has not ended stays valid for its next run."""
        self.enforced = False
        if self.by is LeaseHolder.PEERS:
            self.by = LeaseHolder.NOBODY

    def due(self, now: float) -> Due:
        if not self.enforced:
            return Due.NOTHING
        if not self.held(now):
            return Due.FENCE
        return Due.ASK if now >= self._next_question() else Due.NOTHING

    def next(self) -> float | None:
        """The time at which something will be due; None: time alone makes nothing due."""
        return min(self.until, self._next_question()) if self.enforced else None

    def ask(self, now: float) -> Question:
        """Begin to ask the peers."""
        self._question = Question(self._question.number + 1, now)
        self._vouching = set()
        self._count()
        return self._question

    def vouched(self, name: str, question: Question) -> bool:
        """Count a peer's confirmation; returns whether that prolongs the lease. Answers to an earlier question do not
        count."""
        if question != self._question:
            return False
        self._vouching.add(name)
        return self._count()

    def shortfall(self) -> str:
        """Which peers did not vouch, as text for an operator."""
        quorums = self.known.quorums if self.known else ()
        for each in quorums:
            vouching = sorted(self._vouching & set(each.names))
            if len(vouching) < each.need:
                who = " and ".join(vouching) or "none"
                return f"{'only ' if vouching else ''}{who} of {', '.join(each.names)} confirmed it"
        return "no other member is known to confirm it"

    def _count(self) -> bool:
        until = self._question.at + self.length
        if self.known is None or not upheld(self.known, self._vouching):
            return False
        # a manager that renewed it in the meantime upholds it
        if until <= self.until or self.renewed_at >= self._question.at:
            return False
        self.until = until
        self.by = LeaseHolder.PEERS
        return True

    def _next_question(self) -> float:
        if self.known is None:
            return math.inf
        again = self._question.at + self.length * ASK_AGAIN
        return max(self.until - self.length * self._ask_at, again)


def merged(known: Electorate | None, other: Electorate) -> Electorate:
    """The later of the two; both together where neither is."""
    if known is None or known.age < other.age:
        return other
    if known.age > other.age:
        return known
    quorums = tuple(dict.fromkeys((*known.quorums, *other.quorums)))
    return replace(other, quorums=quorums, agents={**known.agents, **other.agents})
