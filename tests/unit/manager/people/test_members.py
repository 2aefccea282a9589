"""The manager's API, as operators use it: settings, members, orders; over agents and servers in memory."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.commands import Clone, Command, EnsureAccount, Promise, Restart
from holdfast.core.gtid import Flavor
from holdfast.core.members.destroyed import SILENT_SECONDS
from holdfast.core.record import Stray
from holdfast.core.settings import Mode, WhenAlone
from holdfast.manager.api.app import make_app
from holdfast.manager.leader.desired import Changed, Given
from holdfast.manager.leader.lead import Leader
from holdfast.store.sqlite import SqliteStore
from tests.model.world import Host, World
from tests.unit.hand_clock import LaterClock
from tests.unit.memory_agent import connecting, managing, until
from tests.unit.served import BEARER, TOKEN

JSON = {"Content-Type": "application/json"}


@dataclass
class Managed:
    """A cluster in memory with a manager, and a client of its API."""

    world: World
    leader: Leader
    http: httpx.AsyncClient
    store: SqliteStore
    asked: list[tuple[str, Command]] = field(default_factory=list)

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        return await self.http.post(f"/v1/clusters/c/{path}", json={} if body is None else body)

    async def set(self, **values: Any) -> httpx.Response:
        return await self.post("settings", {"set": values})

    async def settings(self) -> dict[str, Any]:
        found = (await self.http.get("/v1/clusters/c/settings")).json()
        return {each["key"]: (each["value"], each["source"]) for each in found["settings"]}

    def asked_of(self, name: str, kind: type[Command]) -> int:
        return sum(who == name and isinstance(what, kind) for who, what in self.asked)


@asynccontextmanager
async def managed(
    path: Path,
    members: int = 3,
    flavor: Flavor = Flavor.MYSQL,
    given: dict[str, Any] | None = None,
    world: World | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> AsyncIterator[Managed]:
    world = world or World(random.Random(5), members, flavor)
    asked: list[tuple[str, Command]] = []
    with contextlib.closing(SqliteStore(path)) as store:
        first = world.cluster.members[:members]
        connect = connecting(world, asked)
        leader = Leader(Given("c", first, given or {}), connect, store, clock=clock)
        transport = httpx.ASGITransport(make_app({"c": leader}, TOKEN))
        async with (
            managing(leader),
            httpx.AsyncClient(
                transport=transport, base_url="http://manager", headers=BEARER
            ) as http,
        ):
            await until(leader, lambda status: status.whole)
            yield Managed(world, leader, http, store, asked)


def scenario(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(run())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def test_a_setting_is_in_force_at_once_and_for_the_next_manager_too(path: Path) -> None:
    async def run() -> None:
        async with managed(path, given={"ack_patience": 3.0}) as one:
            assert (await one.settings())["ack_patience"] == (3.0, "file")
            answer = await one.set(mode="async", ack_patience="500ms")
            assert answer.status_code == 200
            assert answer.json()["version"] == 1
            assert len(answer.json()["notes"]) == 1
            assert one.leader.cluster.settings.mode is Mode.ASYNC
            await until(one.leader, lambda status: status.mode == "async" and status.whole)
            world = one.world
        async with managed(path, world=world, given={"ack_patience": 3.0}) as two:
            assert two.leader.cluster.settings.mode is Mode.ASYNC
            assert (await two.settings())["ack_patience"] == (0.5, "store")
            answer = await two.post("settings", {"unset": ["ack_patience", "mode"]})
            assert answer.json()["version"] == 2
            assert (await two.settings())["ack_patience"] == (3.0, "file")
            assert (await two.settings())["mode"] == ("strong", "default")
            await until(two.leader, lambda status: status.mode == "strong" and status.whole)

    scenario(run)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"set": {"mod": "async"}}, "mod: unknown key; did you mean mode?"),
        ({"unset": ["mod"]}, "mod: unknown key; did you mean mode?"),
        ({"unset": ["members.m1"]}, "members.m1: must be members.NAME."),
        ({"set": {"mode": "async", "members.m9.zone": "a"}}, "members.m9.zone: there is no member"),
        ({"set": {"mode": "async", "durability": "zones"}}, "members.m1.zone: is needed"),
        ({"set": {"ack_count": 2}}, "ack_count: MariaDB can wait for one acknowledgement only"),
        ({"set": {"mode": {"a": 1}}}, "set.mode"),
        ({"sett": {}}, "sett: unknown key"),
    ],
)
def test_a_change_that_is_wrong_in_part_changes_nothing(
    path: Path, body: dict[str, Any], message: str
) -> None:
    async def run() -> None:
        async with managed(path, flavor=Flavor.MARIADB) as one:
            answer = await one.post("settings", body)
            assert answer.status_code == 400
            assert answer.json()["error"] == "BadInput"
            assert answer.json()["message"].startswith(message)
            assert one.store.settings("c").version == 0

    scenario(run)


def test_a_vote_taken_from_the_primary_is_told_to_hold_later(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            await until(one.leader, lambda status: status.whole)
            assert one.leader.record is not None
            key = f"members.{one.leader.record.primary}.voter"
            answer = await one.post("settings", {"set": {key: False}})
            (note,) = answer.json()["notes"]
            assert "always votes" in note
            assert (await one.post("settings", {"unset": [key]})).json()["notes"] == []

    scenario(run)


def test_a_change_that_is_based_on_an_older_version_is_refused(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            await one.set(ack_patience=2)
            answer = await one.post("settings", {"set": {"ack_patience": 3}, "expected": 0})
            assert answer.status_code == 409
            assert (await one.settings())["ack_patience"] == (2.0, "store")
            answer = await one.post("settings", {"set": {"ack_patience": 3}, "expected": 1})
            assert answer.status_code == 200

    scenario(run)


def test_a_change_behind_the_managers_back_is_a_conflict_and_then_known(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            other = Changed({"ack_patience": 7.0})
            one.store.replace_settings("c", other.document(), 0)
            answer = await one.set(when_alone="serve")
            assert answer.status_code == 409
            assert (await one.settings())["ack_patience"] == (7.0, "store")
            assert (await one.set(when_alone="serve")).status_code == 200
            assert one.leader.cluster.settings.ack_patience == 7.0
            assert one.leader.cluster.settings.when_alone is WhenAlone.SERVE

    scenario(run)


def test_another_manager_leads_and_is_the_one_to_ask(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            with contextlib.closing(SqliteStore(path)) as store:
                idle = Leader(
                    Given("c", one.world.cluster.members),
                    connecting(one.world),
                    store,
                )
                transport = httpx.ASGITransport(make_app({"c": idle}, TOKEN))
                async with (
                    managing(idle),
                    httpx.AsyncClient(
                        transport=transport, base_url="http://idle", headers=BEARER
                    ) as http,
                ):
                    await until(idle, lambda s: s.reason.startswith("another manager leads"))
                    for path_, body in (
                        ("settings", {"set": {"mode": "async"}}),
                        ("members/m2/remove", {}),
                        ("members/m2/restart", {}),
                    ):
                        answer = await http.post(f"/v1/clusters/c/{path_}", json=body)
                        assert answer.status_code == 503, answer.text
                    await one.set(ack_patience=9)
                    async with asyncio.timeout(10):
                        while idle.cluster.settings.ack_patience != 9:
                            await asyncio.sleep(0.02)

    scenario(run)


def test_a_voter_is_removed_once_it_votes_no_longer_and_can_come_again(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            await one.set(**{"members.m3.priority": 7})
            answer = await one.post("members/m3/remove")
            assert answer.json()["removed"] is False
            assert answer.json()["waiting"].startswith("it votes until the change of voters")
            async with asyncio.timeout(10):
                while not (answer := await one.post("members/m3/remove")).json()["removed"]:
                    await asyncio.sleep(0.01)
            assert answer.json()["notes"] == []
            assert one.asked[-1][0] == "m3" or one.asked_of("m3", Promise)
            assert not one.world.hosts["m3"].receiving
            status = await until(one.leader, lambda status: status.whole)
            assert [member.name for member in status.members] == ["m1", "m2"]
            assert not any(key.startswith("members.m3") for key in await one.settings())
            assert (await one.post("members/m3/remove")).status_code == 404
            answer = await one.post("members", {"name": "m3", "agent": "http://m3"})
            assert answer.status_code == 200, answer.text
            assert one.asked_of("m1", EnsureAccount) == 1
            status = await until(
                one.leader, lambda status: status.whole and len(status.members) == 3
            )
            assert status.members[-1].role == "voter"
            assert (await one.settings())["members.m3.priority"] == (100, "default")
            world = one.world
        async with managed(path, world=world) as two:
            assert [member.name for member in two.leader.cluster.members] == ["m1", "m2", "m3"]

    scenario(run)


def test_a_removal_that_a_managers_end_interrupts_is_finished_by_the_next(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            assert (await one.post("members/m3/remove")).json()["removed"] is False
            world = one.world
        async with managed(path, world=world) as two:
            assert not two.leader.cluster.setting("m3").voter
            async with asyncio.timeout(10):
                while not (await two.post("members/m3/remove")).json()["removed"]:
                    await asyncio.sleep(0.01)
        async with managed(path, world=world) as three:
            assert [member.name for member in three.leader.cluster.members] == ["m1", "m2"]

    scenario(run)


def test_settings_that_fit_the_file_no_longer_are_told_and_the_cluster_is_led(path: Path) -> None:
    async def run() -> None:
        zones = {f"members.m{number}.zone": "ab"[number % 2] for number in (1, 2, 3)}
        async with managed(path, given=zones) as one:
            assert (await one.set(durability="zones")).status_code == 200
            world = one.world
        with contextlib.closing(SqliteStore(path)) as store:
            leader = Leader(
                Given("c", world.cluster.members),
                connecting(world),
                store,
            )
            async with managing(leader):
                async with asyncio.timeout(10):
                    while not (found := await leader.events.since(0, 0)):
                        await asyncio.sleep(0.01)
                assert "do not fit together: members.m1.zone: is needed" in found[0].text
                await until(leader, lambda status: status.term > 1 and status.writable)

    scenario(run)


def test_the_primary_and_the_last_voter_are_not_removed(path: Path) -> None:
    async def run() -> None:
        async with managed(path, 2) as one:
            answer = await one.post("members/m1/remove")
            assert answer.status_code == 409
            assert "m1 cannot be removed: it is the primary" in answer.json()["message"]
            answer = await one.post("members/m2/remove")
            assert "it is the last voter beside m1" in answer.json()["message"]
            assert one.store.settings("c").version == 0
            await one.set(when_alone="serve")
            async with asyncio.timeout(10):
                while not (await one.post("members/m2/remove")).json()["removed"]:
                    await asyncio.sleep(0.01)
            await until(one.leader, lambda status: len(status.members) == 1)

    scenario(run)


async def lost(one: Managed, name: str) -> None:
    """Its host is destroyed, and its vote is gone."""
    host = one.world.hosts[name]
    host.crash()
    host.agent_up = False
    led = one.leader
    await until(led, lambda _: led.record is not None and not led.record.names(name))


def test_a_host_that_is_destroyed_is_forgotten_and_one_that_lives_is_not(path: Path) -> None:
    clock = LaterClock()

    async def run() -> None:
        async with managed(path, clock=clock) as one:
            gone = {"destroyed": True}
            answer = await one.post("members/m3/remove", gone)
            assert answer.status_code == 409
            assert "its agent answers: remove m3 without --destroyed" in answer.json()["message"]
            answer = await one.post("members/m1/remove", gone)
            assert "first holdfast failover --accept-loss c" in answer.json()["message"]
            await lost(one, "m3")
            record = one.leader.record
            assert record
            stray = Stray(
                "m3", "3.9", "m2"
            )  # a run that followed another primary, and got no later order
            async with one.leader.deciding:
                await one.leader.save(replace(record, strays=record.strays | {stray}), "a stray")
            answer = await one.post("members/m3/remove")
            assert answer.json()["removed"] is False
            assert "holdfast member remove m3 --destroyed" in answer.json()["waiting"]
            answer = await one.post("members/m3/remove", gone)
            assert "ask again in" in answer.text
            clock.skip(SILENT_SECONDS)
            async with asyncio.timeout(10):
                while (
                    not (answer := await one.post("members/m3/remove", gone)).json().get("removed")
                ):
                    assert answer.status_code == 200 or "ask again in" in answer.text, answer.text
                    await asyncio.sleep(0.05)
            assert "if the host of m3 returns" in answer.json()["notes"][0]
            assert one.leader.record
            assert not one.leader.record.strays
            assert "repl_m3" in one.world.hosts["m1"].barred, (
                "should it come back, nobody lets it in"
            )
            status = await until(one.leader, lambda status: status.whole)
            assert [member.name for member in status.members] == ["m1", "m2"]
            told = [event.text for event in await one.leader.events.since(0, 0)]
            assert (
                "m3 is no longer a member, its host is destroyed, by a client with the token"
                in "".join(told)
            )

    scenario(run)


def test_the_last_voter_that_is_destroyed_is_not_removed_before_the_primary_may_serve_alone(
    path: Path,
) -> None:
    clock = LaterClock()

    async def run() -> None:
        async with managed(path, 2, clock=clock) as one:
            one.world.hosts["m2"].crash()
            one.world.hosts["m2"].agent_up = False
            await asyncio.sleep(0.3)
            clock.skip(SILENT_SECONDS)
            answer = await one.post("members/m2/remove", {"destroyed": True})
            assert "holdfast config set when_alone serve" in answer.json()["message"]
            await one.set(when_alone="serve")
            await until(one.leader, lambda status: status.writable and status.acks == 0)
            async with asyncio.timeout(10):
                while (
                    not (answer := await one.post("members/m2/remove", {"destroyed": True}))
                    .json()
                    .get("removed")
                ):
                    await asyncio.sleep(0.05)
            await until(one.leader, lambda status: status.whole and len(status.members) == 1)

    scenario(run)


def test_an_address_at_which_somebody_listens_is_no_destroyed_host(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LaterClock()

    async def run() -> None:
        async with managed(path, clock=clock) as one:
            await lost(one, "m3")
            clock.skip(SILENT_SECONDS)

            async def connects(host: str, port: int, _: Clock) -> bool:
                assert (host, port) == ("m3", 3306)
                return True

            monkeypatch.setattr("holdfast.manager.people.members._connects", connects)
            answer = await one.post("members/m3/remove", {"destroyed": True})
            assert "something takes connections at m3:3306" in answer.json()["message"]

    scenario(run)


def test_a_new_member_is_asked_who_it_is_before_it_is_one(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            new = {"name": "m4", "agent": "http://m4"}
            assert (await one.post("members", new)).status_code == 503  # no agent answers
            one.world.hosts["m4"] = Host("m4", 4, Flavor.MARIADB)
            answer = await one.post("members", {"name": "m5", "agent": "http://m5"})
            assert answer.status_code == 503
            answer = await one.post("members", {**new, "host": "m1"})
            assert answer.status_code == 409
            assert "it runs mariadb, the cluster mysql" in answer.json()["message"]
            assert "m1 has the address m1:3306 already" in answer.json()["message"]
            assert (await one.post("members", {"name": "m1", "agent": "x"})).status_code == 400
            answer = await one.post("members", {"name": "m1", "agent": "http://m1"})
            assert (answer.status_code, "already" in answer.text) == (409, True)
            assert one.store.settings("c").version == 0
            one.world.hosts["m4"] = Host("m4", 4, Flavor.MYSQL)
            assert (await one.post("members", new)).status_code == 200
            await until(one.leader, lambda status: status.whole and len(status.members) == 4)

    scenario(run)


def test_none_is_made_one_while_commits_wait(path: Path) -> None:
    """Its account is made on the primary, which lets no voter in before that is acknowledged."""

    async def run() -> None:
        async with managed(path) as one:
            hosts = one.world.hosts
            hosts["m4"] = Host("m4", 4, Flavor.MYSQL)
            hosts["m2"].frozen = hosts["m3"].frozen = True
            await until(one.leader, lambda status: not status.whole)
            answer = await one.post("members", {"name": "m4", "agent": "http://m4"})
            assert answer.status_code == 409
            assert "made on m1, where no commit comes through" in answer.text
            assert one.asked_of("m1", EnsureAccount) == 0
            assert one.store.settings("c").version == 0
            hosts["m2"].frozen = hosts["m3"].frozen = False
            await until(one.leader, lambda status: status.whole)
            answer = await one.post("members", {"name": "m4", "agent": "http://m4"})
            assert answer.status_code == 200, answer.text

    scenario(run)


def test_there_are_seven_members_at_most(path: Path) -> None:
    async def run() -> None:
        async with managed(path, 7) as one:
            one.world.hosts["m8"] = Host("m8", 8, Flavor.MYSQL)
            answer = await one.post("members", {"name": "m8", "agent": "http://m8"})
            assert "c has 7 members, and no more can be" in answer.json()["message"]

    scenario(run)


def test_a_replica_is_restarted_and_a_needed_one_only_when_writes_may_wait(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            assert (await one.post("members/m9/restart")).status_code == 404
            before = one.world.hosts["m3"].incarnation
            answer = await one.post("members/m3/restart")
            assert answer.json() == {"done": "m3 was restarted"}
            assert one.asked_of("m3", Restart) == 1
            await until(one.leader, lambda status: status.whole)
            assert one.world.hosts["m3"].incarnation != before
            one.world.hosts["m3"].agent_up = False
            one.world.hosts["m3"].crash()
            await until(one.leader, lambda status: not status.whole)
            answer = await one.post("members/m2/restart")
            assert answer.status_code == 409
            assert "m1 acknowledges no writes while m2 restarts: add --yes" in answer.text
            assert one.asked_of("m2", Restart) == 0
            answer = await one.post("members/m2/restart", {"waiting": True})
            assert answer.status_code == 200

    scenario(run)


def test_the_primary_is_restarted_in_place_when_told_that_writes_wait(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            before = one.world.hosts["m1"].incarnation
            answer = await one.post("members/m1/restart")
            assert answer.status_code == 409
            assert "m1 is the primary, and no writes are taken" in answer.text
            answer = await one.post("members/m1/restart", {"waiting": True})
            assert answer.status_code == 200, answer.text
            status = await until(one.leader, lambda status: status.whole)
            assert status.primary == "m1"
            assert one.world.hosts["m1"].incarnation != before

    scenario(run)


def test_a_replica_is_cloned_but_not_the_primary_nor_the_last_voter(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            assert "m1 is the primary" in (await one.post("members/m1/clone")).text
            answer = await one.post("members/m3/clone", {"donor": "m3"})
            assert "m3 cannot be its own donor" in answer.text
            answer = await one.post("members/m3/clone", {"donor": "m9"})
            assert "m9 cannot be the donor: there is no such member" in answer.text
            answer = await one.post("members/m3/clone", {"donor": "m1"})
            assert answer.json() == {"done": "m3 is being cloned"}
            clones = [what for _, what in one.asked if isinstance(what, Clone)]
            assert [(each.donor, each.discard) for each in clones] == [("m1", False)]
        async with managed(path.with_name("two"), 2) as two:
            answer = await two.post("members/m2/clone")
            assert (answer.status_code, "it is the last voter" in answer.text) == (409, False)
            assert "m2 is the last voter beside m1" in answer.text

    scenario(run)


def test_what_is_refused_by_an_agent_is_answered_as_refused(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            one.world.hosts["m3"].term = 1000
            answer = await one.post("members/m3/restart")
            assert (answer.status_code, answer.json()["error"]) == (409, "Refused")

    scenario(run)


def test_a_request_that_changes_something_is_json(path: Path) -> None:
    async def run() -> None:
        async with managed(path) as one:
            for where in ("settings", "members", "members/m3/remove", "members/m3/restart"):
                path_ = f"/v1/clusters/c/{where}"
                answer = await one.http.post(path_, content=b"", headers=JSON)
                assert answer.status_code == 400, where
            answer = await one.http.post(
                "/v1/clusters/c/members/m3/restart",
                content=b"{}",
                headers={"Content-Type": "text/plain"},
            )
            assert answer.status_code == 403

    scenario(run)


def test_what_is_stored_of_changes_comes_back_as_it_was() -> None:
    world = World(random.Random(1), 3, Flavor.MYSQL)
    given = Given("c", world.cluster.members[:2])
    third = world.cluster.members[2]
    changed = Changed({"mode": "async", "members.m3.max_lag": None})
    changed = changed.with_member(given, third).without_member(given, "m1")
    assert Changed.parsed(changed.document()) == changed
    assert changed.removed == {"m1"}
    again = changed.with_member(given, given.members[0]).without_member(given, "m3")
    assert again == Changed({"mode": "async"})
