"""Switchovers that no client waits for, planned for later or detached; and cancelling those that can be."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

from holdfast.core.change import switchover
from holdfast.core.change.preflight import SwitchoverOrder
from holdfast.core.cluster import Cluster
from holdfast.core.record import Planned, Record
from holdfast.core.transition import Switchover
from holdfast.core.view import View
from holdfast.errors import BadInput, HoldfastError, Refused
from holdfast.http.guarding import asker
from holdfast.manager.leader.events import EventKind
from holdfast.manager.leader.lead import Leader
from holdfast.manager.people.switchover import Begun, Switching

LATE_SECONDS = 300.0
"""A plan that could not begin for so long is given up: its time is over."""
DETACHED_SECONDS = 1.0
"""Within this time an order that need not wait has begun, or is refused."""


class Planner:
    """A listener: the manager that leads at the planned time begins the switchover.

    It removes the plan from the record first, so that it is begun once.
    """

    def __init__(self, leader: Leader) -> None:
        self.leader = leader
        self._task: asyncio.Task[None] | None = None
        self._detached: set[asyncio.Task[Begun]] = set()

    async def plan(self, order: SwitchoverOrder, at: float) -> str:
        """Have it begin at that time; returns what was done, in one sentence.

        :param at: seconds since 1970
        :raises BadInput: that is in the past
        :raises Refused: there is no such member, or it is the primary, or there is none, or another switchover is
            planned: no operator's plan is replaced without asking
        """
        leader = self.leader
        if at < leader.clock.now():
            raise BadInput("at", "must be in the future")
        async with leader.deciding:
            record = self._record()
            names = [each.name for each in leader.cluster.members]
            if order.to and order.to not in names:
                raise Refused(f"there is no member {order.to}; there are {', '.join(names)}")
            if order.to and order.to == record.primary:
                raise Refused(f"{order.to} is the primary already")
            if record.planned is not None:
                raise Refused(
                    f"{record.planned} ({_moment(record.planned.at)}) is planned already: cancel it first with "
                    "holdfast switchover --cancel"
                )
            planned = Planned(at, order.to, order.seconds, order.old, order.wait, order.kill_after)
            return await self._save(
                replace(record, planned=planned), f"{planned} is planned for {_moment(at)}"
            )

    async def detach(self, order: SwitchoverOrder) -> str:
        """Have it begin though no client waits for it; returns what happened within a moment, in one sentence.

        :raises Refused: it was refused within that moment, or another one waits
        """
        what = f"the switchover{f' to {order.to}' if order.to else ''} that was detached"
        task = asyncio.create_task(Switching(self.leader).begin(order, what=what))
        with contextlib.suppress(TimeoutError):
            async with self.leader.clock.timeout(DETACHED_SECONDS):
                await asyncio.wait([task])
        if task.done():
            return f"the switchover to {task.result().to} has begun"
        self._detached.add(task)
        task.add_done_callback(self._ended)
        waiting = self.leader.waiting
        return waiting.text if waiting else "the switchover is about to begin"

    def _ended(self, task: asyncio.Task[Begun]) -> None:
        """The events say why it did not begin."""
        self._detached.discard(task)
        if not task.cancelled():
            task.exception()

    async def cancel(self, only_waiting: bool = False) -> str:
        """Cancel what waits, else undo what is under way if possible, else delete the plan.

        :param only_waiting: nothing else
        :raises Refused: there is nothing of the kind, or it has passed its commit point
        """
        leader = self.leader
        async with leader.deciding:
            record = self._record()
            if (waiting := leader.waiting) is not None:
                waiting.cancelled = asker()
                text = f"{waiting.what} is called off before it began"
                leader.events.add(EventKind.ORDERED, f"{text}, by {asker()}", waiting.order.to)
                return text
            if only_waiting:
                raise Refused("no switchover waits")
            if switchover.under_way(record):
                back = switchover.undone(record, "an operator called it off")
                leader.events.add(EventKind.ORDERED, f"{back.why}, by {asker()}", record.primary)
                await leader.decided(back)
                return back.why
            if isinstance(record.transition, Switchover):
                raise Refused(
                    f"the switchover cannot be undone any more: {record.primary} is the primary, and is being opened"
                )
            if record.planned is None:
                raise Refused("no switchover waits, is under way, or is planned")
            return await self._save(
                replace(record, planned=None), f"{record.planned} is planned no longer"
            )

    def looked(self, cluster: Cluster, record: Record | None, view: View) -> None:
        if record is None or record.planned is None or view.date < record.planned.at:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._begin(record.planned))

    def saved(
        self, cluster: Cluster, before: Record | None, record: Record, why: str, view: View
    ) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        tasks = [*self._detached, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self, planned: Planned) -> None:
        leader = self.leader
        late = leader.clock.now() - planned.at
        try:
            async with leader.deciding:
                record = self._record()
                if record.planned != planned:
                    return
                over = f"{planned} is given up: no manager could begin it for {late:.0f} s"
                now = f"the time of {planned} has come"
                why = over if late > LATE_SECONDS else now
                await leader.save(replace(record, planned=None), why)
        except HoldfastError as error:
            leader.events.add(EventKind.NOT_BEGUN, f"{planned} did not begin: {error}", planned.to)
            return
        if late > LATE_SECONDS:
            leader.events.add(EventKind.NOT_BEGUN, over, planned.to)
            return
        order = SwitchoverOrder(
            planned.to,
            planned.seconds,
            planned.old,
            wait=planned.wait,
            kill_after=planned.kill_after,
        )
        with contextlib.suppress(HoldfastError):  # reported among the events
            await Switching(leader).begin(order, what=str(planned))

    async def _save(self, record: Record, what: str) -> str:
        self.leader.events.add(EventKind.ORDERED, f"{what}, by {asker()}")
        await self.leader.save(record, what)
        return what

    def _record(self) -> Record:
        _, record = self.leader.leading()
        if record is None:
            raise Refused(f"{self.leader.cluster.name} has no primary yet")
        return record


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(at))
