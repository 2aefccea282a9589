"""Commands as a manager sees them: what is done, what is refused, and in which order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.core.commands import (
    Cut,
    Drain,
    Fence,
    Follow,
    Promise,
    Promote,
    Prove,
    SetAcks,
    Start,
)
from holdfast.core.view import Receiver, Replication, SemiSync, ServerStatus, TailVerdict
from tests.unit.agent_world import World

FOLLOW = Follow("b", "127.0.0.1", 3306, semi_sync=True)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.end()


@pytest.fixture
def up(world: World) -> World:
    world.done(1, Start())
    world.until(lambda state: state.up)
    world.server.calls.clear()
    return world


def test_nothing_is_started_until_it_is_commanded(world: World) -> None:
    time.sleep(0.3)
    assert world.process() is None
    assert world.state().state.server is ServerStatus.DOWN
    reply = world.done(1, Start())
    assert reply.state.incarnation
    assert world.process() is not None


def test_a_start_of_a_running_server_is_refused(up: World) -> None:
    reply = up.command(1, Start())
    assert (reply.error, reply.promised) == ("Refused", 0)
    assert "running already" in reply.message


def test_a_promise_outlives_the_server_and_the_agent(world: World) -> None:
    assert world.done(5, Promise()).state.term == 5
    stale = world.command(4, Start())
    assert (stale.error, stale.promised) == ("Refused", 5)
    assert world.process() is None
    world.restart_agent()
    assert world.command(4, Start()).promised == 5


def test_every_command_of_a_higher_term_is_a_promise(up: World) -> None:
    assert up.done(9, Drain()).state.term == 9
    assert up.command(8, Drain()).promised == 9
    assert (up.state_dir / "term").read_text() == "term 9\n"


def test_a_promise_stops_the_receiver_and_shows_what_came_last(up: World) -> None:
    up.done(1, FOLLOW)
    up.server.now = replace(up.server.now, received="0-1-77")
    reply = up.done(2, Promise())
    assert reply.state.replication.receiver is Receiver.OFF
    assert reply.state.received == "0-1-77"
    assert list(reply.steps) == ["term on disk", "receiver stopped", "observed"]


def test_a_promise_without_positions_is_no_promise(up: World) -> None:
    up.server.frozen = True
    reply = up.command(2, Promise())
    assert reply.error
    assert up.command(1, Promise()).promised == 2


def test_a_full_disk_refuses_a_new_term_and_the_old_one_stays(up: World) -> None:
    (up.state_dir / ".term.part").symlink_to("/dev/full")
    reply = up.command(2, Promise())
    assert reply.error == "Refused"
    assert "No space left" in reply.message
    assert reply.state.term == 1
    assert up.server.calls == []
    up.done(1, Drain())


def test_a_full_disk_does_not_stop_a_fence(up: World) -> None:
    (up.state_dir / ".term.part").symlink_to("/dev/full")
    reply = up.command(2, Fence())
    assert reply.error == "OutcomeUnknown"
    up.until(lambda state: state.server is ServerStatus.DOWN)
    assert up.process() is None


def test_a_higher_term_calls_off_what_is_under_way(up: World) -> None:
    up.server.stuck.add("drain")
    stuck = up.in_background(1, Drain())
    up.until(lambda state: state.busy == "drain")
    waiting = up.in_background(1, SetAcks(1))
    time.sleep(0.2)
    begun = time.monotonic()
    up.done(2, Promise())
    assert time.monotonic() - begun < 4
    assert "called off" in stuck.reply().message
    assert waiting.reply().error == "Refused"
    assert up.server.calls == ["drain", "stop_receiver"]


def test_a_lower_term_is_refused_while_something_is_under_way(up: World) -> None:
    up.server.stuck.add("drain")
    up.done(5, SetAcks(0))
    stuck = up.in_background(5, Drain())
    up.until(lambda state: state.busy == "drain")
    begun = time.monotonic()
    assert up.command(4, Promise()).promised == 5
    assert time.monotonic() - begun < 4
    up.server.stuck.clear()
    assert stuck.reply().error == ""


def test_the_same_command_again_shares_the_answer(up: World) -> None:
    up.server.stuck.add("drain")
    both = [up.in_background(1, Drain()) for _ in range(2)]
    up.until(lambda state: state.busy == "drain")
    up.server.stuck.clear()
    assert [each.reply().error for each in both] == ["", ""]
    assert up.server.calls == ["drain"]


def test_a_fence_waits_for_nothing(up: World) -> None:
    up.server.stuck.add("drain")
    stuck = up.in_background(1, Drain())
    up.until(lambda state: state.busy == "drain")
    begun = time.monotonic()
    reply = up.done(1, Fence())
    assert time.monotonic() - begun < 4
    assert reply.state.server is ServerStatus.DOWN
    assert reply.state.reason == "fenced by term 1"
    assert up.process() is None
    assert stuck.reply().error == "OutcomeUnknown"


def test_a_deadline_that_passes_leaves_the_outcome_unknown(up: World) -> None:
    up.server.stuck.add("set_acks")
    reply = up.command(1, SetAcks(1))
    assert reply.error == "OutcomeUnknown"
    assert "not done within 3.00 s" in reply.message


def test_what_nobody_foresaw_is_an_unknown_outcome_and_the_lane_goes_on(
    up: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    up.server.now = replace(up.server.now, received="0-1-11", writable=True)
    up.until(lambda state: state.writable)
    monkeypatch.setattr(up.server, "prove", None)
    reply = up.command(1, Prove(1))
    assert reply.error == "OutcomeUnknown"
    assert "not callable" in reply.message
    up.done(1, Drain())


@pytest.mark.parametrize(
    "command",
    [Drain(), FOLLOW, Promote(1, 1), SetAcks(1), Prove(1)],
    ids=lambda c: type(c).__name__,
)
def test_a_server_that_is_down_is_asked_nothing(world: World, command: Drain) -> None:
    reply = world.command(1, command)
    assert reply.error == "Refused"
    assert "the server of a is down" in reply.message


def test_promotion_in_its_order(up: World) -> None:
    up.done(1, FOLLOW)
    up.done(2, Promise())
    up.done(2, Drain())
    up.server.calls.clear()
    reply = up.done(2, Promote(acks=1, serial=4))
    opening = ["prepare_primary", "set_acks", "wait_for_ackers", "prove", "open"]
    assert up.server.calls == [*opening, "start_events"]
    assert reply.state.writable
    assert reply.state.proved == 4
    assert reply.state.semi_sync == SemiSync(source=True, acks=1)
    before = ["prepared", "ackers connected", "noted on disk", "proved"]
    assert list(reply.steps) == [*before, "opened", "events on", "observed"]


def test_promotion_drains_what_is_not_applied(up: World) -> None:
    up.done(1, FOLLOW)
    up.server.now = replace(up.server.now, received="0-1-12")
    up.until(lambda state: state.received == "0-1-12")
    up.server.calls.clear()
    up.done(2, Promote(acks=1, serial=1))
    assert up.server.calls[:3] == ["stop_receiver", "drain", "prepare_primary"]


def test_promotion_again_proves_and_stays_open(up: World) -> None:
    up.done(2, Promote(acks=1, serial=1))
    up.server.calls.clear()
    assert up.done(2, Promote(acks=1, serial=2)).state.proved == 2
    assert up.server.calls == ["set_acks", "wait_for_ackers", "prove", "open", "start_events"]


def test_promotion_without_ackers_opens_nothing(up: World) -> None:
    up.server.ackers = 0
    waiting = up.in_background(2, Promote(acks=1, serial=1))
    up.until(lambda state: state.busy == "promote")
    up.done(3, Promise())
    assert waiting.reply().error == "OutcomeUnknown"
    assert "open" not in up.server.calls
    assert not up.state().state.writable


def test_a_proof_is_of_one_incarnation(up: World) -> None:
    up.done(2, Promote(acks=0, serial=3))
    up.done(2, Fence())
    assert up.state().state.proved == 0
    up.done(2, Start())
    assert up.until(lambda state: state.up).proved == 0


def test_a_writable_server_does_not_follow(up: World) -> None:
    up.done(2, Promote(acks=0, serial=3))
    reply = up.command(2, FOLLOW)
    assert reply.error == "Refused"
    assert "is writable" in reply.message


@pytest.mark.parametrize("command", [Prove(1), SetAcks(1)])
def test_a_follower_commits_no_row_of_its_own(up: World, command: Prove) -> None:
    up.done(1, FOLLOW)
    reply = up.command(1, command)
    assert reply.error == "Refused"
    assert "follows 127.0.0.1:3306" in reply.message


def test_a_dead_server_is_not_started_again(up: World) -> None:
    running = up.process()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    up.until(lambda state: state.server is ServerStatus.DOWN)
    time.sleep(0.4)
    assert up.process() is None


def test_a_running_server_is_not_cut(up: World) -> None:
    reply = up.command(1, Cut("b", "0-1-10"))
    assert reply.error == "Refused"


def test_a_server_without_binlogs_is_clean(world: World) -> None:
    assert world.done(1, Cut("b", "0-1-10")).state.tail.verdict is TailVerdict.CLEAN
    state = world.done(1, Start()).state
    assert state.tail.verdict is TailVerdict.UNCHECKED


def test_what_the_primary_has_must_be_a_gtid_set(world: World) -> None:
    reply = world.command(1, Cut("b", "nonsense"))
    assert reply.error == "Refused"
    assert "present" in reply.message


def test_lost_binlogs_are_not_taken_for_none(world: World) -> None:
    (world.folder / "data" / "binlog.000001").touch()
    assert world.done(1, Cut("b", "0-1-10")).state.tail.verdict is TailVerdict.UNSAFE


def test_after_a_crash_of_the_host_a_relaxed_server_is_not_trusted(up: World) -> None:
    up.done(1, FOLLOW)
    up.done(1, Fence())
    up.boot = "another-boot"
    tail = up.done(1, Cut("b", "0-1-10")).state.tail
    assert tail.verdict is TailVerdict.UNSAFE
    assert "clone it from another member" in tail.reason
    reply = up.command(1, Start())
    assert reply.error == "Refused"
    assert up.process() is None
    (up.state_dir / "relaxed").unlink()
    up.done(1, Start())


def test_a_killed_process_alone_does_no_harm_to_a_relaxed_server(up: World) -> None:
    up.done(1, FOLLOW)
    up.done(1, Fence())
    assert up.done(1, Cut("b", "0-1-10")).state.tail.verdict is TailVerdict.CLEAN
    up.done(1, Start())


def test_a_primary_that_proved_its_flushing_is_trusted_after_a_crash_of_the_host(up: World) -> None:
    (up.folder / "data" / "binlog.index").touch()
    up.done(1, FOLLOW)
    up.done(2, Promise())
    up.done(2, Promote(acks=0, serial=1))
    end = time.monotonic() + 5
    while (up.state_dir / "relaxed").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    up.done(2, Fence())
    up.boot = "another-boot"
    up.done(2, Start())


def test_a_server_that_was_started_by_someone_else_is_adopted(world: World) -> None:
    from holdfast.server.process.process import ServerProcess

    own = world.config.server
    running = ServerProcess(own.command, own.option_file, own.datadir, world.folder / "o").start()
    state = world.until(lambda state: state.up)
    assert state.incarnation == running.incarnation


def test_an_adopted_server_that_cannot_stop_its_receiver_promises_nothing(up: World) -> None:
    up.server.now = replace(up.server.now, replication=Replication("b:1", Receiver.ON, True))
    up.server.frozen = True
    up.restart_agent()
    assert up.state().state.server is ServerStatus.STARTING
    reply = up.command(2, Promise())
    assert reply.error == "Unreachable"
