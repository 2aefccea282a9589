"""A planned change of primary, step by step.

    Save(CHAIN, new term) -> the other voters Follow the candidate, which Drains -> Call(STOP) -> Save(FREEZE)
      -> Freeze the primary -> the candidate Drains all that the primary has, once its writes have stopped
      -> Save(OPEN: the commit point) -> Promote the candidate, and all other members Follow -> Save(settled)

Everything that takes time is done before writes stop. Voters are chained below the candidate, so that they acknowledge
to it the moment it is open; as many as a commit needs stay with the primary. Chained voters acknowledge to no server
meanwhile and receive everything through the candidate. What the primary commits is still acknowledged by k of its
voters, so a failover in between is as safe as ever. But a chained voter that cannot be reached then may follow the
candidate, and would acknowledge to it: the record keeps each as a stray of the candidate from before it gets the
command.

Why the candidate may be named: the primary has confirmed, in this term, that it takes no more writes and that no commit
is under way (``MemberState.frozen``), so it acknowledges nothing more. It opens again only by a command of a manager,
in this term or a higher one. In this term there is none: a manager that undoes the switchover makes a higher term, by a
compare-and-set that competes with the one that names the candidate. The candidate has applied all that the primary has,
and so all that was ever acknowledged. From then on ``failover.name_primary`` holds, with the old primary as one more
member that is known to hold everything.

Before writes stop, the candidate's agent has on disk which members' confirmations will count once it is primary. This
has no effect until its server is opened; and every command after an undone switchover is of a higher term, and replaces
it.

Until the commit point everything can be undone: no transition, a higher term, and ``decide`` opens the primary again
and makes the other members follow it. After the commit point the switchover is completed like a failover.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from holdfast.core.change import hooking
from holdfast.core.change.failover import name_primary
from holdfast.core.cluster import Cluster
from holdfast.core.commands import Drain, Follow, Freeze, Prove, Unbar
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.lease import electorate
from holdfast.core.members.membership import unbarrable
from holdfast.core.observed.applying import REMOVED
from holdfast.core.record import Record, Stray
from holdfast.core.rules.backlog import backlog
from holdfast.core.rules.diagnosis import Diagnosis, Primary
from holdfast.core.transition import Instant, Step, Switchover
from holdfast.core.view import MemberState, Receiver, View

NEARLY_ZERO = 30
"""Small transactions that the candidate may have left to apply when writes stop: some milliseconds, on a busy machine
some tens (MySQL took up to 150 ms for 200)."""

LATE_SECONDS = 20.0
NEAR = 2000
"""With so few seconds left the candidate may be further behind, about a second's work: clients write faster than it can
apply."""

FREEZE_SECONDS = 1.0
"""How long work under way on the primary may delay the freeze before the freeze is given up."""

LONGEST_FREEZE_SECONDS = 3.0
"""How long writes may be stopped before the commit point; after that the primary continues."""

SILENT_SECONDS = 1.0
"""For so long the candidate's server may leave its agent without an answer: a busy host, not a dead one."""


def under_way(record: Record) -> Switchover | None:
    """The switchover that is under way, and has not passed its commit point."""
    match record.transition:
        case Switchover(step=Step.CHAIN | Step.FREEZE) as change:
            return change
        case _:
            return None


def begun(cluster: Cluster, record: Record, view: View, to: str, seconds: float) -> Save:
    """The first step of a switchover. Expects that nothing stands against it.

    :param seconds: after which it is undone
    """
    until = Instant(view.boot, view.now + seconds)
    chained = {Stray(*voter, to) for voter in _to_be_chained(cluster, record, view, to)}
    saved = replace(
        record,
        term=record.term + 1,
        transition=Switchover(Step.CHAIN, to, until),
        strays=record.strays | chained,
    )
    return Save(saved, f"{to} will take over from {record.primary}: requested by an operator")


