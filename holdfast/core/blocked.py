"""Whether commits on the primary come through, as its clients feel it."""

from __future__ import annotations

from holdfast.core.cluster import Cluster
from holdfast.core.quorum import Voter
from holdfast.core.record import Record
from holdfast.core.view import MemberState, View


def blocked(cluster: Cluster, record: Record, view: View) -> str:
    """Why no commit comes through on the primary, though it takes clients; "" while they do, as far as is known.

    Told also while nobody writes: a voter that cannot acknowledge says so before a client finds out. What passes within
    ``ack_patience`` is not told.
    """
    primary = view.state(record.primary)
    if primary is None or not primary.up or not primary.writable:
        return ""
    patience = cluster.settings.ack_patience
    if primary.silent_seconds >= patience:
        return f"its server has not answered for {primary.silent_seconds:.0f} s"
    if primary.full and primary.stuck_seconds >= patience:
        return f"{primary.full}, for {primary.stuck_seconds:.0f} s"
    if primary.stuck_seconds >= patience:
        cause = f" ({primary.stuck})" if primary.stuck else ""
        return f"a small write has not come through for {primary.stuck_seconds:.0f} s{cause}"
    if not _waits_without_end(primary):
        return ""
    missing = {
        name: why
        for name, run in sorted(record.target.without(record.primary))
        if (why := _cannot_acknowledge((name, run), view, patience))
    }
    able = len(record.target.without(record.primary)) - len(missing)
    if able < primary.semi_sync.acks:
        found = "; ".join(f"{name}: {why}" for name, why in missing.items()) or "there is no voter"
        return f"{primary.semi_sync.acks} must acknowledge, and {able} can ({found})"
    lapse = view.lapses.get(record.primary)
    if lapse is not None and lapse.seconds >= patience:
        return f"none has been acknowledged for {lapse.seconds:.0f} s"
    return ""


def _waits_without_end(primary: MemberState) -> bool:
    waits = primary.semi_sync
    return waits.source and waits.acks > 0 and not waits.degraded and not waits.timeout_seconds


def _cannot_acknowledge(voter: Voter, view: View, patience: float) -> str:
    name, run = voter
    state, lapse = view.state(name), view.lapses.get(name)
    if state is not None and not state.up:
        return "its server is down"
    if state is not None and state.incarnation != run:
        return "it was started anew, and does not vote yet"
    return lapse.reason if lapse is not None and lapse.seconds >= patience else ""
