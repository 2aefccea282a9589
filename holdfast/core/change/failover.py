"""The next step of a failover, of a restart in place, and of opening a primary once it is named.

    Save(ELECT, new term) -> Promise to all -> Fetch, if a preferred member lacks something -> Drain
      -> the old primary answers no client any more (``core/rules/deposed.py``) -> Call(STOP), if there are hooks
      -> Save(OPEN: the commit point) -> Promote, and the other members Follow -> Save(settled)

Only the record is remembered between two calls: any manager can continue from it and a fresh look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from holdfast.core.change import restart
from holdfast.core.change.hooking import hooks_step, owed
from holdfast.core.cluster import Cluster
from holdfast.core.commands import Drain, Fetch, Forget, Judge, Promise, Start, Unbar
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.members.own_writes import (
    EXAMINING,
    about_brought,
    brought,
    settle,
    without_harmless,
)
from holdfast.core.quorum import Configuration, Voter, acks_for, settled
from holdfast.core.record import Past, Record, Stray
from holdfast.core.rules.ackers import missing, nobody_has
from holdfast.core.rules.appliers import acknowledger, broken
from holdfast.core.rules.deposed import fence_step, hold, is_deposed, surely_revoked, wished
from holdfast.core.rules.diagnosis import Diagnosis, Primary
from holdfast.core.rules.election import Elected, NobodyElected, elect, prefer_learner
from holdfast.core.rules.loss import missing_from, refused, without_errants
from holdfast.core.rules.returned import OPENING, not_started, returning
from holdfast.core.rules.seats import Candidate, may_be_alone
from holdfast.core.rules.seats import chosen as seated
from holdfast.core.settings import Mode
from holdfast.core.transition import Failover, Instant, Step, TransitionKind
from holdfast.core.view import MemberState, Receiver, Unseen, View
from holdfast.core.wording import Topic, agree, joined, lasting, saying

HOUR = 3600.0
PATIENCE = 3.0
"""Seconds for which an agent may be silent before the failover stops waiting for its promise."""


@dataclass(frozen=True, slots=True)
class Prospects:
    """Whether a recovery quorum can be gathered.

    :ivar reachable: voters that could promise now
    :ivar silent: members that may be able to promise: their agent or server has been silent, but not for long
    :ivar missing: one phrase per voter that cannot promise, with the reason
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
            missing.append(saying(f"the agent of {name} does not answer", Topic.AGENT, name))
            if sighting is None or view.now - sighting.since < PATIENCE:
                silent.append(name)
        elif sighting.state.ended:
            missing.append(f"the server of {name} is down too")
        elif sighting.state.incarnation != incarnation:
            missing.append(f"{name} was restarted since it last voted")
        elif why := sighting.state.unobserved:
            missing.append(f"the agent of {name} cannot query its server: {why}")
            if max(sighting.state.unobserved_seconds, sighting.state.silent_seconds) < PATIENCE:
                silent.append(name)
        elif sighting.state.silent_seconds:
            missing.append(f"the server of {name} does not answer")
            if sighting.state.silent_seconds < PATIENCE:
                silent.append(name)
        else:
            reachable.add((name, incarnation))
    return Prospects(frozenset(reachable), tuple(silent), tuple(missing))


