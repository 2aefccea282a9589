"""An agent sees that its server releases commits without a voter, reports it, and puts back what an operator
changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.commands import Fence, Follow, Promote, Prove, SetAcks, Start
from holdfast.core.observed.tally import Tally
from holdfast.core.view import SemiSync
from tests.unit.agent_world import World, running


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.done(1, Start())
    world.until(lambda state: state.up)
    (world.folder / "sock").touch()
    world.done(1, Promote(acks=1, serial=1))
    world.until(lambda state: state.writable and state.semi_sync.source)
    yield world
    world.end()


def change(world: World, do: Callable[[SemiSync], SemiSync]) -> None:
    world.server.now = replace(world.server.now, semi_sync=do(world.server.now.semi_sync))


def count(world: World, n: int) -> None:
    change(world, lambda waits: replace(waits, tally=Tally(let_through=n)))


def test_what_the_server_counts_is_told_with_its_number(primary: World) -> None:
    count(primary, 3)
    primary.until(lambda state: state.unacknowledged == 3)
    assert "counts commits without" in primary.state().state.let_through
    count(primary, 5)
    primary.until(lambda state: state.unacknowledged == 5)
    assert primary.done(1, Prove(1)).state.let_through == ""
    assert primary.state().state.unacknowledged == 5
    count(primary, 6)
    primary.until(lambda state: state.unacknowledged == 6 and bool(state.let_through))


def test_a_look_amid_the_first_row_is_no_sign_that_counters_were_reset(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is later than what was counted before that row."""
    with running(tmp_path) as world:
        world.done(1, Follow("b", "127.0.0.1", 3306, semi_sync=True))
        prove = world.server.prove

        def slow(*args: Any) -> SemiSync:
            under = world.server.now.semi_sync
            count = replace(under.tally, acknowledged=under.tally.acknowledged + 1)
            world.server.now = replace(world.server.now, semi_sync=replace(under, tally=count))
            world.until(lambda state: state.semi_sync.tally == count)
            prove(*args)
            return under

        monkeypatch.setattr(world.server, "prove", slow)
        world.done(2, Promote(acks=1, serial=1))
        assert "without a voter" not in caplog.text


def test_it_is_known_to_the_next_run_of_the_agent(primary: World) -> None:
    count(primary, 2)
    primary.until(lambda state: state.unacknowledged == 2)
    primary.restart_agent()
    state = primary.state().state
    assert (state.unacknowledged, bool(state.let_through)) == (2, True)


def test_what_was_let_through_while_no_agent_ran_is_found(primary: World) -> None:
    primary.until(lambda state: state.proved == 1)
    primary.stop_agent()
    count(primary, 4)
    primary.start_agent()
    primary.until(lambda state: state.unacknowledged == 4)


def test_where_semi_sync_is_off_what_it_issues_is_counted(primary: World) -> None:
    primary.server.stuck.add("set_acks")
    change(primary, lambda waits: SemiSync())
    primary.until(lambda state: state.let_through == "semi-sync is off")
    primary.server.now = replace(primary.server.now, applied="0-1-17", received="0-1-17")
    primary.until(lambda state: state.unacknowledged == 7)
    primary.server.stuck.clear()


def test_what_a_hand_changes_is_put_back_between_commands(primary: World) -> None:
    primary.server.stuck.add("prove")
    proving = primary.in_background(1, Prove(1))
    primary.until(lambda state: state.busy == "prove")
    change(primary, lambda waits: replace(waits, waits_alone=False))
    primary.until(lambda state: bool(state.let_through))
    assert not primary.server.now.semi_sync.waits_alone
    primary.server.stuck.clear()
    assert proving.reply().error == ""
    primary.until(lambda state: state.semi_sync.waits_alone)
    (told,) = primary.until(lambda state: bool(state.concerns)).concerns
    assert told.startswith(
        "commits did not wait as they should: commits do not wait while no replica is connected; it was put back at"
    )


def test_a_server_that_has_given_up_waiting_waits_again_at_once(primary: World) -> None:
    """By itself it would only once a voter acknowledges: until then every commit is answered with OK."""
    change(primary, lambda waits: replace(waits, degraded=True, tally=Tally(switched_off=1)))
    primary.until(lambda state: bool(state.let_through))
    primary.until(lambda _: not primary.server.now.semi_sync.degraded)


def test_where_a_time_out_may_strike_it_is_left_to_the_server(primary: World) -> None:
    """Mode semi-sync: commits are released without voters on purpose."""
    primary.done(1, SetAcks(1, 5.0))
    change(primary, lambda waits: replace(waits, degraded=True))
    primary.until(lambda state: state.semi_sync.degraded)
    primary.done(1, Prove(1))
    assert primary.server.now.semi_sync.degraded


def test_what_a_manager_asks_for_is_no_hand(primary: World) -> None:
    assert primary.done(1, SetAcks(0)).state.let_through == ""
    primary.until(lambda state: not state.semi_sync.source)
    assert not primary.server.now.semi_sync.source
    assert primary.done(1, SetAcks(1, 5.0)).state.let_through == ""
    count(primary, 9)
    primary.until(lambda state: state.semi_sync.tally.let_through == 9)
    assert primary.state().state.unacknowledged == 0


def test_a_shutdown_while_commits_wait_is_told(primary: World) -> None:
    change(primary, lambda waits: replace(waits, waiting=2))
    primary.until(lambda state: state.semi_sync.waiting == 2)
    (primary.folder / "sock").unlink()
    primary.server.frozen = True
    primary.until(lambda state: "being shut down" in state.let_through)
    primary.server.frozen = False


def test_a_server_that_is_only_silent_has_let_nothing_through(primary: World) -> None:
    primary.server.frozen = True
    primary.until(lambda state: state.silent_seconds > 0.3)
    assert primary.state().state.let_through == ""
    primary.server.frozen = False


def test_one_that_follows_again_is_as_new(primary: World) -> None:
    count(primary, 1)
    primary.until(lambda state: bool(state.let_through))
    primary.done(1, Fence())
    assert primary.state().state.let_through
    primary.server.now = replace(primary.server.now, writable=False)
    primary.done(1, Start())
    primary.until(lambda state: state.up)
    followed = primary.done(1, Follow("b", "127.0.0.1", 3306, semi_sync=True))
    assert followed.state.let_through == ""
    assert followed.state.unacknowledged == 1


def test_a_shutdown_while_nothing_waits_is_no_news_and_leaves_no_mark(primary: World) -> None:
    assert (primary.state_dir / "primary").exists()
    (primary.folder / "sock").unlink()
    primary.server.frozen = True
    primary.until(lambda state: state.silent_seconds > 0.3)
    primary.restart_agent()
    assert primary.state().state.let_through == ""
    assert not (primary.state_dir / "primary").exists()
    primary.server.frozen = False
