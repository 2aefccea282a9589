"""Where clients should go now, according to the record and a look at the members."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.change.switchover import chained
from holdfast.core.cluster import Cluster, Member
from holdfast.core.record import Record
from holdfast.core.rules.attachment import attached
from holdfast.core.transition import Step
from holdfast.core.view import Receiver, View


@dataclass(frozen=True, slots=True)
class Reader:
    """A replica that may be read.

    :ivar lag_seconds: age of the data that it shows; None if unknown
    """

    member: Member
    lag_seconds: float | None


@dataclass(frozen=True, slots=True)
class Directions:
    """What an endpoint shows.

    :ivar term: of two, the one with the higher term is the later
    :ivar primary: the member that takes writes; None while there is none
    :ivar members: all members; one that is neither primary nor among the readers gets no clients
    """

    cluster: str
    term: int
    primary: Member | None
    readers: tuple[Reader, ...]
    members: tuple[Member, ...]


def directions(cluster: Cluster, record: Record | None, view: View) -> Directions:
    """Where clients should go.

    A primary that cannot be observed keeps its clients until another member is to take its place: an agent that does
    not answer, or cannot query its server, says nothing about the server.
    """
    if record is None:
        return Directions(cluster.name, 0, None, (), cluster.members)
    return Directions(
        cluster.name, record.term, _primary(cluster, record, view), _readers(cluster, record, view),
        cluster.members,
    )  # fmt: skip


def _primary(cluster: Cluster, record: Record, view: View) -> Member | None:
    step = record.transition.step if record.transition else None
    if step in (Step.ELECT, Step.FREEZE):
        return None
    state = view.state(record.primary)
    if state is not None:
        known = state.incarnation == record.target.incarnation(record.primary)
        if known and state.unobserved and not state.up:  # its agent was restarted
            return cluster.member(record.primary) if step is None else None
        open_now = state.up and state.writable and known
        return cluster.member(record.primary) if open_now else None
    return cluster.member(record.primary) if step is None else None


def _readers(cluster: Cluster, record: Record, view: View) -> tuple[Reader, ...]:
    return tuple(
        Reader(member, state.replication.lag_seconds)
        for member in cluster.others(record.primary)
        if (state := view.state(member.name))
        and state.observed
        and not state.unfit
        and (attached(cluster, record, state) or chained(cluster, record, state))
        and state.replication.receiver is Receiver.ON
    )