def step(
    cluster: Cluster, record: Record, view: View, diagnosis: Diagnosis, change: Switchover
) -> Decision:
    """CHAIN and FREEZE: the next step, or back to where the switchover began.

    This holds also if the primary is gone: a new term first, so that no member that gets a command late follows the
    candidate.

    :param change: as :func:`under_way` returns it
    """
    to = change.wish
    if _left(change, view) <= 0:
        return _undo(record, "it timed out")
    closing = change.step is Step.FREEZE or hooking.called(record, view)
    closed_by_us = diagnosis.primary is Primary.CLOSED and closing
    primary = view.state(record.primary)
    if primary is None or not (diagnosis.primary is Primary.WELL or closed_by_us):
        return _undo(record, diagnosis.reason)
    candidate = view.state(to)
    if candidate is None:
        return _undo(record, f"the agent of {to} does not answer")
    if why := _unfit(cluster, record, candidate):
        return _undo(record, f"{to} {why}")
    if change.step is Step.CHAIN:
        return _chain(cluster, record, view, change, primary, candidate)
    return _freeze(cluster, record, view, primary, candidate)


def undone(record: Record, why: str) -> Save:
    """The commands of this term are void; the primary continues."""
    text = f"the switchover to {record.wish} is undone: {why}; {record.primary} stays primary"
    return Save(replace(record, term=record.term + 1, transition=None), text)


def _undo(record: Record, why: str) -> Decision:
    back = undone(record, why)
    return Decision(back.why, (back,))


def _chain(
    cluster: Cluster,
    record: Record,
    view: View,
    change: Switchover,
    primary: MemberState,
    candidate: MemberState,
) -> Decision:
    to = cluster.member(candidate.name)
    others = record.target.without(record.primary)  # the present primary may have been chained once
    steps: list[Send] = []
    waiting = []
    for stray in sorted(record.strays, key=lambda each: each.name):
        if stray.source != to.name or (stray.name, stray.incarnation) not in others:
            continue
        state = view.state(stray.name)
        if state is None or state.incarnation != stray.incarnation:
            return _undo(record, f"{stray.name} was to be chained below {to.name}, but is gone")
        if not (state.term == record.term and chained(cluster, record, state)):
            heartbeat = cluster.settings.timing.heartbeat
            below = Follow(to.name, to.host, to.port, semi_sync=True, heartbeat=heartbeat)
            steps.append(Send(stray.name, below))
            waiting.append(f"{stray.name} is chained below it")
    for member in cluster.members:
        account = cluster.account(member.name)
        if account in candidate.barred and unbarrable(record, view, member.name):
            steps.append(Send(to.name, Unbar(account)))  # barred when it was primary before
            waiting.append(f"it lets {account} connect")
    if not steps and primary.term != record.term:
        # a row that the voters which stayed acknowledge; and its agent has this term on disk before writes stop
        prove = Prove(record.serial, electorate(cluster, record))
        steps.append(Send(record.primary, prove))
        waiting.append(f"{record.primary} commits without those that are chained")
    if not steps:
        if candidate.term == record.term and backlog(candidate) <= _near(change, view):
            if failed := hooking.failed(record, view):
                return _undo(record, f"the stop hook failed: {failed}")
            if calls := hooking.hooks_step(record, view):
                return replace(calls, reason=f"switchover to {to.name}: {calls.reason}")
            frozen = replace(record, transition=_frozen(change, view))
            why = f"{record.primary} takes no more writes, so that {to.name} can take over"
            return Decision(why, (Save(frozen, why),))
        named = _named(cluster, record, view, primary, candidate)
        steps.append(Send(to.name, Drain(electorate=electorate(cluster, named))))
        waiting.append("it applies what it has received")
    return Decision(f"switchover to {to.name}: {', '.join(waiting)}", tuple(steps))


def _near(change: Switchover, view: View) -> int:
    return NEARLY_ZERO if _left(change, view) > LATE_SECONDS else NEAR


def _left(change: Switchover, view: View) -> float:
    """Seconds until the switchover is undone. Writes may be stopped meanwhile, so no clock that can be set is used."""
    until = change.until
    return until.at - view.now if until and until.boot == view.boot else 0.0


