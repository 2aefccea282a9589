"""Since when each member owes the primary an acknowledgement: the one thing that a single look cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from holdfast.core.gtid import Flavor, parse
from holdfast.core.observed.lapse import Lapse
from holdfast.core.record import Record
from holdfast.core.transition import Step
from holdfast.core.view import MemberState, Receiver, Sighting, Unseen, View


@dataclass(frozen=True, slots=True)
class Pulse:
    """The pulse of one member.

    :ivar run: the primary's incarnation at the mark; what another incarnation had does not count
    :ivar mark: what the primary had committed at ``since``, as the primary reports it
    :ivar since: the last moment (the manager's clock, seconds) at which nothing was held against the member
    :ivar until: the last look by which something was held against it: an agent that answers late on a busy machine is
        no reason to blame the member
    :ivar reason: what is held against it now, or ""
    """

    run: str
    mark: str
    since: float
    until: float
    reason: str = ""


def felt(before: Mapping[str, Pulse], primary: str, view: View) -> dict[str, Pulse]:
    """The pulses after a look at ``view``. Must be called at every look: a member that was never seen well counts from
    now."""
    state = view.state(primary)
    up = state if state and state.up else None
    now = view.now
    fresh = Pulse(up.incarnation if up else "", up.applied if up else "", now, now)
    felt = {}
    for name in view.members:
        if name == primary:
            felt[name] = _stalled(before.get(name, fresh), fresh, view.members[name])
        else:
            known = before.get(name, fresh)
            same = up is None or known.run == up.incarnation
            felt[name] = _felt(known if same else fresh, fresh, up, view.members[name], now)
    return felt


def lapses(pulses: Mapping[str, Pulse]) -> dict[str, Lapse]:
    """The members that owe something, for how long, and what; also the primary, while its commits wait."""
    return {
        name: Lapse(pulse.until - pulse.since, pulse.reason)
        for name, pulse in pulses.items()
        if pulse.reason
    }


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a member has received, and since when it has not received more (the manager's clock, seconds)."""

    received: str
    since: float


def reached(before: Mapping[str, Reach], view: View) -> dict[str, Reach]:
    """How far each member has received. Must be called at every look. Nothing is known of a member that cannot be
    seen."""
    now = {
        name: Reach(state.received, view.now)
        for name in view.members
        if (state := view.state(name)) and state.up
    }
    return {
        name: known if (known := before.get(name)) and known.received == each.received else each
        for name, each in now.items()
    }


@dataclass(frozen=True, slots=True)
class OpeningPulse:
    """The primary that was named in ``term`` has been waiting to be opened since this moment (the manager's clock,
    seconds)."""

    term: int
    primary: str
    since: float


def opening(before: OpeningPulse | None, record: Record, view: View) -> OpeningPulse | None:
    """The pulse of a primary that is to be opened; None: there is none, or it is seen to be open. Must be called at
    every look."""
    state = view.state(record.primary)
    opens = record.transition is not None and record.transition.step is Step.OPEN
    if not opens or (state and state.writable):
        return None
    if before and (before.term, before.primary) == (record.term, record.primary):
        return before
    return OpeningPulse(record.term, record.primary, view.now)


def _felt(
    before: Pulse, fresh: Pulse, primary: MemberState | None, sighting: Sighting, now: float
) -> Pulse:
    if isinstance(sighting, Unseen):
        since = min(before.since, sighting.since)
        return replace(before, since=since, until=now, reason="its agent does not answer")
    state, at = sighting.state, sighting.at
    well = replace(fresh, since=at, until=at)
    if state.unobserved:
        since = min(before.since, at - state.unobserved_seconds)
        return replace(before, since=since, until=at, reason="its agent cannot query its server")
    if not state.up:
        return well  # known to be down: patience does not apply
    against = _against(state, primary, before.mark)
    if not against:
        return well
    since = min(before.since, at - state.silent_seconds)
    return replace(before, since=since, until=at, reason=state.full or against)


def _against(state: MemberState, primary: MemberState | None, mark: str) -> str:
    """What is held against a member that is up; the cause may be a full disk instead."""
    if state.silent_seconds:
        return "its server does not answer"
    if state.replication.receiver is not Receiver.ON:
        return "its receiver is not connected"
    # a primary that cannot even write its binlog sends nothing
    if primary is None or primary.full or primary.stuck_seconds or not _owes(state, primary, mark):
        return ""
    return "it does not receive what the primary commits"


def _stalled(before: Pulse, fresh: Pulse, sighting: Sighting) -> Pulse:
    """The primary's own pulse: since when its commits have waited without one being released."""
    if isinstance(sighting, Unseen):
        return fresh
    state, at = sighting.state, sighting.at
    if not state.up or not state.semi_sync.waiting or before.mark != fresh.mark:
        return replace(fresh, since=at, until=at)
    return replace(before, until=at, reason="its commits wait")


def _owes(state: MemberState, primary: MemberState, mark: str) -> bool:
    """Whether the member lacks what the primary had at the mark, or commits have been waiting for such a member since
    then.

    MySQL does not show which commit waits: a member that has received something of it has more than the primary shows.
    """
    received = state.received_set()
    if not received.covers(parse(primary.flavor, mark)):
        return True
    stalled = primary.semi_sync.waiting > 0 and primary.applied == mark
    if not stalled or primary.flavor is Flavor.MARIADB:
        return False
    return not received.subtract(primary.applied_set())
