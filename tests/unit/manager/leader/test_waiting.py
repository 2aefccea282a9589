"""An order that waits is bound to its client, is shown, and can be cancelled by others; one waits at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from holdfast.core.change.preflight import SwitchoverOrder
from holdfast.errors import Refused
from holdfast.http.serving import HttpServer, listening
from holdfast.manager.api.app import make_app
from holdfast.manager.api.switchover import add_switchover
from holdfast.manager.people.scheduled import Planner
from holdfast.manager.people.switchover import Switching
from tests.unit.manager.people.test_members import Managed, managed
from tests.unit.manager.people.test_switchover import HELD, Hosts
from tests.unit.served import BEARER, TOKEN


async def until(is_so: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@asynccontextmanager
async def held(path: Path) -> AsyncIterator[tuple[Managed, Hosts, Planner]]:
    """A cluster whose primary has a long transaction, until the test says otherwise."""
    async with managed(path) as it:
        hosts = Hosts(it.leader)
        hosts.blocking = [(HELD,)]
        planner = Planner(it.leader)
        yield it, hosts, planner
        await planner.close()


@asynccontextmanager
async def listened(it: Managed, planner: Planner) -> AsyncIterator[str]:
    """The URL of its manager's API behind a real listener, in this event loop."""
    app = make_app({"c": it.leader}, TOKEN)
    add_switchover(app, {"c": planner})
    http = HttpServer(app)
    with listening("127.0.0.1:0") as listener:
        serving = asyncio.create_task(http.serve(sockets=[listener.dup()]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/clusters/c/switchover"
        finally:
            http.should_exit = True
            await serving


def events(it: Managed) -> list[str]:
    return [each.text for each in it.leader.events._events]


def test_what_waits_is_shown_and_ends_with_its_client(tmp_path: Path) -> None:
    async def run() -> None:
        async with held(tmp_path / "store") as (it, hosts, planner):
            term = it.leader.status().term
            async with listened(it, planner) as url, httpx.AsyncClient(headers=BEARER) as client:
                asking = asyncio.create_task(
                    client.post(url, json={"to": "m2", "wait": True, "kill_after": 600.0})
                )
                await until(lambda: it.leader.waiting)
                status = it.leader.status()
                assert status.under_way == "waiting"
                assert status.waiting == (
                    "the switchover to m2 that was ordered by a client with the token at 127.0.0.1 waits, 30 s at most "
                    f"(after 600 s it ends the connections that hold it up): {HELD.text('on m1')}"
                )
                asking.cancel()  # the client is interrupted: its connection is closed
                await until(lambda: it.leader.waiting is None)
                hosts.blocking = [()]
                await asyncio.sleep(0.5)
                status = it.leader.status()
                assert (status.under_way, status.waiting, status.term) == ("", "", term)
                assert status.primary == "m1"
                assert any(
                    "is called off before it began: its client disconnected" in e
                    for e in events(it)
                )

    asyncio.run(run())


def test_what_waits_begins_when_nothing_stands_against_it_any_more(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            held(tmp_path / "store") as (it, hosts, planner),
            listened(it, planner) as url,
            httpx.AsyncClient(headers=BEARER) as client,
        ):
            asking = asyncio.create_task(client.post(url, json={"to": "m2", "wait": True}))
            await until(lambda: it.leader.waiting)
            hosts.blocking = [()]
            assert (await asking).json()["to"] == "m2"
            assert it.leader.status().under_way == "switchover"

    asyncio.run(run())


def test_others_can_call_off_what_waits(tmp_path: Path) -> None:
    async def run() -> None:
        async with (
            held(tmp_path / "store") as (it, hosts, planner),
            listened(it, planner) as url,
            httpx.AsyncClient(headers=BEARER) as client,
        ):
            asking = asyncio.create_task(client.post(url, json={"wait": True}))
            await until(lambda: it.leader.waiting)
            done = (await client.delete(url)).json()["done"]
            assert done.endswith("is called off before it began")
            answer = await asking
            assert (answer.status_code, answer.json()["error"]) == (409, "Refused")
            assert "called off by a client with the token at 127.0.0.1" in answer.json()["message"]
            hosts.blocking = [()]
            answer = await client.delete(url)
            assert answer.json()["message"] == "no switchover waits, is under way, or is planned"

    asyncio.run(run())


def test_when_time_is_over_before_anything_began_it_is_refused_and_nothing_was_touched(
    tmp_path: Path,
) -> None:
    """Not an unknown outcome: the command ends with 1, not 3."""

    async def run() -> None:
        async with held(tmp_path / "store") as (it, _, _planner):
            with pytest.raises(
                Refused, match=r"not begun within 0\.1 s, and nothing was touched: "
            ):
                await Switching(it.leader).begin(SwitchoverOrder("m2", seconds=0.1, wait=True))
            assert it.leader.status().waiting == ""

    asyncio.run(run())


def test_whose_connections_were_ended_for_it_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with held(tmp_path / "store") as (it, _, _planner):
            order = SwitchoverOrder("m2", seconds=0.5, wait=True, kill_after=0.0)
            with pytest.raises(Refused, match=r"not begun within .* ended for it: .*connection 17"):
                await Switching(it.leader).begin(order)
            assert any(each.startswith("ended for the switchover to m2") for each in events(it))

    asyncio.run(run())


def test_one_order_waits_at_a_time_and_none_overtakes_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with held(tmp_path / "store") as (it, _, planner):
            first = asyncio.create_task(
                Switching(it.leader).begin(SwitchoverOrder("m2", wait=True))
            )
            await until(lambda: it.leader.waiting)
            with pytest.raises(Refused, match=r"the switchover to m2 .* waits.*--cancel"):
                await Switching(it.leader).begin(SwitchoverOrder("m3", wait=True))
            with pytest.raises(Refused, match=r"the switchover to m2 .* waits.*--cancel"):
                await Switching(it.leader).begin(SwitchoverOrder("m3"))
            assert it.leader.waiting is not None
            assert it.leader.waiting.order.to == "m2"
            await planner.cancel()
            with pytest.raises(Refused, match="called off by an operator"):
                await first

    asyncio.run(run())


def test_a_detached_one_stays_ordered_when_its_client_leaves(tmp_path: Path) -> None:
    async def run() -> None:
        async with held(tmp_path / "store") as (it, hosts, planner):
            async with listened(it, planner) as url, httpx.AsyncClient(headers=BEARER) as client:
                order = {"to": "m2", "wait": True, "detach": True}
                done = (await client.post(url, json=order)).json()["done"]
            assert "the switchover to m2 that was ordered by a client with the token" in done
            assert it.leader.status().under_way == "waiting"
            hosts.blocking = [()]
            await until(lambda: it.leader.status().under_way == "switchover")

    asyncio.run(run())


def test_a_detached_one_that_cannot_begin_is_refused_at_once_or_told_in_the_events(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with held(tmp_path / "store") as (it, _, planner):
            with pytest.raises(Refused, match="connection 17"):
                await planner.detach(SwitchoverOrder("m2"))
            await planner.detach(SwitchoverOrder("m2", seconds=1.2, wait=True))
            assert it.leader.waiting
            await until(lambda: any("did not begin: not begun within" in e for e in events(it)))

    asyncio.run(run())


def test_one_that_is_under_way_is_undone_until_its_commit_point(tmp_path: Path) -> None:
    async def run() -> None:
        async with held(tmp_path / "store") as (it, hosts, planner):
            hosts.blocking = [()]
            with pytest.raises(Refused, match="no switchover waits"):
                await planner.cancel(only_waiting=True)
            await Switching(it.leader).begin(SwitchoverOrder("m2"))
            text = await planner.cancel()
            assert (
                text
                == "the switchover to m2 is undone: an operator called it off; m1 stays primary"
            )
            record = it.leader.record
            assert record is not None
            assert (record.primary, record.transition) == ("m1", None)

    asyncio.run(run())


def test_a_second_plan_is_refused_and_replaces_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with held(tmp_path / "store") as (it, _, planner):
            at = time.time() + 3600
            await planner.plan(SwitchoverOrder("m2"), at)
            with pytest.raises(Refused, match=r"to m2 for later .* is planned already.*--cancel"):
                await planner.plan(SwitchoverOrder("m3"), at + 3600)
            assert it.leader.status().planned == (at, "m2")
            await planner.cancel()
            await planner.plan(SwitchoverOrder("m3"), at)
            assert it.leader.status().planned == (at, "m3")

    asyncio.run(run())


def test_a_plan_that_cannot_begin_is_told_and_one_for_the_primary_is_refused(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with held(tmp_path / "store") as (it, _, planner):
            with pytest.raises(Refused, match="m1 is the primary already"):
                await planner.plan(SwitchoverOrder("m1"), time.time() + 3600)
            await planner.plan(SwitchoverOrder("m2"), time.time() + 0.1)
            await asyncio.sleep(0.15)
            planner.looked(it.leader.cluster, it.leader.record, it.leader.view())
            await until(
                lambda: any(
                    "to m2 for later did not begin: " in e and "connection 17" in e
                    for e in events(it)
                )
            )
            assert it.leader.status().planned is None

    asyncio.run(run())
