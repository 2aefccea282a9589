"""How a member that is not the primary comes to follow it: checked, started, attached."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.cluster import Cluster, Member
from holdfast.core.commands import Command, Cut, Fence, Follow, Start
from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.core.record import Record
from holdfast.core.view import MemberState, Receiver, ServerStatus, TailVerdict, Unseen, View

ENDLESS = 2**63 - 2
"""Stands for "every number that this stream will ever have"; the highest that MySQL takes."""


@dataclass(frozen=True, slots=True)
class Rejoin:
    """:ivar command: what to do next, if anything; :ivar reason: why the member is not well, or \"\""""

    command: Command | None = None
    reason: str = ""


def rejoin(cluster: Cluster, record: Record, view: View, member: Member) -> Rejoin:
    """The next step of ``member``. Expects that the recorded primary is named for good (not ELECT)."""
    name = member.name
    sighting = view.members.get(name)
    if sighting is None or isinstance(sighting, Unseen):
        return Rejoin(
            reason=f"its agent does not answer ({sighting.reason if sighting else 'not asked yet'})"
        )
    state = sighting.state
    primary = view.state(record.primary)
    if state.server is ServerStatus.STARTING:
        return Rejoin(reason="its server is starting")
    if state.server is ServerStatus.UP and state.writable:
        return Rejoin(Fence(), f"it takes writes, and {record.primary} is the primary")
    if primary is None or not primary.up:
        return Rejoin(reason=_idle(state, record.primary))
    if state.server is ServerStatus.DOWN:
        return _start(record, primary, state)
    errant = errant_transactions(primary, state)
    if errant:
        return Rejoin(
            reason=f"it has transactions that {record.primary} lacks ({errant}); "
            "rewinding them is not there yet: clone it from another member"
        )
    if attached(cluster, record, state):
        return Rejoin(reason=_catching_up(state))
    return Rejoin(_follow(cluster, record, state), _catching_up(state))


def attached(cluster: Cluster, record: Record, state: MemberState) -> bool:
    """Whether it follows the recorded primary in the way that the record asks: acknowledging or not."""
    replication = state.replication
    return (
        replication.source == cluster.member(record.primary).address
        and replication.receiver is not Receiver.OFF
        and replication.applier
        and state.semi_sync.replica == record.votes(state.name, state.incarnation)
        and not state.semi_sync.source
    )


def errant_transactions(primary: MemberState, state: MemberState) -> GtidSet:
    """What the member has and the primary does not.

    The two were not observed at one moment: the member may have what the primary wrote since. What the primary
    issues itself cannot be errant elsewhere, so that stream is left out. What was received counts while an
    applier runs, which will apply it; a server that was just started fetches it anew from whom it then follows.
    """
    has = state.received_set() if state.replication.applier else state.applied_set()
    return has.subtract(with_everything_of(primary))


def with_everything_of(primary: MemberState) -> GtidSet:
    """What the primary has, and all that it will ever issue itself."""
    if primary.flavor is Flavor.MYSQL:
        own = f"{primary.origin}:1-{ENDLESS}" if primary.origin else ""
    else:
        own = f"{primary.origin}-{ENDLESS}" if primary.origin else ""
    return primary.applied_set().union(parse(primary.flavor, own))


def _start(record: Record, primary: MemberState, state: MemberState) -> Rejoin:
    """A server that is down is started only when its binlog ends with nothing that the primary lacks."""
    tail = state.tail
    if tail.term < record.elected or tail.verdict is TailVerdict.UNCHECKED:
        present = str(with_everything_of(primary))
        return Rejoin(
            Cut(record.primary, present), "its server is down; its binlog is being checked"
        )
    if tail.verdict is TailVerdict.UNSAFE:
        return Rejoin(reason=tail.reason)
    return Rejoin(Start(), "its server is down and will be started")


def _follow(cluster: Cluster, record: Record, state: MemberState) -> Follow:
    primary = cluster.member(record.primary)
    semi_sync = record.votes(state.name, state.incarnation)
    return Follow(primary.name, primary.host, primary.port, semi_sync)


def _idle(state: MemberState, primary: str) -> str:
    if state.server is ServerStatus.DOWN:
        return f"its server is down; it is started when {primary} is up, to compare their binlogs"
    return state.reason or f"it waits for {primary}"


def _catching_up(state: MemberState) -> str:
    replication = state.replication
    if replication.error:
        return replication.error
    if replication.receiver is not Receiver.ON:
        return "its receiver is not connected to the primary"
    if not replication.applier:
        return "its applier is stopped"
    return state.reason
