"""Which members should vote, and the next step towards that.

Voters change in the same order whatever the reason, and any manager can continue: bar the accounts of live voters that
are to leave on the primary (Bar) -> put the new configuration in force beside the old one (Save) -> the primary waits
for the new number of acknowledgements (SetAcks) -> members that gained a vote switch semi-sync on (Follow) -> the
primary proves with a row that the new voters hold everything (Prove) -> the new configuration stands alone (Save).
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.cluster import Cluster
from holdfast.core.commands import Bar
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.members.own_writes import in_the_way
from holdfast.core.members.rejoin import spoiled
from holdfast.core.quorum import Configuration, Voter, acks_for, extendable
from holdfast.core.record import Record, Stray
from holdfast.core.rules import ackers, appliers
from holdfast.core.rules.attachment import attached, errant_transactions
from holdfast.core.rules.seats import Candidate, chosen, may_be_alone
from holdfast.core.view import MemberState, Receiver, Seen, View
from holdfast.core.wording import Reason, agree, counted, joined

CAUGHT_UP = 2000
"""Transactions that a learner may have left to receive when it is admitted: a fraction of a second."""

UNSEEN_PATIENCE = 3.0
"""Seconds for which the agent of a voter may be silent while commits do not wait: it may be restarting."""

BINLOG_SIZE = 128 * 1024 * 1024
"""What a full binlog file holds, as in ``server/process/optionfile.py``."""


@dataclass(frozen=True, slots=True)
class VoterChange:
    """:ivar bar: voters to be barred first
    :ivar lost: live voters that lose their vote
    :ivar why: one sentence for the log
    """

    target: Configuration
    bar: tuple[str, ...]
    lost: frozenset[Voter]
    why: str


def step(cluster: Cluster, record: Record, view: View, primary: MemberState) -> Decision | None:
    """The next step of a change of voters that is not in force yet; None when there is nothing to change."""
    change = next_change(cluster, record, view, primary)
    if change is None:
        return None
    if change.bar and primary.replication.source:
        # named, and not opened yet: it follows its predecessor, and no session is there to be barred. It is opened
        # first; a voter that does not acknowledge then is barred after that.
        return None
    if change.bar:
        sends = tuple(Send(primary.name, Bar(cluster.account(n))) for n in change.bar)
        if end := ackers.pretenders(cluster, record, view, primary):
            sends = (Send(primary.name, end), *sends)
        return Decision(change.why + f": barring {', '.join(change.bar)} first", sends)
    return Decision(change.why, (Save(record.extended(change.target, change.lost), change.why),))


def next_change(
    cluster: Cluster, record: Record, view: View, primary: MemberState
) -> VoterChange | None:
    """The configuration to be put in force next; None if the last one is right, or nothing can be done."""
    settings = cluster.settings
    present = record.target.without(record.primary)
    dead = dead_voters(record, view)
    leaving = {
        name: why
        for name, incarnation in sorted(present)
        if (why := _why_leaving(cluster, view, primary, name, (name, incarnation) in dead))
    }
    seated = {voter for voter in present if voter[0] not in leaving}
    candidates = [
        Candidate(state.name, state.incarnation, (state.name, state.incarnation) in seated)
        for member in cluster.others(record.primary)
        if (state := view.state(member.name))
        and not appliers.broken(state)
        and ((state.name, state.incarnation) in seated or admissible(cluster, view, primary, state))
    ]
    lame = _lame(cluster, record, view, primary, seated)
    unseen = [Candidate(n, run, True) for n, run in seated if view.state(n) is None]
    voters = chosen(cluster, primary, [*candidates, *unseen]) or chosen(cluster, primary, lame)
    for name, _ in seated - voters:
        if (state := view.state(name)) and appliers.broken(state):
            leaving[name] = appliers.reason(state)
    if not voters and not may_be_alone(cluster.settings):
        voters = _last_one(cluster, view, primary, present - dead)
        if not voters:
            return None  # alone, the primary blocks
    own = (record.primary, primary.incarnation)
    acks = acks_for(len(voters) + 1, settings, primary.flavor)
    if 0 < record.target.acks < acks and not _can_acknowledge(cluster, record, view, voters, acks):
        # first they vote under the previous number, for which the other voters suffice: commits do not wait for a
        # receiver that is restarted to acknowledge
        acks = record.target.acks
    target = Configuration(voters | {own}, acks)
    if voters == present and acks == record.target.acks:
        return None
    acking = acking_voters(record, view, primary, cluster)
    outside = {name for name, _ in acking - voters}
    bar = () if extendable(target, record.primary, acking) else tuple(sorted(outside))
    why = _why(voters, present, leaving) or (
        f"commits on {record.primary} will wait for {counted(acks, 'acknowledgement')}"
    )
    return VoterChange(target, bar, present - voters - dead, why)


def _lame(
    cluster: Cluster, record: Record, view: View, primary: MemberState, seated: set[Voter]
) -> list[Candidate]:
    """Members with a broken applier, as far as they may vote while no sound member does."""
    states = [
        state
        for member in cluster.others(record.primary)
        if (state := view.state(member.name))
        and appliers.broken(state)
        and ((state.name, state.incarnation) in seated or admissible(cluster, view, primary, state))
    ]
    may = {state.name for state in appliers.stands_in(cluster, states)}
    return [
        Candidate(s.name, s.incarnation, (s.name, s.incarnation) in seated)
        for s in states
        if s.name in may
    ]


def _can_acknowledge(
    cluster: Cluster, record: Record, view: View, voters: frozenset[Voter], acks: int
) -> bool:
    """Whether as many of these voters as the primary is to wait for acknowledge already."""
    states = [(view.state(name), run) for name, run in voters]
    able = [
        state
        for state, run in states
        if state
        and state.incarnation == run
        and state.semi_sync.replica
        and attached(cluster, record, state)
        and state.replication.receiver is Receiver.ON
    ]
    return len(able) >= acks


def _last_one(
    cluster: Cluster, view: View, primary: MemberState, live: frozenset[Voter]
) -> frozenset[Voter]:
    """The one voter that stays if none is fit to: so that it can be repaired, see ``rejoin``."""
    states = [view.state(name) for name, _ in live]
    if not all(state and state.up and spoiled(cluster, primary, state) for state in states):
        return frozenset()
    return frozenset(sorted(live)[:1])


def acking_voters(
    record: Record, view: View, primary: MemberState, cluster: Cluster
) -> frozenset[Voter]:
    """All voters in force and strays that may still acknowledge to the primary, without the dead and the barred.

    A barred one that has connected by another account may still acknowledge: it was made to follow the primary by hand.
    """
    may = {voter for each in record.configurations for voter in each.without(record.primary)}
    may |= {(s.name, s.incarnation) for s in record.strays if s.source == record.primary}
    return frozenset(
        voter
        for voter in may
        if not (
            (account := cluster.account(voter[0])) in primary.barred
            and not ackers.acknowledges(view, primary, voter[0], account)
        )
        and not _ended(view, voter)
    )


def dead_voters(record: Record, view: View) -> frozenset[Voter]:
    """Voters whose server process has certainly ended: their agent says so, or says that another process runs."""
    voters = {voter for each in record.configurations for voter in each.without(record.primary)}
    return frozenset(voter for voter in voters if _ended(view, voter))


def found_strays(cluster: Cluster, record: Record, view: View) -> frozenset[Stray]:
    """Strays that have been reached.

    The stray's server has ended; or it does what the record asks, and has had a command of this term, so that no
    earlier command can make it follow another server.
    """
    address = cluster.member(record.primary).address

    def found(stray: Stray) -> bool:
        state = view.state(stray.name)
        if state is None:
            return False
        if _ended(view, (stray.name, stray.incarnation)):
            return True
        if not state.up or state.term != record.term:
            return False
        if stray.name == record.primary:
            return not state.replication.source
        semi_sync = record.votes(state.name, state.incarnation)
        return state.replication.source == address and state.semi_sync.replica == semi_sync

    return frozenset(stray for stray in record.strays if found(stray))


def behind(primary: MemberState, state: MemberState) -> int:
    """How many of the primary's transactions the member has not received yet."""
    return primary.applied_set().subtract(state.received_set()).count()


