"""A switchover that an operator orders: checked before anything is touched, delayed where obstacles may pass, begun."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from holdfast.core.change import readiness, switchover
from holdfast.core.change.preflight import (
    Objection,
    SwitchoverOrder,
    Wrong,
    chosen,
    lasting,
    may_pass,
    objections,
)
from holdfast.core.check.reaching import barred_pairs, refusals
from holdfast.core.commands import EndSessions, Freeze
from holdfast.core.decision import Send
from holdfast.core.history.entry import clipped
from holdfast.core.observed.blockers import Blocker
from holdfast.core.record import Record
from holdfast.core.view import View
from holdfast.errors import HoldfastError, Refused
from holdfast.http.guarding import asker
from holdfast.manager.leader.events import EventKind
from holdfast.manager.leader.lead import Leader
from holdfast.manager.leader.waiting import Gone, Waiting, never
from holdfast.manager.people.check import gather
from holdfast.manager.people.reaching import tried

LOOK_AGAIN_SECONDS = 0.2
LONGEST = 400
"""Maximum number of characters of an order in an event."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """:ivar to: the member that would take over; "" if none can
    :ivar against: all that stands against it; :ivar blockers: of that, what clients do on the primary
    :ivar wrong: of that, what is wrong with members' hosts and settings
    """

    to: str
    against: tuple[Objection, ...]
    blockers: tuple[Blocker, ...] = ()
    wrong: Wrong = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Begun:
    """:ivar event: number of the last event before it; its results come after that"""

    to: str
    event: int


class Switching:
    """:raises Unreachable: this manager does not lead the cluster"""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    async def look(self, order: SwitchoverOrder, known: Wrong | None = None) -> Outlook:
        """What would come of it now; touches nothing.

        :param known: what is wrong with members' hosts; None: ask them
        """
        leader = self._leader
        leader.leading()
        record, view = leader.record, leader.view()
        if record is None:
            return Outlook("", objections(leader.cluster, record, view, order))
        (blockers, unknown), wrong = await asyncio.gather(
            self._blockers(record.primary, order.old),
            self._wrong(record, view, order, known),
        )
        against = objections(leader.cluster, record, view, order, blockers, wrong)
        to = chosen(leader.cluster, record, view, order, wrong)
        return Outlook(to, (*against, *unknown), tuple(blockers), wrong)

    async def _blockers(
        self, primary: str, old: float
    ) -> tuple[Sequence[Blocker], Sequence[Objection]]:
        if primary not in self._leader.agents:
            return (), ()
        try:
            return await self._leader.agents[primary].blockers(old), ()
        except HoldfastError as error:
            return (), (Objection(f"what clients do on {primary} is not known: {error}"),)

    async def _wrong(
        self, record: Record, view: View, order: SwitchoverOrder, known: Wrong | None
    ) -> Wrong:
        """What is wrong with the members that may take over, and answer; the primary is asked for what both must
        share."""
        if known is not None:
            return known
        others = {each.name for each in self._leader.cluster.others(record.primary)}
        asked = (others & {order.to} if order.to else others) | {record.primary}
        agents = self._leader.agents
        there = {name: agents[name] for name in asked & set(agents) if view.state(name)}
        (found, silent), logins = await asyncio.gather(
            gather(there, counting=False), tried(self._leader, asked - {record.primary})
        )
        shut = refusals(logins.reached, barred_pairs(self._leader.cluster, view))
        return readiness.wrong(record.primary, found, silent, shut)

    async def begin(self, order: SwitchoverOrder, gone: Gone = never, what: str = "") -> Begun:
        """Begin the switchover; returns once it has begun.

        :param gone: whether the client that ordered it has disconnected: an order that has not begun by then is
            cancelled
        :param what: names an order whose client does not wait for its end, so that events report it
        :raises Refused: with all that stands against it, also where that has not passed in time; nothing was touched,
            except for the sessions that were to be ended
        """
        waiting = Waiting(order, asker(), gone, self._leader.clock)
        try:
            return await self._waited(waiting)
        except HoldfastError as error:
            was_shown = self._leader.waiting is waiting
            if (what or was_shown) and not waiting.cancelled:
                text = f"{what or waiting.what} did not begin: {error}"
                self._leader.events.add(EventKind.NOT_BEGUN, clipped(text, LONGEST), order.to)
            raise
        finally:
            if self._leader.waiting is waiting:
                self._leader.waiting = None

    async def _waited(self, waiting: Waiting) -> Begun:
        order, ended = waiting.order, False
        known: Wrong | None = None
        while True:
            outlook = await self.look(order, known)
            await self._refuse_unwanted(waiting)
            self._refuse_second(waiting)
            if not outlook.against:
                if known is None:
                    return await self._begin(waiting, outlook)
                known = None  # some time has passed since
                continue
            known = {name: lasting(each) for name, each in outlook.wrong.items()}
            if not order.wait or not may_pass(outlook.against):
                raise Refused(_refusal(order, outlook))
            self._enter(waiting, outlook)
            if waiting.seconds >= order.seconds:
                why = "; ".join(each.text for each in outlook.against)
                done = (
                    f"connections ended for it: {'; '.join(waiting.ended)}" if waiting.ended else ""
                )
                raise Refused(
                    f"not begun within {order.seconds:g} s, and {done or 'nothing was touched'}: {why}"
                )
            if order.kill_after is not None and waiting.seconds >= order.kill_after and not ended:
                ended = await self._end(waiting, outlook.blockers)
            await self._leader.clock.pause(LOOK_AGAIN_SECONDS)

    def _enter(self, waiting: Waiting, outlook: Outlook) -> None:
        """Have status show the order. One order waits at a time: of two, it could not be told which one will happen.

        :raises Refused: another one waits
        """
        leader = self._leader
        waiting.against = outlook.against
        if leader.waiting is waiting:
            return
        self._refuse_second(waiting)
        leader.waiting = waiting
        leader.events.add(EventKind.ORDERED, waiting.text, outlook.to)

    def _refuse_second(self, waiting: Waiting) -> None:
        other = self._leader.waiting
        if other is not None and other is not waiting:
            raise Refused(f"{other.text}; cancel that one with holdfast switchover --cancel")

    async def _refuse_unwanted(self, waiting: Waiting) -> None:
        """:raises Refused: it was cancelled, or its client has disconnected"""
        if not waiting.cancelled and await waiting.gone():
            waiting.cancelled = "its client, which disconnected"
            text = f"{waiting.what} is called off before it began: its client disconnected"
            self._leader.events.add(EventKind.ORDERED, text, waiting.order.to)
        if waiting.cancelled:
            raise Refused(f"called off by {waiting.cancelled}, before anything had begun")

    async def _begin(self, waiting: Waiting, outlook: Outlook) -> Begun:
        """Begin, from a look that was taken while nothing else could decide.

        :param outlook: nothing was wrong with the host of the member that takes over
        """
        leader, order, to = self._leader, waiting.order, outlook.to
        async with leader.deciding:
            actor, record = leader.leading()
            await self._refuse_unwanted(waiting)
            self._refuse_second(waiting)
            view = leader.view()
            against = objections(leader.cluster, record, view, replace(order, to=to))
            if against or record is None:
                raise Refused("; ".join(each.text for each in against))
            event = leader.events.last
            leader.events.add(
                EventKind.ORDERED, f"{order.text}, by {waiting.who}{_passed(outlook)}", to
            )
            actor.forgive(record.primary, Freeze)
            begun = switchover.begun(leader.cluster, record, view, to, order.seconds)
            await leader.decided(begun)
        return Begun(to, event)

    async def _end(self, waiting: Waiting, blockers: Sequence[Blocker]) -> bool:
        """End the sessions that hold it up; returns whether there were any."""
        leader, record = self._leader, self._leader.record
        if record is None or not blockers:
            return False
        text = f"ended for {waiting.what}: {'; '.join(map(str, blockers))}"
        leader.events.add(EventKind.ORDERED, clipped(text, LONGEST), record.primary)
        sessions = tuple(each.session for each in blockers)
        await leader.carry_out(Send(record.primary, EndSessions(sessions)))
        waiting.ended += [str(each) for each in blockers]
        return True


def _refusal(order: SwitchoverOrder, outlook: Outlook) -> str:
    why = "; ".join(each.text for each in outlook.against)
    if not outlook.blockers or order.wait:
        return why
    return f"refused, nothing touched: {why}; use --wait or --kill-long SECONDS"


def _passed(outlook: Outlook) -> str:
    """What was wrong with other members, for which they were passed over."""
    texts = [
        each.text for name, those in outlook.wrong.items() if name != outlook.to for each in those
    ]
    return f"; passed over: {clipped('; '.join(texts), 300)}" if texts else ""
