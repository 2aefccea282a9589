"""The agents that a manager observes and commands: those of the members that are configured now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from holdfast.core.cluster import Member
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.agents.observe import AgentObserver


class Agents:
    """One cluster's agents.

    :ivar clients: by member
    """

    def __init__(self, connect: Callable[[Member], AgentClient], observer: AgentObserver) -> None:
        self.clients: dict[str, AgentClient] = {}
        self._connect = connect
        self._observer = observer
        self._urls: dict[str, str] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def adopt(self, members: Iterable[Member], forget: Callable[[str], None]) -> None:
        """Observe and command these, and no others.

        :param forget: called with each member that is removed, or whose agent is another one
        """
        urls = {each.name: each.agent for each in members}
        for name in [name for name in self.clients if self._urls[name] != urls.get(name)]:
            self._observer.forget(name)
            forget(name)
            task = asyncio.create_task(self.clients.pop(name).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        for member in members:
            if member.name not in self.clients:
                self.clients[member.name] = self._connect(member)
                self._urls[member.name] = member.agent
                self._observer.watch(member.name, self.clients[member.name])
        self._observer.changed.set()

    async def close(self) -> None:
        for agent in self.clients.values():
            await agent.close()
        await asyncio.gather(*self._closing)
