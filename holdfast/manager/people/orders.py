"""Operators' orders: carried out when nothing stands against them, and marked as ordered in the events."""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.core.change import takeover
from holdfast.core.change.orders import Order, first_step, objections
from holdfast.core.change.restart import CLOSING
from holdfast.core.change.takeover import FailoverOrder
from holdfast.core.commands import Restart
from holdfast.core.decision import Save
from holdfast.core.record import Pause, Record
from holdfast.errors import Refused
from holdfast.http.guarding import asker
from holdfast.manager.leader.act import Actor
from holdfast.manager.leader.events import EventKind
from holdfast.manager.leader.lead import Leader

WAIT_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Paused:
    """:ivar until: seconds since 1970; None: until it is resumed
    :ivar replaces: the pause that held before
    """

    done: str
    until: float | None
    replaces: Pause | None


class Orders:
    """:raises Refused: with all that stands against an order
    :raises Unreachable: this manager does not lead the cluster
    """

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    async def carry_out(self, order: Order) -> str:
        """Carry out an order; returns what was done, in one sentence.

        :raises HoldfastError: by consequence, the agent's error
        """
        leader = self._leader
        async with leader.deciding:
            actor, record = leader.leading()
            against = objections(leader.cluster, record, leader.view(), order)
            if against or record is None:
                raise Refused("; ".join(against))
            step = first_step(leader.cluster, record, leader.view(), order)
            leader.events.add(EventKind.ORDERED, f"{order.text}, by {asker()}", order.member)
            if isinstance(step, Save):
                actor.forgive(order.member, Restart)
                await leader.decided(step)
            term = record.term
        if isinstance(step, Save):
            return await self._closed(actor, order)
        await actor.order(term, step)
        return order.done

    async def _closed(self, actor: Actor, order: Order) -> str:
        """Wait until the primary has ended, or refused to."""
        while (record := self._leader.record) and record.transition == CLOSING:
            await self._leader.clock.pause(WAIT_SECONDS)
        if refusal := actor.refusal(order.member, Restart):
            raise Refused(refusal)
        return order.done

    async def fail_over(self, order: FailoverOrder) -> str:
        """Begin a failover; returns what was done, in one sentence."""
        leader = self._leader
        async with leader.deciding:
            record = self._record()
            against = takeover.against(leader.cluster, record, leader.view(), order)
            if against:
                raise Refused("; ".join(against))
            leader.events.add(EventKind.ORDERED, f"{order.text}, by {asker()}", order.member)
            await leader.decided(takeover.begun(record, leader.view(), order))
        return order.done

    async def pause(self, reason: str, seconds: float | None) -> Paused:
        """Begin nothing by itself any more; for so long, or until :meth:`resume`. A pause that holds is replaced."""
        until = self._leader.clock.now() + seconds if seconds else None
        async with self._leader.deciding:
            record = self._record()
            how_long = f"for {seconds:g} s" if seconds else "until it is resumed"
            replaced = f" (in place of: {record.paused.reason})" if record.paused else ""
            done = await self._ordered(
                replace(record, paused=Pause(reason, until)),
                f"paused {how_long}: {reason}{replaced}",
            )
        return Paused(done, until, record.paused)

    async def resume(self) -> str:
        async with self._leader.deciding:
            record = self._record()
            if record.paused is None:
                raise Refused(f"{self._leader.cluster.name} is not paused")
            resumed = replace(record, paused=None)
            return await self._ordered(resumed, f"resumed (paused: {record.paused.reason})")

    async def _ordered(self, record: Record, what: str) -> str:
        self._leader.events.add(EventKind.ORDERED, f"{what}, by {asker()}")
        await self._leader.decided(Save(record, what))
        return what

    def _record(self) -> Record:
        _, record = self._leader.leading()
        if record is None:
            raise Refused(f"{self._leader.cluster.name} has no primary yet")
        return record
