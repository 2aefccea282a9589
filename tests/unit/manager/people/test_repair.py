"""A manager over a store that was restored from a backup, lost, or is another one; agents and servers are in memory."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from holdfast.core.commands import Command
from holdfast.core.gtid import Flavor
from holdfast.core.record import Record
from holdfast.manager.api.app import make_app
from holdfast.manager.api.repair import add_repair
from holdfast.manager.leader.desired import Given
from holdfast.manager.leader.lead import Leader
from holdfast.store.sqlite import SqliteStore
from tests.model.world import World
from tests.unit.memory_agent import MemoryAgent, managing, until
from tests.unit.served import BEARER, TOKEN


class Managers:
    """Managers, one after the other or at once, over one world."""

    def __init__(self, folder: Path, members: int = 3) -> None:
        self.world = World(random.Random(3), members, Flavor.MARIADB)
        self.settings: dict[str, Any] = {}
        self.members: tuple[str, ...] = ()
        self.path = folder / "store.db"
        self.asked: list[tuple[str, Command]] = []
        self.names: dict[str, str] = {}

    @asynccontextmanager
    async def managing(self, path: Path | None = None) -> AsyncIterator[Managed]:
        def connect(member: Any) -> Any:
            return MemoryAgent(self.world, self.names.get(member.name, member.name), self.asked)

        with contextlib.closing(SqliteStore(path or self.path)) as store:
            members = tuple(
                each
                for each in self.world.cluster.members
                if each.name in self.members or not self.members
            )
            given = Given("c", members, self.settings)
            leader = Leader(given, connect, store)
            app = make_app({"c": leader}, TOKEN)
            add_repair(app, {"c": leader})
            async with managing(leader), client(app) as http:
                yield Managed(leader, http, store)

    def stored(self) -> str:
        """The record by itself, as it is now."""
        with contextlib.closing(sqlite3.connect(self.path)) as raw:
            return str(raw.execute("select body from record").fetchone()[0])

    def store_back(self, record: str) -> None:
        """Replace the present record by that one; the settings stay."""
        with contextlib.closing(sqlite3.connect(self.path)) as raw:
            raw.execute("update record set body = ?, version = version + 1", (record,))
            raw.commit()

    def copy(self) -> Path:
        """A backup of the store, as it is now."""
        backup = self.path.with_name("backup.db")
        with (
            contextlib.closing(sqlite3.connect(self.path)) as source,
            contextlib.closing(sqlite3.connect(backup)) as target,
        ):
            source.backup(target)
        return backup

    def put_back(self, backup: Path | None, everything: bool = True) -> None:
        """While no manager runs. None: the store is lost.

        :param everything: with the files beside it, as when the whole host is restored
        """
        for path in self.path.parent.glob(f"{self.path.name}*"):
            if everything or not path.name.endswith(".written"):
                path.unlink()
        if backup:
            shutil.copy(backup, self.path)


class Managed:
    def __init__(self, leader: Leader, http: httpx.AsyncClient, store: SqliteStore) -> None:
        self.leader = leader
        self.http = http
        self.store = store

    async def repair(self, **asked: Any) -> httpx.Response:
        return await self.http.post("/v1/clusters/c/store/repair", json=asked)

    async def confirm(self, member: str) -> httpx.Response:
        return await self.http.post(f"/v1/clusters/c/members/{member}/confirm", json={})

    async def whole(self, **expected: Any) -> None:
        status = await until(self.leader, lambda s: s.whole)
        assert {key: getattr(status, key) for key in expected} == expected

    async def recorded(self, reached: Callable[[Record], bool]) -> Record:
        await until(self.leader, lambda _: bool(self.leader.record and reached(self.leader.record)))
        assert self.leader.record
        return self.leader.record

    async def begun(self) -> None:
        """It has asked all agents, and leads in a term of its own."""
        await until(self.leader, lambda s: not s.reason.startswith(("asking", "this manager")))

    async def refuses(self) -> str:
        return (await until(self.leader, lambda s: "holdfast store repair c" in s.reason)).reason


@asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://manager", headers=BEARER
    ) as http:
        yield http


@pytest.fixture
def managers(tmp_path: Path) -> Managers:
    return Managers(tmp_path)


async def one_failover(managers: Managers) -> Path:
    """Returns the store as it was before it; in the end no manager runs."""
    async with managers.managing() as one:
        await one.whole(primary="m1")
        backup = managers.copy()
        managers.world.hosts["m1"].crash()
        await until(one.leader, lambda s: s.whole and s.primary != "m1")
    return backup


def test_a_store_that_was_put_back_decides_nothing_until_it_is_repaired(managers: Managers) -> None:
    async def scenario() -> None:
        backup = await one_failover(managers)
        managers.put_back(backup)
        stood = SqliteStore(managers.path).load("c")
        primary = next(h.name for h in managers.world.hosts.values() if h.writable)
        managers.asked.clear()
        async with managers.managing() as two:
            reason = await two.refuses()
            assert "obeyed a later record than the store has" in reason
            await asyncio.sleep(0.6)
            assert managers.asked == [], "no agent was asked for anything"
            told = [each.text for each in await two.leader.events.since(0, 0)]
            assert told == [reason], "once"
            assert two.store.load("c") == stood, "however often it is tried, no term is used up"
            refused = await two.http.post("/v1/clusters/c/pause", json={"reason": "x"})
            assert refused.status_code == 409
            looked = (await two.repair(dry_run=True)).json()
            assert (looked["primary"], looked["doubts"], looked["done"]) == (primary, [], False)
            assert two.store.load("c") == stood
            done = (await two.repair()).json()
            assert (done["primary"], done["done"]) == (primary, True)
            assert done["term"] == looked["term"] == two.leader.status().term
            await two.whole(primary=primary)
            again = await two.repair()
            assert again.status_code == 409
            assert "there is nothing to repair" in again.json()["message"]
            looked = (await two.repair(dry_run=True)).json()
            assert "there is nothing to repair" in looked["needless"]
            assert not looked["done"]
        async with managers.managing() as three:
            await three.whole(primary=primary)
            assert managers.world.hosts[primary].run == 1, "its server was left alone"

    asyncio.run(scenario())


def test_where_only_a_primary_that_is_gone_knew_better_an_operator_is_asked(
    tmp_path: Path,
) -> None:
    """It continued alone, and no other agent learned of it: none can say that the store is too old."""
    managers = Managers(tmp_path, members=2)
    managers.settings = {"when_alone": "serve"}

    async def scenario() -> None:
        m1, m2 = managers.world.hosts.values()
        async with managers.managing() as one:
            await one.whole(primary="m1")
            backup = managers.copy()
            m2.agent_up = False
            await one.recorded(lambda record: record.target.acks == 0 and not record.joint)
            await until(one.leader, lambda s: s.writable)
        m1.crash()
        m1.agent_up = False
        m2.agent_up = True
        managers.put_back(backup, everything=False)
        async with managers.managing() as two:
            assert "it was restored from a backup" in await two.refuses()
            refused = (await two.repair()).json()["message"]
            assert "m1 may remember a later record" in refused
            assert "may have acknowledged writes by that one which no other member has" in refused
            assert (await two.repair(accept_loss="c")).json()["done"]
            await two.recorded(lambda record: record.forsaken == {"m1"})
        async with managers.managing() as three:
            await three.recorded(lambda record: len(record.lineage) == 2)

    asyncio.run(scenario())


def test_a_running_manager_notices_that_its_store_was_put_back(managers: Managers) -> None:
    async def scenario() -> None:
        async with managers.managing() as one:
            await one.recorded(lambda record: len(record.identities) == 3)
            await one.whole(primary="m1")
            stood = one.store.load("c")
            with contextlib.closing(sqlite3.connect(managers.path)) as raw:
                raw.execute("update record set version = version - 1")
                raw.commit()
            # its next write is refused, and no agent contradicts what it reads then
            managers.world.hosts["m2"].crash()
            reason = await until(
                one.leader, lambda s: "was written: it was restored from a backup" in s.reason
            )
            assert f"version {stood.version - 1} of the record" in reason.reason

    asyncio.run(scenario())


def test_a_record_that_is_older_than_the_settings_is_repaired_though_its_primary_is_no_member_now(
    managers: Managers,
) -> None:
    """The primary was replaced and removed since; the store's settings say so, and its record does not."""

    async def scenario() -> None:
        async with managers.managing() as one:
            await one.whole(primary="m1")
        older = managers.stored()
        async with managers.managing() as one:
            await one.whole()
            managers.world.hosts["m1"].crash()
            await one.recorded(lambda record: record.primary != "m1" and not record.transition)
            await one.whole()
            while not (await one.http.post("/v1/clusters/c/members/m1/remove", json={})).json()[
                "removed"
            ]:
                await asyncio.sleep(0.05)
            await one.whole()
            primary = one.leader.record
            assert primary
            left = [managers.world.hosts[name] for name in ("m2", "m3")]
            while not all(host.mark.settings == one.leader.configured.version for host in left):
                await asyncio.sleep(0.01)
        managers.store_back(older)
        async with managers.managing() as two:
            assert "obeyed a later record" in await two.refuses()
            told = two.leader.status()
            assert (told.primary, told.whole) == (None, False)
            for where, what in (
                ("members/m3/remove", {}),
                ("members", {"name": "m1", "agent": "http://m1"}),
                ("settings", {"set": {"members.m3.priority": 7}}),
            ):  # the repair would undo it
                refused = await two.http.post(f"/v1/clusters/c/{where}", json=what)
                assert (refused.status_code, refused.json()["error"]) == (409, "Refused")
                assert "obeyed a later record" in refused.text
            done = (await two.repair()).json()
            assert done.get("primary") == primary.primary, done
            await two.whole(primary=primary.primary)
            assert [each.name for each in two.leader.cluster.members] == ["m2", "m3"]

    asyncio.run(scenario())