def _freeze(
    cluster: Cluster,
    record: Record,
    view: View,
    primary: MemberState,
    candidate: MemberState,
) -> Decision:
    to = candidate.name
    if primary.frozen != record.term or primary.writable:
        why = f"switchover to {to}: writes on {primary.name} are being stopped"
        steps = [Send(primary.name, Freeze(FREEZE_SECONDS))]
        if primary.stopped == record.term:
            steps.append(Send(to, Drain(primary.applied)))  # while clients' sessions are ended
        return Decision(why, tuple(steps))
    if not candidate.applied_set().contains(primary.applied_set()):
        why = f"switchover to {to}: it applies the last transactions of {primary.name}"
        return Decision(why, (Send(to, Drain(primary.applied)),))
    named = _named(cluster, record, view, primary, candidate)
    at = primary.applied_set().last() or "the beginning"
    why = f"{to} takes over from {primary.name} at {at}, as ordered"
    return Decision(why, (Save(named, why),))


def _named(
    cluster: Cluster,
    record: Record,
    view: View,
    primary: MemberState,
    candidate: MemberState,
) -> Record:
    voters = [
        state
        for name, incarnation in sorted(record.target.without(record.primary))
        if (state := view.state(name)) and state.up and state.incarnation == incarnation
    ]
    if candidate not in voters:
        voters.append(candidate)  # if commits wait for no acknowledgement it need not vote
    named = name_primary(cluster, record, view, candidate, [*voters, primary])
    opening = Switchover(Step.OPEN, candidate.name, deposed=primary.name, drained=primary.applied)
    return replace(named, transition=opening)


def _to_be_chained(
    cluster: Cluster, record: Record, view: View, to: str
) -> Sequence[tuple[str, str]]:
    """All voters that are seen to be well and that the primary can do without, apart from the candidate."""
    address = cluster.member(record.primary).address
    well = [
        (name, incarnation)
        for name, incarnation in sorted(record.target.without(record.primary))
        if name != to
        and (state := view.state(name))
        and state.incarnation == incarnation
        and state.observed
        and state.replication.source == address
        and state.replication.receiver is Receiver.ON
    ]
    staying = max(record.acks - 1, 0)
    return well[staying:]


def can_open_first(record: Record, primary: MemberState, acking: int) -> bool:
    """Past the commit point: whether the other members can follow later, because enough already acknowledge to the new
    primary.

    Each member that is made to follow takes processors and disks from the opening.

    :param acking: how many voters of the new primary acknowledge to it
    """
    drained = isinstance(record.transition, Switchover) and record.transition.drained
    return bool(drained) and not primary.writable and acking >= record.acks


def chained(cluster: Cluster, record: Record, state: MemberState) -> bool:
    """Whether the member follows the candidate of a switchover that has not passed its commit point."""
    change = under_way(record)
    if change is None:
        return False
    addresses = [each.address for each in cluster.members if each.name == change.wish]
    return (
        state.replication.source in addresses
        and state.replication.receiver is Receiver.ON
        and state.semi_sync.replica
    )


def _unfit(cluster: Cluster, record: Record, candidate: MemberState) -> str:
    """What has become of the candidate since it was found able to take over."""
    if candidate.name not in {member.name for member in cluster.members}:
        return "is no longer a member"
    if not candidate.up:
        return f"is {candidate.server.value}"
    if record.acks and not record.votes(candidate.name, candidate.incarnation):
        return "was restarted, or no longer votes"
    if candidate.silent_seconds >= SILENT_SECONDS:
        return "does not answer its agent"
    if candidate.unobserved:
        return f"cannot be queried by its agent ({candidate.unobserved})"
    if candidate.replication.source != cluster.member(record.primary).address:
        return f"does not follow {record.primary} any more"
    if not candidate.replication.applier:
        return f"cannot apply: {candidate.replication.error or 'its applier is stopped'}"
    return candidate.unfit or (REMOVED if candidate.applying.removed else "")


def _frozen(change: Switchover, view: View) -> Switchover:
    seconds = min(_left(change, view), LONGEST_FREEZE_SECONDS)
    until = Instant(view.boot, view.now + seconds)
    return replace(change, step=Step.FREEZE, until=until)
