"""What the leading manager derives from its observations: for how long each member has owed something."""

from __future__ import annotations

from dataclasses import replace

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.change import switchover
from holdfast.core.cluster import Cluster
from holdfast.core.members.identity import unmasked
from holdfast.core.record import Record
from holdfast.core.rules.enforcement import Evidence, weighed
from holdfast.core.rules.pulse import OpeningPulse, Pulse, Reach, felt, lapses, opening, reached
from holdfast.core.view import View
from holdfast.manager.agents.observe import AgentObserver
from holdfast.manager.leader.boot import kernel_boot
from holdfast.manager.leader.listener import Caller


class Looks:
    """One cluster's looks."""

    def __init__(self, observer: AgentObserver, clock: Clock = SYSTEM_CLOCK) -> None:
        self._observer = observer
        self._clock = clock
        self._pulses: dict[str, Pulse] = {}
        self._reaches: dict[str, Reach] = {}
        self._evidence: Evidence | None = None
        self._opening: OpeningPulse | None = None

    def now(
        self, cluster: Cluster, record: Record | None, members: list[str], hooks: Caller
    ) -> View:
        """What is known now, and for how long each member has owed an acknowledgement."""
        view = replace(
            unmasked(record, self._observer.view()),
            leases=self._observer.leases.over(members),
            boot=kernel_boot(),
            date=self._clock.now(),
            hooked=hooks.hooked,
            called=hooks.called,
        )
        if record is None:
            return view
        if switchover.under_way(record):
            # a replica that is chained below the candidate owes the primary nothing
            self._pulses = {}
        self._pulses = felt(self._pulses, record.primary, view)
        self._reaches = reached(self._reaches, view)
        quiet = {name: view.now - each.since for name, each in self._reaches.items()}
        self._evidence = known = weighed(self._evidence, cluster, record, view)
        enforced = known.enforced(cluster.settings.timing.detection) if known else None
        self._opening = opens = opening(self._opening, record, view)
        return replace(
            view,
            lapses=lapses(self._pulses),
            quiet=quiet,
            enforced=enforced,
            opening=view.now - opens.since if opens else 0.0,
        )
