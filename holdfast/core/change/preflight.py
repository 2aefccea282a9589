"""What stands against a switchover that an operator wants: all of it at once, before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from holdfast.core.cluster import Cluster
from holdfast.core.members.rejoin import spoiled
from holdfast.core.observed.blockers import Blocker
from holdfast.core.record import Record
from holdfast.core.rules.attachment import attached
from holdfast.core.rules.backlog import backlog
from holdfast.core.rules.blocked import blocked
from holdfast.core.rules.diagnosis import GONE, Primary, diagnose
from holdfast.core.rules.election import against as barred_by_settings
from holdfast.core.view import MemberState, Receiver, View
from holdfast.core.wording import is_under_way


@dataclass(frozen=True, slots=True)
class SwitchoverOrder:
    """What the operator wants.

    :ivar to: the member that takes over; "" for the best one
    :ivar seconds: after which the switchover is undone, if it has not passed its commit point
    :ivar old: seconds from which on transactions, statements and locks on the primary stand in the way
    :ivar behind: how many small transactions the candidate may have left to apply
    :ivar wait: until transactions and locks have ended, lag is caught up, voters have changed; up to ``seconds``
    :ivar kill_after: seconds of such waiting after which the sessions that block it are ended; None: never
    """

    to: str = ""
    seconds: float = 30.0
    old: float = 2.0
    behind: int = 2000
    wait: bool = False
    kill_after: float | None = None

    @property
    def text(self) -> str:
        return f"a switchover{f' to {self.to}' if self.to else ''} will begin"


@dataclass(frozen=True, slots=True)
class Objection:
    """:ivar passes: the objection may pass without help: worth waiting for
    :ivar candidate: the member against whose takeover it speaks; "" for a switchover to any member
    """

    text: str
    passes: bool = False
    candidate: str = ""


Wrong = Mapping[str, Sequence[Objection]]
"""What is wrong with members' hosts and settings, by member (``readiness.py``)."""


def objections(
    cluster: Cluster,
    record: Record | None,
    view: View,
    order: SwitchoverOrder,
    blockers: Sequence[Blocker] = (),
    wrong: Wrong | None = None,
) -> tuple[Objection, ...]:
    """Everything that stands against the switchover; () if nothing does.

    :param blockers: what is older than ``order.old`` on the primary
    :param wrong: what else stands against members whose hosts were asked
    """
    if record is None:
        return (Objection(f"{cluster.name} has no primary yet"),)
    found = []
    if record.transition:
        found.append(Objection(is_under_way(record.transition.kind), passes=True))
    elif record.joint:
        found.append(Objection("the voters are changing", passes=True))
    diagnosis = diagnose(cluster, record, view)
    primary = view.state(record.primary)
    if diagnosis.primary is not Primary.WELL or primary is None:
        text = diagnosis.reason + ": a switchover needs a healthy primary"
        if diagnosis.primary in GONE and record.paused:
            text += "; PAUSED, so no member takes over automatically: run holdfast failover"
        return (*found, Objection(text))
    if why := blocked(cluster, record, view):
        found.append(Objection(f"commits on {record.primary} are blocked: " + why, passes=True))
    if primary.silent_seconds or primary.semi_sync.degraded:
        found.append(Objection(diagnosis.reason, passes=True))
    found += [Objection(each.text(f"on {record.primary}"), passes=True) for each in blockers]
    if order.to or not chosen(cluster, record, view, order, wrong):
        candidates = [order.to] if order.to else [m.name for m in cluster.others(record.primary)]
        for name in candidates:
            for each in against(cluster, record, view, order, primary, name, wrong):
                found.append(replace(each, candidate=name))
    return tuple(found)


def may_pass(objections: Sequence[Objection]) -> bool:
    """Whether waiting may help: the objections to at least one candidate may all pass."""
    barred = {each.candidate for each in lasting(objections)}
    candidates = {each.candidate for each in objections} - {""}
    return "" not in barred and (not candidates or bool(candidates - barred))


def lasting(objections: Sequence[Objection]) -> tuple[Objection, ...]:
    """The objections that do not pass without help."""
    return tuple(each for each in objections if not each.passes)


def chosen(
    cluster: Cluster, record: Record, view: View, order: SwitchoverOrder, wrong: Wrong | None = None
) -> str:
    """The member that takes over; "" if there is none.

    This is the member that the operator named. Otherwise it is, of those without objections, the one with the highest
    priority, then the one with the least left to apply.
    """
    if order.to:
        return order.to
    primary = view.state(record.primary)
    able = [
        state
        for member in cluster.others(record.primary)
        if primary
        and (state := view.state(member.name))
        and not against(cluster, record, view, order, primary, member.name, wrong)
    ]
    best = min(
        able,
        key=lambda s: (-cluster.setting(s.name).priority, backlog(s)),
        default=None,
    )
    return best.name if best else ""


def against(
    cluster: Cluster,
    record: Record,
    view: View,
    order: SwitchoverOrder,
    primary: MemberState,
    name: str,
    wrong: Wrong | None = None,
) -> list[Objection]:
    """What stands against this member as the next primary."""
    if name == record.primary:
        return [Objection(f"{name} is the primary already")]
    if name not in {member.name for member in cluster.members}:
        names = ", ".join(member.name for member in cluster.members)
        return [Objection(f"there is no member {name}; there are {names}")]
    state = view.state(name)
    if state is None:
        return [Objection(f"{name}: its agent does not answer")]
    if not state.up:
        return [Objection(f"{name}: its server is {state.server.value}")]
    # in both cases nothing more is known
    if state.unobserved:
        return [Objection(f"{name}: its agent cannot query it: {state.unobserved}")]
    if state.silent_seconds:
        return [Objection(f"{name}: its server does not answer", passes=True)]
    found = []
    if why := barred_by_settings(state, cluster):
        no_way = state.unfit or state.applying.removed
        passes = cluster.setting(name).priority > 0 and not no_way
        found.append(Objection(f"{name}: {why}", passes))
    elif why := spoiled(cluster, primary, state):
        found.append(Objection(f"{name}: {why}"))
    if state.logins.shut_out:
        found.append(
            Objection(f"{name}: its server refuses its agent's login ({state.logins.shut_out})")
        )
    if state.logins.denied:
        text = f"{name}: {primary.name} refuses a new login from it ({state.logins.denied})"
        found.append(Objection(text, passes=True))
    if state.occupied is not None:
        found.append(Objection(f"{name}: it is busy: {state.occupied.what}", passes=True))
    replication = state.replication
    if not replication.applier:
        error = f" ({replication.error})" if replication.error else ""
        found.append(Objection(f"{name}: its applier is stopped{error}"))
    elif replication.receiver is not Receiver.ON:
        error = f" ({replication.error})" if replication.error else ""
        found.append(Objection(f"{name}: it receives nothing from {primary.name}{error}", True))
    elif not attached(cluster, record, state):
        found.append(Objection(f"{name}: it does not follow {primary.name} as it should", True))
    if record.acks and not record.votes(name, state.incarnation):
        learns = cluster.setting(name).voter
        text = "it does not vote" if learns else f"members.{name}.voter is false: it never votes"
        found.append(Objection(f"{name}: {text}", passes=learns))
    if (left := backlog(state)) > order.behind:
        text = f"{name}: its applier is {left} transactions behind"
        found.append(Objection(text, passes=True))
    return [*found, *(wrong or {}).get(name, ())]
