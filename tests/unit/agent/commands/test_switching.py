"""A change of primary with both servers running, as a manager sees the agents' part of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.agent.lease.electorate import ElectorateFile
from holdfast.agent.promise.pending_mark import PendingMark
from holdfast.agent.promise.releasing import Releases
from holdfast.core.commands import (
    Drain,
    EndSessions,
    Fence,
    Follow,
    Freeze,
    Promise,
    Promote,
    Prove,
    SetAcks,
    Start,
)
from holdfast.core.lease import Electorate, Quorum
from holdfast.core.observed.tally import Tally
from holdfast.core.view import Receiver, Replication, ServerStatus
from holdfast.errors import Refused
from tests.unit.agent_world import World, running

FOLLOW = Follow("b", "127.0.0.1", 3306, semi_sync=True)
DRAINED, MORE = "0-1-10", "0-1-11"
TAKE_OVER = Promote(acks=1, serial=2, drained=DRAINED, events=False)
COMING = Electorate("a", 2, 2, (Quorum(("b", "c"), 1),), {}, "127.0.0.1:3306", settled=True)
OPENING = ["drain", "prepare_primary", "set_acks", "wait_for_ackers", "open"]
BEHIND = ["prove", "leave"]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[World]:
    with running(tmp_path) as world:
        yield world


@pytest.fixture
def candidate(up: World) -> World:
    up.done(1, FOLLOW)
    up.server.calls.clear()
    return up


@pytest.fixture
def primary(up: World) -> World:
    up.done(1, Promote(acks=1, serial=1))
    up.server.calls.clear()
    return up


def test_a_candidate_is_opened_while_it_follows_and_proven_afterwards(candidate: World) -> None:
    state = candidate.done(2, TAKE_OVER).state
    assert candidate.server.calls == OPENING + BEHIND
    assert state.writable
    assert state.replication.source == ""
    assert state.proved == 2
    assert candidate.state_dir.joinpath("primary").exists()


def test_whoever_watches_is_told_the_moment_that_it_is_open(candidate: World) -> None:
    candidate.server.stuck.add("prove")
    seen = candidate.state()
    command = candidate.in_background(2, TAKE_OVER)
    while not seen.state.writable:
        seen = candidate.state(since=seen.version, wait=5)
    assert seen.state.busy == "promote"
    assert seen.state.semi_sync.source
    assert seen.state.proved == 0
    assert candidate.server.calls == [*OPENING, "prove"]
    candidate.server.stuck.clear()
    assert command.reply().error == ""


def test_it_stays_closed_until_it_has_all_that_the_frozen_primary_has(candidate: World) -> None:
    command = candidate.in_background(2, replace(TAKE_OVER, drained=MORE))
    candidate.until(lambda state: state.busy == "promote" and bool(candidate.server.calls))
    assert candidate.server.calls == ["drain"]
    candidate.server.now = replace(candidate.server.now, received=MORE)
    reply = command.reply()
    assert reply.error == ""
    assert reply.state.writable


def test_a_newer_term_ends_the_wait_for_what_never_comes(candidate: World) -> None:
    command = candidate.in_background(2, replace(TAKE_OVER, drained=MORE))
    candidate.until(lambda state: state.busy == "promote")
    candidate.done(3, Drain())
    assert command.reply().error == "OutcomeUnknown"
    assert not candidate.state().state.writable
    assert "prepare_primary" not in candidate.server.calls


@pytest.mark.parametrize("at", ["open", *BEHIND])
def test_interrupted_it_is_gone_through_again(at: str, candidate: World) -> None:
    candidate.server.stuck.add(at)
    command = candidate.in_background(2, TAKE_OVER)
    candidate.until(lambda _: at in candidate.server.calls)
    candidate.stop_agent()
    assert command
    candidate.server.stuck.clear()
    candidate.start_agent()
    candidate.until(lambda state: state.up)
    candidate.server.calls.clear()
    state = candidate.done(2, TAKE_OVER).state
    assert candidate.server.calls == OPENING + BEHIND
    assert state.writable
    assert state.replication.source == ""
    assert state.proved == 2


def test_what_was_let_through_before_that_is_pending_no_more(candidate: World) -> None:
    candidate.server.stuck.add("prove")
    candidate.in_background(2, TAKE_OVER)
    candidate.until(lambda state: state.writable)
    waits = candidate.server.now.semi_sync
    candidate.server.now = replace(
        candidate.server.now, semi_sync=replace(waits, tally=Tally(let_through=3))
    )
    state = candidate.until(lambda state: bool(state.let_through))
    # the run that it opened is on disk where a manager has given a lease: a long one here, for none is upheld
    told = json.dumps({"electorate": None, "lease": 60.0, "incarnation": state.incarnation})
    candidate.stop_agent()
    (candidate.state_dir / "lease").write_text(told)
    candidate.start_agent()
    candidate.until(lambda state: state.up)
    candidate.server.calls.clear()
    again = candidate.in_background(2, TAKE_OVER)
    candidate.until(lambda _: "prove" in candidate.server.calls)
    assert not candidate.state_dir.joinpath("primary").exists()
    candidate.server.stuck.clear()
    assert again.reply().error == ""
    assert candidate.state_dir.joinpath("primary").exists(), "its row tells"


def test_an_open_primary_that_somebody_pointed_at_another_leaves_that_one(primary: World) -> None:
    elsewhere = Replication("10.0.0.9:3306", Receiver.OFF)
    primary.server.now = replace(primary.server.now, replication=elsewhere)
    primary.until(lambda state: bool(state.replication.source))
    state = primary.done(2, Promote(acks=1, serial=2)).state
    assert primary.server.calls.index("leave") < primary.server.calls.index("prove")
    assert (state.writable, state.replication.source) == (True, "")


def test_asked_again_when_it_is_done_it_proves_itself_once_more(candidate: World) -> None:
    candidate.done(2, TAKE_OVER)
    candidate.server.calls.clear()
    state = candidate.done(2, TAKE_OVER).state
    assert "leave" not in candidate.server.calls
    assert "prove" in candidate.server.calls
    assert state.writable


def test_without_a_frozen_primary_it_does_not_open_while_it_follows(candidate: World) -> None:
    candidate.done(2, Promote(acks=1, serial=2))
    calls = candidate.server.calls
    assert calls.index("stop_receiver") < calls.index("prepare_primary")
    assert calls.index("prove") < calls.index("open")
    assert "leave" not in calls


def test_events_are_enabled_when_all_else_is_done(candidate: World) -> None:
    candidate.done(2, replace(TAKE_OVER, events=True))
    assert candidate.server.calls == [*OPENING, *BEHIND, "start_events"]


def test_a_frozen_primary_says_so_and_becomes_a_replica_as_it_runs(primary: World) -> None:
    before = primary.state().state
    frozen = primary.done(2, Freeze(1.0)).state
    assert (frozen.frozen, frozen.writable) == (2, False)
    assert frozen.semi_sync.source
    after = primary.done(2, replace(FOLLOW, events=True)).state
    assert after.incarnation == before.incarnation
    assert (after.frozen, after.replication.receiver) == (0, Receiver.ON)
    assert primary.server.calls == ["freeze", "stop_events", "follow"]
    assert not primary.state_dir.joinpath("primary").exists()


def test_a_frozen_primary_that_promises_the_next_term_stays_frozen_until_it_follows(
    primary: World,
) -> None:
    """Its successor has died before it followed that."""
    primary.done(2, Freeze(1.0))
    promised = primary.done(3, Promise()).state
    assert (promised.promised, promised.frozen, promised.stopped) == (3, 2, 2)
    for late in (SetAcks(1), Prove(3)):
        assert "no open primary" in primary.command(3, late).message
    after = primary.done(3, FOLLOW).state
    assert (after.promised, after.frozen, after.stopped) == (0, 0, 0)


def test_what_it_has_is_told_once_nobody_writes_while_sessions_are_being_ended(
    primary: World,
) -> None:
    primary.server.stuck.add("end sessions")
    primary.server.now = replace(primary.server.now, applied="0-1-12")
    command = primary.in_background(2, Freeze(5.0))
    seen = primary.until(lambda state: state.stopped == 2)
    assert (seen.applied, seen.frozen, seen.busy) == ("0-1-12", 0, "freeze")
    primary.server.stuck.clear()
    frozen = command.reply().state
    assert (frozen.stopped, frozen.frozen) == (2, 2)
    assert primary.done(2, FOLLOW).state.stopped == 0


def test_a_freeze_that_failed_at_ending_sessions_counts_for_nothing(primary: World) -> None:
    primary.server.stuck.add("end sessions")
    reply = primary.command(2, Freeze(0.2))
    assert reply.error == "OutcomeUnknown"
    assert reply.state.frozen == 0
    primary.server.stuck.clear()
    assert primary.done(3, Promote(acks=1, serial=1)).state.stopped == 0


def test_before_writes_stop_whose_word_will_count_is_on_the_candidates_disk(
    candidate: World,
) -> None:
    candidate.done(2, Drain(electorate=COMING))
    assert ElectorateFile(candidate.state_dir).kept.electorate == COMING
    assert candidate.server.calls == ["drain"]
    assert not candidate.state_dir.joinpath("primary").exists(), "it is none yet"
    candidate.done(3, FOLLOW)
    later = replace(COMING, term=3, serial=1)
    candidate.done(3, Drain(electorate=later))
    assert ElectorateFile(candidate.state_dir).kept.electorate == later, "what was undone is void"


def test_what_cannot_be_noted_on_disk_keeps_it_closed(
    candidate: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: PendingMark, mark: object) -> None:
        raise Refused("cannot write: no space left on device")

    monkeypatch.setattr(PendingMark, "_write", full)
    reply = candidate.command(2, TAKE_OVER)
    assert (reply.error, reply.state.writable) == ("Refused", False)
    assert "no space left" in reply.message
    assert "open" not in candidate.server.calls
    monkeypatch.undo()
    assert candidate.done(2, TAKE_OVER).state.writable


@pytest.mark.parametrize("promote", [TAKE_OVER, Promote(acks=1, serial=1, electorate=COMING)])
def test_what_a_promotion_writes_never_comes_after_what_the_next_command_takes_back(
    candidate: World, monkeypatch: pytest.MonkeyPatch, promote: Promote
) -> None:
    """A replica with the mark of a primary would lose, by a cut, committed rows that a client wrote on it."""
    begin, slow = Releases.begin, threading.Event()

    def later(self: Releases, acks: int) -> None:
        slow.wait(20)
        begin(self, acks)

    monkeypatch.setattr(Releases, "begin", later)
    candidate.server.stuck.add("wait_for_ackers")
    monkeypatch.setattr(Promote, "within", 0.2)
    assert candidate.command(2, promote).error
    monkeypatch.setattr(Follow, "within", 0.2)
    refused = candidate.command(2, FOLLOW)
    assert "files of the promotion before" in refused.message
    assert candidate.done(2, Fence()).state.server is ServerStatus.DOWN, "that waits for nothing"
    monkeypatch.setattr(Follow, "within", 20.0)
    candidate.server.stuck.clear()
    threading.Timer(0.3, slow.set).start()
    candidate.done(2, Start())
    candidate.until(lambda state: state.up)
    candidate.done(2, FOLLOW)
    assert not candidate.state_dir.joinpath("primary").exists()
    assert not ElectorateFile(candidate.state_dir).kept.incarnation


def test_a_frozen_primary_is_opened_again(primary: World) -> None:
    primary.done(2, Freeze(1.0))
    state = primary.done(3, Promote(acks=1, serial=1)).state
    assert (state.frozen, state.writable) == (0, True)


def test_what_freezes_no_longer_than_it_may_is_not_called_frozen(primary: World) -> None:
    primary.server.stuck.add("freeze")
    reply = primary.command(2, Freeze(0.2))
    assert reply.error == "OutcomeUnknown"
    assert (reply.state.frozen, reply.state.writable) == (0, True)


def test_a_replica_is_not_frozen(candidate: World) -> None:
    reply = candidate.command(2, Freeze(1.0))
    assert reply.error == "Refused"
    assert candidate.server.calls == []


def test_sessions_are_ended(primary: World) -> None:
    primary.done(2, EndSessions((7, 8)))
    assert primary.server.calls == ["end_sessions"]


def test_blockers_are_asked_for_beside_a_command(primary: World) -> None:
    primary.server.stuck.add("freeze")
    command = primary.in_background(2, Freeze(2.0))
    primary.until(lambda state: state.busy == "freeze")
    answer = primary.http.get("/v1/blockers", params={"seconds": 0.5})
    assert answer.json() == {"blockers": []}
    assert primary.http.get("/v1/blockers", params={"seconds": "nan"}).status_code == 400
    primary.server.stuck.clear()
    command.reply()
