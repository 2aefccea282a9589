"""The manager's loop over agents and servers in memory: two clusters, managers that end, agents that are silent."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path
from typing import NoReturn, cast
from unittest.mock import Mock

import pytest

from holdfast.core.answers.status import FailedCommand, MemberRole
from holdfast.core.commands import Bar, Clone, Command, Promote
from holdfast.core.decision import Send
from holdfast.core.gtid import Flavor
from holdfast.core.observed.lineage import RecordMark
from holdfast.errors import OutcomeUnknown, Refused
from holdfast.http.wire import Told
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.leader.act import STILL_ASKED, Actor
from holdfast.manager.leader.desired import Given
from holdfast.manager.leader.events import EventKind
from holdfast.manager.leader.lead import Leader
from holdfast.store.sqlite import SqliteStore
from tests.model.world import World
from tests.unit.hand_clock import HandClock
from tests.unit.memory_agent import connecting, managing, until


def new_world(flavor: Flavor = Flavor.MARIADB) -> World:
    return World(random.Random(3), 3, flavor)


def leader(world: World, store: SqliteStore, name: str = "c") -> Leader:
    given = Given(name, world.cluster.members)
    return Leader(given, connecting(world), store)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


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


def test_a_command_goes_with_the_record_by_which_it_was_decided() -> None:
    """Another may be saved before it is sent."""
    sent: list[Told] = []

    class Agent:
        async def command(self, term: int, command: Command, grant: None, told: Told) -> NoReturn:
            sent.append(told)
            raise Refused("it is enough to have heard it")

    async def scenario() -> None:
        revision = 6
        observer = Mock(told=lambda _: Told(leader="a", mark=RecordMark(4, "a", revision)))
        observer.leases.grant.return_value = None
        actor = Actor({"m1": cast(AgentClient, Agent())}, observer, Mock())
        actor.send(4, Send("m1", Promote(0, 1)))
        revision = 7
        await asyncio.sleep(0)
        assert [told.mark.revision for told in sent] == [6]
        await actor.close()

    asyncio.run(scenario())


def test_what_an_agent_refuses_or_fails_to_do_is_known_until_it_is_done_or_wanted_no_more() -> None:
    now = [100.0]
    raised: list[Exception] = [
        Refused("its data may be the only copy (holdfast member clone m1 --discard)").by("m1"),
        OutcomeUnknown("no answer in time"),
    ]

    class Agent:
        async def command(self, *_: object) -> Mock:
            if raised:
                raise raised.pop(0)
            return Mock()

    async def scenario() -> None:
        observer = Mock(told=lambda _: Told(leader="a", mark=RecordMark(4, "a", 6)))
        observer.leases.grant.return_value = None
        agents = {"m1": cast(AgentClient, Agent())}
        actor = Actor(agents, observer, Mock(), HandClock(lambda: now[0]))

        async def sent(command: Command) -> dict[str, list[FailedCommand]]:
            actor.send(4, Send("m1", command))
            while actor._under_way:
                await asyncio.sleep(0.001)
            return actor.failures(4)

        clone = Clone("m2", "db2", 3306, "http://m2", "0-1-9")
        why = "its data may be the only copy (holdfast member clone m1 --discard)"
        refused = FailedCommand("clone", why)
        assert await sent(clone) == {"m1": [refused]}
        unknown = FailedCommand("bar", "no answer in time")
        assert await sent(Bar("repl_m2")) == {"m1": [refused, unknown]}
        assert actor.failures(5) == {}
        assert await sent(Bar("repl_m3")) == {"m1": [refused]}
        now[0] += STILL_ASKED
        assert actor.failures(4) == {}
        await actor.close()

    asyncio.run(scenario())


def test_two_commands_that_are_refused_in_turn_do_not_go_to_and_fro_without_a_pause() -> None:
    sent: list[Command] = []

    class Agent:
        async def command(self, term: int, command: Command, grant: None, told: Told) -> NoReturn:
            sent.append(command)
            raise Refused("it follows another")

    async def scenario() -> None:
        observer = Mock(told=lambda _: Told(leader="a", mark=RecordMark(4, "a", 6)))
        observer.leases.grant.return_value = None
        actor = Actor({"m1": cast(AgentClient, Agent())}, observer, Mock())
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            for user in ("repl_m2", "repl_m3"):
                actor.send(4, Send("m1", Bar(user)))
                await asyncio.sleep(0.001)
        await actor.close()

    asyncio.run(scenario())
    assert {each.user for each in sent if isinstance(each, Bar)} == {"repl_m2", "repl_m3"}
    assert 3 <= len(sent) <= 6


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
                assert {member.role for member in after.members} == {
                    MemberRole.PRIMARY,
                    MemberRole.VOTER,
                }

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
                    await until(idle, lambda s: s.reason.startswith("another manager leads"))
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