def begin(cluster: Cluster, record: Record, view: View, lost: Diagnosis) -> Decision:
    """The primary is gone: start a failover if a recovery quorum can be gathered.

    Otherwise restart it in place if its process is known to have ended, and wait for it if not.
    """
    ahead = prospects(record, view)
    safe = record.recoverable(ahead.reachable)
    heirs = _heirs(cluster, record, view, ahead, safe)
    futile = (
        elect(without_harmless(heirs), cluster, _learners(cluster, record, view, heirs))
        if heirs
        else None
    )
    if isinstance(futile, NobodyElected) and (asked := settle(heirs)):
        return _settled_first(lost.reason, asked)
    held_back = _against(cluster, record, view, lost, heirs)
    against = held_back or nobody_has(record, view, heirs)
    if not against and futile and not isinstance(futile, NobodyElected):
        kept = max(HOUR, cluster.settings.failover_interval)
        within = [each for each in record.failovers if _ago(view, each) < kept]
        begun = replace(
            record,
            term=record.term + 1,
            failovers=(*within, Past(Instant(view.boot, view.now), view.date)),
            transition=Failover(Step.ELECT, record.primary, lossy=not safe),
            owed=owed(record, view, TransitionKind.FAILOVER),
        )
        allowed = "" if safe else " (allow_loss: writes may be lost)"
        return Decision(lost.reason, (Save(begun, lost.reason + f": failover begins{allowed}"),))
    wanted = not against
    if not against and isinstance(futile, NobodyElected):
        against = futile.reason
    elif not against:
        against = joined("; ", ahead.missing) if record.mode is Mode.STRONG else ""
        against = against or refused(cluster, record) or "no other member answers"
    refusal = lost.reason + "; no member can take over: " + against
    if lost.primary is not Primary.DEAD:
        if held_back:
            return Decision(refusal)
        return restart.hung_step(cluster, record, view, lost, refusal)
    if ahead.silent and wanted and not safe and record.mode is Mode.STRONG:
        return Decision(refusal + f"; waiting for {', '.join(ahead.silent)}")
    if returning(record):
        state = view.state(record.primary)
        if state and (why := not_started(state)):
            return Decision(refusal + f"; {record.primary}: " + why)
        return Decision(
            refusal + f"; {record.primary} is being restarted in place",
            (Send(record.primary, Start()),),
        )
    why = refusal + f"; {record.primary} will be restarted in place"
    return Decision(why, (Save(replace(record, transition=OPENING), why),))


def _ago(view: View, past: Past) -> float:
    """Seconds ago, at least; 0 if the moment is of another kernel's clock (:meth:`Record.taken_over`)."""
    return max(0.0, view.now - past.instant.at) if past.instant.boot == view.boot else 0.0


def forgotten(cluster: Cluster, record: Record, view: View) -> Record | None:
    """The record without the automatic failovers that no longer count; None if there are none.

    A manager on another host would take them for recent ones.
    """
    kept = max(HOUR, cluster.settings.failover_interval)
    lately = tuple(each for each in record.failovers if _ago(view, each) < kept)
    return replace(record, failovers=lately) if lately != record.failovers else None


def _against(
    cluster: Cluster,
    record: Record,
    view: View,
    lost: Diagnosis,
    heirs: Sequence[MemberState],
) -> str:
    """Why no failover begins automatically although a member could take over, or ""."""
    settings = cluster.settings
    if not settings.automatic_failover:
        return "automatic_failover is off"
    if lost.primary is Primary.UNOPENED:
        return ""  # the previous failover continues
    ago = [_ago(view, each) for each in record.failovers]
    if settings.failovers_per_hour and sum(s < HOUR for s in ago) >= settings.failovers_per_hour:
        return (
            f"there were {settings.failovers_per_hour} automatic failovers within an hour, as many as "
            "failovers_per_hour allows: find the cause, then run holdfast failover"
        )
    if ago and min(ago) < settings.failover_interval:
        return (
            "the last automatic failover was "
            + lasting(min(ago))
            + f" ago, and failover_interval is {settings.failover_interval:g} s"
        )
    names = {state.name for state in heirs}
    unseen = lost.primary is Primary.LOST and heirs
    if unseen and not surely_revoked(cluster, record, view, names):
        return f"{record.primary} may still take writes: members that do not answer here may confirm its lease"
    return ""


def _heirs(
    cluster: Cluster, record: Record, view: View, ahead: Prospects, safe: bool
) -> list[MemberState]:
    """The members among which an election would choose now."""
    states = [s for m in cluster.others(record.primary) if (s := view.state(m.name)) and s.up]
    if safe:
        return [s for s in states if (s.name, s.incarnation) in ahead.reachable]
    if refused(cluster, record):
        return []
    able = could_follow(cluster, record, view)
    return without_errants(record, view, [s for s in states if s.name in able])


