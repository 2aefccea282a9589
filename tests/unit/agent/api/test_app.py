"""What a manager meets on the agent's port: tokens, errors, long polls."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from holdfast.core.commands import Drain, Fence, Promise, Promote, Start
from holdfast.core.view import LookFailure, ServerStatus
from holdfast.server.base import Crowded, Deadline, NotListening, Observation, SocketGone
from holdfast.server.connection.sql import LoginRefused, StatementRefused
from tests.unit.agent_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.end()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, token="s3cret")
    yield world
    world.end()


@pytest.mark.parametrize(
    "header", ["", "s3cret", "Bearer", "Bearer wrong", "bearer s3cret", "Bearer s3crett"]
)
def test_without_the_token_nobody_is_heard(guarded: World, header: str) -> None:
    for method, path in (("GET", "/v1/state"), ("POST", "/v1/command"), ("GET", "/v1/nothing")):
        headers = {"Authorization": header} if header else {}
        answer = guarded.http.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"] == "Unauthorized"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_with_the_token_one_is_heard(guarded: World) -> None:
    answer = guarded.http.get("/v1/state", headers={"Authorization": "Bearer s3cret"})
    assert answer.status_code == 200
    assert answer.json()["state"]["name"] == "a"


def test_health_says_nothing_that_needs_a_token(guarded: World) -> None:
    assert guarded.http.get("/v1/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("body", "about"),
    [
        (b"", "request"),
        (b"{", "request"),
        (b"[]", "request"),
        (b"\xff\xfe", "request"),
        (b'{"command": "promise"}', "term"),
        (b'{"term": -1, "command": "promise"}', "term"),
        (b'{"term": 99999999999999999999, "command": "promise"}', "term"),
        (b'{"term": 1, "command": "reboot"}', "reboot"),
        (b'{"term": 1, "command": "set_acks"}', "arguments"),
        (b'{"term": 1, "command": "set_acks", "arguments": {"acks": "many"}}', "acks"),
    ],
)
def test_a_bad_request_is_answered_in_one_line(world: World, body: bytes, about: str) -> None:
    answer = world.http.post("/v1/command", content=body)
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["error"] == "BadInput"
    assert about in problem["message"]
    assert "\n" not in problem["message"]
    assert world.state().state.term == 0


@pytest.mark.parametrize("query", ["since=x", "wait=-1", "wait=nan", "wait=inf", "wait=soon"])
def test_a_bad_query_is_answered_in_one_line(world: World, query: str) -> None:
    answer = world.http.get(f"/v1/state?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"] == "BadInput"


def test_unknown_paths_and_methods_are_told_in_json(world: World) -> None:
    assert world.http.get("/").json()["error"] == "Refused"
    assert world.http.get("/v1/command").status_code == 405


def test_a_request_larger_than_any_command_is_refused(world: World) -> None:
    answer = world.http.post("/v1/command", content=b" " * (17 * 1024 * 1024))
    assert answer.status_code == 413


def test_without_a_change_the_poll_ends_with_its_time(world: World) -> None:
    version = world.state().version
    begun = time.monotonic()
    assert world.state(since=version, wait=0.3).version == version
    assert 0.25 < time.monotonic() - begun < 8


def test_another_version_is_answered_at_once(world: World) -> None:
    version = world.state().version
    begun = time.monotonic()
    assert world.state(since=version - 1, wait=20).version == version
    assert world.state(wait=20).version == version
    assert time.monotonic() - begun < 8


def started(world: World) -> int:
    """Start the server; returns the version of the published state once it is up."""
    world.done(1, Start())
    world.until(lambda state: state.up)
    return world.state().version


def test_the_death_of_the_server_wakes_the_poll(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    took = []
    for _ in range(5):
        version = started(world)
        running = world.process()
        assert running is not None
        died: list[float] = []

        def kill(pid: int = running.pid, died: list[float] = died) -> None:
            died.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)

        timer = threading.Timer(0.1, kill)
        timer.start()
        reply = world.state(since=version, wait=20)
        took.append((time.monotonic() - died[0]) * 1000)
        timer.join()
        assert reply.state.server is ServerStatus.DOWN
        assert reply.state.incarnation == ""
        assert (reply.state.received, reply.state.applied) == ("", "")
        assert "killed by signal 9" in reply.state.reason
    with capsys.disabled():
        print(f"\ndeath to answered long poll: {', '.join(f'{ms:.1f}' for ms in took)} ms")
    assert min(took) < 500


def test_positions_and_lag_wake_nobody_but_are_told(world: World) -> None:
    version = started(world)
    world.server.now = changed(world, received="0-1-99")
    reply = world.until(lambda state: state.received == "0-1-99")
    assert world.state().version == version
    assert reply.applied == "0-1-10"


def test_what_a_command_alone_changes_wakes_nobody_else(world: World) -> None:
    """The command's own answer has it; each poll that is answered amid a failover takes a processor for
    milliseconds."""
    version = started(world)
    reply = world.done(4, Promise())
    assert (reply.state.term, reply.state.promised) == (4, 4)
    found = world.state(since=version - 1)
    assert (found.state.term, found.version) == (4, version)
    world.done(4, Promote(acks=0, serial=2))
    assert world.state().version > version
    assert world.state().state.proved == 2


def test_a_change_of_the_server_is_told(world: World) -> None:
    version = started(world)
    world.server.now = changed(world, writable=True)
    reply = world.state(since=version, wait=20)
    assert reply.state.writable
    assert reply.version > version


def test_a_server_that_does_not_answer_keeps_what_is_known_of_it(world: World) -> None:
    version = started(world)
    world.server.frozen = True
    state = world.state(since=version, wait=20).state
    assert state.server is ServerStatus.UP
    assert state.received == "0-1-10"
    assert state.why.startswith("no answer from the server for ")
    world.server.frozen = False
    world.until(lambda state: state.reason == "" and state.silent_seconds == 0)


def test_silence_is_told_in_short_steps_and_ends_with_an_answer(world: World) -> None:
    version = started(world)
    world.server.hangs = True
    begun = time.monotonic()
    told = [world.state(since=version, wait=20)]
    while told[-1].state.silent_seconds < 1.5:
        told.append(world.state(since=told[-1].version, wait=20))
    silent = [each.state.silent_seconds for each in told if each.state.silent_seconds]
    assert 0.3 <= silent[0] < 0.8
    assert {each // 0.25 for each in silent} >= {2, 3, 4, 5}, (
        "nobody may miss the moment at which it is too long"
    )
    assert time.monotonic() - begun < 3
    assert told[-1].state.up
    world.server.hangs = False
    world.until(lambda state: state.silent_seconds == 0)


def test_a_stopping_agent_answers_its_polls_and_leaves_the_server(world: World) -> None:
    version = started(world)
    running = world.process()
    assert running is not None
    timer = threading.Timer(0.2, world.stop_agent)
    timer.start()
    begun = time.monotonic()
    assert world.state(since=version, wait=20).version == version
    timer.join()
    assert time.monotonic() - begun < 8
    assert running.alive
    assert world.server.closed
    world.start_agent()


def test_a_restarted_agent_finds_server_and_promise(world: World) -> None:
    started(world)
    world.done(7, Promise())
    before = world.state()
    world.restart_agent()
    world.until(lambda state: state.up)
    after = world.state()
    assert after.state.incarnation == before.state.incarnation
    assert after.state.term == 7
    assert after.version != before.version
    assert world.command(6, Drain()).promised == 7


def test_the_time_of_a_promise(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    started(world)
    http, took, steps = world.http, [], {}
    for term in range(2, 52):
        body = json.dumps({"term": term, "command": "promise"})
        begun = time.monotonic()
        answer: Any = http.post("/v1/command", content=body).json()
        took.append((time.monotonic() - begun) * 1000)
        steps = answer["steps"]
    took.sort()
    with capsys.disabled():
        print(
            f"\npromise round trip: median {took[25]:.2f}, worst {took[-1]:.2f} ms, last: {steps}"
        )
    assert took[25] < 200


def test_a_fence_needs_no_server(world: World) -> None:
    assert world.done(1, Fence()).state.server is ServerStatus.DOWN


def changed(world: World, **fields: Any) -> Any:
    return replace(world.server.now, **fields)


def test_a_server_that_takes_no_more_connections_is_not_silent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(world)

    def refuse(deadline: Deadline) -> Observation:
        raise Crowded("sock: Too many connections")

    monkeypatch.setattr(world.server, "observe", refuse)
    world.until(lambda state: "takes no more connections" in state.reason)
    for _ in range(60):
        state = world.state().state
        assert state.up
        assert state.silent_seconds == 0
        time.sleep(0.02)
    assert state.received == "0-1-10", "what was known of it stays"
    assert state.unobserved_seconds >= 1, "and how old that is"
    monkeypatch.undo()
    world.until(lambda state: state.reason == "")
    assert not world.state().state.unobserved_seconds


DENIED = LoginRefused("logging in to sock as holdfast", 1045, "Access denied")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DENIED, "error 1045: Access denied"),
        (StatementRefused("SELECT 1", 1820, "You must SET PASSWORD"), "error 1820: "),
        (SocketGone("error 2002: its socket was removed"), "error 2002: "),
    ],
)
def test_a_server_that_does_not_let_its_agent_in_is_neither_silent_nor_starting(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    started(world)

    def refuse(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(world.server, "observe", refuse)
    monkeypatch.setattr(world.server, "ping", refuse)
    seen = world.until(lambda state: said in state.unobserved)
    assert (seen.up, seen.silent_seconds) == (True, 0.0)
    assert not seen.observed
    world.until(lambda state: state.unobserved_seconds >= 0.3)
    world.restart_agent()
    world.until(lambda state: said in state.unobserved)
    monkeypatch.undo()
    again = world.until(lambda state: state.up)
    assert (again.unobserved, again.unobserved_seconds, again.reason) == ("", 0.0, "")


def test_an_agent_that_was_restarted_says_that_it_has_not_looked_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(world)
    hung = threading.Event()
    monkeypatch.setattr(world.server, "ping", lambda _: hung.wait(3))
    world.restart_agent()
    seen = world.until(lambda state: state.look_failure is LookFailure.NOT_YET)
    assert seen.server is ServerStatus.STARTING
    world.until(lambda state: state.silent_seconds >= 0.5)
    hung.set()
    seen = world.until(lambda state: state.up)
    assert (seen.unobserved, seen.look_failure) == ("", LookFailure.OTHER)


def test_a_server_at_whose_socket_nobody_listens_any_more_shuts_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(world)

    def refuse(*_: object) -> NoReturn:
        raise NotListening("sock: No such file")

    monkeypatch.setattr(world.server, "observe", refuse)
    seen = world.until(lambda state: state.look_failure is LookFailure.SHUTS_DOWN)
    assert not seen.writable
    world.until(lambda state: state.silent_seconds >= 0.3 and state.unobserved_seconds >= 0.3)
