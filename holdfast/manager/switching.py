"""A switchover that a person orders: looked at before anything is touched, waited for where it may pass, begun."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.core import switchover
from holdfast.core.blockers import Blocker
from holdfast.core.commands import EndSessions, Freeze
from holdfast.core.decision import Send
from holdfast.core.preflight import Objection, SwitchOver, chosen, objections
from holdfast.errors import DeadlinePassed, Refused
from holdfast.manager.events import EventKind
from holdfast.manager.lead import Leader

LOOK_AGAIN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Outlook:
    """:ivar to: who would take over; "" when nobody can
    :ivar against: all that stands against it; :ivar blockers: of that, what clients do on the primary
    """

    to: str
    against: tuple[Objection, ...]
    blockers: tuple[Blocker, ...] = ()


@dataclass(frozen=True, slots=True)
class Begun:
    """:ivar event: number of the last event before it; what came of it is told after that"""

    to: str
    event: int


class Switching:
    """:raises Unreachable: this manager does not lead the cluster"""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    async def look(self, order: SwitchOver) -> Outlook:
        """What would come of it now; touches nothing."""
        leader = self._leader
        leader.leading()
        record = leader.record
        blockers: Sequence[Blocker] = ()
        unknown: tuple[Objection, ...] = ()
        if record and record.primary in leader.agents:
            try:
                blockers = await leader.agents[record.primary].blockers(order.old)
            except Refused as error:
                unknown = (Objection(f"what clients do on {record.primary} is not known: {error}"),)
        view = leader.view()
        against = (*objections(leader.cluster, record, view, order, blockers), *unknown)
        to = chosen(leader.cluster, record, view, order) if record else ""
        return Outlook(to, against, tuple(blockers))

    async def begin(self, order: SwitchOver) -> Begun:
        """Begin it; answers then.

        :raises Refused: with all that stands against it
        :raises DeadlinePassed: what was waited for has not passed
        """
        begun = time.monotonic()
        ended = False
        while True:
            outlook = await self.look(order)
            if not outlook.against:
                return await self._begin(order)
            waited = time.monotonic() - begun
            if not order.wait or not all(each.passes for each in outlook.against):
                raise Refused("; ".join(each.text for each in outlook.against))
            if waited >= order.seconds:
                why = "; ".join(each.text for each in outlook.against)
                raise DeadlinePassed(f"waiting for what stands against it ({why})", order.seconds)
            if order.kill_after is not None and waited >= order.kill_after and not ended:
                ended = await self._end(outlook.blockers)
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _begin(self, order: SwitchOver) -> Begun:
        """From a look that was taken with nobody else deciding."""
        leader = self._leader
        async with leader.deciding:
            actor, record = leader.leading()
            view = leader.view()
            against = objections(leader.cluster, record, view, order)
            if against or record is None:
                raise Refused("; ".join(each.text for each in against))
            to = chosen(leader.cluster, record, view, order)
            event = leader.events.last
            leader.events.add(EventKind.ORDERED, f"{order.text}, by a person", to)
            actor.forgive(record.primary, Freeze)
            until = view.date + order.seconds
            await leader.decided(switchover.begun(leader.cluster, record, view, to, until))
        return Begun(to, event)

    async def _end(self, blockers: Sequence[Blocker]) -> bool:
        """End the sessions that hold it up; whether there were any."""
        leader, record = self._leader, self._leader.record
        if record is None or not blockers:
            return False
        for each in blockers:
            leader.events.add(EventKind.ORDERED, f"{each}: ended for a switchover", record.primary)
        sessions = tuple(each.session for each in blockers)
        await leader.carry_out(Send(record.primary, EndSessions(sessions)))
        return True
