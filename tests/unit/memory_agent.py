"""Agents in memory, and managers that run on them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from holdfast.core.answers.status import Status
from holdfast.core.cluster import Member
from holdfast.core.commands import Command
from holdfast.errors import Unreachable
from holdfast.http.wire import (
    AccountReply,
    CommandReply,
    Grant,
    Identity,
    ReachReply,
    RecordReply,
    StateReply,
    Told,
)
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.leader.lead import Leader
from tests.model.world import World

SECONDS = 10.0


class MemoryAgent:
    """Stands for ``AgentClient`` and a real agent.

    :ivar asked: every command, of all members, in order
    :ivar not_let_in: why the servers of these hosts do not let it in
    """

    asked: list[tuple[str, Command]]
    not_let_in: dict[str, str]

    def __init__(self, world: World, name: str, asked: list[tuple[str, Command]]) -> None:
        self._world = world
        self._name = name
        self.asked = asked
        self.not_let_in = {}

    async def watch(
        self,
        since: int | None,
        wait: float,
        patience: float,
        grant: Grant | None,
        told: Told | None = None,
    ) -> StateReply:
        reply = await self.state(since, wait)
        self._world.watch(self._name, grant, told)
        run = str(self._world.hosts[self._name].agent_run)
        return reply.model_copy(update={"clock": self._world.now, "run": run})

    async def state(self, since: int | None, wait: float) -> StateReply:
        await asyncio.sleep(0.005)
        self._there()
        self._pass_time()
        self._world.replicate()
        state = self._world.hosts[self._name].state(self._world.now)
        return StateReply(state=state, version=time.monotonic_ns())

    async def identity(self) -> Identity:
        self._there()
        host = self._world.hosts[self._name]
        return Identity(
            cluster="c", name=self._name, flavor=host.flavor, host=self._name, port=3306
        )

    async def record(self) -> RecordReply:
        self._there()
        host = self._world.hosts[self._name]
        return RecordReply(
            term=host.term, identity=host.identity, mark=host.mark, record=host.record
        )

    async def account(self, nonce: str = "") -> AccountReply:
        self._there()
        return AccountReply(user=f"repl_{self._name}", authentication="*" + "0" * 40, admin=nonce)

    async def reach(
        self, host: str, port: int, public_key: str = "", term: int = 0, told: Told | None = None
    ) -> ReachReply:
        self._there()
        return ReachReply(error=self.not_let_in.get(host, ""))

    async def command(
        self,
        term: int,
        command: Command,
        grant: Grant | None = None,
        told: Told | None = None,
    ) -> CommandReply:
        await asyncio.sleep(0.001)
        self._there()
        self.asked.append((self._name, command))
        error = ""
        self._pass_time()
        self._world.watch(self._name, grant, told)
        try:
            self._world.execute(self._name, term, command, False, told)
        except ValueError as refused:
            error = str(refused)
        return CommandReply(
            state=self._world.hosts[self._name].state(self._world.now),
            version=time.monotonic_ns(),
            error="Refused" if error else "",
            message=error,
        )

    def _pass_time(self) -> None:
        now = time.monotonic()
        self._world.pass_time(now - self._world.now if self._world.now else 0.0)
        self._world.now = now

    def _there(self) -> None:
        if self._name not in self._world.hosts or not self._world.hosts[self._name].agent_up:
            raise Unreachable("connection refused")

    async def close(self) -> None:
        pass


def connecting(
    world: World, asked: list[tuple[str, Command]] | None = None
) -> Callable[[Member], AgentClient]:
    """How a manager's ``Leader`` reaches its members' agents.

    :param asked: as :class:`MemoryAgent` has it, of all of them
    """

    def connect(member: Member) -> AgentClient:
        agent = MemoryAgent(world, member.name, [] if asked is None else asked)
        return cast(AgentClient, agent)

    return connect


@asynccontextmanager
async def managing(*leaders: Leader) -> AsyncIterator[None]:
    """As one manager process: killed at the end of the block."""
    tasks = [asyncio.create_task(each.run()) for each in leaders]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(led: Leader, reached: Callable[[Status], bool]) -> Status:
    end = time.monotonic() + SECONDS
    while not reached(status := led.status()):
        assert time.monotonic() < end, status
        await asyncio.sleep(0.01)
    return status
