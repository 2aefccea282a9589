"""How a member that is not the primary comes to follow it: it is checked, started, attached."""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.core.cluster import Cluster, Member
from holdfast.core.commands import (
    Clone,
    Command,
    Compare,
    Cut,
    Fence,
    Follow,
    Forget,
    Judge,
    Restart,
    Rewind,
    Start,
)
from holdfast.core.gtid import Flavor, GtidSet
from holdfast.core.members.own_writes import harmful, unjudged
from holdfast.core.record import Record
from holdfast.core.rules import appliers
from holdfast.core.rules.attachment import attached, errant_transactions, with_everything_of
from holdfast.core.rules.returned import may_be_copied
from holdfast.core.view import MemberState, Receiver, ServerStatus, TailVerdict, Unseen, View
from holdfast.core.wording import lasting, quoted


@dataclass(frozen=True, slots=True)
class Rejoin:
    """:ivar command: what to do next, if anything
    :ivar reason: why the member is not well, or ""
    :ivar because: why it must be cloned, if that is the next step; ``copying.py`` says whether it may be now
    """

    command: Command | None = None
    reason: str = ""
    because: str = ""


def rejoin(cluster: Cluster, record: Record, view: View, member: Member) -> Rejoin:
    """The next step of ``member``. Expects that the recorded primary is named for good (not ELECT)."""
    step = _next_step(cluster, record, view, member)
    state = view.state(member.name)
    full = state.full if state else ""
    return replace(step, reason=quoted(full, member.name)) if full else step


def _next_step(cluster: Cluster, record: Record, view: View, member: Member) -> Rejoin:
    name = member.name
    sighting = view.members.get(name)
    if sighting is None or isinstance(sighting, Unseen):
        return Rejoin(
            reason=f"its agent does not answer ({sighting.reason if sighting else 'not asked yet'})"
        )
    state = sighting.state
    primary = view.state(record.primary)
    if state.progress and state.unfit:
        return Rejoin(reason=state.progress.what)
    if state.server is ServerStatus.DYING:
        return Rejoin(reason=_start_failed(state) or state.why or "its server is ending")
    if state.unobserved:
        return Rejoin(reason=f"its server runs, and its agent cannot query it: {state.unobserved}")
    if state.server is ServerStatus.STARTING:
        return Rejoin(reason=_start_failed(state) or "its server is starting")
    if state.server is ServerStatus.UP and state.writable:
        return Rejoin(Fence(), f"it takes writes, and {record.primary} is the primary")
    if primary is None or not primary.up:
        return Rejoin(reason=_idle(cluster, record, state))
    if (
        state.up
        and record.counts(name, state.incarnation)
        and (why := spoiled(cluster, primary, state))
    ):
        return _unseat(record, state, why)
    if state.unfit:
        return _clone(cluster, record, view, primary, state, state.unfit)
    if state.server is ServerStatus.DOWN:
        return _start(cluster, record, view, primary, state)
    errant = errant_transactions(primary, state)
    if errant:
        mended = _mend_own_writes(cluster, record, primary, state, errant)
        if mended is not None:
            return mended
    if _purged(cluster, primary, state):
        return _clone(cluster, record, view, primary, state, spoiled(cluster, primary, state))
    if appliers.must_restart(cluster, record, primary, state):
        why = appliers.told(cluster, record, state)
        return Rejoin(Fence(), f"{why}; restarting it, to fetch again what it cannot apply")
    if not attached(cluster, record, state) or _told_too_little(cluster, record, primary, state):
        return Rejoin(follow(cluster, record, state), _catching_up(cluster, record, state))
    if appliers.broken(state):
        return _broken(cluster, record, view, primary, state)
    if state.suspects:
        compare = Compare(record.primary, cluster.member(record.primary).agent)
        suspects = ", ".join(state.suspects)
        why = f"{suspects} may differ after a rewind or a crash: it is being compared with {record.primary}"
        busy = state.occupied is not None or state.replication.receiver is not Receiver.ON
        return Rejoin(None if busy else compare, why)
    if errant:
        why = f"it has transactions of its own that change nothing ({errant}): {record.primary} commits empty ones"
        return Rejoin(reason=why)
    return Rejoin(reason=_catching_up(cluster, record, state) or _differs(state, record.primary))


