"""Settings that the promise depends on are put back when an operator changes them; until the next flush, the server's
end makes its data unfit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.promise.hands import TOLD_SECONDS, Hands
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.commands import Fence, Follow, Promote, Start
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, ServerStatus
from tests.unit.agent_world import World, running
from tests.unit.hand_clock import HandClock

FOLLOW = Follow("b", "127.0.0.1", 3306, semi_sync=True)
PRIMARY = {"sync_binlog": 1, "innodb_flush_log_at_trx_commit": 1}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running(tmp_path) as world:
        yield world


def primary(world: World) -> None:
    world.done(1, Promote(acks=1, serial=1))
    world.until(lambda state: state.writable)


def by_hand(world: World, **values: Any) -> None:
    world.server.now = replace(world.server.now, **values)


def looked(world: World) -> None:
    time.sleep(0.6)
    assert world.state().state.up


@pytest.mark.parametrize(
    "lowered", [{"sync_binlog": 0}, {"redo_flush": 2}, {"redo_flush": 0}, {"redo_flush": -1}]
)
def test_a_primary_flushes_each_commit_again(lowered: dict[str, int], world: World) -> None:
    (world.folder / "data" / "binlog.index").touch()
    primary(world)
    by_hand(world, **lowered)
    world.until(lambda _: world.server.put == [PRIMARY])
    looked(world)
    assert world.server.put == [PRIMARY], "once"
    for left in ("unflushed", "relaxed"):
        world.until(lambda _, left=left: not (world.state_dir / left).exists())


def test_a_primary_lets_clients_in_again_and_its_flushing_is_not_in_doubt(world: World) -> None:
    primary(world)
    by_hand(world, shutting_out=("offline_mode",))
    world.until(lambda _: world.server.put == [{"offline_mode": 0}])
    found = world.until(lambda state: bool(state.concerns))
    assert "offline_mode = 1 was set by hand, which kept clients from writing" in found.concerns[0]
    assert not (world.state_dir / "relaxed").exists()


def test_a_replica_may_keep_clients_out(world: World) -> None:
    world.done(1, FOLLOW)
    by_hand(world, shutting_out=("offline_mode",))
    looked(world)
    assert world.server.put == []


@pytest.mark.parametrize(
    ("redo", "put"),
    [
        (-1, [{"innodb_flush_log_at_trx_commit": 2}]),
        (0, [{"innodb_flush_log_at_trx_commit": 2}]),
        (2, []),
    ],
)
def test_a_replica_may_leave_it_to_the_kernel_and_no_more(
    redo: int, put: list[dict[str, int]], world: World
) -> None:
    world.done(1, FOLLOW)
    by_hand(world, redo_flush=redo, sync_binlog=0)
    looked(world)
    assert world.server.put == put
    assert (world.state_dir / "relaxed").exists()


def test_one_that_dies_before_it_is_flushed_is_not_started_again(world: World) -> None:
    primary(world)
    world.server.stuck.add("put_back")
    by_hand(world, redo_flush=0)
    world.until(lambda _: "put_back" in world.server.calls)
    world.restart_agent()  # recorded on disk
    world.done(2, Fence())
    reply = world.command(2, Start())
    assert (reply.error, "innodb_flush_log_at_trx_commit = 0" in reply.message) == ("Refused", True)
    state = world.state().state
    assert state.server is ServerStatus.DOWN
    assert "its tables may lack what its binlog has" in state.unfit


def test_one_whose_agent_ended_before_it_had_flushed_is_flushed_by_the_next(world: World) -> None:
    primary(world)
    world.stop_agent()
    (world.state_dir / "unflushed").write_text("a run\n")
    world.start_agent()
    world.until(lambda _: not (world.state_dir / "unflushed").exists())
    assert world.server.put == [{}]


def test_a_primary_keeps_its_number(world: World) -> None:
    primary(world)
    looked(world)
    by_hand(world, server_id=2)
    world.until(lambda _: world.server.put == [{"server_id": 1}])
    looked(world)
    assert world.server.now.server_id == 1
    assert world.server.put == [{"server_id": 1}]
    assert not (world.state_dir / "relaxed").exists()


def test_before_it_is_adopted_nothing_is_put_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.done(0, Start())
    world.until(lambda state: state.up)
    by_hand(world, redo_flush=0, writable=True)
    looked(world)
    assert world.server.put == []
    world.end()


def test_what_was_put_back_is_told_with_how_long_it_held(world: World) -> None:
    (world.folder / "data" / "binlog.index").touch()
    primary(world)
    looked(world)
    by_hand(world, sync_binlog=0)
    state = world.until(lambda state: state.concerns)
    (told,) = state.concerns
    assert told.startswith("sync_binlog = 0 was set by hand")
    assert "it was put back at" in told
    assert float(told.rpartition("held for ")[2].removesuffix(" s at most")) < 2


def test_after_some_minutes_it_is_told_no_longer() -> None:
    now = [100.0]
    clock = HandClock(lambda: now[0])
    published = PublishedState(MemberState("m1", Flavor.MYSQL, incarnation="a"), clock)
    hands = Hands(published, "settings")
    hands.put_back("x = 0 was set by hand")
    assert published.state.concerns[0].endswith(", for how long is not known")
    hands.well()
    now[0] += 2.0
    hands.put_back("x = 0 was set by hand")
    assert published.state.concerns[0].endswith(", that held for 2.0 s at most")
    now[0] += TOLD_SECONDS - 1
    hands.well()
    assert published.state.concerns
    now[0] += 1
    hands.well()
    assert published.seen()[0].concerns == ()
    published.change(incarnation="b")
    hands.put_back("x = 0 was set by hand")
    assert published.state.concerns[0].endswith(", for how long is not known"), "another run"
