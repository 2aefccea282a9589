"""What ``holdfast status`` shows, from record and view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from holdfast.core.answers.reasons import headline, of_blocked
from holdfast.core.answers.stages import Stage, standing
from holdfast.core.cluster import Cluster, Member
from holdfast.core.decision import Decision
from holdfast.core.gtid import Flavor, parse
from holdfast.core.lease import Protection
from holdfast.core.members.copying import next_step
from holdfast.core.members.membership import should_vote
from holdfast.core.members.own_writes import about_brought
from holdfast.core.observed.comparison import Difference, Verification
from holdfast.core.observed.progress import Progress
from holdfast.core.record import Record
from holdfast.core.rules.ackers import doubtful
from holdfast.core.rules.blocked import blocked, takes_writes
from holdfast.core.rules.enforcement import unkept
from holdfast.core.rules.seats import why_standby
from holdfast.core.view import (
    MemberState,
    Receiver,
    Seen,
    ServerStatus,
    Sighting,
    Unseen,
    View,
)
from holdfast.core.wording import Point, Topic, key_of, points_of

MOST_DIFFERENCES = 20
"""This many tables that differ are named of each member; ``Verification.different`` counts them."""


WAITING = "waiting"
UNKNOWN = "unknown"
"""The state of a member whose agent does not answer."""


class MemberRole(StrEnum):
    """The member's role according to the record: a member that cannot be seen keeps it. LEARNER: it follows, and will
    vote. STANDBY: it follows, and the voters are complete without it. OUT: it is neither primary nor voter, and does
    not follow the primary now, as far as is known."""

    PRIMARY = "primary"
    VOTER = "voter"
    LEARNER = "learner"
    STANDBY = "standby"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One member. What is not known now is not shown as if it were: its lag, how far behind it is.

    :ivar state: down, starting, or what it does; "unknown" if its agent does not answer, "no answer" if its server does
        not answer that agent, "not observed" if it refuses the agent's login
    :ivar age_seconds: age of the positions: 0: they are current; None: nothing is known
    :ivar lag_seconds: None also if it is not known now
    :ivar failed: what its agent refuses or fails to do: each command, and why; "" if everything is done
    :ivar told: the reason for the cluster says all that ``reason`` says
    :ivar failed_told: everything in ``failed`` is in one of the two reasons
    :ivar standby: why it does not vote although it is well, or ""
    :ivar votes: the record counts on it, whether it can be seen or not
    :ivar bytes_behind: see ``stages.Standing``; :ivar eta_seconds: until it has caught up, at its recent speed
    :ivar progress: the work in its background
    :ivar protections: what ends its server, or shuts its ports, when it is primary and its lease is over; () nothing
        does; None: not known
    :ivar prepared: XA transactions that have been prepared there for some seconds
    :ivar unacknowledged: how many of its transactions are known to have completed without a voter, a counter
    :ivar let_through: what let them through, until a row has been acknowledged since; "" then
    :ivar verified: the last verification of its tables, under way or over; None: none since its data came
    :ivar concerns: what an operator should attend to, although the member is well
    :ivar differs: tables in which verifications found it to differ, MOST_DIFFERENCES at most
    """

    name: str
    host: str
    port: int
    role: MemberRole
    state: str
    received: str
    applied: str
    lag_seconds: float | None
    incarnation: str
    reason: str
    votes: bool = False
    stage: Stage = Stage.NONE
    bytes_behind: int | None = None
    eta_seconds: float | None = None
    progress: Progress | None = None
    zone: str = ""
    priority: int = 100
    protections: tuple[Protection, ...] | None = None
    prepared: tuple[str, ...] = ()
    unacknowledged: int = 0
    let_through: str = ""
    verified: Verification | None = None
    differs: tuple[Difference, ...] = ()
    concerns: tuple[str, ...] = ()
    age_seconds: float | None = 0.0
    standby: str = ""
    failed: str = ""
    told: bool = False
    failed_told: bool = False


