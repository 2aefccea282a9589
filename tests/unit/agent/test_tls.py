"""An agent that speaks TLS: a manager commands it, another agent asks it, and what that costs."""

from __future__ import annotations

import asyncio
import queue
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvloop
from fastapi import FastAPI, Request

from holdfast.agent.clone.fetch import DonorAgent
from holdfast.agent.lease.keeper_process import Begin, shown
from holdfast.agent.lease.peers import Answer, Peers
from holdfast.config.schema import TlsConfig
from holdfast.core.answers.access import AccessRole
from holdfast.core.commands import Promise, Start
from holdfast.errors import Unreachable
from holdfast.http.wire import VouchRequest
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.server.base import Deadline
from holdfast.tls import Credentials, contexts
from tests.unit.agent_world import TOKEN as PLAIN
from tests.unit.agent_world import World
from tests.unit.served import Authority, served

TOKEN = "s3cret"
PROMISES = 60


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "plain"
    folder.mkdir()
    world = World(folder)
    yield world
    world.end()


@pytest.fixture
def world(tmp_path: Path, ca: Authority) -> Iterator[World]:
    """With certificate and token: both are needed."""
    folder = tmp_path / "host"
    folder.mkdir()
    world = World(folder, TOKEN)
    world.stop_agent()
    world.http.close()
    files = ca.files("m1", "127.0.0.1")
    tls = TlsConfig(ca=files.ca, cert=files.cert, key=files.key)
    world.config = world.config.model_copy(update={"tls": tls})
    world.http = httpx.Client(
        base_url=url(world), verify=contexts(ca.files("me"))[1], trust_env=False
    )
    world.start_agent()
    yield world
    world.end()


def url(world: World) -> str:
    return f"https://127.0.0.1:{world.port}"


def test_certificate_and_token_are_both_needed(world: World, ca: Authority) -> None:
    context = contexts(ca.files("manager-1"))[1]

    async def as_manager() -> None:
        agent = AgentClient("m1", url(world), Credentials(TOKEN, context))
        assert (await agent.state(None, 0)).state.name == "a"
        assert (await agent.command(1, Start())).error == ""
        await agent.close()
        for each, message in (
            (Credentials("wrong", context), "does not accept the token"),
            (Credentials(None, context), "wants a token, and the manager has none"),
            (Credentials(TOKEN), "was not signed by the CA that we trust"),
        ):
            agent = AgentClient("m1", url(world), each)
            with pytest.raises(Unreachable, match=message):
                await agent.command(2, Promise())
            await agent.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(as_manager())


def test_a_token_does_not_leave_in_clear_where_there_is_tls(ca: Authority) -> None:
    context = contexts(ca.files("manager-1"))[1]
    both, token = Credentials(TOKEN, context), Credentials(TOKEN)
    assert both.to("https://a:1").headers == {"Authorization": f"Bearer {TOKEN}"}
    assert both.to("http://a:1").headers == {}
    assert token.to("http://127.0.0.1:1").headers == {"Authorization": f"Bearer {TOKEN}"}
    assert TOKEN not in repr(both)


def test_an_agent_asks_another_with_its_own_certificate(world: World, ca: Authority) -> None:
    context = contexts(ca.files("m2"))[1]
    donor = DonorAgent("m1", url(world), Credentials(TOKEN, context))
    assert donor.state(Deadline(5)).name == "a"
    stranger = DonorAgent("m1", url(world), Credentials(TOKEN))
    with pytest.raises(Unreachable, match="was not signed by the CA that we trust"):
        stranger.state(Deadline(5))
    with pytest.raises(Unreachable, match="was not signed by"), stranger.backup():
        pass


