"""Observes every agent by long poll and keeps the last answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.timing import Timing
from holdfast.core.view import NOT_ASKED, MemberState, Seen, Sighting, Unseen, View
from holdfast.errors import HoldfastError
from holdfast.http.wire import StateReply, Told
from holdfast.manager.agents.agent_client import AgentClient, AgentGone
from holdfast.manager.agents.leases import Leases

RETRY_SECONDS = 0.1
TWINS_SECONDS = 30.0
"""For so long after two agents have answered in turn at one address, neither is believed."""
FORMER_RUNS = 8
FOLLOWING_SECONDS = 1.0
"""How often, at least, a manager that does not lead gets an answer: enough to be ready."""


class AgentObserver:
    """Observes the members of one cluster; their list may change while it runs.

    :ivar changed: set whenever anything new was seen
    :ivar timing: how often agents answer a manager that leads, and after how long a silence they count as unseen
    :ivar leases: their grants are sent with the polls of a manager that leads
    :ivar told: what is sent with a command or poll to a member: the record by which this manager decides
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.timing = Timing()
        self.leases = Leases(clock)
        self.told: Callable[[str], Told] = lambda _: Told()
        self._runs: dict[str, list[str]] = {}
        self._twins: dict[str, float] = {}
        self._sightings: dict[str, Sighting] = {}
        self._versions: dict[str, int] = {}
        self._watched: dict[str, tuple[AgentClient, asyncio.Task[None] | None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._leading = False
        self.changed = asyncio.Event()

    def watch(self, name: str, agent: AgentClient) -> None:
        """Observe this member from now on, through ``agent``; what was seen through another agent is forgotten."""
        self.forget(name)
        self._sightings[name] = Unseen(NOT_ASKED, self._clock.monotonic(), asked=False)
        self._watched[name] = (agent, self._begin(name, agent))
        self.changed.set()

    def forget(self, name: str) -> None:
        """Observe the member no longer."""
        _, task = self._watched.pop(name, (None, None))
        if task is not None:
            task.cancel()
        self._sightings.pop(name, None)
        self._versions.pop(name, None)
        self._runs.pop(name, None)
        self._twins.pop(name, None)
        self.changed.set()

    def lead(self, leading: bool) -> None:
        """Poll as the leading manager from this moment on, or as one that does not lead."""
        if leading is self._leading:
            return
        self._leading = leading
        for name, (agent, task) in self._watched.items():
            if task is not None:  # a poll that is under way could take too long
                task.cancel()
                self._watched[name] = (agent, self._begin(name, agent))

    def view(self) -> View:
        return View(dict(self._sightings), self._clock.monotonic())

    def accept(self, state: MemberState, version: int) -> None:
        """Take in an agent's answer; one that a newer answer has overtaken is dropped."""
        if state.name not in self._watched:
            return
        if version < self._versions.get(state.name, 0):
            return
        self._versions[state.name] = version
        self._sightings[state.name] = Seen(state, self._clock.monotonic())
        self.changed.set()

    async def run(self) -> None:
        """Observe until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for name, (agent, _) in self._watched.items():
                self._watched[name] = (agent, self._begin(name, agent))
            await asyncio.Event().wait()  # the group stays open for members that are added later

    def _begin(self, name: str, agent: AgentClient) -> asyncio.Task[None] | None:
        """None before :meth:`run`, which begins all."""
        return self._tasks.create_task(self._watch(name, agent)) if self._tasks else None

    async def _watch(self, name: str, agent: AgentClient) -> None:
        while True:
            try:
                reply = await self._ask(name, agent)
            except HoldfastError as error:
                self._lost(name, str(error), isinstance(error, AgentGone))
                await self._clock.pause(RETRY_SECONDS)
                continue
            if reply.state.name != name:
                self._lost(name, f"another member answers there: {reply.state.name}")
                await self._clock.pause(RETRY_SECONDS)
                continue
            if self._twin(name, reply.run):
                self._lost(
                    name,
                    "two agents answer in turn at its address: their hosts share it, or one is a copy of the other; "
                    "end the wrong one",
                )
                await self._clock.pause(RETRY_SECONDS)
                continue
            self.leases.answered(name, reply.run, reply.clock)
            self.accept(reply.state, reply.version)

    async def _ask(self, name: str, agent: AgentClient) -> StateReply:
        known = self._versions.get(name)
        if not self._leading:
            return await agent.state(known, FOLLOWING_SECONDS)
        heartbeat, patience = self.timing.heartbeat, self.timing.detection
        # the identity is checked afterwards: a newly installed agent has to be seen
        told = self.told(name).model_copy(update={"identity": ""})
        return await agent.watch(known, heartbeat, patience, self.leases.grant(name), told)

    def _twin(self, name: str, run: str) -> bool:
        """Whether two agents answer there: an agent's run that another has followed never comes back."""
        runs = self._runs.setdefault(name, [])
        now = self._clock.monotonic()
        if run and (not runs or runs[-1] != run):
            if run in runs:
                self._twins[name] = now
                runs.remove(run)
            self._runs[name] = [*runs, run][-FORMER_RUNS:]
        return now - self._twins.get(name, -TWINS_SECONDS) < TWINS_SECONDS

    def _lost(self, name: str, reason: str, gone: bool = False) -> None:
        match self._sightings[name]:
            case Unseen(since=since, last=last, agent_gone=before):
                self._sightings[name] = Unseen(reason, since, last, before or gone)
            case Seen(state=state, at=at):
                self._sightings[name] = Unseen(reason, at, state, gone)
                self._versions.pop(name, None)
        self.changed.set()
