"""Which member's tables are compared with the primary's next: one member at a time, while nothing else is under way."""

from __future__ import annotations

from holdfast.core.cluster import Cluster
from holdfast.core.commands import Verify
from holdfast.core.decision import Send
from holdfast.core.record import Record
from holdfast.core.rules.attachment import attached
from holdfast.core.view import MemberState, Receiver, View

MOST_NAMED = 20
"""This many tables that differ are named in one sentence."""


def objections(cluster: Cluster, record: Record | None, view: View, name: str) -> tuple[str, ...]:
    """Everything that stands against verifying that member now; () if nothing does."""
    if record is None:
        return (f"{cluster.name} has no primary yet",)
    if name == record.primary:
        return (f"{name} is the primary: the other members are compared with it",)
    found = []
    primary = view.state(record.primary)
    if primary is None or not primary.writable:
        found.append(f"{record.primary}, the primary, does not take writes")
    state = view.state(name)
    if state is None:
        return (*found, f"the agent of {name} does not answer")
    if state.occupied:
        found.append(f"{name} is busy: {state.occupied.what}")
    elif state.unfit or state.suspects:
        found.append(f"{name} is being repaired first: see holdfast status")
    elif not _follows(cluster, record, state):
        found.append(f"{name} does not follow {record.primary}: see holdfast status")
    if busy := [each for each in _verifying(view) if each != name]:
        found.append(f"{busy[0]} is being verified, and one member is at a time")
    return tuple(found)


def due(cluster: Cluster, record: Record | None, view: View) -> Send | None:
    """The verification to begin automatically: an interrupted one continues first; then a member whose ``verify_every``
    is over.

    It goes by the wall clock, because the schedule is the operator's: if the clock is wrong, a verification comes too
    early or too late, and nothing else happens.
    """
    if record is None or record.transition or record.joint or record.paused or _verifying(view):
        return None
    able = [
        state
        for member in cluster.others(record.primary)
        if not objections(cluster, record, view, member.name) and (state := view.state(member.name))
    ]
    every = cluster.settings.verify_every
    interrupted = [each for each in able if each.verified and not each.verified.ended]
    late = [each for each in able if every and view.date - _began(each) >= every]
    chosen = next(iter(interrupted), None) or min(late, key=_began, default=None)
    if chosen is None:
        return None
    return Send(chosen.name, Verify(record.primary, cluster.member(record.primary).agent))


def told(state: MemberState) -> str:
    """The result of the last verification, in one sentence; "" while it is under way, or if there was none."""
    found = state.verified
    if found is None or not (found.ended or found.halted):
        return ""
    skipped = f"; {found.skipped} cannot be compared" if found.skipped else ""
    where = ", ".join(map(str, state.differs[:MOST_NAMED]))
    if (more := len(state.differs) - MOST_NAMED) > 0:
        where += f" and {more} more tables"
    differs = f"{state.name} differs from {found.primary} in {where}"
    if found.halted:
        how = "failed" if found.failed else "was ended" if found.ended else "was interrupted"
        so_far = differs if found.different else f"no difference in {found.tables} tables so far"
        what = f"the verification of {state.name} against {found.primary} {how}"
        return f"{what}: {found.halted}; {so_far}"
    if found.different:
        return f"{differs}{skipped}"
    return (
        f"{state.name} holds the same as {found.primary} in {found.tables} tables "
        f"({found.rows} rows){skipped}"
    )


def _verifying(view: View) -> list[str]:
    states = [view.state(name) for name in view.members]
    return [state.name for state in states if state and state.verifying]


def _follows(cluster: Cluster, record: Record, state: MemberState) -> bool:
    return (
        state.up
        and attached(cluster, record, state)
        and state.replication.receiver is Receiver.ON
        and not state.replication.error
    )


def _began(state: MemberState) -> float:
    return state.verified.began if state.verified else 0.0
