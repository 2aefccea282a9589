"""What the leading manager logs of what it sees and decides: one line per decision, once."""

from __future__ import annotations

import logging

from holdfast.core.change.restart import CLOSING
from holdfast.core.cluster import Cluster
from holdfast.core.decision import Decision
from holdfast.core.record import Record
from holdfast.core.rules.appliers import broken, reason
from holdfast.core.rules.blocked import blocked
from holdfast.core.rules.diagnosis import GONE, diagnose
from holdfast.core.rules.releases import Release, describe
from holdfast.core.transition import Failover, RestartInPlace
from holdfast.core.view import Seen, Unseen, View
from holdfast.core.wording import key_of
from holdfast.log import say
from holdfast.manager.leader.events import EventKind, EventLog

logger = logging.getLogger(__name__)


BLOCKED_SECONDS = 1.0
"""Commits must be blocked for so long to be logged so: a voter that has died is removed sooner."""


class DecisionLog:
    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._degraded = False
        self._alarmed = False
        self._blocked_since: float | None = None
        self._blocked = ""
        self._unacknowledged: dict[str, tuple[int, str]] = {}
        self._concerns: dict[str, tuple[str, ...]] = {}
        self._clones: dict[str, tuple[str, str]] = {}

    def decided(
        self,
        cluster: Cluster,
        record: Record | None,
        view: View,
        before: Decision,
        decision: Decision,
    ) -> None:
        """:param before: the decision before this one"""
        alarming = _unseen(cluster, record, view)
        if decision.well and not before.well:
            self._events.add(EventKind.WHOLE, decision.reason)
        elif key_of(decision.reason) != key_of(before.reason) and not decision.steps:
            if decision.broken or (alarming and not self._alarmed):
                self._events.add(EventKind.ALARM, decision.reason)
            else:
                say(logger, decision.reason, _level(cluster, record, view), cluster=cluster.name)
        self._alarmed = alarming
        self._note_blocked(cluster, record, view)
        self._note_degraded(record, view)
        self._note_unacknowledged(view)
        self._note_concerns(view)
        self._note_clones(view)

    def saving(self, cluster: Cluster, before: Record | None, record: Record, view: View) -> None:
        """Log that the primary is gone, when the first step against it is taken."""
        if before is None or before.transition or not record.transition:
            return
        diagnosis = diagnose(cluster, before, view)
        if diagnosis.primary in GONE and record.transition != CLOSING:
            self._events.add(EventKind.DETECTED, diagnosis.reason, before.primary)

    def _note_blocked(self, cluster: Cluster, record: Record | None, view: View) -> None:
        why = blocked(cluster, record, view) if record else ""
        if not why:
            self._blocked_since = None
            if record and self._blocked:
                text = f"commits on {self._blocked} come through again"
                if self._blocked != record.primary:
                    text = f"{self._blocked}, on which commits were blocked, is primary no longer"
                self._events.add(EventKind.BLOCKED, text, self._blocked, level=logging.INFO)
            self._blocked = ""
        elif self._blocked_since is None:
            self._blocked_since = view.now
        elif record and not self._blocked and view.now - self._blocked_since >= BLOCKED_SECONDS:
            self._blocked = record.primary
            text = f"commits on {record.primary} are blocked: {why}"
            self._events.add(EventKind.BLOCKED, text, record.primary)

    def _note_degraded(self, record: Record | None, view: View) -> None:
        """Mode semi-sync: log when commits stop waiting, and when they wait again."""
        state = view.state(record.primary) if record else None
        if state is None or not state.up or state.semi_sync.degraded is self._degraded:
            return
        self._degraded = state.semi_sync.degraded
        text = f"commits on {state.name} wait for acknowledgements again"
        if self._degraded:
            text = f"commits on {state.name} do not wait for acknowledgements now: the time-out has passed"
        self._events.add(EventKind.DEGRADED, text, state.name)

    def _note_unacknowledged(self, view: View) -> None:
        """Log, for every member, unacknowledged commits that it let through: it may be no primary any more. A
        manager that begins to lead also logs those that it finds and that are not repaired yet: no other may have
        logged them."""
        for name, sighting in view.members.items():
            if not isinstance(sighting, Seen):
                continue
            state = sighting.state
            now = (state.unacknowledged, state.let_through)
            known = self._unacknowledged.get(name, (0 if state.let_through else now[0], ""))
            self._unacknowledged[name] = now
            release = Release(state.let_through, max(0, now[0] - known[0]))
            if state.let_through and (release.count or now[1] != known[1]):
                self._events.add(EventKind.UNACKNOWLEDGED, describe(release, name), name)

    def _note_concerns(self, view: View) -> None:
        """Log what an operator should attend to, when it begins."""
        for name, sighting in view.members.items():
            if not isinstance(sighting, Seen):
                continue
            known = self._concerns.get(name, ())
            self._concerns[name] = sighting.state.concerns
            for each in sighting.state.concerns:
                if each not in known:
                    self._events.add(EventKind.CONCERN, f"{name}: {each}", name)

    def _note_clones(self, view: View) -> None:
        """Log that a member's data was replaced, and why: perhaps no operator ordered it."""
        for name, sighting in view.members.items():
            if not isinstance(sighting, Seen):
                continue
            state = sighting.state
            donor, why = self._clones.get(name, ("", ""))
            if state.cloning:
                self._clones[name] = (state.cloning, why)
                continue
            if donor and not state.unfit:
                text = f"{name} was cloned from {donor}"
                self._events.add(EventKind.CLONED, f"{text}: {why}" if why else text, name)
            self._clones[name] = ("", state.unfit or (reason(state) if broken(state) else ""))


def level(before: Record | None, record: Record) -> int:
    """The level at which the change of a record is logged: operators' alarms filter by it."""
    was, now = before and before.transition, record.transition
    because_lost = isinstance(now, Failover | RestartInPlace)
    return logging.WARNING if because_lost and type(was) is not type(now) else logging.INFO


def _level(cluster: Cluster, record: Record | None, view: View) -> int:
    """The level of a reason: that no server takes writes, or that no commit succeeds, is more than information."""
    primary = view.state(record.primary) if record else None
    takes = record is None or (primary is not None and primary.up and primary.writable)
    stand = record is not None and blocked(cluster, record, view)
    return logging.WARNING if stand or not takes else logging.INFO


def _unseen(cluster: Cluster, record: Record | None, view: View) -> bool:
    """Whether the primary's agent has not answered for longer than any machine is busy: an operator must look."""
    sighting = view.members.get(record.primary) if record else None
    patience = cluster.settings.timing.detection
    return isinstance(sighting, Unseen) and view.now - sighting.since >= patience
