"""The next step of a failover, of a restart in place, and of opening a primary once it is named.

    Save(ELECT, new term) -> Promise to all -> Drain the foremost -> Save(OPEN: the commit point)
      -> Promote, and the others Follow -> Save(settled)

Nothing is remembered between two calls but the record: any manager can go on from it and a fresh look.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from holdfast.core.cluster import Cluster
from holdfast.core.commands import Drain, Promise, Promote, Start
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.election import NobodyElected, elect, prefer_learner
from holdfast.core.quorum import Configuration, Voter, acks_for, settled
from holdfast.core.record import Kind, Record, Step, Stray, Transition
from holdfast.core.view import MemberState, ServerStatus, Unseen, View

PATIENCE = 3.0
"""Seconds for which an agent may be silent before its promise is given up."""


@dataclass(frozen=True, slots=True)
class Prospects:
    """Whether a recovery quorum can be gathered.

    :ivar reachable: voters that could promise now
    :ivar silent: members that could perhaps, but whose agent does not answer, and not for long
    :ivar missing: one phrase per voter that cannot: who, and why
    """

    reachable: frozenset[Voter]
    silent: tuple[str, ...]
    missing: tuple[str, ...]


def prospects(record: Record, view: View) -> Prospects:
    reachable: set[Voter] = set()
    silent: list[str] = []
    missing: list[str] = []
    voters = {voter for each in record.configurations for voter in each.without(record.primary)}
    for name, incarnation in sorted(voters):
        sighting = view.members.get(name)
        if sighting is None or isinstance(sighting, Unseen):
            missing.append(f"the agent of {name} does not answer")
            if sighting is None or view.now - sighting.since < PATIENCE:
                silent.append(name)
        elif sighting.state.server is ServerStatus.DOWN:
            missing.append(f"the server of {name} is down too")
        elif sighting.state.incarnation != incarnation:
            missing.append(f"{name} was restarted since it last voted")
        else:
            reachable.add((name, incarnation))
    return Prospects(frozenset(reachable), tuple(silent), tuple(missing))


def begin(record: Record, view: View) -> Decision:
    """The primary is dead: start a failover if a recovery quorum can be had, else a restart in place."""
    ahead = prospects(record, view)
    gone = f"the server of {record.primary}, the primary, is gone"
    if record.recoverable(ahead.reachable):
        begun = replace(
            record,
            term=record.term + 1,
            transition=Transition(Kind.FAILOVER, Step.ELECT, record.primary),
        )
        return Decision(gone, (Save(begun, f"{gone}: failover begins"),))
    refusal = f"{gone}, and nobody may take over: {'; '.join(ahead.missing) or 'nobody else votes'}"
    if ahead.silent:
        return Decision(f"{refusal}; waiting for {', '.join(ahead.silent)}")
    if record.transition == Transition(Kind.RESTART, Step.OPEN):
        return Decision(
            f"{refusal}; {record.primary} is being restarted in place",
            (Send(record.primary, Start()),),
        )
    restart = replace(record, transition=Transition(Kind.RESTART, Step.OPEN))
    why = f"{refusal}; {record.primary} will be restarted in place"
    return Decision(why, (Save(restart, why),))


def elect_step(cluster: Cluster, record: Record, view: View) -> Decision:
    """ELECT: gather promises, drain the foremost, name it."""
    ahead = prospects(record, view)
    promised = [
        state
        for member in cluster.others(record.primary)
        if (state := view.state(member.name)) and _has_promised(record, state)
    ]
    quorum = [s for s in promised if (s.name, s.incarnation) in ahead.reachable]
    asks = tuple(
        Send(member.name, Promise())
        for member in cluster.members
        if (state := view.state(member.name)) and not _has_promised(record, state)
    )
    if not record.recoverable((s.name, s.incarnation) for s in quorum):
        if record.recoverable(ahead.reachable) or ahead.silent:
            waiting = sorted({name for name, _ in ahead.reachable} - {s.name for s in quorum})
            waiting += ahead.silent
            return Decision(f"failover: waiting for the promise of {', '.join(waiting)}", asks)
        given_up = replace(record, transition=Transition(Kind.RESTART, Step.OPEN))
        why = f"no recovery quorum: {'; '.join(ahead.missing)}; {record.primary} must come back"
        return Decision(why, (Save(given_up, why),))
    outcome = elect(quorum)
    if isinstance(outcome, NobodyElected):
        return Decision(f"no failover: {outcome.reason}")
    learners = [state for state in promised if state.up and state not in quorum]
    chosen = prefer_learner(outcome, learners, quorum)
    name = chosen.state.name
    if not chosen.drained:
        return Decision(f"failover: {name} applies what it received", (Send(name, Drain()),))
    named = name_primary(cluster, record, view, chosen.state, quorum)
    at = chosen.state.applied_set().last() or "the beginning"
    why = f"{name} takes over from {record.primary} at {at}"
    return Decision(why, (Save(named, why),))


def name_primary(
    cluster: Cluster,
    record: Record,
    view: View,
    chosen: MemberState,
    quorum: Iterable[MemberState],
) -> Record:
    """The commit point: the record that names ``chosen`` with the configurations that are safe from then on.

    The whole quorum, if enough of it already hold all that the new primary holds, and so all that was ever
    acknowledged (``quorum.settled``). Else those that do come first, and the whole beside them as the target,
    until the new primary's first row proves that enough have caught up. Where no other is level, the first is the
    new primary alone with k = 0: until that row, it cannot be deposed.

    ``quorum.extendable`` asks that whoever can acknowledge is a voter of the target. That may be a voter of long
    ago: cut off from the managers when its primary was deposed, it follows that server still. Where that server is
    chosen again, such a stray votes.
    """
    own = (chosen.name, chosen.incarnation)
    level, all_of_them = {own}, {own}
    for state in quorum:
        voter = (state.name, state.incarnation)
        all_of_them.add(voter)
        if state.received_set().contains(chosen.applied_set()):
            level.add(voter)
    strays = _strays(record, view)
    all_of_them |= {(s.name, s.incarnation) for s in strays if s.source == chosen.name}
    if len(all_of_them) == 1:  # alone it blocks: the last other voter stays, until one is back
        all_of_them.add((record.primary, record.target.incarnation(record.primary) or ""))
    base, target = (
        Configuration(frozenset(voters), acks_for(len(voters), cluster.settings.durability))
        for voters in (level, all_of_them)
    )
    return replace(
        record,
        primary=chosen.name,
        elected=record.term,
        configurations=(target,) if settled(target, chosen.name, level) else (base, target),
        serial=record.serial + 1,
        transition=Transition(Kind.FAILOVER, Step.OPEN, record.primary),
        strays=frozenset(s for s in strays if s.source != chosen.name),
    )


def _strays(record: Record, view: View) -> frozenset[Stray]:
    """Voters, of now and of before, that may still follow the primary they had: nobody has stopped them."""
    following = {
        Stray(*voter, record.primary)
        for each in record.configurations
        for voter in each.without(record.primary)
    }

    def stopped(stray: Stray) -> bool:
        state = view.state(stray.name)
        return state is not None and (
            not state.up or state.incarnation != stray.incarnation or _has_promised(record, state)
        )

    return frozenset(stray for stray in following | record.strays if not stopped(stray))


def open_step(record: Record, primary: MemberState) -> Decision:
    """OPEN, the primary's part: it is up; have it proven and writable, then settle."""
    if primary.writable and primary.proved >= record.serial:
        if not record.target.without(record.primary):
            return Decision(f"{record.primary} would serve alone: waiting for a voter")
        why = f"{record.primary} is open; {record.target.acks} of {voters(record)} acknowledge"
        return Decision(why, (Save(record.settled(primary.incarnation), why),))
    return Decision(
        f"{record.primary} is being opened: {record.acks} of {voters(record)} must acknowledge",
        (Send(record.primary, Promote(record.acks, record.serial)),),
    )


def ahead_of(primary: MemberState, others: Iterable[MemberState]) -> MemberState | None:
    """Who has received what a primary that came back in place no longer has; None when nobody has.

    To be asked before it is made ready: until then it commits nothing, so the two looks need not be of one moment.
    """
    mine = primary.applied_set()
    return next((other for other in others if not mine.contains(other.received_set())), None)


def voters(record: Record) -> str:
    return ", ".join(sorted(record.target.names() - {record.primary})) or "no other voter"


def _has_promised(record: Record, state: MemberState) -> bool:
    """Its agent refuses every older manager, and its server receives nothing more from the old primary."""
    return state.promised == record.term
