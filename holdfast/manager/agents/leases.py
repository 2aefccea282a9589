"""Which leases this manager has granted, and when each is certainly over; see ``core/lease.py``."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.cluster import Cluster
from holdfast.core.lease import Electorate, electorate
from holdfast.core.record import Record
from holdfast.core.timing import surely_over
from holdfast.http.wire import Grant


@dataclass(frozen=True, slots=True)
class _Answer:
    """:ivar at: when the answer came, by this manager's clock"""

    run: str
    clock: float
    at: float


class Leases:
    """Grants leases to one cluster's primary. Leases that an earlier manager may have granted count as granted by it at
    the moment when this one began to lead.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._answers: dict[str, _Answer] = {}
        self._over: dict[str, float] = {}
        self._before = 0.0
        self._holder = ""
        self._electorate: Electorate | None = None
        self._leader = ""
        self._lease = 0.0
        self._until = 0.0

    def begin(self, longest: float) -> None:
        """This manager leads from now on; ``longest`` is the longest lease that another may have granted."""
        self._before = surely_over(self._clock.monotonic(), longest)

    def allow(self, cluster: Cluster, record: Record | None, until: float) -> None:
        """Grant leases to the recorded primary as long as no member is to take its place.

        :param until: by this manager's clock: no other manager leads before
        """
        if record is None or record.electing:
            self.stop()
            return
        self._holder = record.primary
        self._electorate = electorate(cluster, record)
        self._leader = record.leader
        self._lease = min(record.lease, cluster.settings.timing.lease)
        self._until = until

    def stop(self) -> None:
        """Grant nothing more."""
        self._holder, self._electorate = "", None

    def answered(self, member: str, run: str, clock: float) -> None:
        """Record what an agent's clock showed in its answer, the moment it has arrived."""
        self._answers[member] = _Answer(run, clock, self._clock.monotonic())

    def grant(self, member: str) -> Grant | None:
        """The grant for the next request to this member; it counts as granted from now on."""
        known, answer = self._electorate, self._answers.get(member)
        if known is None or answer is None or member != self._holder or not answer.run:
            return None
        if not self._lease or self._clock.monotonic() >= self._until:
            return None
        over = surely_over(answer.at, self._lease)
        self._over[member] = max(over, self._over.get(member, 0.0))
        return Grant(
            run=answer.run,
            until=answer.clock + self._lease,
            lease=self._lease,
            term=known.term,
            leader=self._leader,
            electorate=known,
        )

    def over(self, members: list[str]) -> dict[str, float]:
        """When each member's lease is certainly over, by this manager's clock."""
        return {name: max(self._before, self._over.get(name, 0.0)) for name in members}
