"""Who should vote: voters whose server ended are left out, members that have caught up are let in.

The order in which a change is carried out is the same for all of them, and any manager can go on with it:
the new configuration is put in force beside the old one (Save) -> the primary waits for the higher of the two
numbers of acknowledgements (SetAcks) -> members that gained a vote switch semi-sync on (Follow) -> the
primary proves with a row that the new voters hold everything (Prove) -> it stands alone (Save).
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.cluster import Cluster
from holdfast.core.quorum import Configuration, Voter, acks_for, extendable, most_voters
from holdfast.core.record import Record, Stray
from holdfast.core.rejoin import errant_transactions
from holdfast.core.view import MemberState, Receiver, ServerStatus, View

CAUGHT_UP = 2000
"""Transactions that a learner may be behind when it is admitted: a fraction of a second of applying."""


@dataclass(frozen=True, slots=True)
class Change:
    """:ivar why: one sentence for the log"""

    target: Configuration
    why: str


def next_change(cluster: Cluster, record: Record, view: View) -> Change | None:
    """The configuration to be put in force next; None when the last one is right, or nothing can be done."""
    primary = view.state(record.primary)
    if primary is None or not primary.up:
        return None
    present = record.target.without(record.primary)
    dead = dead_voters(record, view)
    staying = {voter for voter in present if voter not in dead}
    room = most_voters(primary.flavor, cluster.settings.durability) - 1
    joining: set[Voter] = set()
    for member in cluster.others(record.primary):
        state = view.state(member.name)
        if len(staying) + len(joining) < room and state and _admissible(primary, state, cluster):
            voter = (state.name, state.incarnation)
            if voter not in staying:
                joining.add(voter)
    voters = staying | joining
    if voters == present or not voters:  # the last other voter stays: alone, the primary blocks
        return None
    own = (record.primary, primary.incarnation)
    target = Configuration(
        frozenset(voters | {own}), acks_for(len(voters) + 1, cluster.settings.durability)
    )
    if not extendable(record.configurations, target, record.primary, dead):
        return None
    return Change(target, _why(joining, {name for name, _ in present - voters}))


def dead_voters(record: Record, view: View) -> frozenset[Voter]:
    """Voters whose server process has ended for certain: their agent says so, or that another one runs."""
    dead = set()
    for configuration in record.configurations:
        for name, incarnation in configuration.without(record.primary):
            state = view.state(name)
            if state is None:
                continue
            if state.server is ServerStatus.DOWN or state.incarnation != incarnation:
                dead.add((name, incarnation))
    return frozenset(dead)


def found_strays(cluster: Cluster, record: Record, view: View) -> frozenset[Stray]:
    """Strays that have been reached: their server ended, or follows the present primary."""
    address = cluster.member(record.primary).address
    return frozenset(
        stray
        for stray in record.strays
        if (state := view.state(stray.name))
        and (
            state.server is ServerStatus.DOWN
            or state.incarnation != stray.incarnation
            or (state.up and state.replication.source == address)
        )
    )


def behind(primary: MemberState, state: MemberState) -> int:
    """How many of the primary's transactions the member has not received yet."""
    return primary.applied_set().subtract(state.received_set()).count()


def _admissible(primary: MemberState, state: MemberState, cluster: Cluster) -> bool:
    replication = state.replication
    return (
        state.up
        and not state.writable
        and replication.source == cluster.member(primary.name).address
        and replication.receiver is Receiver.ON
        and replication.applier
        and not errant_transactions(primary, state)
        and behind(primary, state) <= CAUGHT_UP
    )


def _why(joining: set[Voter], leaving: set[str]) -> str:
    joined = {name for name, _ in joining}
    parts = []
    if joined - leaving:
        parts.append(f"{_names(joined - leaving)} caught up and will vote")
    if joined & leaving:
        parts.append(f"{_names(joined & leaving)} was restarted and will vote again")
    if leaving - joined:
        parts.append(f"the server of {_names(leaving - joined)} ended: votes no longer")
    return "; ".join(parts)


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names))
