"""Begins a switchover that a person has ordered for later, when its time has come."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from holdfast.core.cluster import Cluster
from holdfast.core.preflight import SwitchOver
from holdfast.core.record import Planned, Record
from holdfast.core.view import View
from holdfast.errors import BadInput, HoldfastError, Refused
from holdfast.manager.events import EventKind
from holdfast.manager.lead import Leader
from holdfast.manager.switching import Switching

LATE_SECONDS = 300.0
"""A plan that nobody could begin for so long is given up: its hour is over."""


class Planner:
    """A listener: whichever manager leads at that time begins it.

    The record forgets the plan first, so it is begun once.
    """

    def __init__(self, leader: Leader) -> None:
        self.leader = leader
        self._task: asyncio.Task[None] | None = None

    async def plan(self, order: SwitchOver, at: float) -> str:
        """Have it begin at that time, in place of what was planned before; what was done, in one sentence.

        :param at: seconds since 1970
        :raises BadInput: that is in the past
        :raises Refused: there is no such member, or no primary
        """
        leader = self.leader
        if at < time.time():
            raise BadInput("at", "must be in the future")
        async with leader.deciding:
            record = self._record()
            names = [each.name for each in leader.cluster.members]
            if order.to and order.to not in names:
                raise Refused(f"there is no member {order.to}; there are {', '.join(names)}")
            planned = Planned(at, order.to, order.seconds, order.old, order.wait, order.kill_after)
            return await self._save(replace(record, planned=planned), f"{planned} is planned")

    async def cancel(self) -> str:
        """:raises Refused: nothing is planned"""
        async with self.leader.deciding:
            record = self._record()
            if record.planned is None:
                raise Refused("no switchover is planned")
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
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _begin(self, planned: Planned) -> None:
        leader = self.leader
        late = time.time() - planned.at
        try:
            async with leader.deciding:
                record = self._record()
                if record.planned != planned:
                    return
                over = f"{planned} is given up: for {late:.0f} s no manager could begin it"
                now = f"the time of {planned} has come"
                why = over if late > LATE_SECONDS else now
                await leader.save(replace(record, planned=None), why)
            if late <= LATE_SECONDS:
                await Switching(leader).begin(
                    SwitchOver(
                        planned.to,
                        planned.seconds,
                        planned.old,
                        wait=planned.wait,
                        kill_after=planned.kill_after,
                    )
                )
        except HoldfastError as error:
            leader.events.add(EventKind.FAILED, f"{planned} did not begin: {error}", planned.to)

    async def _save(self, record: Record, what: str) -> str:
        self.leader.events.add(EventKind.ORDERED, f"{what}, by a person")
        await self.leader.save(record, what)
        return what

    def _record(self) -> Record:
        _, record = self.leader.leading()
        if record is None:
            raise Refused(f"{self.leader.cluster.name} has no primary yet")
        return record