def backlog(primary: MemberState, state: MemberState) -> int | None:
    """Bytes of the primary's binlog that the member has not applied, at most; None when not known."""
    executed = state.replication.executed
    if not executed.file or not primary.written.file:
        return None
    return executed.behind(primary.written, BINLOG_SIZE)


def lapsed(cluster: Cluster, view: View, primary: MemberState, name: str) -> str:
    """What is held against a voter that has owed acknowledgements for too long, or \"\"."""
    lapse = view.lapses.get(name)
    if lapse is None:
        return ""
    patience = cluster.settings.ack_patience
    if not isinstance(view.members.get(name), Seen) and not primary.semi_sync.waiting:
        patience = max(patience, UNSEEN_PATIENCE)
    if lapse.seconds < patience:
        return ""
    return lapse.reason + " (for " + Reason(f"{patience:g} s", "") + ")"


def admissible(cluster: Cluster, view: View, primary: MemberState, state: MemberState) -> bool:
    """Whether a learner is close enough to the end of the primary's binlog to vote.

    A learner whose applier is broken only needs to have received it: see ``core/rules/appliers.py`` for when it may
    vote.
    """
    replication = state.replication
    lame = appliers.broken(state)
    return (
        state.up
        and not state.unobserved
        and not state.writable
        and not state.unfit
        and not state.suspects
        and state.occupied is None
        and cluster.account(state.name) not in primary.barred
        and cluster.setting(state.name).voter
        and state.name not in view.lapses
        and replication.source == cluster.member(primary.name).address
        and replication.receiver is Receiver.ON
        and (replication.applier or lame)
        and not in_the_way(state, errant_transactions(primary, state))
        and behind(primary, state) <= CAUGHT_UP
        and (lame or (backlog(primary, state) or 0) < cluster.settings.strong_sync_threshold)
    )


