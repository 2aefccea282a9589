"""A failover that an operator orders: for a primary that is lost, where no member is promoted automatically."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.core.change.failover import could_follow, prospects
from holdfast.core.change.hooking import failed, owed
from holdfast.core.cluster import Cluster
from holdfast.core.decision import Save
from holdfast.core.members.copying import way_out
from holdfast.core.members.own_writes import without_harmless
from holdfast.core.record import Record
from holdfast.core.rules import returned
from holdfast.core.rules.ackers import nobody_has
from holdfast.core.rules.blocked import blocked
from holdfast.core.rules.deposed import wished
from holdfast.core.rules.diagnosis import GONE, Diagnosis, Primary, diagnose
from holdfast.core.rules.election import NobodyElected, elect
from holdfast.core.rules.seats import may_be_alone
from holdfast.core.settings import Mode
from holdfast.core.transition import Failover, Step, TransitionKind
from holdfast.core.view import MemberState, View


@dataclass(frozen=True, slots=True)
class FailoverOrder:
    """Make another member take over.

    :ivar to: the member that takes over, if possible; "" for the best one
    :ivar accept_loss: also if what was acknowledged may be lost, or if the old primary, which cannot be reached, may
        still answer its clients. For a primary that came back in place: open it with what it has
    :ivar skip_stop: continue without the stop hook, which may leave clients with the old primary's address
    """

    to: str = ""
    accept_loss: bool = False
    skip_stop: bool = False

    @property
    def member(self) -> str:
        """The member that the order is about."""
        return self.to

    @property
    def text(self) -> str:
        risk = ", accepting loss" if self.accept_loss else ""
        risk += ", without the stop hook" if self.skip_stop else ""
        return f"a failover{f' to {self.to}' if self.to else ''} will begin{risk}"

    @property
    def done(self) -> str:
        return "the failover has begun"


def against(cluster: Cluster, record: Record, view: View, order: FailoverOrder) -> tuple[str, ...]:
    """Everything that stands against beginning the failover now, or against continuing one that a hook blocks; () if
    nothing does."""
    if electing := record.electing:
        held_up = failed(record, view) or (order.skip_stop and not electing.skip_stop)
        return _unable(record, view, order) if held_up else ("a failover is under way",)
    if returned.awaits(record, view) and order.to in ("", record.primary):
        return _against_opening(record, view, order)
    diagnosis = diagnose(cluster, record, view)
    if diagnosis.primary not in GONE and diagnosis.primary is not Primary.UNSEEN:
        return (_lives(cluster, record, view, diagnosis),)
    found = []
    if diagnosis.primary is Primary.UNSEEN and not order.accept_loss:
        found.append(diagnosis.reason)
    heirs = _heirs(cluster, record, view, order)
    if not heirs:
        found.append(_unsure(cluster, record, view))
    elif isinstance(
        nobody := elect(without_harmless(heirs), wished(cluster, order.to)), NobodyElected
    ):
        found.append(nobody.reason)
    elif not order.accept_loss and (doubt := nobody_has(record, view, heirs)):
        found.append(doubt)
    unable = _unable(record, view, order)
    if heirs and not unable and order.to and order.to not in (names := [s.name for s in heirs]):
        # it may have less than what was acknowledged: another member would take over in its place
        unable = (
            f"{order.to} does not vote, and cannot take over while voters can ({', '.join(names)})",
        )
    return (*found, *unable)


def _lives(cluster: Cluster, record: Record, view: View, diagnosis: Diagnosis) -> str:
    """Why a failover is refused for a primary that is not lost, and what helps instead if it takes no writes."""
    why = blocked(cluster, record, view)
    reason = f"commits on {record.primary} are blocked ({why}), but it is alive" if why else ""
    text = f"{reason or diagnosis.reason}: a failover needs a lost primary"
    if diagnosis.primary is Primary.WELL and not why:
        return text
    if not record.acks or may_be_alone(cluster.settings):
        return text
    return f"{text}; {way_out(record.primary)}"


def _unsure(cluster: Cluster, record: Record, view: View) -> str:
    """Why no member can take over without a loss, and how to accept one."""
    accept = f"to accept that: holdfast failover --accept-loss {cluster.name}"
    if record.mode is not Mode.STRONG:
        return f"mode {record.mode}: replicas may lack commits of {record.primary}; {accept}"
    if not record.acks:
        return f"{record.primary} served alone, so replicas may lack its commits; {accept}"
    missing = "; ".join(prospects(record, view).missing)
    why = f": {missing}" if missing else ""
    return f"too few voters can be asked for what they have{why}; what was acknowledged may be lost; {accept}"


def _against_opening(record: Record, view: View, order: FailoverOrder) -> tuple[str, ...]:
    """What stands against opening a primary that came back in place and may lack something; see
    ``core/rules/returned.py``."""
    primary = view.state(record.primary)
    found = returned.doubt(record, view, primary) if primary else None
    return () if order.accept_loss or found is None else (found.reason,)


def _unable(record: Record, view: View, order: FailoverOrder) -> tuple[str, ...]:
    if order.to == record.primary:
        return (f"{order.to} is the primary that is to be replaced",)
    if order.to and not _could_be(view, order.to):
        return (f"{order.to} cannot take over: its server is not known to be healthy",)
    return ()


def begun(record: Record, view: View, order: FailoverOrder) -> Save:
    """The first step of the failover. Expects that nothing stands against it."""
    if record.electing:
        return _again(record, record.electing, order)
    restart = returned.awaits(record, view)
    if restart and order.to in ("", record.primary):
        opened = replace(restart, lossy=True, ordered=True)
        why = f"{record.primary} will be opened with what it has: requested by an operator"
        return Save(replace(record, transition=opened), why)
    reachable = prospects(record, view).reachable
    heirs = [state for name, _ in reachable if (state := view.state(name))]
    safe = record.recoverable(reachable) and not nobody_has(record, view, heirs)
    transition = Failover(
        Step.ELECT,
        record.primary,
        lossy=not safe,
        wish=order.to,
        ordered=True,
        skip_stop=order.skip_stop,
    )
    why = f"{order.text}: requested by an operator"
    begun = replace(
        record,
        term=record.term + 1,
        transition=transition,
        owed=owed(record, view, TransitionKind.FAILOVER),
    )
    return Save(begun, why)


def _again(record: Record, under_way: Failover, order: FailoverOrder) -> Save:
    """Continue without the hook, or have it called once more, which a new term causes."""
    transition = replace(under_way, skip_stop=order.skip_stop, wish=order.to or under_way.wish)
    if order.skip_stop:
        why = "the failover continues without the stop hook: requested by an operator"
        return Save(replace(record, transition=transition), why)
    why = "the stop hook is called once more: requested by an operator"
    return Save(replace(record, term=record.term + 1, transition=transition), why)


def _heirs(
    cluster: Cluster, record: Record, view: View, order: FailoverOrder
) -> Sequence[MemberState]:
    """The members among which the election would choose."""
    reachable = prospects(record, view).reachable
    states = [s for m in cluster.others(record.primary) if (s := view.state(m.name)) and s.up]
    if record.recoverable(reachable):
        return [s for s in states if (s.name, s.incarnation) in reachable]
    if not order.accept_loss:
        return []
    able = could_follow(cluster, record, view)
    return [s for s in states if s.name in able]


def _could_be(view: View, name: str) -> bool:
    state = view.state(name)
    return state is not None and state.observed and not state.unfit
