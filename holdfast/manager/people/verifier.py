"""Verifications: ordered by operators, begun on schedule, resumed after an interruption; and their results."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import Field

from holdfast.config.values import StrictModel
from holdfast.core.cluster import Cluster
from holdfast.core.commands import Verify
from holdfast.core.decision import Send
from holdfast.core.history.verified import halted_or_over
from holdfast.core.members import verification
from holdfast.core.record import Record
from holdfast.core.view import MemberState, View
from holdfast.errors import HoldfastError, Refused
from holdfast.http.guarding import asker
from holdfast.http.serving import check_member, of_cluster
from holdfast.manager.leader.events import EventKind
from holdfast.manager.leader.lead import Leader
from holdfast.manager.listeners.history import History

EVERY_SECONDS = 5.0
"""How often the manager checks whether one is due."""


class VerifyRequest(StrictModel):
    """As ``commands.Verify``.

    :ivar repair: the operator has the member cloned if it differs
    """

    tables: list[str] = Field(default_factory=list, max_length=1000)
    rate: Annotated[int, Field(ge=0)] = 0
    max_load: Annotated[int, Field(ge=0)] = 0
    anew: bool = False
    stop: bool = False
    repair: bool = False


class Verifier:
    """A listener of one cluster.

    :ivar _told: of each member its verification, and how far it was when that was reported; () while it is under way
    """

    def __init__(self, leader: Leader, history: History) -> None:
        self._leader = leader
        self._history = history
        self._told: dict[str, tuple[object, ...]] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._looked_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def begin(self, name: str, asked: VerifyRequest) -> str:
        """Begin a verification; returns what was done, in one sentence.

        :raises Refused: with all that stands against it; :raises HoldfastError: by consequence
        """
        leader = self._leader
        async with leader.deciding:
            _, record = leader.leading()
            against = verification.objections(leader.cluster, record, leader.view(), name)
            if record is None or (against and not asked.stop):
                raise Refused("; ".join(against))
            primary = leader.cluster.member(record.primary)
        given = asked.model_dump() | {"tables": tuple(asked.tables), "ordered": True}
        what = "is no longer verified" if asked.stop else f"is verified against {primary.name}"
        await leader.carry_out(Send(name, Verify(primary.name, primary.agent, **given)))
        leader.events.add(EventKind.ORDERED, f"{name} {what}, by {asker()}", name)
        return f"{name} {what}"

    async def findings(self, name: str) -> dict[str, Any]:
        """The results of the member's last verification, for each table."""
        return await self._leader.agents[name].verification()

    def looked(self, cluster: Cluster, record: Record | None, view: View) -> None:
        if record is not None:
            self._tell(record, view)
        now = self._leader.clock.monotonic()
        if now < self._looked_at + EVERY_SECONDS or (self._task and not self._task.done()):
            return
        self._looked_at = now
        if self._leader.steady() and (step := verification.due(cluster, record, view)):
            self._task = asyncio.create_task(self._go_on(step))

    def saved(
        self, cluster: Cluster, before: Record | None, record: Record, why: str, view: View
    ) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        tasks = [*self._asking, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _go_on(self, step: Send) -> None:
        try:
            await self._leader.carry_out(step)
        except HoldfastError as error:
            text = f"the verification of {step.member} did not begin: {error}"
            self._leader.events.add(EventKind.FAILED, text, step.member)

    def _tell(self, record: Record, view: View) -> None:
        """Report each result once. One from before this manager led is no event; the history may lack it still."""
        for name in view.members:
            state = view.state(name)
            if state is None:
                continue
            known, found = self._told.get(name), state.verified
            if found is None or not (text := verification.told(state)):
                self._told.setdefault(name, ())
                continue
            if known is None and record.transition:
                continue  # an earlier one: it need not be requested amid a failover
            key = (found.began, found.ended, bool(found.halted), found.failed)
            if key == known:
                continue
            self._told[name] = key
            if known is not None and (kind := _event(state)):
                self._leader.events.add(kind, text, name)
            keeping = self._keep(state, text, record, view.date, late=known is None)
            self._begin(keeping)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _keep(
        self, state: MemberState, text: str, record: Record, at: float, late: bool
    ) -> None:
        try:
            findings = await self.findings(state.name)
        except HoldfastError:
            findings = {}  # then the history has the counts, and the tables that differ
        found = halted_or_over(state, at, findings)
        if found is not None:
            self._history.verified(found, text, record, late)


def _event(state: MemberState) -> EventKind | None:
    """None: not worth an event. An interruption was ordered, or is reported as what it was for."""
    found = state.verified
    if found is None or (found.halted and not found.ended and not found.failed):
        return None
    if found.failed:
        return EventKind.FAILED
    if found.different:
        return EventKind.ALARM
    return None if found.halted else EventKind.VERIFIED


def add_verification(app: FastAPI, verifiers: Mapping[str, Verifier]) -> None:
    @app.post("/v1/clusters/{name}/members/{member}/verify")
    async def verify(name: str, member: str, asked: VerifyRequest) -> dict[str, str]:
        """Compares a member's tables with the primary's; answers when that has begun."""
        return {"done": await _of(name, member).begin(member, asked)}

    @app.get("/v1/clusters/{name}/members/{member}/verification")
    async def verification_of(name: str, member: str) -> dict[str, Any]:
        """Returns the results of a member's last verification, table by table."""
        return await _of(name, member).findings(member)

    def _of(name: str, member: str) -> Verifier:
        found = of_cluster(verifiers, name)
        check_member(member, [each.name for each in found._leader.cluster.members])
        return found
