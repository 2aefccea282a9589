"""The predicates that keep the promise; each stands here once, with the reason why it is safe.

A *voter* is a member in one incarnation: ``(name, incarnation)``. A configuration (V, k) has the primary p among its
voters V, and a transaction is acknowledged when k other voters of V have received it.

Two facts carry everything (``tests/unit/test_quorum.py`` exhausts them for up to seven voters):

1. *Intersection.* Any k voters and any |V| - k voters among the |V| - 1 that are not p have one in common.
2. *Barrier.* Binlog order is receive order. When a row that p commits is acknowledged by k voters, these k
   hold everything that p's binlog had before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import StrEnum

from holdfast.core.gtid import Flavor

Voter = tuple[str, str]
"""A member's name and the incarnation of its server."""

MARIADB_VOTERS = 3
"""MariaDB waits for one acknowledgement at most: a majority of at most three."""


class Durability(StrEnum):
    MAJORITY = "majority"
    ALL = "all"


def acks_for(voters: int, durability: Durability) -> int:
    """k: how many voters beside the primary must have received a transaction before it is committed."""
    return voters // 2 if durability is Durability.MAJORITY else voters - 1


def most_voters(flavor: Flavor, durability: Durability) -> int:
    """How many voters, primary included, a cluster of this flavor can have.

    MariaDB can wait for one replica only, so k <= 1: three voters by majority, two with ``all``.
    """
    if flavor is Flavor.MYSQL:
        return 7
    return MARIADB_VOTERS if durability is Durability.MAJORITY else 2


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who votes, and how many acknowledgements a commit needs.

    :ivar voters: the primary among them
    """

    voters: frozenset[Voter]
    acks: int

    def names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.voters)

    def incarnation(self, name: str) -> str | None:
        """The incarnation in which ``name`` votes; None when it does not."""
        return next((run for voter, run in self.voters if voter == name), None)

    def without(self, name: str) -> frozenset[Voter]:
        return frozenset(voter for voter in self.voters if voter[0] != name)

    def recoverable(self, primary: str, promised: Set[Voter]) -> bool:
        """Whether ``promised`` is a recovery quorum: its promise makes it safe to depose ``primary``.

        By fact 1 every set of k voters that can have acknowledged something meets a set of |V| - k, and no k
        voters outside it remain to acknowledge more. With k = 0 the primary alone holds what it acknowledged:
        |V| voters other than itself do not exist, so it is never deposed.
        """
        return len(promised & self.without(primary)) >= len(self.voters) - self.acks

    def short(self, primary: str, promised: Set[Voter]) -> int:
        """How many promises are missing for a recovery quorum."""
        have = len(promised & self.without(primary))
        return max(0, len(self.voters) - self.acks - have)


def recoverable(
    configurations: Iterable[Configuration], primary: str, promised: Set[Voter]
) -> bool:
    """The joint rule: while two configurations are in force, a recovery quorum of each is needed.

    What was acknowledged before the change meets the quorum of the old one. What is acknowledged during
    it: see :func:`joinable`.
    """
    return all(each.recoverable(primary, promised) for each in configurations)


def acks_now(configurations: Iterable[Configuration]) -> int:
    """For how many acknowledgements the primary waits: the most that any configuration in force asks."""
    return max(each.acks for each in configurations)


def joinable(old: Configuration, new: Configuration, primary: str, dead: Set[Voter]) -> bool:
    """Whether ``old`` may be changed to ``new`` through a joint configuration.

    While both are in force p waits for max(k, k') acknowledgements, which come from voters of either. If all
    voters that can still acknowledge are in one of them, fact 1 applies to that one: its recovery
    quorum, which the joint rule demands, meets every set that acknowledged. With live voters on both sides a
    set could be split between them and be missed by both quorums. ``dead`` are voters whose server process has
    ended: they cannot acknowledge any more.

    Both sets are compared without p, whose incarnation may change while it is not open.
    """
    before = {voter for voter in old.without(primary) if voter not in dead}
    after = {voter for voter in new.without(primary) if voter not in dead}
    return before <= after or after <= before


def settled(new: Configuration, primary: str, holders: Set[Voter]) -> bool:
    """Whether ``new`` may stand alone: k' of its voters hold all that was acknowledged so far.

    Then by fact 1 each of its recovery quorums has a member that holds everything. By fact 2 a row that the
    primary committed after the change began, under max(k, k') acknowledgements of voters of ``new``, proves it.
    """
    return len(holders & new.without(primary)) >= new.acks
