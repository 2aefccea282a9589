"""A failover that a person orders: for a primary that is lost, where nobody is promoted by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.core.cluster import Cluster
from holdfast.core.decision import Save
from holdfast.core.diagnosis import GONE, Primary, diagnose
from holdfast.core.election import NobodyElected, elect
from holdfast.core.failover import could_follow, prospects
from holdfast.core.record import Kind, Record, Step, Transition
from holdfast.core.view import MemberState, View


@dataclass(frozen=True, slots=True)
class FailOver:
    """Have another primary take over.

    :ivar to: who, if possible; "" for the best one
    :ivar accept_loss: also where what was acknowledged may be lost, or where the old primary, which cannot be
        reached, may answer its clients still
    """

    to: str = ""
    accept_loss: bool = False

    @property
    def member(self) -> str:
        """Whom it is about."""
        return self.to

    @property
    def text(self) -> str:
        risk = ", losing what it must" if self.accept_loss else ""
        return f"a failover{f' to {self.to}' if self.to else ''} is to begin{risk}"

    @property
    def done(self) -> str:
        return "the failover has begun"


def against(cluster: Cluster, record: Record, view: View, order: FailOver) -> tuple[str, ...]:
    """All that stands against beginning it now; () when nothing does."""
    if record.transition and record.transition.step is Step.ELECT:
        return ("a failover is under way",)
    diagnosis = diagnose(cluster, record, view)
    if diagnosis.primary not in GONE and diagnosis.primary is not Primary.UNSEEN:
        return (f"{diagnosis.reason}: a failover is for a primary that is lost",)
    found = []
    if diagnosis.primary is Primary.UNSEEN and not order.accept_loss:
        found.append(diagnosis.reason)
    heirs = _heirs(cluster, record, view, order)
    if not heirs:
        missing = "; ".join(prospects(record, view).missing) or f"{record.primary} served alone"
        found.append(f"no recovery quorum can be had: {missing}")
    elif isinstance(nobody := elect(heirs, cluster), NobodyElected):
        found.append(nobody.reason)
    if order.to == record.primary:
        found.append(f"{order.to} is the primary that is to be replaced")
    elif order.to and not _could_be(view, order.to):
        found.append(f"{order.to} cannot take over: its server is not seen to be up and well")
    return tuple(found)


def begun(record: Record, view: View, order: FailOver) -> Save:
    """Expects that nothing stands against it."""
    safe = record.recoverable(prospects(record, view).reachable)
    transition = Transition(
        Kind.FAILOVER,
        Step.ELECT,
        record.primary,
        lossy=not safe,
        wish=order.to,
        ordered=True,
    )
    why = f"{order.text}: a person has ordered it"
    return Save(replace(record, term=record.term + 1, transition=transition), why)


def _heirs(cluster: Cluster, record: Record, view: View, order: FailOver) -> Sequence[MemberState]:
    """Who would be elected among."""
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
    return state is not None and state.up and not state.unfit and not state.silent_seconds
