"""Whether commits on the primary complete, as its clients see it."""

from __future__ import annotations

from holdfast.core.cluster import Cluster
from holdfast.core.quorum import Voter
from holdfast.core.record import Record
from holdfast.core.transition import Step
from holdfast.core.view import MemberState, Receiver, Seen, Unseen, View
from holdfast.core.wording import Topic, joined, lasting, quoted, saying


def takes_writes(cluster: Cluster, record: Record, view: View) -> bool:
    """Whether the primary accepts clients and their commits complete, as far as is known.

    If a primary cannot be observed, its last known state and the voters that hear it decide: an agent that does not
    answer, or that its server refuses to log in, says nothing about the server's clients.
    """
    state = view.state(record.primary)
    if state is None or state.unobserved:
        return _was_open(record, view) and _is_heard(cluster, record, view)
    return state.up and state.writable and not blocked(cluster, record, view)


def blocked(cluster: Cluster, record: Record, view: View) -> str:
    """Why no commit completes on the primary, although it accepts clients; "" while commits complete, as far as is
    known.

    This is reported also while no client writes: a voter that cannot acknowledge is named before a client finds out.
    What lasts less than ``ack_patience`` is not reported.
    """
    primary = view.state(record.primary)
    if primary is None or not primary.up or not primary.writable or primary.unobserved:
        return ""
    patience = cluster.settings.ack_patience
    if primary.silent_seconds >= patience:
        return "its server has not answered for " + lasting(primary.silent_seconds)
    if primary.full and primary.stuck_seconds >= patience:
        return quoted(primary.full, primary.name) + ", for " + lasting(primary.stuck_seconds)
    if primary.stuck_seconds >= patience:
        cause = f" ({primary.stuck})" if primary.stuck else ""
        return "a small write has not come through for " + lasting(primary.stuck_seconds) + cause
    if primary.locked_seconds >= patience:
        return (
            "a session holds a lock, such as FLUSH TABLES WITH READ LOCK, for which writes have waited for "
            + lasting(primary.locked_seconds)
        )
    if not _waits_without_end(primary):
        return ""
    missing = {
        name: why
        for name, run in sorted(record.target.without(record.primary))
        if (why := _cannot_acknowledge((name, run), view, patience))
    }
    able = len(record.target.without(record.primary)) - len(missing)
    if able < primary.semi_sync.acks:
        told = (saying(f"{name}: {why}", Topic.VOTER, name) for name, why in missing.items())
        found = joined("; ", told) or "there is none"
        if not able:
            none = saying("none of its voters can acknowledge", Topic.NO_VOTER)
            return none + " (" + found + ")"
        return (
            f"{primary.semi_sync.acks} of its voters must acknowledge, and only {able} can ("
            + found
            + ")"
        )
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
    """Whether the server accepted clients when it was last observed, and no command to close it was sent since."""
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
    # an agent that was restarted and has not looked yet enforces the lease of what had been opened
    return last.writable if last.up else bool(last.unobserved) and last.lease.enforced


def _is_heard(cluster: Cluster, record: Record, view: View) -> bool:
    """Whether as many voters as a commit waits for, and at least one member, follow the primary's server and hear
    it."""
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
