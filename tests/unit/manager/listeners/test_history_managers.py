"""Managers that keep the history: it is complete though they are killed, and delays nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.answers.status import MemberRole
from holdfast.core.cluster import Cluster
from holdfast.core.gtid import Flavor
from holdfast.core.history import build
from holdfast.core.history.entry import (
    Entry,
    Outcome,
    Sort,
    What,
)
from holdfast.core.record import Record
from holdfast.core.transition import Step
from holdfast.core.view import (
    View,
)
from holdfast.errors import Unreachable
from holdfast.manager.leader.desired import Given
from holdfast.manager.leader.events import Event, EventKind, EventLog
from holdfast.manager.leader.lead import Leader
from holdfast.manager.listeners.archive import Archive
from holdfast.manager.listeners.history import History
from holdfast.manager.people.members import People
from holdfast.manager.people.orders import Orders
from holdfast.store.base import Store
from holdfast.store.sqlite import SqliteStore
from tests.model.world import World
from tests.unit.memory_agent import connecting, managing, until

SHORT = {"QUIET_SECONDS": 0.02, "LATER_SECONDS": 0.05, "FIRST_PAUSE": 0.02}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in SHORT.items():
        monkeypatch.setattr(f"holdfast.manager.listeners.history.{name}", seconds)


@dataclass
class Flaky:
    """A store whose history does not answer while it is down; its record always does."""

    inner: SqliteStore
    down: bool = False

    def __getattr__(self, name: str) -> object:
        if self.down and name in ("entries", "entry", "write_entry"):
            raise Unreachable("the store does not answer")
        return getattr(self.inner, name)


@dataclass
class Managed:
    leader: Leader
    history: History

    async def entries(self, reached: Callable[[list[Entry]], bool]) -> list[Entry]:
        """The entries in the store, oldest first, once ``reached`` holds."""
        for _ in range(500):
            heads = await self.history.newest(200)
            found = [await self.history.entry(each["number"]) for each in reversed(heads)]
            entries = [each for each in found if each is not None]
            if reached(entries):
                return entries
            await asyncio.sleep(0.02)
        raise AssertionError(entries)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def manager(
    world: World,
    store: Store | Flaky,
    pool: ThreadPoolExecutor,
    who: str = "mgr1",
    clock: Clock = SYSTEM_CLOCK,
) -> Managed:
    """:param clock: by which it is written"""
    kept = cast(Store, store)
    given = Given("c", world.cluster.members)
    leader = Leader(given, connecting(world), kept)
    archive = Archive(kept, "c")
    history = History(archive, who, leader.events, lambda: leader.decision, pool, clock)
    leader.listeners = (history,)
    return Managed(leader, history)


@asynccontextmanager
async def leading(managed: Managed) -> AsyncIterator[None]:
    async with managing(managed.leader):
        await until(managed.leader, lambda s: s.whole)
        yield


def new_world(flavor: Flavor = Flavor.MARIADB) -> World:
    return World(random.Random(3), 3, flavor)


@pytest.mark.parametrize("flavor", Flavor)
def test_a_failover_is_kept_with_its_course_and_read_by_any_manager(
    flavor: Flavor, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    async def scenario() -> None:
        world = new_world(flavor)
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            first = manager(world, store, pool)
            async with leading(first):
                assert await first.history.newest(9) == []
                world.hosts["m1"].crash()
                await until(first.leader, lambda s: s.whole and s.primary != "m1")
                (entry,) = await first.entries(lambda all_: bool(all_) and not all_[-1].live)
            other = manager(world, store, pool, "mgr2")
            assert await other.history.entry(1) == entry
            assert entry.outcome is Outcome.DONE
            assert entry.managers == ("mgr1",)
            assert entry.cause == "the server of m1, the primary, is gone"
            assert (entry.old, entry.returned.verdict) == ("m1", "clean")
            course = [entry.begun, entry.named, entry.opened, entry.whole]
            assert course == sorted(each for each in course if each is not None)
            assert entry.returned.following
            done = [(m.member, m.text) for m in entry.moments if m.sort is Sort.COMMAND]
            assert {("m2", "promise"), ("m3", "promise"), (entry.new, "promote")} <= set(done)
            assert {c.name for c in entry.candidates} == {"m2", "m3"}

    asyncio.run(scenario())


@pytest.mark.parametrize("seconds", [0.0, 0.003, 0.006, 0.012, 0.025, 0.05, 0.1, 0.2, 0.4])
def test_a_manager_that_takes_over_in_the_middle_goes_on_with_the_same_entry(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            first = manager(world, store, pool)
            monkeypatch.setattr(first.history, "close", _nothing)  # it is killed
            async with leading(first):
                world.hosts["m1"].crash()
                await asyncio.sleep(seconds)
            if first.history._writing:
                first.history._writing.cancel()
            stored = store.load("c")  # as it was when it was killed
            assert stored.record is not None
            over = stored.record.primary != "m1" and build.told(stored.record) is None
            second = manager(world, store, pool, "mgr2")
            async with managing(second.leader):
                after = await until(second.leader, lambda s: s.whole)
                assert {member.role for member in after.members} == {
                    MemberRole.PRIMARY,
                    MemberRole.VOTER,
                }
                # what was over before it was written is known to nobody
                entries = await second.entries(
                    lambda all_: (over or bool(all_)) and all(not e.live for e in all_)
                )
                failovers = [each for each in entries if each.what is What.FAILOVER]
                assert len(failovers) == 1 or (over and not entries)
                for each in failovers:
                    assert each.outcome is Outcome.DONE
                    assert (each.old, each.new) == ("m1", after.primary)
                    assert each.managers in (("mgr1",), ("mgr2",), ("mgr1", "mgr2"))

    asyncio.run(scenario())


async def _nothing() -> None:
    pass


class Killed(Exception):
    pass


@dataclass
class Killer:
    """Ends its manager right after a record with this step was saved; what was begun may be written before."""

    managed: Managed
    step: Step | None
    archive: Archive | None

    def looked(self, *_: object) -> None:
        pass

    def saved(
        self, cluster: Cluster, before: Record | None, record: Record, why: str, view: View
    ) -> None:
        step = record.transition.step if record.transition else None
        if before and before.transition and step is self.step:
            raise Killed
        if self.archive and step is Step.ELECT:
            self.archive.put(self.managed.history._pages[-1].entry, 0)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("step", [Step.OPEN, None])
def test_an_entry_whose_manager_was_killed_after_a_step_is_completed_by_the_next(
    tmp_path: Path,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    step: Step | None,
    written: bool,
) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            store.write_entry("c", 1, '{"format": 9}', 0)
            first = manager(world, store, pool)
            monkeypatch.setattr(first.history, "_soon", lambda _: None)
            monkeypatch.setattr(first.history, "close", _nothing)
            with suppress(Killed):
                async with leading(first):
                    killer = Killer(first, step, Archive(store, "c") if written else None)
                    first.leader.listeners += (killer,)
                    world.hosts["m1"].crash()
                    await asyncio.sleep(0.5)
            assert len(store.entries("c", 9)) == 1 + written
            second = manager(world, store, pool, "mgr2")
            async with managing(second.leader):
                status = await until(second.leader, lambda s: s.whole)
                if step is None and not written:
                    return  # nobody knows of it
                await asyncio.sleep(0.1)
                listed = await second.history.newest(9)
                while listed[0].get("whole") is None:
                    await asyncio.sleep(0.02)
                    listed = await second.history.newest(9)
                entry = await second.history.entry(2)
            assert [each["number"] for each in listed] == [2, 1]
            assert "format 9" in listed[1]["unreadable"]
            assert entry
            assert (entry.outcome, entry.new) == (Outcome.DONE, status.primary)
            assert entry.old == "m1"
            if step is Step.OPEN:
                assert entry.managers == (("mgr1", "mgr2") if written else ("mgr2",))
                assert entry.opened
            else:
                assert "was lost after" in entry.why
            if written:
                assert entry.cause == "the server of m1, the primary, is gone"
                assert entry.before

    asyncio.run(scenario())


def test_a_store_that_is_down_delays_the_history_and_nothing_else(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as inner:
            store = Flaky(inner)
            led = manager(world, store, pool)
            async with leading(led):
                store.down = True
                world.hosts["m1"].crash()
                await until(led.leader, lambda s: s.whole and s.primary != "m1")
                await asyncio.sleep(0.1)
                assert inner.entries("c", 9) == ()
                store.down = False
                (entry,) = await led.entries(lambda all_: bool(all_) and not all_[0].live)
                assert entry.outcome is Outcome.DONE

    asyncio.run(scenario())


def test_a_manager_that_leads_no_more_shows_what_the_next_one_has_written(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            led = manager(world, store, pool)
            async with leading(led):
                world.hosts["m1"].crash()
                await until(led.leader, lambda s: s.primary != "m1" and s.writable)
                await led.entries(bool)
            archive = Archive(store, "c")
            stored = archive.get(1)
            assert stored
            archive.put(replace(stored[0], why="of another manager"), stored[1])
            entry = await led.history.entry(1)
            assert entry
            assert entry.why == "of another manager"

    asyncio.run(scenario())


def test_what_breaks_in_the_history_breaks_nothing_else(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            led = manager(world, store, pool)
            async with leading(led):
                monkeypatch.setattr(build, "saved", broken)
                world.hosts["m1"].crash()
                await until(led.leader, lambda s: s.whole and s.primary != "m1")

    asyncio.run(scenario())


def test_orders_pauses_and_restarts_are_listed(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            led = manager(world, store, pool)
            async with leading(led):
                orders = Orders(led.leader)
                await orders.pause("a new switch in rack 3", None)
                await orders.resume()
                entries = await led.entries(lambda all_: len(all_) >= 2)
                texts = [each.cause for each in entries]
                assert (
                    texts[0] == "paused until it is resumed: a new switch in rack 3, by an operator"
                )
                assert texts[1].startswith("resumed")
                assert {each.what for each in entries} == {What.ORDER}
                assert all(each.ordered and not each.live for each in entries)

    asyncio.run(scenario())


def test_changes_of_settings_and_members_are_listed_with_who_asked(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            led = manager(world, store, pool)
            async with leading(led):
                people = People(led.leader)
                await people.set({"ack_patience": "2s"}, [], None)
                async with asyncio.timeout(10):
                    while not (await people.remove("m3"))["removed"]:
                        await asyncio.sleep(0.01)
                entries = await led.entries(lambda all_: len(all_) >= 3)
                assert [each.cause for each in entries] == [
                    "set: ack_patience = 2s, by an operator",
                    "m3 will be removed, after its vote, by an operator",
                    "m3 is no longer a member, by an operator",
                ]
                assert all(each.ordered == each.cause and not each.live for each in entries)

    asyncio.run(scenario())


def test_two_orders_between_two_looks_are_both_listed(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            led = manager(world, store, pool)
            async with leading(led):
                led.leader.events.add(EventKind.ORDERED, "one")
                led.leader.events.add(EventKind.ORDERED, "another")
                led.leader.events.add(EventKind.NOT_BEGUN, "neither began")
                entries = await led.entries(lambda all_: len(all_) >= 3)
                causes = sorted(each.cause for each in entries)
                assert causes == ["another", "neither began", "one"]

    asyncio.run(scenario())


def test_a_manager_that_ends_writes_what_it_has(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            led = manager(world, store, pool)
            async with leading(led):
                await Orders(led.leader).pause("x", None)
            assert len(store.entries("c", 9)) == 1

    asyncio.run(scenario())


def test_events_reach_whoever_hears() -> None:
    log, heard = EventLog("c"), list[Event]()
    log.hearers.append(heard.append)
    log.add(EventKind.ORDERED, "x")
    assert [each.text for each in heard] == ["x"]