@dataclass(frozen=True, slots=True)
class FailedCommand:
    """What an agent refused, or failed, to do, and its own words."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Status:
    """:ivar writable: the primary takes clients, and their commits complete, as far as is known
    (``core/rules/blocked.py``)
    :ivar whole: every member is as it should be
    :ivar headline: what clients notice, and why
    :ivar degraded: mode semi-sync: commits do not wait now
    :ivar brought: what only the primary had when it took over, because it wrote it itself: one sentence, or ""
    :ivar doubt: GTIDs that may have been acknowledged without a voter: mode strong does not cover these
    :ivar under_way: the kind of transition; "waiting" if nothing was touched yet, and an order waits until it can
        begin; or ""
    :ivar waiting: that order, and what it waits for, or ""; :ivar waiting_key: changes if it waits for something else,
        and not with the duration
    :ivar paused: why nothing begins automatically, or ""; :ivar paused_until: in seconds since 1970; None: until an
        operator resumes it
    :ivar planned: when a scheduled switchover will begin, in seconds since 1970, and to which member ("": the best);
        None: none is scheduled
    :ivar lease: what extends the primary's lease: manager, peers or nobody; "" if it is not known, or has none
    """

    cluster: str
    term: int
    mode: str
    acks: int
    primary: str | None
    writable: bool
    whole: bool
    reason: str
    members: tuple[MemberStatus, ...]
    degraded: bool = False
    under_way: str = ""
    paused: str = ""
    paused_until: float | None = None
    lease: str = ""
    planned: tuple[float, str] | None = None
    doubt: str = ""
    brought: str = ""
    waiting: str = ""
    waiting_key: str = ""
    headline: str = ""


def status(
    cluster: Cluster,
    record: Record | None,
    view: View,
    decision: Decision,
    estimates: Mapping[str, float] | None = None,
    waiting: str = "",
    failures: Mapping[str, Sequence[FailedCommand]] | None = None,
) -> Status:
    """:param estimates: seconds until members have caught up
    :param waiting: an order that waits
    :param failures: by member, what its agent refused or failed to do of its last commands
    """
    primary = view.state(record.primary) if record else None
    why = blocked(cluster, record, view) if record else ""
    reason = (
        of_blocked(cluster, record, decision.reason, why) if record and why else decision.reason
    )
    writable = record is not None and takes_writes(cluster, record, view)
    members = tuple(
        _with_failures(
            reason,
            _placed(cluster, record, view, _member(cluster, record, view, member), estimates or {}),
            (failures or {}).get(member.name, ()),
        )
        for member in cluster.members
    )
    hidden = any(each.role is MemberRole.PRIMARY and each.age_seconds != 0 for each in members)
    return Status(
        cluster=cluster.name,
        term=record.term if record else 0,
        mode=record.mode if record else "strong",
        acks=record.acks if record else 0,
        primary=record.primary if record else None,
        writable=writable,
        whole=decision.well and not why,
        reason=reason,
        headline=headline(reason, writable, hidden, record is not None),
        members=members,
        degraded=bool(primary and primary.semi_sync.degraded),
        under_way=record.transition.kind
        if record and record.transition
        else WAITING * bool(waiting),
        paused=record.paused.reason if record and record.paused else "",
        paused_until=record.paused.until if record and record.paused else None,
        lease=primary.lease.by if primary and primary.lease.enforced else "",
        planned=(record.planned.at, record.planned.to) if record and record.planned else None,
        doubt=str(doubtful(record, view) or "") if record else "",
        brought=_brought(record, primary) if record else "",
        waiting=waiting,
        waiting_key=key_of(waiting),
    )


def _brought(record: Record, primary: MemberState | None) -> str:
    if not record.brought:
        return ""
    flavor = (
        primary.flavor if primary else Flavor.MYSQL if ":" in record.brought else Flavor.MARIADB
    )
    return about_brought(record.primary, parse(flavor, record.brought))


def _with_failures(
    reason: str, member: MemberStatus, failures: Sequence[FailedCommand]
) -> MemberStatus:
    """With what its agent refuses or fails to do, and whether the reason for the cluster says all that already."""
    known = points_of(reason) | points_of(member.reason)
    own = Point(Topic.MEMBER, member.name, str(member.reason))
    silent = member.state == UNKNOWN and Point(Topic.AGENT, member.name) in known
    return replace(
        member,
        told=not member.reason or own in points_of(reason) or silent,
        failed="; ".join(f"{each.name}: {each.why}" for each in failures),
        failed_told=all(Point(Topic.QUOTED, member.name, each.why) in known for each in failures),
    )


def _placed(
    cluster: Cluster,
    record: Record | None,
    view: View,
    member: MemberStatus,
    estimates: Mapping[str, float],
) -> MemberStatus:
    """The member with its place in the cluster, and how far it is on its way there."""
    setting, state = cluster.setting(member.name), view.state(member.name)
    sighting = view.members.get(member.name)
    known = state or (sighting.last if isinstance(sighting, Unseen) else None)
    stands = standing(cluster, record, view, member.name) if record else None
    standby = _standby(cluster, record, view, member) if record else ""
    return replace(
        member,
        role=MemberRole.STANDBY if standby else member.role,
        standby=standby,
        votes=record is not None and record.names(member.name),
        stage=stands.stage if stands else Stage.NONE,
        bytes_behind=stands.bytes_behind if stands else None,
        eta_seconds=None if member.age_seconds else estimates.get(member.name),
        progress=state.progress if state else None,
        zone=setting.zone,
        priority=setting.priority,
        protections=_protections(record, view, member.name),
        prepared=state.prepared if state else (),
        unacknowledged=known.unacknowledged if known else 0,
        let_through=known.let_through if known else "",
        verified=known.verified if known else None,
        differs=known.differs[:MOST_DIFFERENCES] if known else (),
        concerns=tuple(
            each
            for each in (state.concerns if state else ())
            if Point(Topic.QUOTED, member.name, each) not in points_of(member.reason)
        ),
    )


def _standby(cluster: Cluster, record: Record, view: View, member: MemberStatus) -> str:
    primary = view.state(record.primary)
    if primary is None or member.role is not MemberRole.LEARNER or record.joint:
        return ""
    if record.target.incarnation(member.name) is not None:
        return ""  # it was restarted, and will vote again
    if should_vote(cluster, record, primary, member.name):
        return ""
    return why_standby(cluster, primary, member.name)


def _protections(record: Record | None, view: View, name: str) -> tuple[Protection, ...] | None:
    state = view.state(name)
    if state is not None:
        return state.protections
    if record is None or record.primary != name:
        return None
    if view.enforced:
        return (Protection.KEEPER,)
    return () if unkept(record, view) else None


def _member(cluster: Cluster, record: Record | None, view: View, member: Member) -> MemberStatus:
    sighting = view.members.get(member.name)
    age = _age(view, sighting)
    if sighting is None or isinstance(sighting, Unseen):
        state = sighting.last if sighting else None
        why = sighting.reason if sighting else "not asked yet"
        known, reason = UNKNOWN, f"its agent does not answer ({why})"
    else:
        state = sighting.state
        known, reason = _condition(state), state.why
        if record and record.primary != member.name and not record.electing:
            step = next_step(cluster, record, view, member)
            reason = step.reason
            if record.paused and step.command and reason:
                reason += " (PAUSED: not before it is resumed)"
    return MemberStatus(
        name=member.name,
        host=member.host,
        port=member.port,
        role=_role(cluster, record, member, view, view.state(member.name)),
        state=known,
        received=_each_once(state) if state else "",
        applied=state.applied if state else "",
        lag_seconds=state.replication.lag_seconds if state and age == 0 else None,
        incarnation=state.incarnation if state else "",
        reason=reason,
        age_seconds=age,
    )


def _each_once(state: MemberState) -> str:
    """What was received. MariaDB reports applied and received side by side, and so its last GTID twice."""
    if state.flavor is Flavor.MARIADB and state.received:
        return str(state.received_set())
    return state.received


def _age(view: View, sighting: Sighting | None) -> float | None:
    """The age of what is said about the server, in seconds; see :class:`MemberStatus`."""
    match sighting:
        case Seen(state=state):
            if state.unobserved and not state.up:
                return None
            return round(max(state.silent_seconds, state.unobserved_seconds), 1)
        case Unseen(since=since, last=last) if last is not None:
            return round(view.now - since + last.silent_seconds + last.unobserved_seconds, 1)
        case _:
            return None


def _role(
    cluster: Cluster, record: Record | None, member: Member, view: View, state: MemberState | None
) -> MemberRole:
    if record is None:
        return MemberRole.OUT
    if state is None:
        return _recorded(record, view, member)
    if record.primary == member.name:
        return MemberRole.PRIMARY if state.up or state.unobserved else MemberRole.OUT
    if state.unobserved and record.counts(member.name, state.incarnation):
        return MemberRole.VOTER
    if not state.up:
        return MemberRole.OUT
    if record.counts(member.name, state.incarnation):
        return MemberRole.VOTER
    following = state.replication.source == cluster.member(record.primary).address
    return MemberRole.LEARNER if following else MemberRole.OUT


def _recorded(record: Record, view: View, member: Member) -> MemberRole:
    """The role of a member that cannot be seen: whether it does what the record counts on is not known."""
    sighting = view.members.get(member.name)
    last = sighting.last if isinstance(sighting, Unseen) else None
    if last is not None and last.ended:
        return MemberRole.OUT
    if record.primary == member.name:
        return MemberRole.PRIMARY
    return MemberRole.VOTER if record.names(member.name) else MemberRole.OUT


def _condition(state: MemberState) -> str:
    if state.unobserved:
        return "not observed"
    if state.up and state.silent_seconds:
        return "no answer"
    if state.server is not ServerStatus.UP:
        return state.server.value
    if state.writable:
        return "open"
    if state.replication.receiver is Receiver.OFF:
        return "read-only"
    if state.applying.error:
        return "applier broken"
    if not state.replication.applier:
        return "applier stopped"
    return "replicating" if state.replication.receiver is Receiver.ON else "connecting"