def test_an_agent_is_vouched_for_over_tls_without_a_look_at_the_disk(ca: Authority) -> None:
    certificates = contexts(ca.files("m1", "127.0.0.1"))[0]
    peers = Peers(Credentials(TOKEN, contexts(ca.files("m2"))[1]))
    shutil.rmtree(ca.folder)
    vouched: queue.SimpleQueue[tuple[str, Answer]] = queue.SimpleQueue()
    app = FastAPI()

    @app.post("/v1/vouch")
    async def vouch(request: Request) -> dict[str, bool]:
        assert request.state.peer == "m2"
        return {"vouched": request.headers["authorization"] == f"Bearer {TOKEN}"}

    with served(app, certificates) as port:
        peers.start()
        try:
            asked = VouchRequest(member="m2", address="127.0.0.1:1", seconds=1)
            url = f"https://127.0.0.1:{port}"
            peers.ask({"m1": url}, asked, 2.0, lambda *answer: vouched.put(answer))
            assert vouched.get(timeout=5) == ("m1", Answer.VOUCHED)
        finally:
            peers.stop()


@pytest.mark.parametrize(
    ("role", "cluster", "believed"),
    [
        (AccessRole.AGENT, "c", True),
        (AccessRole.MANAGER, "c", False),
        (AccessRole.AGENT, "other", False),
    ],
)
def test_a_keeper_process_believes_agents_of_its_cluster_alone(
    ca: Authority, role: AccessRole, cluster: str, believed: bool
) -> None:
    voter = contexts(ca.files("m1", "127.0.0.1", roles=(role,), clusters=(cluster,)))[0]
    own = ca.files("m2", roles=(AccessRole.AGENT,), clusters=("c",))
    peers = Peers(shown(Begin("m2", "c", TOKEN, own)))
    answers: queue.SimpleQueue[tuple[str, Answer]] = queue.SimpleQueue()
    app = FastAPI()

    @app.post("/v1/vouch")
    async def vouch(request: Request) -> dict[str, bool]:
        return {"vouched": request.headers["authorization"] == f"Bearer {TOKEN}"}

    with served(app, voter) as port:
        peers.start()
        asked = VouchRequest(member="m2", address="127.0.0.1:1", seconds=1)
        url = f"https://127.0.0.1:{port}"
        peers.ask({"m1": url}, asked, 2.0, lambda *answer: answers.put(answer))
        if believed:
            assert answers.get(timeout=5) == ("m1", Answer.VOUCHED)
        else:
            with pytest.raises(queue.Empty):
                answers.get(timeout=0.5)
        peers.stop()


def test_an_agent_with_open_connections_stops_at_once(world: World) -> None:
    assert world.http.get("/v1/health").status_code == 200
    begun = time.monotonic()
    world.stop_agent()
    took = time.monotonic() - begun
    world.start_agent()
    assert took < 2.5, "it waits for the farewell of every client"


def test_what_tls_costs_a_promise(
    world: World, plain: World, ca: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    context = contexts(ca.files("manager-1"))[1]

    async def promises(address: str, shown: Credentials) -> list[float]:
        agent = AgentClient("m1", address, shown)
        took = []
        await agent.command(1, Start())
        for term in range(2, PROMISES + 2):
            begun = time.perf_counter()
            assert (await agent.command(term, Promise())).error == ""
            took.append((time.perf_counter() - begun) * 1000)
        await agent.close()
        return sorted(took)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bare = runner.run(promises(f"http://127.0.0.1:{plain.port}", Credentials(PLAIN)))
        wrapped = runner.run(promises(url(world), Credentials(TOKEN, context)))
    middle = PROMISES // 2
    with capsys.disabled():
        print(f"\npromise, median: {bare[middle]:.2f} ms plain, {wrapped[middle]:.2f} ms with TLS")
    assert wrapped[middle] < 200


def test_what_is_wrong_with_a_command_is_said_without_what_it_holds(world: World) -> None:
    for arguments in (
        {"user": "repl_m1", "authentication": ["*H4SH"]},
        {"user": 1, "authentication": "*H4SH"},
        {"user": "repl_m1", "authentication": "*H4SH", "extra": "*H4SH"},
    ):
        body = {"term": 1, "command": "ensure_account", "arguments": arguments}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = world.http.post("/v1/command", json=body, headers=headers)
        assert "H4SH" not in answer.text
        assert answer.status_code in (200, 400)
        assert answer.json()["error" if answer.status_code == 400 else "message"]
