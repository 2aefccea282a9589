"""Another primary is named only when the old one certainly answers no client any more. ``lease.py`` has the
argument."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from holdfast.core.cluster import Cluster
from holdfast.core.commands import Fence
from holdfast.core.decision import Decision, Send
from holdfast.core.lease import electorate, revoked
from holdfast.core.record import Record
from holdfast.core.rules.election import WISHED
from holdfast.core.timing import CLOCK_DRIFT
from holdfast.core.view import MemberState, Seen, Unseen, View


def is_deposed(record: Record, state: MemberState) -> bool:
    """Whether this is the server of the primary that is being deposed, and it still runs."""
    return (
        state.name == record.primary
        and not state.ended
        and state.incarnation == record.target.incarnation(record.primary)
    )


def fence_step(record: Record, view: View) -> tuple[Send, ...]:
    """Kill the old primary, if its agent answers: once its voters have promised, it commits nothing more."""
    state = view.state(record.primary)
    if state and is_deposed(record, state):
        return (Send(record.primary, Fence()),)
    return ()


def hold(
    cluster: Cluster, record: Record, view: View, promised: Sequence[MemberState]
) -> Decision | None:
    """Why another primary may not be named yet; None if it may.

    :param promised: all members whose promise holds, as they are seen now
    """
    name = record.primary
    sighting = view.members.get(name)
    if isinstance(sighting, Seen):
        if is_deposed(record, sighting.state):
            return Decision(f"failover: the server of {name} must be killed first")
        return None
    if isinstance(sighting, Unseen) and sighting.last and sighting.last.ended:
        return None
    electing = record.electing
    dared = electing is not None and electing.ordered and electing.lossy
    if not dared and not surely_revoked(cluster, record, view, {s.name for s in promised}):
        return Decision(
            f"failover: {name} may still answer clients: members that have not promised may confirm its lease"
        )
    until = view.leases.get(name, math.inf)
    for state in promised:
        seen = view.members[state.name]
        if isinstance(seen, Seen):
            until = max(until, seen.at + state.vouched * (1 + CLOCK_DRIFT))
    if view.now >= until:
        return None
    why = f"failover: waiting until the lease of {name} has certainly ended"
    return Decision(why, again=until - view.now)


def surely_revoked(cluster: Cluster, record: Record, view: View, promised: Collection[str]) -> bool:
    """:func:`revoked`, by the electorate of the record and by the one that the primary's agent last reported.

    In mode strong the two agree before anything relies on it: the record drops a configuration only after the primary
    has proved the next one with a row, and knows it. A weaker mode is recorded before the primary gets the command for
    it.
    """
    known = electorate(cluster, record)
    sighting = view.members.get(record.primary)
    state = sighting.last if isinstance(sighting, Unseen) else view.state(record.primary)
    said = state.lease.quorums if state else None
    by = [known] if said is None else [known, replace(known, quorums=said)]
    return all(revoked(each, promised) for each in by)


def wished(cluster: Cluster, wish: str) -> Cluster:
    """The cluster in which the member that an operator chose has the highest priority; with "" the cluster as it is."""
    if not wish:
        return cluster
    settings = cluster.settings
    first = replace(settings.member(wish), priority=WISHED)
    return replace(cluster, settings=replace(settings, members={**settings.members, wish: first}))