def should_vote(cluster: Cluster, record: Record, primary: MemberState, name: str) -> bool:
    """Whether the member would get a vote beside the present voters."""
    if not cluster.setting(name).voter:
        return False
    beside = [Candidate(voter, run, True) for voter, run in record.target.without(record.primary)]
    with_it = chosen(cluster, primary, [*beside, Candidate(name, "", False)])
    return (name, "") in with_it


def unbarrable(record: Record, view: View, name: str) -> bool:
    """Whether a barred member may connect to the primary again: as a voter of the target, or because it is known to
    acknowledge nothing.

    In the second case its agent has had a command of this term, which began when the member was barred: an earlier
    command that would make it acknowledge is refused there from now on.
    """
    state = view.state(name)
    if state is None or state.silent_seconds or state.unobserved or state.busy:
        return False
    if state.ended:
        return True  # its next run begins without semi-sync
    if not state.up:
        return False
    if record.votes(name, state.incarnation):
        return True
    return (
        state.term == record.term
        and not state.semi_sync.replica
        and not record.counts(name, state.incarnation)
    )


def _why_leaving(cluster: Cluster, view: View, primary: MemberState, name: str, dead: bool) -> str:
    if dead:
        return "its server ended"
    if name not in {member.name for member in cluster.members}:
        return "it is no longer a member"
    if not cluster.setting(name).voter:
        return "it is set not to vote"
    state = view.state(name)
    if state and state.up and (why := spoiled(cluster, primary, state)):
        return why
    return lapsed(cluster, view, primary, name)


def _ended(view: View, voter: Voter) -> bool:
    state = view.state(voter[0])
    return state is not None and (state.ended or state.incarnation != voter[1])


def _why(voters: frozenset[Voter], present: frozenset[Voter], leaving: dict[str, str]) -> str:
    come = {name for name, _ in voters - present}
    left = {name for name, _ in present - voters}
    parts = []
    if come - left:
        parts.append(f"{_names(come - left)} caught up and will vote")
    if come & left:
        again = agree(sorted(come & left), "was restarted", "were restarted")
        parts.append(f"{again} and will vote again")
    for name in sorted(left - come):
        parts.append(f"{name} no longer votes: " + leaving.get(name, "no seat is free for it"))
    if not voters:
        parts.append("the primary continues alone")
    return joined("; ", parts)


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names))