def _learners(
    cluster: Cluster, record: Record, view: View, heirs: Sequence[MemberState]
) -> list[MemberState]:
    able = could_follow(cluster, record, view) - {state.name for state in heirs}
    return [state for name in sorted(able) if (state := view.state(name))]


def elect_step(cluster: Cluster, record: Record, view: View, electing: Failover) -> Decision:
    """ELECT: gather promises, drain the member that is furthest ahead, name it.

    :param electing: as ``Record.electing`` returns it
    """
    ahead = prospects(record, view)
    promised = [
        state
        for member in cluster.others(record.primary)
        if (state := view.state(member.name)) and has_promised(record, state)
    ]
    asks = tuple(
        Send(member.name, Promise())
        for member in cluster.members
        if (state := view.state(member.name))
        and not has_promised(record, state)
        and not is_deposed(record, state)
    )
    if electing.lossy:
        quorum = without_errants(record, view, [state for state in promised if state.up])
        waiting = sorted(could_follow(cluster, record, view) - {s.name for s in promised})
        if waiting:
            return Decision(f"failover: waiting for the promise of {', '.join(waiting)}", asks)
    else:
        quorum = [s for s in promised if (s.name, s.incarnation) in ahead.reachable]
        if not record.recoverable((s.name, s.incarnation) for s in quorum):
            return _without_quorum(record, ahead, quorum, asks)
    learners = [state for state in promised if state.up and state not in quorum]
    asked = settle([*quorum, *learners])
    seen = without_harmless([*quorum, *learners])
    quorum, learners = seen[: len(quorum)], seen[len(quorum) :]
    cluster = wished(cluster, record.wish)
    outcome = elect(quorum, cluster, learners)
    if isinstance(outcome, NobodyElected):
        if asked:
            return _settled_first("failover", asked)
        return _give_up(record, f"no failover: {outcome.reason}")
    chosen = prefer_learner(outcome, learners, quorum, cluster)
    name = chosen.state.name
    if chosen.state.busy in EXAMINING:  # it would bring what it is forgetting
        return _settled_first("failover", {name: None})
    if chosen.fetch_from:
        return _fetch(cluster, view, chosen)
    fence = fence_step(record, view)
    if not chosen.drained:
        why = f"failover: {name} applies what it received"
        return Decision(why, (Send(name, Drain()), *fence))
    if not electing.lossy and (why := missing(record, view, chosen.state.applied_set())):
        return _give_up(record, f"no failover: {why}")
    if holds := hold(cluster, record, view, promised):
        return replace(holds, steps=fence)
    if calls := hooks_step(record, view):
        return replace(calls, reason=f"failover: {calls.reason}")
    named = name_primary(cluster, record, view, chosen.state, quorum)
    at = chosen.state.applied_set().last() or "the beginning"
    why = f"{name} takes over from {record.primary} at {at}"
    if electing.lossy:
        why += f"; {missing_from(record, view, chosen.state)}"
    if own := brought(record, view, chosen.state):
        why += f"; {about_brought(name, own)}"
    return Decision(why, (Save(replace(named, brought=str(own)), why),))


def _without_quorum(
    record: Record, ahead: Prospects, quorum: Iterable[MemberState], asks: tuple[Send, ...]
) -> Decision:
    if record.recoverable(ahead.reachable) or ahead.silent:
        waiting = sorted({name for name, _ in ahead.reachable} - {s.name for s in quorum})
        waiting += ahead.silent
        return Decision(f"failover: waiting for the promise of {', '.join(waiting)}", asks)
    return _give_up(record, f"too few voters answer: {'; '.join(ahead.missing)}")


def _settled_first(reason: str, asked: Mapping[str, Judge | Forget | None]) -> Decision:
    why = (
        f"{reason}; what {agree(list(asked), 'wrote itself', 'wrote themselves')} is examined first"
    )
    return Decision(why, tuple(Send(name, each) for name, each in asked.items() if each))


def _give_up(record: Record, reason: str) -> Decision:
    """No other member was named: the primary may come back in place."""
    why = f"{reason}; {record.primary} must come back"
    return Decision(why, (Save(replace(record, transition=OPENING), why),))