def test_a_configuration_without_the_primary_says_so(managers: Managers) -> None:
    async def scenario() -> None:
        async with managers.managing() as one:
            await one.whole(primary="m1")
        managers.members = ("m2", "m3")
        async with managers.managing() as two:
            assert (
                "m1 is the primary of c, and the configuration has no such" in await two.refuses()
            )
        managers.members = ()
        async with managers.managing() as three:
            await three.whole(primary="m1")

    asyncio.run(scenario())


def test_a_lost_store_is_rebuilt_with_the_settings_that_it_held(managers: Managers) -> None:
    async def scenario() -> None:
        async with managers.managing() as one:
            await one.whole(primary="m1")
            change = {"set": {"members.m3.priority": 7}}
            await one.http.post("/v1/clusters/c/settings", json=change)
            version = one.leader.configured.version
            hosts = managers.world.hosts.values()
            while not all(host.mark.settings == version for host in hosts):
                await asyncio.sleep(0.01)
        managers.put_back(None)
        managers.asked.clear()
        async with managers.managing() as two:
            assert "the store has no record of c" in await two.refuses()
            assert managers.asked == []
            refused = await two.http.post("/v1/clusters/c/settings", json=change)
            assert (refused.status_code, "the store has no record" in refused.text) == (
                409,
                True,
            ), refused.text
            assert (await two.repair()).json()["primary"] == "m1"
            await two.whole(primary="m1")
            assert two.leader.cluster.setting("m3").priority == 7

    asyncio.run(scenario())


