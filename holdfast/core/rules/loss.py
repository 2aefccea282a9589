"""What a failover may lose in the modes that promise nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from holdfast.core.cluster import Cluster
from holdfast.core.gtid import parse
from holdfast.core.record import Record
from holdfast.core.rules.attachment import with_everything_of
from holdfast.core.settings import Mode
from holdfast.core.view import MemberState, View
from holdfast.core.wording import transactions


def refused(cluster: Cluster, record: Record) -> str:
    """Why no member may take over: it could lose transactions; "" if a loss is allowed."""
    if record.mode is Mode.STRONG:
        return "too few voters answer" if record.acks else f"{record.primary} served alone"
    if cluster.settings.allow_loss:
        return ""
    return (
        f"mode {record.mode}: a replica may lack what {record.primary} acknowledged "
        "(holdfast config set allow_loss true would let it take over)"
    )


def missing_from(record: Record, view: View, chosen: MemberState) -> str:
    """How many transactions may be missing when ``chosen`` takes over."""
    state = view.state(record.primary)
    known = state.last_applied if state else ""
    moment = f"what {record.primary} committed in its last moments may be missing"
    if not known:
        return f"how far {record.primary} had come is not known: {moment}"
    missing = parse(chosen.flavor, known).subtract(chosen.applied_set())
    if not missing:
        return f"it has everything that {record.primary} was last seen with; {moment}"
    return f"it lacks {transactions(missing)} that {record.primary} was last seen with ({missing}); {moment}"


def without_errants(record: Record, view: View, states: Sequence[MemberState]) -> list[MemberState]:
    """The members that have nothing which the deposed primary lacked, as far as that is known; all if there is none."""
    primary = view.state(record.primary)
    if primary is None or not primary.origin:
        return list(states)
    known = with_everything_of(replace(primary, applied=primary.last_applied))
    clean = [state for state in states if not state.received_set().subtract(known)]
    return clean or list(states)
