"""Hooks and reports of a manager that leads: over agents and servers in memory, with real executables."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.clock import Clock
from holdfast.config.hooks import HooksConfig
from holdfast.core.calls import HookOutcome, Phase
from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput
from holdfast.manager.api.app import make_app
from holdfast.manager.leader.desired import Given
from holdfast.manager.leader.lead import Leader
from holdfast.manager.listeners.hooks import FIRST_PAUSE
from holdfast.manager.listeners.hooks_setup import Outsiders
from holdfast.store.sqlite import SqliteStore
from tests.model.world import World
from tests.unit.endpoint.test_webhook import Receiver
from tests.unit.hand_clock import HandClock, PacedClock
from tests.unit.memory_agent import MemoryAgent, managing, until
from tests.unit.served import BEARER, TOKEN, served

LOGGING = """#!/bin/sh
cd {folder}
printf '%s\\n' "$*" >> called
cat > event.$(wc -l < called)
{then}
"""


@dataclass
class Outside:
    """A hook, and the calls that it got."""

    folder: Path

    def hook(self, then: str = "exit 0") -> str:
        """Replaced in one step: it may be in use."""
        path = self.folder / "hook"
        new = self.folder / "hook.new"
        new.write_text(LOGGING.format(folder=self.folder, then=then))
        new.chmod(0o755)
        new.replace(path)
        return str(path)

    def asked(self) -> list[str]:
        path = self.folder / "called"
        return path.read_text().splitlines() if path.exists() else []

    def commands(self) -> list[str]:
        words = [word for line in self.asked() for word in line.split()]
        return [each.partition("=")[2] for each in words if each.startswith("--command=")]

    def event(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"event.{number}").read_text())
        return found


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path)


@asynccontextmanager
async def led(
    world: World, path: Path, config: HooksConfig, clock: Clock | None = None
) -> AsyncIterator[Leader]:
    """:param clock: by which a hook that failed is called again; None: one that goes fast"""
    clock = clock or PacedClock(FIRST_PAUSE / 0.3)

    def connect(member: Any) -> Any:
        return MemoryAgent(world, member.name, [])

    with contextlib.closing(SqliteStore(path / "store.db")) as store:
        leader = Leader(Given("c", world.cluster.members), connect, store)
        outsiders = Outsiders.by(config, "clusters.0.hooks", clock)
        leader.hooks, reporter = outsiders.of(leader.events, leader.look_again)
        leader.listeners = (*leader.listeners, reporter)
        async with managing(leader):
            yield leader


def new_world() -> World:
    return World(random.Random(3), 3, Flavor.MYSQL)


async def eventually(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.01)


async def texts(leader: Leader) -> list[str]:
    return [event.text for event in await leader.events.since(0, 0)]


def owed(leader: Leader) -> bool:
    return leader.record is None or leader.record.owed is not None


def test_a_failover_calls_stop_and_start_once_each(outside: Outside) -> None:
    async def scenario() -> None:
        world = new_world()
        config = HooksConfig.model_validate({"failover": outside.hook(), "user": "mha"})
        async with led(world, outside.folder, config) as leader:
            await until(leader, lambda s: s.whole)
            assert outside.asked() == []
            world.hosts["m1"].crash()
            after = await until(leader, lambda s: s.whole and s.primary != "m1")
            await eventually(lambda: not owed(leader), "start is owed")
            new = after.primary
            old = "--orig_master_host=m1 --orig_master_ip=m1 --orig_master_port=3306"
            next_one = f"--new_master_host={new} --new_master_ip={new} --new_master_port=3306"
            assert outside.asked() == [
                f"{old} --command=stopssh --ssh_user=root",
                f"--command=start --ssh_user=root {old} {next_one} --new_master_user=mha",
            ]
            assert outside.event(1)["command"] == "stopssh"
            assert outside.event(1)["old_primary"]["name"] == "m1"
            assert outside.event(2)["new_primary"]["name"] == new
            assert leader.hooks.called[Phase.START].outcome is HookOutcome.GOOD
            assert leader.hooks.called[Phase.START].ran[0].code == 0

    asyncio.run(scenario())


def test_the_host_whose_agent_is_silent_gets_stop(outside: Outside) -> None:
    async def scenario() -> None:
        world = new_world()
        config = HooksConfig.model_validate({"failover": outside.hook()})
        async with led(world, outside.folder, config) as leader:
            await until(leader, lambda s: s.whole)
            world.hosts["m1"].crash()
            world.hosts["m1"].agent_up = False
            await until(leader, lambda s: s.writable and s.primary != "m1")
            await eventually(lambda: len(outside.asked()) == 2, "start")
            assert outside.commands() == ["stop", "start"]

    asyncio.run(scenario())


def test_a_warning_does_not_hold_it_up_and_is_told(outside: Outside) -> None:
    async def scenario() -> None:
        world = new_world()
        config = HooksConfig.model_validate({"failover": outside.hook("echo hm; exit 10")})
        async with led(world, outside.folder, config) as leader:
            await until(leader, lambda s: s.whole)
            world.hosts["m1"].crash()
            await until(leader, lambda s: s.whole and s.primary != "m1")
            await eventually(lambda: not owed(leader), "start is owed")
            said = await texts(leader)
            assert "hook failover --command=stopssh warns (exit 10): hm" in said
            assert "hook failover --command=start warns (exit 10): hm" in said

    asyncio.run(scenario())


def test_a_stop_hook_that_fails_holds_it_up_and_is_called_again_until_it_works(
    outside: Outside,
) -> None:
    async def scenario() -> None:
        world = new_world()
        config = HooksConfig.model_validate({"failover": outside.hook("echo no ssh; exit 1")})
        async with led(world, outside.folder, config) as leader:
            await until(leader, lambda s: s.whole)
            world.hosts["m1"].crash()
            held = await until(leader, lambda s: "held up" in s.reason)
            assert "failover --command=stopssh: exit 1: no ssh" in held.reason
            assert held.primary == "m1"
            assert not held.writable
            await eventually(lambda: len(outside.asked()) >= 2, "it to be called again")
            assert leader.status().primary == "m1"
            outside.hook("exit 0")
            await until(leader, lambda s: s.whole and s.primary != "m1")

    asyncio.run(scenario())


def test_a_person_goes_on_without_a_stop_hook_that_fails(outside: Outside) -> None:
    async def scenario() -> None:
        world = new_world()
        refusing = 'case "$*" in *command=stop*) exit 1;; esac'
        config = HooksConfig.model_validate({"failover": outside.hook(refusing)})
        async with led(world, outside.folder, config, HandClock(lambda: 100.0)) as leader:
            transport = httpx.ASGITransport(make_app({"c": leader}, TOKEN))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://m", headers=BEARER
            ) as http:
                await until(leader, lambda s: s.whole)
                world.hosts["m1"].crash()
                await until(leader, lambda s: "held up" in s.reason)
                assert outside.commands() == ["stopssh"]
                url = "/v1/clusters/c/failover"
                assert (await http.post(url, json={})).status_code == 200
                await eventually(lambda: len(outside.asked()) == 2, "it to be called once more")
                await until(leader, lambda s: "held up" in s.reason)
                going_on = await http.post(url, json={"skip_stop_hook": True})
                assert going_on.status_code == 200, going_on.text
                await until(leader, lambda s: s.whole and s.primary != "m1")
                await eventually(lambda: not owed(leader), "start is owed")
                assert outside.commands() == ["stopssh", "stopssh", "start"]
                assert any("without the stop hook" in text for text in await texts(leader))

    asyncio.run(scenario())


def test_a_failover_that_is_not_held_up_is_not_begun_twice(outside: Outside) -> None:
    async def scenario() -> None:
        world = new_world()
        config = HooksConfig.model_validate({"failover": outside.hook("sleep 2")})
        async with led(world, outside.folder, config) as leader:
            transport = httpx.ASGITransport(make_app({"c": leader}, TOKEN))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://m", headers=BEARER
            ) as http:
                await until(leader, lambda s: s.whole)
                world.hosts["m1"].crash()
                await until(leader, lambda s: "waiting for the stop hook" in s.reason)
                refused = await http.post("/v1/clusters/c/failover", json={})
                assert refused.status_code == 409
                assert "a failover is under way" in refused.text

    asyncio.run(scenario())


def test_one_that_hangs_is_killed_and_holds_it_up(outside: Outside) -> None:
    async def scenario() -> None:
        world = new_world()
        given = {"failover": outside.hook("sleep 600"), "timeout": "500ms"}
        async with led(world, outside.folder, HooksConfig.model_validate(given)) as leader:
            await until(leader, lambda s: s.whole)
            world.hosts["m1"].crash()
            held = await until(leader, lambda s: "held up" in s.reason)
            assert "it had not ended within 0.5 s" in held.reason

    asyncio.run(scenario())


def test_a_start_hook_that_fails_holds_up_nobody_and_is_called_again(outside: Outside) -> None:
    async def scenario() -> None:
        world = new_world()
        failing = 'case "$*" in *command=start*) echo no address; exit 1;; esac'
        config = HooksConfig.model_validate({"failover": outside.hook(failing)})
        async with led(world, outside.folder, config) as leader:
            await until(leader, lambda s: s.whole)
            world.hosts["m1"].crash()
            after = await until(leader, lambda s: s.writable and "the start hook" in s.reason)
            assert after.primary != "m1"
            assert not after.whole
            assert "failover --command=start: exit 1: no address" in after.reason
            await until(leader, lambda s: all(m.votes for m in s.members))
            await eventually(lambda: outside.commands().count("start") >= 2, "another try")
            outside.hook("exit 0")
            await until(leader, lambda s: s.whole)
            await eventually(lambda: not owed(leader), "start is owed")
            stops = [each for each in outside.commands() if each.startswith("stop")]
            assert len(stops) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("command", ["stop", "start"])
def test_another_manager_calls_again_what_the_one_before_did_not_see_end(
    outside: Outside, command: str
) -> None:
    async def scenario() -> None:
        world = new_world()
        hanging = f'case "$*" in *command={command}*) sleep 60;; esac'
        slow = HooksConfig.model_validate({"failover": outside.hook(hanging), "timeout": "60s"})
        async with led(world, outside.folder, slow) as first:
            await until(first, lambda s: s.whole)
            world.hosts["m1"].crash()
            await eventually(
                lambda: any(each.startswith(command) for each in outside.commands()), "the call"
            )
        before = outside.commands()
        outside.hook("exit 0")
        async with led(world, outside.folder, slow) as second:
            await until(second, lambda s: s.whole and s.primary != "m1")
            await eventually(lambda: not owed(second), "start is owed")
        after = outside.commands()[len(before) :]
        wanted = ["stopssh", "start"] if command == "stop" else ["start"]
        assert after == wanted

    asyncio.run(scenario())


def test_shutdown_follows_the_stop_of_the_failover_hook_and_not_one_that_failed(
    outside: Outside,
) -> None:
    async def scenario() -> None:
        world = new_world()
        path = outside.hook('case "$*" in *orig*stopssh*) test -e ready;; esac')
        config = HooksConfig.model_validate({"failover": path, "shutdown": path})
        async with led(world, outside.folder, config) as leader:
            await until(leader, lambda s: s.whole)
            world.hosts["m1"].crash()
            await until(leader, lambda s: "held up" in s.reason)
            assert not any("--host=" in line for line in outside.asked())
            (outside.folder / "ready").touch()
            await until(leader, lambda s: s.whole and s.primary != "m1")
            (shutdown,) = [line for line in outside.asked() if "--host=" in line]
            assert shutdown == "--command=stopssh --ssh_user=root --host=m1 --ip=m1 --port=3306"

    asyncio.run(scenario())


def test_the_report_hook_and_webhooks_are_told_of_a_failover(
    outside: Outside, tmp_path: Path
) -> None:
    async def scenario() -> None:
        world = new_world()
        report = tmp_path / "report"
        report.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/reported\nexit 3\n")
        report.chmod(0o755)
        (tmp_path / "secret").write_text("hush\n")
        receiver = Receiver([503])
        with served(receiver) as port:
            config = HooksConfig.model_validate(
                {
                    "failover": outside.hook("echo moved"),
                    "report": str(report),
                    "webhooks": [
                        {
                            "url": f"http://127.0.0.1:{port}/x?token=hush",
                            "secret_file": str(tmp_path / "secret"),
                        }
                    ],
                }
            )
            async with led(world, outside.folder, config) as leader:
                await until(leader, lambda s: s.whole)
                assert receiver.got == []
                world.hosts["m1"].crash()
                after = await until(leader, lambda s: s.whole and s.primary != "m1")
                await eventually(lambda: len(receiver.got) == 2, "the webhook")
                await eventually((tmp_path / "reported").exists, "the report")
                headers, body = receiver.got[-1]
                assert headers["webhook-signature"].startswith("v1,")
                told = json.loads(body)
                assert told["id"] == headers["webhook-id"]
                assert (told["event"], told["result"]) == ("failover", "done")
                assert told["old_primary"]["name"] == "m1"
                assert told["new_primary"]["name"] == after.primary
                assert [ran["command"] for ran in told["hooks"]] == ["stopssh", "start"]
                assert b"moved" not in body
                new = after.primary
                first = (tmp_path / "reported").read_text().splitlines()
                assert first[:2] == ["--orig_master_host=m1", f"--new_master_host={new}"]
                assert first[2].startswith("--new_slave_hosts=")
                subject = f"c: MySQL Master failover m1(m1:3306) to {new}({new}:3306) succeeded"
                assert first[3] == f"--subject={subject}"
                assert "takes over from m1" in first[4]
                await eventually(
                    lambda: any(e.text.startswith("report ") for e in leader.events._events),
                    "the report's end",
                )
                said = await texts(leader)
                assert "report --command=report: exit 3" in said
                assert not any("hush" in text for text in said)
                assert leader.status().whole

    asyncio.run(scenario())


def test_webhooks_are_told_that_a_failover_is_held_up(outside: Outside) -> None:
    async def scenario() -> None:
        world = new_world()
        receiver = Receiver()
        with served(receiver) as port:
            config = HooksConfig.model_validate(
                {
                    "failover": outside.hook("exit 1"),
                    "webhooks": [{"url": f"http://127.0.0.1:{port}/"}],
                }
            )
            async with led(world, outside.folder, config) as leader:
                await until(leader, lambda s: s.whole)
                world.hosts["m1"].crash()
                await eventually(lambda: len(outside.asked()) >= 3, "to be tried thrice")
                outside.hook()
                await until(leader, lambda s: s.whole and s.primary != "m1")
                await eventually(lambda: len(receiver.got) >= 2, "the webhooks")
                results = [json.loads(body)["result"] for _, body in receiver.got]
                assert results == ["held_up", "done"]

    asyncio.run(scenario())


def test_webhooks_alone_are_no_step_of_a_failover(outside: Outside) -> None:
    async def scenario() -> None:
        world = new_world()
        receiver = Receiver()
        with served(receiver) as port:
            config = HooksConfig.model_validate(
                {"webhooks": [{"url": f"http://127.0.0.1:{port}/"}]}
            )
            async with led(world, outside.folder, config) as leader:
                await until(leader, lambda s: s.whole)
                assert not leader.hooks.hooked
                world.hosts["m1"].crash()
                await until(leader, lambda s: s.whole and s.primary != "m1")
                await eventually(lambda: receiver.got, "the webhook")
                assert json.loads(receiver.got[0][1])["result"] == "done"
                assert json.loads(receiver.got[0][1])["reason"].startswith("m")

    asyncio.run(scenario())


def test_a_manager_does_not_start_with_a_hook_that_is_missing(tmp_path: Path) -> None:
    config = HooksConfig.model_validate({"switchover": str(tmp_path / "gone")})
    with pytest.raises(BadInput) as refused:
        Outsiders.by(config, "clusters.0.hooks")
    assert refused.value.key == "clusters.0.hooks.switchover"


def test_nor_with_a_secret_or_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    for file in ("secret_file", "ca"):
        webhook = {"url": "https://x/", file: str(tmp_path / "gone")}
        with pytest.raises(BadInput) as refused:
            Outsiders.by(HooksConfig.model_validate({"webhooks": [webhook]}), "h")
        assert refused.value.key == f"h.webhooks.0.{file}"