def test_where_a_member_is_missing_only_an_operator_takes_the_risk(managers: Managers) -> None:
    async def scenario() -> None:
        backup = await one_failover(managers)
        primary = next(h.name for h in managers.world.hosts.values() if h.writable)
        managers.put_back(backup)
        missing = managers.world.hosts["m1"]
        missing.agent_up = False
        async with managers.managing() as two:
            await two.refuses()
            refused = await two.repair()
            assert refused.status_code == 409
            assert "m1 may remember a later record" in refused.json()["message"]
            assert "--accept-loss c" in refused.json()["message"]
            assert (await two.repair(accept_loss="d")).status_code == 400
            done = (await two.repair(accept_loss="c")).json()
            assert done["doubts"]
            assert done["primary"] == primary
            await until(two.leader, lambda s: s.writable and s.primary == primary)
            # its memory does not count; it obeys again, whatever it has promised meanwhile
            missing.term, missing.leader = 40, "elsewhere"
            missing.agent_up = True
            record = await two.recorded(lambda record: not record.forsaken)
            assert record.term > 40
            await two.whole(primary=primary)

    asyncio.run(scenario())


def test_two_managers_with_stores_of_their_own_do_not_both_command(
    managers: Managers, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with managers.managing() as one:
            await one.whole(primary="m1")
            other = tmp_path / "other.db"
            shutil.copy(managers.copy(), other)
            async with managers.managing(other) as two:
                # the second takes a higher term than the first, which then sees that agents obey another
                first = asyncio.create_task(one.refuses())
                second = asyncio.create_task(two.refuses())
                done, waiting = await asyncio.wait(
                    (first, second), return_when=asyncio.FIRST_COMPLETED
                )
                for each in waiting:
                    each.cancel()
                assert "another manager" in done.pop().result()
                await asyncio.sleep(0.3)
                refusing = [each for each in (one, two) if not each.leader.status().whole]
                assert refusing
                assert sum(h.writable for h in managers.world.hosts.values()) == 1

    asyncio.run(scenario())


def test_a_copy_of_a_member_is_kept_out_and_named(managers: Managers) -> None:
    async def scenario() -> None:
        async with managers.managing() as one:
            await one.recorded(lambda record: len(record.identities) == 3)
        hosts = managers.world.hosts
        kept, hosts["m3"].identity = hosts["m3"].identity, hosts["m2"].identity
        async with managers.managing() as two:
            why = "the agents of m3 and m2 have the same identity"
            await until(two.leader, lambda s: s.writable and why in s.members[2].reason)
            await two.begun()
            assert "the same identity" in (await two.confirm("m3")).json()["message"]
            hosts["m3"].identity = kept
            await two.whole(primary="m1")

    asyncio.run(scenario())


def test_a_host_that_was_installed_anew_comes_back_by_itself(managers: Managers) -> None:
    async def scenario() -> None:
        async with managers.managing() as one:
            await one.recorded(lambda record: len(record.identities) == 3)
            m3 = managers.world.hosts["m3"]
            m3.crash()
            m3.identity, m3.term, m3.leader = "new", 0, ""
            m3.mark, m3.record = type(m3.mark)(), ""
            await one.recorded(lambda record: ("m3", "new") in record.identities)
            await one.whole(primary="m1")

    asyncio.run(scenario())


def test_another_agent_with_a_past_waits_for_an_operator(managers: Managers) -> None:
    async def scenario() -> None:
        async with managers.managing() as one:
            await one.recorded(lambda record: len(record.identities) == 3)
            m3 = managers.world.hosts["m3"]
            m3.identity, m3.term, m3.leader = "restored", m3.term + 5, "elsewhere"
            status = await until(one.leader, lambda s: "confirm m3" in s.members[2].reason)
            assert status.members[2].state == "unknown"
            assert (await one.confirm("m9")).status_code == 404
            assert (await one.confirm("m3")).status_code == 200
            await one.whole(primary="m1")

    asyncio.run(scenario())


def test_a_manager_that_knows_new_agents_at_once_keeps_the_term_that_it_began(
    managers: Managers,
) -> None:
    """The identities of members are saved by the first decision, right after the term was begun."""

    async def scenario() -> None:
        async with managers.managing() as one:
            await one.recorded(lambda record: len(record.identities) == 3)
            before = one.leader.record
        assert before
        for host in managers.world.hosts.values():
            host.identity, host.term, host.leader = f"anew-{host.name}", 0, ""
        async with managers.managing() as two:
            anew = {(name, f"anew-{name}") for name in managers.world.hosts}
            after = await two.recorded(lambda record: record.identities == anew)
            assert after.term > before.term

    asyncio.run(scenario())
