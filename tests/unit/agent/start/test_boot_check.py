"""A server that boots open is killed before it takes clients, and not started again before something is changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core.commands import Start
from holdfast.core.view import MemberState, ServerStatus
from holdfast.server.base import Booted
from tests.unit.agent_world import World

OPEN = Booted(shut=True, wrong=("read_only = OFF (from /etc/extra.cnf)",))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.end()


def held(state: MemberState) -> bool:
    return state.server is ServerStatus.DOWN and "/etc/extra.cnf" in state.unstartable


def test_clients_are_let_in_once_it_was_seen_to_be_closed(world: World) -> None:
    world.server.came_up = Booted(shut=True)
    world.done(1, Start())
    world.until(lambda state: state.up)
    assert world.server.calls == ["let_clients_in"]
    world.restart_agent()  # clients are let in again
    world.until(lambda state: state.up)
    assert world.server.calls == ["let_clients_in"]


def test_an_agent_that_comes_back_lets_in_whom_its_predecessor_kept_out(world: World) -> None:
    world.server.frozen = True
    world.done(1, Start())
    world.stop_agent()
    world.server.frozen, world.server.came_up = False, Booted(shut=True)
    world.start_agent()
    world.until(lambda state: state.up)
    assert world.server.calls == ["let_clients_in"]


def test_one_that_opens_is_killed_and_not_started_a_second_time(world: World) -> None:
    world.server.came_up = OPEN
    world.done(1, Start())
    state = world.until(held)
    assert "read_only = OFF (from /etc/extra.cnf)" in state.reason
    assert world.server.calls == []
    refused = world.command(1, Start())
    assert refused.error == "Refused"
    assert "/etc/extra.cnf" in refused.message
    world.restart_agent()
    world.until(held)
    assert world.command(1, Start()).error == "Refused"


@pytest.mark.parametrize("what", ["my.cnf", "server.py", "state/boots_open"])
def test_it_is_started_again_once_that_was_changed(world: World, what: str) -> None:
    world.server.came_up = OPEN
    world.done(1, Start())
    world.until(held)
    world.server.came_up = Booted(shut=True)
    path = world.folder / what
    if what.startswith("state"):
        world.until(lambda _: path.exists())
        path.unlink()
    else:
        path.write_text(path.read_text() + "\n# mended\n")
    world.until(lambda state: not state.unstartable)
    world.done(1, Start())
    world.until(lambda state: state.up)
    assert not (world.state_dir / "boots_open").exists()


def test_one_that_somebody_else_has_started_is_not_judged(world: World) -> None:
    world.done(1, Start())
    world.until(lambda state: state.up)
    world.stop_agent()
    world.server.came_up = Booted(shut=False, wrong=OPEN.wrong)
    world.start_agent()
    world.until(lambda state: state.up)


def test_a_verdict_that_cannot_be_written_is_held(world: World) -> None:
    (world.state_dir / ".boots_open.part").mkdir()
    world.server.came_up = OPEN
    world.done(1, Start())
    world.until(held)
    for _ in range(20):  # looks at a server that is down
        time.sleep(0.02)
        assert held(world.state().state)
    (world.folder / "my.cnf").write_text("# mended\n")
    world.until(lambda state: not state.unstartable)


@pytest.mark.parametrize("text", ["{", "[]", '{"reason": "it boots open"}', '{"of": "x"}'])
def test_a_verdict_that_cannot_be_read_is_held_until_it_is_removed(text: str, world: World) -> None:
    world.stop_agent()
    path = world.state_dir / "boots_open"
    path.write_text(text)
    world.start_agent()
    for _ in range(20):
        assert "boots_open cannot be read" in world.state().state.unstartable
        time.sleep(0.02)
    assert world.command(1, Start()).error == "Refused"
    path.unlink()
    world.until(lambda state: not state.unstartable)
