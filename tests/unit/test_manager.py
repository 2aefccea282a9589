"""The manager's loop over agents and servers in memory: two clusters, managers that end, agents that are silent."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from holdfast.core.commands import Command
from holdfast.core.gtid import Flavor
from holdfast.core.status import Role, Status
from holdfast.errors import Unreachable
from holdfast.manager.configure import Given
from holdfast.manager.events import EventKind
from holdfast.manager.lead import Leader
from holdfast.store.sqlite import SqliteStore
from holdfast.wire import CommandReply, StateReply
from tests.model.world import World

SECONDS = 10.0


class MemoryAgent:
    """What ``AgentClient`` is to a real agent."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    async def state(self, since: int | None, wait: float) -> StateReply:
        await asyncio.sleep(0.005)
        self._there()
        self._world.replicate()
        state = self._world.hosts[self._name].state()
        return StateReply(state=state, version=time.monotonic_ns())

    async def command(self, term: int, command: Command) -> CommandReply:
        await asyncio.sleep(0.001)
        self._there()
        error = ""
        try:
            self._world.execute(self._name, term, command, interrupted=False)
        except ValueError as refused:
            error = str(refused)
        return CommandReply(
            state=self._world.hosts[self._name].state(),
            version=time.monotonic_ns(),
            error="Refused" if error else "",
            message=error,
        )

    def _there(self) -> None:
        if not self._world.hosts[self._name].agent_up:
            raise Unreachable("connection refused")

    async def close(self) -> None:
        pass


def new_world(flavor: Flavor = Flavor.MARIADB) -> World:
    return World(random.Random(3), 3, flavor)


def leader(world: World, store: SqliteStore, name: str = "c") -> Leader:
    given = Given(name, world.cluster.members)
    return Leader(given, lambda member: MemoryAgent(world, member.name), store)  # type: ignore[arg-type,return-value]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@asynccontextmanager
async def managing(*leaders: Leader) -> AsyncIterator[None]:
    """As one manager process: ended without a farewell at the end of the block."""
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


def test_two_clusters_in_one_manager(path: Path) -> None:
    async def scenario() -> None:
        one, two = new_world(), new_world(Flavor.MYSQL)
        with contextlib.closing(SqliteStore(path)) as store:
            first, second = leader(one, store, "one"), leader(two, store, "two")
            async with managing(first, second):
                for each in (first, second):
                    status = await until(each, lambda s: s.whole)
                    assert status.primary == "m1"
                one.hosts["m1"].crash()
                await until(first, lambda s: s.whole and s.primary != "m1")
                assert second.status().primary == "m1"
                kinds = [event.kind for event in await first.events.since(0, 0)]
                assert kinds.count(EventKind.DETECTED) == 1
                assert kinds[-1] is EventKind.WHOLE
                assert not [e for e in await second.events.since(0, 0) if e.kind == "detected"]

    asyncio.run(scenario())


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16])
def test_a_manager_that_ends_in_a_failover_is_followed_by_another(
    path: Path, seconds: float
) -> None:
    async def scenario() -> None:
        world = new_world()
        with contextlib.closing(SqliteStore(path)) as store:
            first = leader(world, store)
            async with managing(first):
                status = await until(first, lambda s: s.whole)
                world.hosts["m1"].crash()
                await asyncio.sleep(seconds)
            second = leader(world, store)
            async with managing(second):
                after = await until(second, lambda s: s.whole)
                assert after.term > status.term
                assert {member.role for member in after.members} == {Role.PRIMARY, Role.VOTER}

    asyncio.run(scenario())


def test_a_second_manager_waits_and_takes_over_when_the_first_ends(path: Path) -> None:
    async def scenario() -> None:
        world = new_world()
        with (
            contextlib.closing(SqliteStore(path)) as store,
            contextlib.closing(SqliteStore(path)) as another,
        ):
            first, second = leader(world, store), leader(world, another)
            async with managing(second):
                async with managing(first):
                    leading = first if first.status().whole else second
                    await until(leading, lambda _: first.status().whole or second.status().whole)
                    idle = second if first.status().whole else first
                    await until(idle, lambda s: s.reason == "another manager leads it")
                await until(second, lambda s: s.whole)

    asyncio.run(scenario())


def test_an_agent_that_is_silent_is_unknown_and_nobody_is_promoted(path: Path) -> None:
    async def scenario() -> None:
        world = new_world()
        with contextlib.closing(SqliteStore(path)) as store:
            led = leader(world, store)
            async with managing(led):
                before = await until(led, lambda s: s.whole)
                world.hosts["m1"].agent_up = False
                status = await until(led, lambda s: "does not answer" in s.reason)
                assert status.members[0].state == "unknown"
                await asyncio.sleep(0.5)
                assert led.status().primary == "m1"
                assert led.status().term == before.term
                world.hosts["m1"].agent_up = True
                await until(led, lambda s: s.whole)

    asyncio.run(scenario())
