"""The manager directs endpoints: at once, to the latest primary only, and again where it failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from holdfast.core.answers.routing import Directions
from holdfast.core.cluster import Cluster, Member
from holdfast.core.gtid import Flavor
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.view import MemberState, Seen, ServerStatus, Unseen, View
from holdfast.errors import Unreachable
from holdfast.manager.leader.events import EventLog
from holdfast.manager.listeners import endpoints
from holdfast.manager.listeners.endpoints import Endpoints
from tests.unit.hand_clock import PacedClock

MEMBERS = tuple(
    Member(f"m{n}", "127.0.0.1", 3300 + n, f"http://127.0.0.1:{7400 + n}") for n in (1, 2)
)
CLUSTER = Cluster("c", MEMBERS)
UP = MemberState("m1", Flavor.MARIADB, server=ServerStatus.UP, incarnation="i1", writable=True)


def record(primary: str = "m1", term: int = 1) -> Record:
    return Record(term, primary, 1, (Configuration(frozenset({(primary, "i1")}), 0),), 1)


def view(state: MemberState | None) -> View:
    if state is None:
        return View({"m1": Unseen("gone", 0.0)}, 0.0)
    return View({state.name: Seen(state, 0.0)}, 0.0)


class Shown:
    """An endpoint that remembers its directions.

    :ivar broken: it fails; :ivar busy: held while it shows
    """

    def __init__(self, name: str = "e") -> None:
        self.name = name
        self.shown: list[Directions] = []
        self.broken: Exception | None = None
        self.tries = 0
        self.busy = asyncio.Lock()
        self.closed = False

    async def show(self, directions: Directions) -> None:
        self.tries += 1
        async with self.busy:
            if self.broken is not None:
                raise self.broken
            self.shown.append(directions)

    async def close(self) -> None:
        self.closed = True

    @property
    def primaries(self) -> list[str]:
        return [each.primary.name if each.primary else "" for each in self.shown]


async def until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not predicate():
            await asyncio.sleep(0.001)


async def texts(events: EventLog) -> list[str]:
    return [each.text for each in await events.since(0, 0)]


def test_what_a_look_shows_is_told_at_once_and_once() -> None:
    async def scenario() -> None:
        one, events = Shown(), EventLog("c")
        listener = Endpoints([one], events)
        began = time.monotonic()
        for _ in range(200):
            listener.looked(CLUSTER, record(), view(UP))
            await asyncio.sleep(0)
        await until(lambda: bool(one.shown))
        if time.monotonic() - began < endpoints.AGAIN_SECONDS:
            assert one.primaries == ["m1"]
        listener.looked(CLUSTER, record(), view(replace(UP, writable=False)))
        await until(lambda: one.primaries[-1:] == [""])
        assert await texts(events) == [
            "e directs clients to m1",
            "e: m1 disabled, new connections queue",
        ]
        await listener.close()
        assert one.closed

    asyncio.run(scenario())


def test_a_new_record_counts_before_the_next_look() -> None:
    async def scenario() -> None:
        one = Shown()
        listener = Endpoints([one], EventLog("c"))
        listener.saved(CLUSTER, None, record(), "begun", view(UP))
        await until(lambda: one.primaries == ["m1"])
        await listener.close()

    asyncio.run(scenario())


def test_an_endpoint_that_is_busy_is_told_the_latest_only() -> None:
    async def scenario() -> None:
        one = Shown()
        listener = Endpoints([one], EventLog("c"))
        async with one.busy:
            listener.looked(CLUSTER, record(), view(UP))
            await until(lambda: one.tries == 1)
            for term in range(2, 50):
                listener.looked(CLUSTER, record(term=term), view(UP))
                await asyncio.sleep(0)
        await until(lambda: bool(one.shown) and one.shown[-1].term == 49)
        assert [each.term for each in one.shown] == [1, 49]
        await listener.close()

    asyncio.run(scenario())


def test_one_that_hangs_holds_up_no_other() -> None:
    async def scenario() -> None:
        stuck, well = Shown("stuck"), Shown("well")
        listener = Endpoints([stuck, well], EventLog("c"))
        async with stuck.busy:
            listener.looked(CLUSTER, record(), view(UP))
            await until(lambda: well.primaries == ["m1"])
            await listener.close()
        assert stuck.shown == []

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [Unreachable("nobody listens"), ValueError("nobody listens")])
def test_what_fails_is_tried_again_and_told_once(error: Exception) -> None:
    async def scenario() -> None:
        one, events = Shown(), EventLog("c")
        one.broken = error
        listener = Endpoints([one], events)
        listener.looked(CLUSTER, record(), view(UP))
        while one.tries < 4:
            listener.looked(CLUSTER, record(), view(UP))
            await asyncio.sleep(0.005)
        assert await texts(events) == [
            "e cannot be updated: nobody listens",
        ]
        one.broken = None
        while not one.shown:
            listener.looked(CLUSTER, record(), view(UP))
            await asyncio.sleep(0.005)
        await asyncio.sleep(0)
        assert (await texts(events))[1:] == ["e answers again", "e directs clients to m1"]
        await listener.close()

    asyncio.run(scenario())


def test_a_change_does_not_wait_for_the_end_of_a_pause() -> None:
    async def scenario() -> None:
        one = Shown()
        one.broken = Unreachable("nobody listens")
        listener = Endpoints([one], EventLog("c"), PacedClock(endpoints.BACKOFF_SECONDS[0] / 60))
        listener.looked(CLUSTER, record(), view(UP))
        await until(lambda: one.tries == 1)
        one.broken = None
        listener.looked(CLUSTER, record(), view(replace(UP, writable=False)))
        await until(lambda: one.primaries == [""])
        await listener.close()

    asyncio.run(scenario())


def test_it_is_shown_again_while_the_manager_looks_and_not_when_it_leads_no_more() -> None:
    clock = PacedClock(50)

    async def scenario() -> None:
        one = Shown()
        listener = Endpoints([one], EventLog("c"), clock)
        while len(one.shown) < 3:
            listener.looked(CLUSTER, record(), view(UP))
            await asyncio.sleep(0.001)
        await clock.pause(2 * endpoints.FRESH_SECONDS)
        shown = len(one.shown)
        await clock.pause(5 * endpoints.AGAIN_SECONDS)
        assert len(one.shown) == shown
        listener.looked(CLUSTER, record(), view(UP))
        await until(lambda: len(one.shown) > shown)
        await listener.close()

    asyncio.run(scenario())


def test_a_primary_that_cannot_be_seen_keeps_its_clients() -> None:
    async def scenario() -> None:
        one = Shown()
        listener = Endpoints([one], EventLog("c"))
        listener.looked(CLUSTER, record(), view(None))
        await until(lambda: one.primaries == ["m1"])
        await listener.close()

    asyncio.run(scenario())