def _broken(
    cluster: Cluster, record: Record, view: View, primary: MemberState, state: MemberState
) -> Rejoin:
    """The member receives, and its applier has stopped with an error: the applier is started again, in case an operator
    has repaired it, and in the end the member's data is replaced."""
    why = appliers.told(cluster, record, state)
    voted_out = not record.counts(state.name, state.incarnation)
    if appliers.due(cluster, state) and voted_out and primary.writable:
        return _clone(cluster, record, view, primary, state, why)
    again = not state.replication.applier and state.replication.receiver is Receiver.ON
    return Rejoin(follow(cluster, record, state) if again else None, why)


def _mend_own_writes(
    cluster: Cluster, record: Record, primary: MemberState, state: MemberState, errant: GtidSet
) -> Rejoin | None:
    """What the member must do about transactions that the primary lacks; None if the primary does it."""
    present = str(with_everything_of(primary))
    accepted = _accepted(primary)
    if harmful(state, errant):
        why = f"{spoiled(cluster, primary, state)}: they are being rewound"
        return Rejoin(Rewind(record.primary, present) if accepted else None, why)
    if new := unjudged(state, errant):
        why = f"it has transactions that {record.primary} lacks ({new}): they are being read"
        return Rejoin(Judge(record.primary, present) if accepted else None, why)
    if state.flavor is Flavor.MYSQL:
        return None
    why = f"it has transactions of its own that change nothing ({errant}): it forgets them"
    return Rejoin(Forget(record.primary, present) if accepted else None, why)


def spoiled(cluster: Cluster, primary: MemberState, state: MemberState) -> str:
    """Why a member cannot continue with the data that it has, or ""."""
    if state.unfit:
        return state.unfit
    if errant := harmful(state, errant_transactions(primary, state)):
        return f"it has transactions that {primary.name} lacks ({errant})"
    if _purged(cluster, primary, state):
        return f"{primary.name} has purged the binlogs that it needs"
    return ""


def _purged(cluster: Cluster, primary: MemberState, state: MemberState) -> bool:
    """Whether the primary lacks the binlogs that the member needs next.

    What another source lacked, which the member still follows, says nothing: the member must follow the primary first.
    Nor does an error that a receiver had before it was stopped for a promise.
    """
    replication = state.replication
    from_primary = replication.source == cluster.member(primary.name).address
    return replication.purged and from_primary and not state.promised


def _unseat(record: Record, state: MemberState, why: str) -> Rejoin:
    """A voter must lose its vote before what it has received is touched. The last voter is never evicted; when it is
    restarted, it is another incarnation, which does not vote."""
    if len(record.target.without(record.primary)) > 1 or record.joint:
        return Rejoin(reason=why)
    return Rejoin(Restart(), f"{why}; restarting it: it must not vote before that is fixed")


def _accepted(primary: MemberState) -> bool:
    """Whether the primary's data is the data that counts: it is open, or being opened. A primary that came back in
    place is compared first: see ``core/rules/returned.py``."""
    return primary.writable or primary.semi_sync.source


def _told_too_little(
    cluster: Cluster, record: Record, primary: MemberState, state: MemberState
) -> bool:
    """Whether the member needs a command of this term: its account is barred (``membership.unbarrable``), or it is a
    stray (``membership.found_strays``)."""
    if state.term == record.term:
        return False
    stray = any(s.name == state.name for s in record.strays)
    return stray or cluster.account(state.name) in primary.barred


def _clone(
    cluster: Cluster,
    record: Record,
    view: View,
    primary: MemberState,
    state: MemberState,
    why: str,
) -> Rejoin:
    if not may_be_copied(record, view, primary):
        return Rejoin(reason=why)
    donor = cluster.member(best_donor(cluster, record, view, state.name))
    if donor.name == primary.name and cluster.account(state.name) in primary.barred:
        return Rejoin(reason=why)  # its account is unlocked first
    present = str(with_everything_of(primary))
    clone = Clone(donor.name, donor.host, donor.port, donor.agent, present)
    return Rejoin(clone, f"{why}: it is cloned from {donor.name}", why)