def _fetch(cluster: Cluster, view: View, chosen: Elected) -> Decision:
    """The preferred member lacks something that another received: it fetches that first.

    A Drain in between brings a fresh look at its progress.
    """
    name, source = chosen.state.name, cluster.member(chosen.fetch_from)
    replication = chosen.state.replication
    why = f"failover: {name} is preferred, and fetches from {source.name} what it lacks"
    server = view.state(source.name)
    account = cluster.account(name)
    if server and account in server.barred:  # from when that one was primary
        return Decision(why, (Send(source.name, Unbar(account)),))
    if replication.source == source.address and replication.receiver is not Receiver.OFF:
        return Decision(why, (Send(name, Drain()),))
    return Decision(why, (Send(name, Fetch(source.name, source.host, source.port)),))


def could_follow(cluster: Cluster, record: Record, view: View) -> set[str]:
    """Members that could take over if loss is allowed."""
    return {
        member.name
        for member in cluster.others(record.primary)
        if (state := view.state(member.name))
        and state.observed
        and not state.unfit
        and state.occupied is None
    }


def name_primary(
    cluster: Cluster,
    record: Record,
    view: View,
    chosen: MemberState,
    quorum: Iterable[MemberState],
) -> Record:
    """The commit point: the record that names ``chosen`` with the configurations that are safe from then on.

    This is the whole quorum, if enough of it already hold all that the new primary holds, and so all that was ever
    acknowledged (``quorum.settled``). Otherwise those that do come first, and the whole quorum stands beside them as
    the target, until the new primary's first row proves that enough have caught up. If no other member is level, the
    first is the new primary alone with k = 0: until that row, it cannot be deposed.

    The doubt ends: the named member has what was in doubt (``ackers.missing``), or an operator gave it up.

    ``quorum.extendable`` requires that every server that can acknowledge is a voter of the target. This can include a
    former voter: cut off from the managers when its primary was deposed, it still follows that server. If that server
    is chosen again, such a stray votes.
    """
    own = (chosen.name, chosen.incarnation)
    holders = {
        (state.name, state.incarnation)
        for state in quorum
        if state.received_set().contains(chosen.applied_set())
    }
    strays = may_follow(record, view)
    sound = [state for state in quorum if not broken(state)]
    candidates = [Candidate(s.name, s.incarnation, True) for s in sound if s.name != chosen.name]
    everyone = {own} | seated(cluster, chosen, candidates)
    everyone |= {(s.name, s.incarnation) for s in strays if s.source == chosen.name}
    if len(everyone) == 1 and not may_be_alone(cluster.settings):
        # alone it blocks: the last other voter stays, until another is back
        before = (record.primary, record.target.incarnation(record.primary) or "")
        everyone.add(acknowledger(cluster, record, view, chosen) or before)
    level = {own} | (everyone & holders)
    base, target = (
        Configuration(frozenset(voters), acks_for(len(voters), cluster.settings, chosen.flavor))
        for voters in (level, everyone)
    )
    return replace(
        record,
        primary=chosen.name,
        elected=record.term,
        configurations=(target,) if settled(target, chosen.name, level) else (base, target),
        serial=record.serial + 1,
        transition=Failover(Step.OPEN, record.primary),
        doubt="",
        brought="",
        lease=cluster.settings.timing.lease,
        strays=frozenset(s for s in strays if s.source != chosen.name),
        owed=owed(record, view),
    )


def may_follow(record: Record, view: View) -> frozenset[Stray]:
    """Present and former voters that may still follow the primary they had: no promise stopped their receiver."""
    following = {
        Stray(*voter, record.primary)
        for each in record.configurations
        for voter in each.without(record.primary)
    }

    def stopped(stray: Stray) -> bool:
        state = view.state(stray.name)
        return state is not None and (
            not state.up or state.incarnation != stray.incarnation or has_promised(record, state)
        )

    return frozenset(stray for stray in following | record.strays if not stopped(stray))


def has_promised(record: Record, state: MemberState) -> bool:
    """Its agent refuses every older manager, and its server receives nothing more from the old primary."""
    return state.promised == record.term
