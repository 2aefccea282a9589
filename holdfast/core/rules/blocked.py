"""Whether commits on the primary come through, as its clients feel it."""

from __future__ import annotations

from holdfast.core.cluster import Cluster
from holdfast.core.quorum import Voter
from holdfast.core.record import Record, Step
from holdfast.core.view import MemberState, Receiver, Seen, Unseen, View
from holdfast.core.wording import lasting

NONE_CAN = "none of its voters can acknowledge"


def takes_writes(cluster: Cluster, record: Record, view: View) -> bool:
    """Whether the primary takes clients and their commits come through, as far as is known.

    A primary that cannot be looked into is known by what it was and by who hears it: that its agent does not answer, or
    that its server lets that agent in no more, says nothing about its clients.
    """
    state = view.state(record.primary)
    if state is None or state.unobserved:
        return _was_open(record, view) and _is_heard(cluster, record, view)
    return state.up and state.writable and not blocked(cluster, record, view)


def blocked(cluster: Cluster, record: Record, view: View) -> str:
    """Why no commit comes through on the primary, though it takes clients; "" while they do, as far as is known.

    Told also while nobody writes: a voter that cannot acknowledge says so before a client finds out. What passes within
    ``ack_patience`` is not told.
    """
    primary = view.state(record.primary)
    if primary is None or not primary.up or not primary.writable or primary.unobserved:
        return ""
    patience = cluster.settings.ack_patience
    if primary.silent_seconds >= patience:
        return "its server has not answered for " + lasting(primary.silent_seconds)
    if primary.full and primary.stuck_seconds >= patience:
        return f"{primary.full}, for " + lasting(primary.stuck_seconds)
    if primary.stuck_seconds >= patience:
        cause = f" ({primary.stuck})" if primary.stuck else ""
        return "a small write has not come through for " + lasting(primary.stuck_seconds) + cause
    if not _waits_without_end(primary):
        return ""
    missing = {
        name: why
        for name, run in sorted(record.target.without(record.primary))
        if (why := _cannot_acknowledge((name, run), view, patience))
    }
    able = len(record.target.without(record.primary)) - len(missing)
    if able < primary.semi_sync.acks:
        found = "; ".join(f"{name}: {why}" for name, why in missing.items()) or "there is none"
        if not able:
            return f"{NONE_CAN} ({found})"
        return f"{primary.semi_sync.acks} of its voters must acknowledge, and only {able} can ({found})"
    lapse = view.lapses.get(record.primary)
    if lapse is not None and lapse.seconds >= patience:
        return "none has been acknowledged for " + lasting(lapse.seconds)
    return ""


def _waits_without_end(primary: MemberState) -> bool:
    waits = primary.semi_sync
    return waits.source and waits.acks > 0 and not waits.degraded and not waits.timeout_seconds


def _cannot_acknowledge(voter: Voter, view: View, patience: float) -> str:
    name, run = voter
    state, lapse = view.state(name), view.lapses.get(name)
    if state is not None and not state.up and not state.unobserved:
        return "its server is down"
    if state is not None and state.incarnation != run:
        return "it was restarted, and does not vote yet"
    return lapse.reason if lapse is not None and lapse.seconds >= patience else ""


def _was_open(record: Record, view: View) -> bool:
    """Whether the server took clients when it was last looked into, and nobody has been told to close it since."""
    if record.transition and record.transition.step in (Step.ELECT, Step.FREEZE):
        return False
    sighting = view.members.get(record.primary)
    match sighting:
        case Seen(state=last):
            pass
        case Unseen(last=last) if last is not None:
            pass
        case _:
            return False
    if last.incarnation != record.target.incarnation(record.primary) or last.stopped:
        return False
    # an agent that was restarted, and has not looked yet, holds to its lease what had been opened
    return last.writable if last.up else bool(last.unobserved) and last.lease.enforced


def _is_heard(cluster: Cluster, record: Record, view: View) -> bool:
    """Whether as many voters as a commit waits for, one member at least, follow its server and hear it."""
    address = cluster.member(record.primary).address
    patience = cluster.settings.timing.detection
    hearing = [
        state
        for member in cluster.others(record.primary)
        if (state := view.state(member.name))
        and state.observed
        and state.replication.source == address
        and state.replication.receiver is Receiver.ON
        and state.replication.unheard < patience
    ]
    voting = [
        state
        for state in hearing
        if record.target.incarnation(state.name) == state.incarnation and state.semi_sync.replica
    ]
    return bool(hearing) and len(voting) >= record.acks