def best_donor(cluster: Cluster, record: Record, view: View, name: str) -> str:
    """The member from which ``name`` is cloned.

    First the one from which the fewest clones have failed since the last that succeeded; then a replica before the
    primary, a learner before a voter. A replica on which the account of ``name`` is still barred, from when that
    replica was primary, would refuse the login.
    """
    recipient = view.state(name)
    failed = recipient.clone_failed if recipient else ()
    able = [
        (
            failed.count(state.name),
            False,
            record.votes(state.name, state.incarnation),
            cluster.setting(state.name).priority,
            state.name,
        )
        for member in cluster.others(record.primary)
        if member.name != name
        and (state := view.state(member.name))
        and state.observed
        and not state.unfit
        and not state.suspects
        and not appliers.broken(state)
        and not state.differs
        and state.progress is None
        and not state.cloning
        and cluster.account(name) not in state.barred
        and attached(cluster, record, state)
        and state.replication.receiver is Receiver.ON
    ]
    able.append((failed.count(record.primary), True, False, 0, record.primary))
    return min(able)[-1]


def _start(
    cluster: Cluster, record: Record, view: View, primary: MemberState, state: MemberState
) -> Rejoin:
    """Start a server that is down, if its binlog ends with nothing that the primary lacks, or if what it ends with is
    already committed: then it is rewound."""
    if state.unstartable:
        return Rejoin(reason=quoted(state.unstartable, state.name))
    tail = state.tail
    if tail.term < record.elected or tail.verdict is TailVerdict.UNCHECKED:
        present = str(with_everything_of(primary))
        return Rejoin(
            Cut(record.primary, present),
            _start_failed(state) or "its server is down; its binlog is being checked",
        )
    if tail.verdict is TailVerdict.UNSAFE:
        return _clone(cluster, record, view, primary, state, tail.reason)
    if state.resting:
        return Rejoin(reason=_start_failed(state))
    return Rejoin(Start(), _start_failed(state) or "its server is down and will be started")


def _start_failed(state: MemberState) -> str:
    return quoted(state.start_failed, state.name)


def follow(cluster: Cluster, record: Record, state: MemberState) -> Follow:
    """The command that makes the member follow the recorded primary as the record asks."""
    primary = cluster.member(record.primary)
    semi_sync = record.votes(state.name, state.incarnation)
    heartbeat = cluster.settings.timing.heartbeat
    events = cluster.settings.events
    return Follow(primary.name, primary.host, primary.port, semi_sync, heartbeat, events)


def _differs(state: MemberState, primary: str) -> str:
    """What a verification found. It is not repaired automatically: only an operator can say which of the two is
    right."""
    if not state.differs:
        return ""
    tables = ", ".join(map(str, state.differs))
    return (
        f"it differs from {primary} in {tables}, and may not take over; "
        f"holdfast member clone {state.name} replaces its data"
    )


def _idle(cluster: Cluster, record: Record, state: MemberState) -> str:
    """What can be said about the member while the primary cannot be asked."""
    if state.ended and state.start_failed:
        return _start_failed(state)
    if state.ended:
        return f"its server is down; it is started when {record.primary} is up, to compare their binlogs"
    receives = state.replication.receiver is Receiver.ON
    if receives and attached(cluster, record, state):
        return _catching_up(cluster, record, state)  # that primary lives, though its agent may not
    return state.why or f"it waits for {record.primary}"


def _catching_up(cluster: Cluster, record: Record, state: MemberState) -> str:
    replication = state.replication
    if state.silent_seconds:
        return "its server has not answered its agent for " + lasting(state.silent_seconds)
    if appliers.broken(state):
        return appliers.told(cluster, record, state)
    if replication.error:
        return replication.error
    if replication.receiver is not Receiver.ON:
        return "its receiver is not connected to the primary"
    if not replication.applier:
        return "its applier is stopped"
    return state.why
