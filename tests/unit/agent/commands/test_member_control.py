"""Member control in the agent: waiting, the mark under which a tail is cut, barring, fetching, restarting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.core.commands import (
    Bar,
    Fence,
    Fetch,
    Follow,
    Promise,
    Promote,
    Prove,
    Restart,
    SetAcks,
    Start,
    Unbar,
)
from holdfast.core.settings import WaitPoint
from holdfast.core.view import Receiver, SemiSync
from tests.unit.agent_world import World

WEAKER = {
    "alone": SetAcks(0),
    "with a time-out": SetAcks(1, 5.0),
    "after commit": SetAcks(1, 0.0, WaitPoint.AFTER_COMMIT),
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.done(1, Start())
    world.until(lambda state: state.up)
    yield world
    world.end()


@pytest.fixture
def primary(world: World) -> World:
    world.done(1, Promote(acks=1, serial=1))
    world.server.calls.clear()
    return world


def marked(world: World) -> bool:
    return (world.state_dir / "primary").exists()


@pytest.mark.parametrize("weaker", WEAKER.values(), ids=WEAKER.keys())
def test_the_mark_goes_before_commits_wait_in_a_lesser_way(primary: World, weaker: SetAcks) -> None:
    assert marked(primary)
    primary.server.stuck.add("set_acks")
    asked = primary.in_background(1, weaker)
    primary.until(lambda state: state.busy == "set_acks" and not marked(primary))
    assert primary.server.now.semi_sync.acks == 1
    primary.server.stuck.clear()
    assert asked.reply().error == ""
    primary.done(1, Prove(2))
    assert not marked(primary)


@pytest.mark.parametrize("weaker", WEAKER.values(), ids=WEAKER.keys())
def test_the_mark_comes_back_with_a_row_acknowledged_while_commits_wait_for_ever(
    primary: World, weaker: SetAcks
) -> None:
    primary.done(1, weaker)
    primary.done(1, SetAcks(1))
    assert not marked(primary)
    primary.done(1, Prove(2))
    assert marked(primary)


def test_waiting_that_somebody_else_weakened_takes_the_mark_away(primary: World) -> None:
    """And the waiting is put back at once; what is issued from then on is pending only once a row was acknowledged."""
    primary.server.now = replace(primary.server.now, semi_sync=SemiSync())
    primary.until(lambda state: bool(state.let_through))
    primary.until(lambda state: state.semi_sync.source)
    primary.restart_agent()
    assert primary.state().state.let_through == "semi-sync is off"
    assert primary.done(1, Prove(2)).state.let_through == ""
    primary.restart_agent()
    assert marked(primary)
    assert primary.state().state.let_through == ""


def test_a_row_that_was_let_through_proves_nothing(primary: World) -> None:
    primary.done(1, SetAcks(1, 5.0))
    waits = primary.server.now.semi_sync
    primary.server.now = replace(primary.server.now, semi_sync=replace(waits, degraded=True))
    assert primary.done(1, Prove(7)).state.proved == 1


def test_a_writable_server_is_marked_only_once_its_waiting_is_proved(world: World) -> None:
    world.done(1, Promote(acks=0, serial=1))
    assert not marked(world)
    world.server.stuck.add("prove")
    promoted = world.in_background(1, Promote(acks=1, serial=2))
    world.until(lambda state: "prove" in world.server.calls[5:])
    assert not marked(world)
    world.server.stuck.clear()
    assert promoted.reply().error == ""
    assert marked(world)


def test_in_mode_semi_sync_a_promotion_without_replicas_opens_with_a_row_of_its_own(
    world: World,
) -> None:
    world.server.ackers = 0
    world.server.calls.clear()
    reply = world.done(1, Promote(1, 3, timeout_seconds=0.2))
    assert world.server.calls == [
        "prepare_primary",
        "set_acks",
        "wait_for_ackers",
        "set_acks",
        "prove",
        "set_acks",
        "open",
        "start_events",
    ]
    assert reply.state.writable
    assert (reply.state.semi_sync.acks, reply.state.semi_sync.timeout_seconds) == (1, 0.2)
    assert reply.state.proved == 0


def test_who_is_barred_is_told(primary: World) -> None:
    assert primary.done(1, Bar("repl2")).state.barred == ("repl2",)
    assert primary.done(1, Unbar("repl2")).state.barred == ()


def test_a_replica_bars_nobody(world: World) -> None:
    world.done(1, Follow("b", "127.0.0.1", 3306, semi_sync=True))
    assert "follows" in world.command(1, Bar("repl2")).message


def test_fetching_keeps_the_promise_and_needs_one(world: World) -> None:
    fetch = Fetch("b", "127.0.0.1", 3307)
    assert "promise" in world.command(2, fetch).message
    world.done(2, Promise())
    reply = world.done(2, fetch)
    assert reply.state.promised == 2
    assert reply.state.replication.source == "127.0.0.1:3307"
    assert not reply.state.semi_sync.replica
    assert world.command(3, fetch).error == "Refused"
    promoted = world.done(3, Promote(acks=0, serial=1)).state
    assert promoted.replication.receiver is Receiver.OFF
    assert promoted.writable


def test_a_primary_fetches_nothing(primary: World) -> None:
    primary.done(2, Promise())
    assert "is a primary" in primary.command(2, Fetch("b", "127.0.0.1", 3307)).message


def test_a_restart_ends_the_server_in_order_and_starts_it(primary: World) -> None:
    before = primary.state().state
    reply = primary.done(1, Restart())
    assert "quiesce" in primary.server.calls
    assert list(reply.steps)[:3] == ["no commit waits", "server ended", "started"]
    after = primary.until(lambda state: state.up)
    assert after.incarnation != before.incarnation


def test_a_primary_that_cannot_be_quiesced_goes_on(primary: World) -> None:
    before = primary.state().state
    primary.server.stuck.add("quiesce")
    asked = primary.in_background(1, Restart())
    primary.until(lambda state: state.busy == "restart")
    primary.server.now = replace(primary.server.now, writable=False)
    primary.done(2, SetAcks(1))
    reply = asked.reply()
    assert (reply.error, "runs on as before" in reply.message) == ("Refused", True)
    assert primary.state().state.writable
    assert primary.state().state.incarnation == before.incarnation


def test_a_replica_is_stopped_and_drained_before_it_restarts(world: World) -> None:
    world.done(1, Follow("b", "127.0.0.1", 3306, semi_sync=True))
    world.server.calls.clear()
    world.done(1, Restart())
    assert world.server.calls[:2] == ["stop_receiver", "drain"]


def test_a_replica_that_cannot_drain_follows_again(world: World) -> None:
    world.done(1, Follow("b", "127.0.0.1", 3306, semi_sync=True))
    world.server.stuck.add("drain")
    asked = world.in_background(1, Restart())
    world.until(lambda state: state.replication.receiver is Receiver.OFF)
    world.command(2, SetAcks(1))
    assert "runs on as before" in asked.reply().message
    state = world.state().state
    assert (state.replication.receiver, state.semi_sync.replica) == (Receiver.ON, True)


def test_a_fence_ends_a_restart_at_once(primary: World) -> None:
    primary.server.stuck.add("quiesce")
    asked = primary.in_background(1, Restart())
    primary.until(lambda state: state.busy == "restart")
    primary.done(1, Fence())
    assert asked.reply().error
    assert primary.process() is None


def test_the_account_and_the_end_of_the_binlog_are_told(world: World) -> None:
    data = world.folder / "data"
    (data / "binlog.000007").write_bytes(b"x" * 1234)
    (data / "binlog.index").write_text("./binlog.000007\n")
    state = world.until(lambda state: state.written.file == 7)
    assert state.written.offset == 1234
    assert state.account == "holdfast"
    version = world.state().version
    (data / "binlog.000007").write_bytes(b"x" * 1300)
    world.until(lambda state: state.written.offset == 1300)
    assert world.state().version == version
