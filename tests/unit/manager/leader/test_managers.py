"""Two managers over one store and the same agents: one is deposed in the middle of a failover, the other continues."""

from __future__ import annotations

import asyncio
import random

import pytest

from holdfast.core.answers.status import MemberRole
from holdfast.core.commands import Command
from holdfast.core.gtid import Flavor
from holdfast.errors import Unreachable
from holdfast.manager.leader.desired import Given
from holdfast.manager.leader.lead import Leader
from holdfast.store.base import LeadershipCandidate
from tests.model.world import World
from tests.unit.memory_agent import connecting, managing, until
from tests.unit.memory_store import MemoryStore


def manager(
    world: World, store: MemoryStore, name: str, asked: list[tuple[str, Command]] | None = None
) -> Leader:
    return Leader(
        Given("c", world.cluster.members),
        connecting(world, asked),
        store,
        LeadershipCandidate(name, f"http://{name}:7400"),
    )


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16])
def test_a_manager_that_is_deposed_in_a_failover_stops_and_the_other_goes_on_in_a_higher_term(
    seconds: float,
) -> None:
    async def scenario() -> None:
        world = World(random.Random(3), 3, Flavor.MARIADB)
        store = MemoryStore()
        asked: list[tuple[str, Command]] = []
        one, two = manager(world, store, "a", asked), manager(world, store, "b")
        async with managing(one):
            before = await until(one, lambda s: s.whole)
            async with managing(two):
                await until(
                    two, lambda s: s.reason == "another manager leads it: a (http://a:7400)"
                )
                assert two.status().primary == "m1"
                world.hosts["m1"].crash()
                await asyncio.sleep(seconds)
                assert one.place.leads
                store.take_away(heir="b")
                store.tell()
                after = await until(
                    two, lambda s: two.place.leads and s.whole and s.primary != "m1"
                )
                assert after.term > before.term
                assert {each.role for each in after.members} == {
                    MemberRole.PRIMARY,
                    MemberRole.VOTER,
                }
                await until(one, lambda _: one.place.leadership is None)
                count = len(asked)
                await asyncio.sleep(0.3)
                assert len(asked) == count, "the deposed one commands nobody"
                with pytest.raises(Unreachable, match=r"ask b \(http://b:7400\)"):
                    one.refuse_elsewhere()

    asyncio.run(scenario())


def test_without_a_store_a_manager_decides_nothing_and_goes_on_when_it_is_back() -> None:
    async def scenario() -> None:
        world = World(random.Random(3), 3, Flavor.MYSQL)
        store = MemoryStore()
        asked: list[tuple[str, Command]] = []
        one = manager(world, store, "a", asked)
        async with managing(one):
            before = await until(one, lambda s: s.whole)
            store.down = True
            store.take_away()
            await until(one, lambda s: s.reason == "the store does not answer")
            count = len(asked)
            world.hosts["m1"].crash()
            await asyncio.sleep(0.5)
            assert len(asked) == count
            store.down = False
            after = await until(one, lambda s: s.whole and s.primary != "m1")
            assert after.term > before.term

    asyncio.run(scenario())
