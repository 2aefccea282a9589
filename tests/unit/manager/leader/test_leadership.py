"""Which of several managers leads: handed over, lost, without a store, and away from the primary's host."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from holdfast.errors import Unreachable
from holdfast.manager.leader.leadership import (
    ASK_AGAIN_SECONDS,
    STEADY_SECONDS,
    YIELD_SECONDS,
    LeadershipContest,
)
from holdfast.store.base import LeadershipCandidate
from tests.unit.hand_clock import PacedClock
from tests.unit.memory_store import Led, MemoryStore

SECONDS = 5.0
CLOCK = PacedClock(3)
FAST = PacedClock(20)
"""Where nothing is said of how quickly something is done."""
AT_ONCE = 0.2 * 3
"""Seconds by ``CLOCK``: earlier than by asking again."""


@dataclass
class Idler:
    """Work that does nothing.

    :ivar fails: raised when it should lead
    :ivar ended: how many times leading was ended from outside
    """

    primary: str = ""
    calm: bool = True
    fails: list[Exception] = field(default_factory=list)
    leads: bool = False
    ended: int = 0
    troubles: list[str] = field(default_factory=list)
    followed: int = 0

    async def lead(self) -> None:
        if self.fails:
            raise self.fails.pop()
        self.leads = True
        try:
            await asyncio.Event().wait()
        finally:
            self.leads = False
            self.ended += 1

    async def follow(self, trouble: str) -> None:
        self.followed += 1
        if trouble:
            self.troubles.append(trouble)

    def primary_host(self) -> str:
        return self.primary

    def steady(self) -> bool:
        return self.calm


@asynccontextmanager
async def running(
    *places: tuple[LeadershipContest, Idler],
) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(place.run(work)) for place, work in places]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(reached: Callable[[], object], seconds: float = SECONDS) -> float:
    """How long it took, by ``CLOCK``."""
    end, begun = time.monotonic() + seconds, CLOCK.monotonic()
    while not reached():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)
    return CLOCK.monotonic() - begun


def manager(store: MemoryStore, name: str, primary: str = "") -> tuple[LeadershipContest, Idler]:
    who = LeadershipCandidate(name, f"http://{name}", f"host-{name}")
    return LeadershipContest(store, "c", who, store.clock), Idler(primary)


def test_a_manager_that_ends_hands_on_and_another_leads_at_once() -> None:
    async def scenario() -> None:
        store = MemoryStore(clock=CLOCK)
        one, two = manager(store, "a"), manager(store, "b")
        async with running(two):
            async with running(one):
                await until(lambda: one[1].leads or two[1].leads)
                first, second = (one, two) if one[1].leads else (two, one)
                await until(lambda: second[0].leader == first[0].who)
                assert first[0].until > CLOCK.monotonic()
                assert second[0].until < CLOCK.monotonic()
            assert await until(lambda: two[1].leads) < AT_ONCE
            assert not one[1].leads

    asyncio.run(scenario())


def test_a_leadership_that_is_lost_ends_what_the_manager_does() -> None:
    async def scenario() -> None:
        store = MemoryStore(clock=CLOCK)
        one = manager(store, "a")
        async with running(one):
            await until(lambda: one[1].leads)
            store.take_away()
            store.led = other = Led(LeadershipCandidate("b"), lambda: None)
            assert await until(lambda: one[1].ended) < AT_ONCE
            await until(lambda: one[0].leader == other.who)
            assert one[0].leadership is None
            store.led = None
            await until(lambda: one[1].leads)

    asyncio.run(scenario())


def test_a_leadership_that_is_not_confirmed_in_time_ends_without_a_word_from_the_store() -> None:
    async def scenario() -> None:
        store = MemoryStore(lasts=1.0, clock=CLOCK)
        one = manager(store, "a")
        async with running(one):
            await until(lambda: one[1].leads)
            assert store.led
            store.led.until += 1.0
            store.down = True
            assert 1.4 < await until(lambda: one[1].ended) < 2.6
            await until(lambda: one[1].troubles == ["the store does not answer"])
            assert one[0].leader is None
            store.down = False
            await until(lambda: one[1].leads)

    asyncio.run(scenario())


def test_work_that_fails_is_begun_anew_after_a_while_not_at_once() -> None:
    async def scenario() -> None:
        store = MemoryStore(clock=CLOCK)
        place, _ = manager(store, "a")
        work = Caught(fails=[Unreachable("no"), Unreachable("no")])
        async with running((place, work)):
            assert await until(lambda: work.leads) > 1.5 * ASK_AGAIN_SECONDS
        assert store.history == ["a"] * 3

    asyncio.run(scenario())


class Caught(Idler):
    """As the real one, which logs an error and returns."""

    async def lead(self) -> None:
        with contextlib.suppress(Unreachable):
            await super().lead()


def test_a_failure_that_nobody_expected_ends_the_manager() -> None:
    async def scenario() -> None:
        store = MemoryStore(clock=CLOCK)
        place, work = manager(store, "a")
        work.fails = [ZeroDivisionError()]
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(place.run(work), SECONDS)
        assert store.led is None

    asyncio.run(scenario())


def test_a_manager_on_the_primarys_host_hands_over_once_to_one_that_lives_elsewhere() -> None:
    async def scenario() -> None:
        store = MemoryStore(clock=FAST)
        one, two = manager(store, "a", "host-a"), manager(store, "b", "host-a")
        async with running(one):
            await until(lambda: one[1].leads)
            await FAST.pause(3 * STEADY_SECONDS)
            assert store.history == ["a"], "there is nobody else"
            async with running(two):
                await until(lambda: two[1].leads)
                assert store.history == ["a", "b"]
                await FAST.pause(3 * STEADY_SECONDS)
                assert two[1].leads
            await until(lambda: one[1].leads)
            await FAST.pause(3 * STEADY_SECONDS)
            assert store.history == ["a", "b", "a"], "it has been handed over just now"

    asyncio.run(scenario())


def test_a_manager_on_the_primarys_host_stays_while_something_is_under_way() -> None:
    async def scenario() -> None:
        store = MemoryStore(clock=FAST)
        one, two = manager(store, "a", "host-a"), manager(store, "b", "host-a")
        one[1].calm = False
        async with running(one):
            await until(lambda: one[1].leads)
            async with running(two):
                await until(lambda: "b" in store.known)
                await FAST.pause(3 * STEADY_SECONDS)
                assert store.history == ["a"]
                one[1].calm = True
                await until(lambda: two[1].leads)

    asyncio.run(scenario())


def test_a_manager_on_the_primarys_host_campaigns_later_than_others_and_leads_if_they_do_not() -> (
    None
):
    async def scenario() -> None:
        store = MemoryStore(clock=CLOCK)
        store.known["b"] = LeadershipCandidate("b", host="host-b")
        one = manager(store, "a", "host-a")
        async with running(one):
            assert await until(lambda: one[1].leads) > YIELD_SECONDS
        store.known.clear()
        alone = manager(store, "a", "host-a")
        async with running(alone):
            assert await until(lambda: alone[1].leads) < YIELD_SECONDS

    asyncio.run(scenario())


def test_without_a_store_a_manager_waits_and_is_not_ended() -> None:
    async def scenario() -> None:
        store = MemoryStore(down=True, clock=CLOCK)
        one = manager(store, "a", "host-a")
        async with running(one) as tasks:
            await until(lambda: len(one[1].troubles) > 1)
            assert not tasks[0].done()
            store.down = False
            await until(lambda: one[1].leads)

    asyncio.run(scenario())
