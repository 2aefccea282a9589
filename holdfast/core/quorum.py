"""The predicates that keep the promise; each stands here once, with the reason why it is safe.

A *voter* is a member in one incarnation: ``(name, incarnation)``. A configuration (V, k) has the primary p among its
voters V, and a transaction is acknowledged when k other voters of V have received it.

Two facts carry everything (``tests/unit/core/test_quorum.py`` exhausts them for up to seven voters):

1. *Intersection.* Any k voters and any |V| - k voters among the |V| - 1 that are not p have one in common.
2. *Barrier.* Binlog order is receive order. When a row that p commits is acknowledged by k voters, these k
   hold everything that p's binlog had before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from holdfast.core.gtid import Flavor
from holdfast.core.settings import Durability, Mode, Settings

Voter = tuple[str, str]
"""A member's name and the incarnation of its server."""

MARIADB_ACKS = 1
"""MariaDB waits for one acknowledgement at most."""

MYSQL_VOTERS = 7


def acks_for(voters: int, settings: Settings, flavor: Flavor) -> int:
    """k: how many voters beside the primary must have received a transaction before its commit returns."""
    if settings.mode is Mode.ASYNC:
        return 0
    asked = voters - 1 if settings.durability is Durability.ALL else voters // 2
    most = MARIADB_ACKS if flavor is Flavor.MARIADB else voters - 1
    return min(max(asked, settings.ack_count), voters - 1, most)


def most_voters(settings: Settings, flavor: Flavor) -> int:
    """How many voters, primary included, a cluster of this flavor can have.

    MariaDB can wait for one replica only, so k <= 1: three voters by majority, two with ``all``.
    """
    if settings.mode is Mode.ASYNC:
        return 1
    if flavor is Flavor.MYSQL:
        return MYSQL_VOTERS
    return MARIADB_ACKS + 1 if settings.durability is Durability.ALL else 2 * MARIADB_ACKS + 1


@dataclass(frozen=True, slots=True)
class Configuration:
    """Which members vote, and how many acknowledgements a commit needs.

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

        By fact 1 every set of k voters that can have acknowledged something meets a set of |V| - k, and outside that
        set fewer than k voters remain, too few to acknowledge more. With k = 0 the primary alone holds what it
        acknowledged: |V| voters other than itself do not exist, so it is never deposed.
        """
        return len(promised & self.without(primary)) >= len(self.voters) - self.acks


def recoverable(in_force: Iterable[Configuration], primary: str, promised: Set[Voter]) -> bool:
    """The joint rule: a recovery quorum of every configuration in force is needed.

    Safe by induction over the changes: what was acknowledged before a configuration was added meets the quorums
    that were needed then, and these are needed still; what is acknowledged after it meets the quorum of the one
    added last (:func:`extendable`).
    """
    return all(each.recoverable(primary, promised) for each in in_force)


def extendable(target: Configuration, primary: str, acking: Set[Voter]) -> bool:
    """Whether ``target`` may be put in force beside the configurations in force.

    ``acking`` are all members that may still acknowledge to the primary: voters in force and strays, without those
    whose server process has ended, and without those whose account is barred there. Each must be a voter of the target.
    Then only target voters acknowledge from now on, and once the primary waits for ``target.acks`` of them, fact 1
    makes them meet the target's recovery quorums. (Until then the primary waits for the number of an earlier
    configuration, of that one's voters, whose quorums are needed too. A member that gains a vote begins to acknowledge
    afterwards.) A live voter outside the target could, together with one inside, form a set that every quorum of either
    configuration misses.

    A target with k = 0 may leave out any voter: while it is in force the primary is not deposed. The record remembers
    each voter that may still acknowledge then as a stray.
    """
    return target.acks == 0 or acking <= target.without(primary)


def settled(target: Configuration, primary: str, holders: Set[Voter]) -> bool:
    """Whether ``target`` may stand alone: k of its voters hold all that was acknowledged so far.

    Then by fact 1 each of its recovery quorums has a member that holds everything. By fact 2 a row that the primary
    commits under ``target.acks`` acknowledgements, once the target is in force, proves this.
    """
    return len(holders & target.without(primary)) >= target.acks
