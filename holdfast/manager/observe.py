"""Watches every agent by long poll and keeps what was seen last."""

from __future__ import annotations

import asyncio
import time

from holdfast.core.view import MemberState, Seen, Sighting, Unseen, View
from holdfast.errors import HoldfastError
from holdfast.manager.client import AgentClient

POLL_SECONDS = 0.5
RETRY_SECONDS = 0.1


class Observer:
    """The manager's eyes on one cluster.

    :ivar changed: set whenever anything new was seen
    """

    def __init__(self, agents: dict[str, AgentClient]) -> None:
        self._agents = agents
        self._sightings: dict[str, Sighting] = {
            name: Unseen("not asked yet", time.monotonic()) for name in agents
        }
        self._versions: dict[str, int] = {}
        self.changed = asyncio.Event()

    def view(self) -> View:
        return View(dict(self._sightings), time.monotonic())

    def accept(self, state: MemberState, version: int) -> None:
        """Take in what an agent said; an answer that was overtaken by a newer one is dropped."""
        if version < self._versions.get(state.name, 0):
            return
        self._versions[state.name] = version
        self._sightings[state.name] = Seen(state, time.monotonic())
        self.changed.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name, agent in self._agents.items():
                tasks.create_task(self._watch(name, agent))

    async def _watch(self, name: str, agent: AgentClient) -> None:
        while True:
            try:
                reply = await agent.state(self._versions.get(name), POLL_SECONDS)
            except HoldfastError as error:
                self._lost(name, str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if reply.state.name != name:
                self._lost(name, f"another member answers there: {reply.state.name}")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.accept(reply.state, reply.version)

    def _lost(self, name: str, reason: str) -> None:
        match self._sightings[name]:
            case Unseen(since=since, last=last):
                self._sightings[name] = Unseen(reason, since, last)
            case Seen(state=state):
                self._sightings[name] = Unseen(reason, time.monotonic(), state)
                self._versions.pop(name, None)
        self.changed.set()
