"""Record, view and time -> the next steps, and why. A total and deterministic function; this module only dispatches."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.answers.described import under_way
from holdfast.core.change import bootstrap, failover, restart, switchover, way_out
from holdfast.core.change.hooking import start_step
from holdfast.core.change.opening import open_step, voters
from holdfast.core.cluster import Cluster
from holdfast.core.commands import (
    CommitEmpty,
    Cut,
    Fence,
    Follow,
    Prove,
    Start,
    Unbar,
)
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.lease import electorate
from holdfast.core.members import accounts, copying, membership, modes, own_writes
from holdfast.core.members.rejoin import follow
from holdfast.core.quorum import Voter
from holdfast.core.record import Pause, Record
from holdfast.core.rules import ackers, enforcement, returned
from holdfast.core.rules.attachment import attached
from holdfast.core.rules.diagnosis import (
    ANSWERS,
    GONE,
    Diagnosis,
    Primary,
    cannot_look_into,
    diagnose,
)
from holdfast.core.rules.releases import Release, describe
from holdfast.core.rules.returned import OPENING
from holdfast.core.settings import Mode
from holdfast.core.transition import RestartInPlace, Step, Strengthen
from holdfast.core.view import MemberState, Receiver, View
from holdfast.core.wording import (
    Topic,
    agree,
    capitalised,
    counted,
    moment,
    of_member,
    once,
    saying,
)

HELP_SECONDS = 0.5
"""For so long a new primary is opened with the help of only those members that can acknowledge at once; usually it
takes a fifth of that. Less than a lease: the previous primary, which was frozen, must get the command to follow within
its own lease."""

EMPTY_ONES = 200
"""Empty transactions that the primary commits by one command."""


def decide(cluster: Cluster, record: Record | None, view: View) -> Decision:
    """What to do next. Called again after every step, and whenever an observation changes."""
    if record is None:
        return bootstrap.bootstrap(cluster, view)
    decision = start_step(record, view, _decide(cluster, record, view))
    return way_out.told(cluster, record, view, decision)


def _decide(cluster: Cluster, record: Record, view: View) -> Decision:
    if electing := record.electing:
        return failover.elect_step(cluster, record, view, electing)
    diagnosis = diagnose(cluster, record, view)
    if switching := switchover.under_way(record):
        return switchover.step(cluster, record, view, diagnosis, switching)
    if record.transition == restart.CLOSING and diagnosis.primary is not Primary.LOST:
        return restart.close_step(record, view)
    if news := enforcement.noted(record, view):
        return Decision(once([news.why, diagnosis.reason]), (news,))
    if record.paused and not (record.transition or record.joint):
        return _paused(record, record.paused, view, diagnosis)
    if diagnosis.primary in GONE:
        begun = failover.begin(cluster, record, view, diagnosis)
        if begun.steps or diagnosis.primary not in ANSWERS:
            return begun
        diagnosis = replace(diagnosis, reason=begun.reason)
    if diagnosis.primary is Primary.UNSEEN:
        return Decision(diagnosis.reason, _witnesses(cluster, record, view))
    coming_back = isinstance(record.transition, RestartInPlace)
    if diagnosis.primary is Primary.RESTARTED and not coming_back:
        why = diagnosis.reason + ": it stays closed until its voters hold all that it has"
        return Decision(why, (Save(replace(record, transition=OPENING), why),))
    primary = view.state(record.primary)
    if primary is not None and primary.unobserved:
        known = diagnosis.primary in ANSWERS
        return Decision(diagnosis.reason if known else cannot_look_into(primary))
    if primary is None or not primary.up:
        return Decision(f"the server of {record.primary} is starting")
    if doubted := ackers.noted(record, primary):
        return Decision(doubted[1], (Save(*doubted),))
    if doubt := returned.doubt(record, view, primary):
        return Decision(doubt.reason, doubt.asks)
    if not primary.silent_seconds:
        change = membership.step(cluster, record, view, primary)
        if change:
            return change
    if record.transition and record.transition.step is Step.OPEN:
        return _open(cluster, record, view, primary)
    return _keep(cluster, record, view, primary, diagnosis)


def _paused(record: Record, pause: Pause, view: View, diagnosis: Diagnosis) -> Decision:
    if pause.until is not None and view.date >= pause.until:
        why = f"the pause is over ({pause.reason})"
        return Decision(why, (Save(replace(record, paused=None), why),))
    until = f" until {moment(pause.until, view.date)}" if pause.until is not None else ""
    paused = f"PAUSED{until} ({pause.reason}): no automatic failover, repair or change of voters."
    if diagnosis.primary is Primary.WELL:
        sound = saying(f"{record.primary} takes writes", Topic.WRITES)
        return Decision(f"{paused} " + (sound if diagnosis.sound else diagnosis.reason))
    return Decision(
        f"{paused} " + capitalised(diagnosis.reason) + ": run holdfast failover or holdfast resume"
    )


def _open(cluster: Cluster, record: Record, view: View, primary: MemberState) -> Decision:
    """OPEN: the other members attach while the primary is made ready.

    Servers that are down are started afterwards, unless they are needed: crash recovery would compete with the opening
    for the host's processors and disks. They are needed if the voters that seem to live do not acknowledge for as long
    as ``HELP_SECONDS``: nobody knows whether those ever will.
    """
    attach, unwell = _others(cluster, record, view, primary, acks_are_set=True)
    if view.opening < HELP_SECONDS and len(_living(record, view)) >= record.acks:
        attach = tuple(s for s in attach if not isinstance(s.command, Cut | Start))
    if view.opening < HELP_SECONDS and switchover.can_open_first(
        record, primary, acking(cluster, record, view)
    ):
        attach = tuple(s for s in attach if not isinstance(s.command, Follow))
    if mended := accounts.needed(cluster, record, view, primary):
        # its voters could not connect
        why = "; ".join(each.why for each in mended)
        return Decision(why, (*(each.step for each in mended), *attach))
    if locked := [s.command.user for s in attach if isinstance(s.command, Unbar)]:
        # barred when it was primary before: it would wait in vain for these to connect, and carry out no command
        # meanwhile
        return Decision(f"{primary.name} lets {', '.join(locked)} connect again", attach)
    close = copying.closing(cluster, record, view, primary)
    if close and close.command:
        return Decision(close.reason, (Send(primary.name, close.command), *attach))
    if closed := copying.closed_for(cluster, record, view, primary):
        return Decision(once([closed, *unwell]), attach)
    opening = open_step(cluster, record, primary)
    if opening.steps and isinstance(opening.steps[0], Save):
        return opening
    return replace(opening, steps=(*opening.steps, *attach))


def _witnesses(cluster: Cluster, record: Record, view: View) -> tuple[Send, ...]:
    """Make voters of a primary that cannot be seen follow it, if they follow another server: they were chained below a
    candidate, or have not been told yet which server to follow. Once they follow the primary, they report whether its
    server lives (``core/rules/diagnosis.py``).

    This brings none of them nearer to being elected, and they acknowledge to no server that must not count on them.
    """
    address = cluster.member(record.primary).address
    return tuple(
        Send(name, follow(cluster, record, state))
        for name, incarnation in sorted(record.target.without(record.primary))
        if (state := view.state(name))
        and state.up
        and state.incarnation == incarnation
        and state.replication.source != address
        and not (state.writable or state.silent_seconds or state.unfit or state.progress)
    )


def _living(record: Record, view: View) -> frozenset[Voter]:
    """Voters beside the primary that can acknowledge to it, as far as is known: one that cannot be seen may be gone."""
    voters = record.target.without(record.primary) - membership.dead_voters(record, view)
    return frozenset(voter for voter in voters if view.state(voter[0]))


def _keep(
    cluster: Cluster, record: Record, view: View, primary: MemberState, diagnosis: Diagnosis
) -> Decision:
    """Nothing is under way: keep the servers as the record says, and finish a change of voters or mode."""
    if not primary.writable:
        again = Send(primary.name, modes.promotion(cluster, record))
        # its voters may follow another server: a switchover that was undone left them there
        waits = modes.waits_as(primary, modes.wanted_acks(cluster, record))
        attach, unwell = _others(cluster, record, view, primary, waits)
        if closed := copying.closed_for(cluster, record, view, primary):
            return Decision(once([closed, *unwell]), attach)
        return Decision(diagnosis.reason + ": opening it again", (again, *attach))
    if found := membership.found_strays(cluster, record, view):
        names = sorted(stray.name for stray in found)
        why = f"what {' and '.join(names)} acknowledged before is known"
        return Decision(why, (Save(replace(record, strays=record.strays - found), why),))
    if change := modes.step(cluster, record, primary):
        return change
    if record.doubt and ackers.proven(record, primary):
        why = f"voters hold all that {primary.name} may have acknowledged without one"
        return Decision(why, (Save(replace(record, doubt=""), why),))
    lease = cluster.settings.timing.lease
    if lease > record.lease:
        why = f"leases last {lease:g} s from now on"
        return Decision(why, (Save(replace(record, lease=lease), why),))
    if fewer := failover.forgotten(cluster, record, view):
        why = "the last automatic failovers were so long ago that they no longer count"
        return Decision(why, (Save(fewer, why),))
    wanted = modes.wanted_acks(cluster, record)
    acks_are_set = modes.waits_as(primary, wanted)
    steps, unwell = _others(cluster, record, view, primary, acks_are_set)
    unwell_itself = diagnosis.primary is not Primary.WELL or primary.reason or primary.full
    reasons = [diagnosis.reason] if unwell_itself else []
    ready = acking(cluster, record, view)
    if record.joint:
        if not record.acks or primary.proved >= record.serial:
            names = sorted(record.target.names() - {record.primary})
            why = (
                f"{agree(names, 'votes', 'vote')} beside {primary.name}"
                if names
                else f"no member votes beside {primary.name}"
            )
            return Decision(why, (Save(record.settled(primary.incarnation), why),))
        reasons.append(f"the voters are changing to {voters(record)}")
    if not acks_are_set:
        if not _waits_for_voter(record, ready):
            steps = (Send(primary.name, wanted), *steps)
    elif (
        record.joint
        or record.doubt
        or isinstance(record.transition, Strengthen)
        or _unproved(record, primary, ready)
    ):
        if ready >= record.acks:
            prove = Prove(record.serial, electorate(cluster, record))
            steps = (*steps, Send(primary.name, prove))
    elif ready < record.acks:
        given = f"only {ready} of its voters can" if ready else "none of its voters can"
        why = (
            f"commits on {primary.name} wait for {counted(record.acks, 'acknowledgement')}, and {given} give one now "
            f"({voters(record)})"
        )
        reasons.append(saying(why, Topic.WAITS, primary.name))
    elif _stalled(cluster, view, primary):
        steps = (*steps, *_again(cluster, record, view))
        why = f"commits on {primary.name} wait although its voters are connected: they are asked again"
        reasons.append(saying(why, Topic.WAITS, primary.name))
    if close := copying.closing(cluster, record, view, primary):
        if isinstance(close.command, Fence) and record.transition is None:
            # saved first, so that the history says why it ended, and that no other member is to take over
            restarting = replace(record, transition=OPENING)
            return Decision(close.reason, (Save(restarting, close.reason),))
        steps = (*((Send(primary.name, close.command),) if close.command else ()), *steps)
        reasons.append(close.reason)
    if end := ackers.pretenders(cluster, record, view, primary):
        steps = (Send(primary.name, end), *steps)
        reasons.append(end.why)
    for mend in accounts.mends(cluster, record, view, primary, ready):
        steps = (mend.step, *steps)
        reasons.append(mend.why)
    states = [s for m in cluster.others(record.primary) if (s := view.state(m.name))]
    if ready >= record.acks and (gtids := own_writes.to_commit(primary, states, EMPTY_ONES)):
        steps = (*steps, Send(primary.name, CommitEmpty(gtids)))
    reasons += _short_of(cluster, record, primary)
    reasons += unwell
    if not reasons and not steps:
        why = f"{primary.name} is primary and takes writes; {_who_votes(cluster, record)}"
        return Decision(saying(why, Topic.WRITES), well=True)
    orders = [f"{step.member}: {under_way(step.command)}" for step in steps]
    return Decision(once(reasons or orders), steps)


def _who_votes(cluster: Cluster, record: Record) -> str:
    votes = record.target.names() - {record.primary}
    standby = [m.name for m in cluster.others(record.primary) if m.name not in votes]
    if not standby:
        return "all members vote"
    voting = agree(sorted(votes), "votes", "vote") if votes else "it has no other voter"
    return f"{voting}; {agree(standby, 'is a standby', 'are standbys')}"


def _stalled(cluster: Cluster, view: View, primary: MemberState) -> bool:
    lapse = view.lapses.get(primary.name)
    return lapse is not None and lapse.seconds >= cluster.settings.ack_patience


def _again(cluster: Cluster, record: Record, view: View) -> tuple[Send, ...]:
    """Make the voters follow again as they do now.

    An acknowledgement that was lost with its connection is not sent again, and the commit that waits for it blocks
    other commits in the binlog. A voter that gets the command to follow acknowledges what it has received
    (``server/replication/acknowledge.py``).
    """
    return tuple(
        Send(name, follow(cluster, record, state))
        for name, incarnation in sorted(record.target.without(record.primary))
        if (state := view.state(name)) and state.incarnation == incarnation and state.observed
    )


def _short_of(cluster: Cluster, record: Record, primary: MemberState) -> list[str]:
    """What the present state promises less than the settings ask."""
    reasons = []
    if record.mode is not cluster.settings.mode:
        reasons.append(
            f"{cluster.name}: mode {cluster.settings.mode} is wanted, and {record.mode} holds until then"
        )
    if record.doubt:
        reasons.append(
            primary.doubt.why
            if primary.doubt
            else f"what {primary.name} may have acknowledged without a voter is being proven"
        )
    if record.mode is Mode.STRONG and not record.acks and cluster.others(primary.name):
        reasons.append(
            f"{primary.name} has no other voter: its commits have no second copy (when_alone serve), and are lost if "
            f"{primary.name} is lost"
        )
    if primary.semi_sync.degraded:
        reasons.append(
            f"commits on {primary.name} do not wait for acknowledgements now: the time-out has passed"
        )
    if primary.let_through:
        reasons.append(describe(Release(primary.let_through), primary.name))
    return reasons


def _unproved(record: Record, primary: MemberState, ready: int) -> bool:
    """Whether commits completed without a voter, and a row can be acknowledged now: from that row on, what the primary
    issues is pending again until voters have it (``agent/promise/pending_mark.py``)."""
    return bool(primary.let_through) and 0 < record.acks <= ready


def _waits_for_voter(record: Record, ready: int) -> bool:
    """A change from one voter to two: the voter must acknowledge before commits wait for it.

    It does no harm if other servers acknowledge to a primary that serves alone: it is not deposed until the new
    configuration stands alone.
    """
    return _alone(record) and ready < record.acks


def _alone(record: Record) -> bool:
    return record.joint and any(each.acks == 0 for each in record.configurations)


def acking(cluster: Cluster, record: Record, view: View) -> int:
    """How many voters are attached to the primary in such a way that they acknowledge."""
    return sum(
        1
        for name, incarnation in record.target.without(record.primary)
        if (state := view.state(name))
        and state.incarnation == incarnation
        and attached(cluster, record, state)
        and state.replication.receiver is Receiver.ON
    )


def _others(
    cluster: Cluster, record: Record, view: View, primary: MemberState, acks_are_set: bool
) -> tuple[tuple[Send, ...], list[str]]:
    """The next step of each other member, and what is wrong with those that are not well.

    A member that gained a vote starts to acknowledge only when the primary waits for the number that the new
    configuration asks (``acks_are_set``): ``quorum.extendable`` relies on that.
    """
    steps: list[Send] = []
    unwell: list[str] = []
    for member in cluster.others(record.primary):
        step = copying.next_step(cluster, record, view, member)
        acknowledges = isinstance(step.command, Follow) and step.command.semi_sync
        if step.command and (acks_are_set or _alone(record) or not acknowledges):
            steps.append(Send(member.name, step.command))
        if (state := view.state(member.name)) and state.doubt:
            unwell.append(ackers.in_doubt(member.name, state.doubt))
        if step.reason:
            unwell.append(of_member(member.name, step.reason))
        elif (lapse := membership.lapsed(cluster, view, primary, member.name)) and (
            member.name in record.target.names()
        ):
            unwell.append(of_member(member.name, lapse))
        elif record.target.incarnation(member.name) is None and membership.should_vote(
            cluster, record, primary, member.name
        ):
            unwell.append(of_member(member.name, "a learner, it does not vote"))
        account = cluster.account(member.name)
        if account in primary.barred and membership.unbarrable(record, view, member.name):
            steps.append(Send(primary.name, Unbar(account)))
    return tuple(steps), unwell
