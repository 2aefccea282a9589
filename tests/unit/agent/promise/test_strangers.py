"""The agent of a primary ends sessions that acknowledge and are no member's, and reports what they released."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.promise.strangers import SAY_SECONDS, Strangers
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.clock import SystemClock
from holdfast.core.commands import EndReplicas, Follow, Promote, Prove, Start
from holdfast.core.gtid import Flavor
from holdfast.core.lease import Electorate, Quorum
from holdfast.core.observed.dumps import Acks, Dump
from holdfast.core.rules.ackers import NAMELESS_SECONDS
from holdfast.core.view import MemberState, SemiSync, ServerStatus
from holdfast.errors import Refused
from holdfast.server.base import Deadline
from tests.unit.agent_world import MemoryServer, World
from tests.unit.hand_clock import HandClock

MEMBERS = frozenset({"repl_a", "repl_b", "repl_c"})
VOTER = Dump(1, "repl_b", "10.0.0.2", "2", Acks.YES)
READER = Dump(2, "reports", "10.0.0.8", "8")
STRANGER = Dump(3, "cdc", "10.0.0.9", "9", Acks.YES)
ELECTORATE = Electorate("a", 1, 1, (Quorum(("b", "c"), 1),), {}, "127.0.0.1:3306", True, MEMBERS)


class Alone:
    """The part by itself, beside a primary in memory whose commits wait."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 100.0
        self.server = MemoryServer()
        self.server.dumps.there = (VOTER, READER)
        self.accounts = MEMBERS
        self.begin()

    def begin(self) -> None:
        """The agent's run."""
        state = MemberState("a", Flavor.MARIADB, server=ServerStatus.UP, incarnation="1")
        self.published = PublishedState(
            replace(state, semi_sync=SemiSync(True, 1), applied="0-1-10"),
            HandClock(lambda: self.now),
        )
        self.part = Strangers(self.server.dumps, self.published, lambda: self.accounts, self.folder)
        self.fallen = 0
        self.part.let_through = self._let_through

    def _let_through(self) -> None:
        assert len(self.server.dumps.there) > 2 or self.fallen, "the mark falls first"
        self.fallen += 1

    def comes(self, *dumps: Dump, applied: str = "0-1-13") -> None:
        self.server.dumps.there += dumps or (STRANGER,)
        self.server.now = replace(self.server.now, applied=applied)

    @property
    def state(self) -> MemberState:
        return self.published.state


@pytest.fixture
def alone(tmp_path: Path) -> Alone:
    made = Alone(tmp_path)
    made.part.step()
    return made


def test_members_and_readers_are_left_alone(alone: Alone) -> None:
    assert alone.server.dumps.there == alone.state.dumps == (VOTER, READER)
    assert not alone.fallen
    assert alone.state.doubt is None


def test_a_stranger_is_ended_and_shut_out_and_what_it_may_have_released_is_in_doubt(
    alone: Alone,
) -> None:
    alone.comes()
    alone.part.step()
    assert alone.server.dumps.there == alone.state.dumps == (VOTER, READER)
    assert alone.server.dumps.locked == {"cdc"}
    assert alone.fallen
    doubt = alone.state.doubt
    assert doubt
    assert (doubt.upto, doubt.transactions) == ("0-1-13", 3)
    assert "server 9 at 10.0.0.9, cdc, acknowledged, is no member" in doubt.why
    assert "SET sql_log_bin = 0; ALTER USER cdc ACCOUNT UNLOCK" in alone.state.reason
    # what was released in the last moment is committed a moment later
    alone.server.now = replace(alone.server.now, applied="0-1-14")
    alone.part.step()
    assert alone.state.doubt
    assert alone.state.doubt.upto == "0-1-14"
    alone.server.now = replace(alone.server.now, applied="0-1-99")
    alone.part.step()
    assert alone.state.doubt.upto == "0-1-14"


def test_on_a_replica_a_locked_account_is_no_reason_to_act(alone: Alone) -> None:
    alone.published.change(barred=("cdc",))
    alone.comes()
    alone.part.step()
    alone.now += SAY_SECONDS
    alone.part.step()
    assert "ACCOUNT UNLOCK" in alone.state.reason
    alone.published.change(semi_sync=SemiSync())
    alone.part.step()
    assert not alone.state.reason
    alone.published.change(semi_sync=SemiSync(True, 1))
    alone.part.step()
    assert "ACCOUNT UNLOCK" in alone.state.reason
    alone.published.change(barred=())
    alone.part.step()
    assert not alone.state.reason


def test_nobody_is_a_stranger_while_the_members_are_not_known(alone: Alone) -> None:
    alone.accounts = frozenset()
    alone.comes()
    alone.part.step()
    assert STRANGER in alone.state.dumps


def test_where_commits_wait_for_nobody_anybody_may_acknowledge(alone: Alone) -> None:
    alone.published.change(semi_sync=SemiSync())
    alone.comes()
    alone.part.step()
    assert not alone.fallen
    assert alone.state.dumps == ()


def test_the_doubt_outlives_the_agent_and_ends_with_a_proof(alone: Alone) -> None:
    alone.comes()
    alone.part.step()
    told = alone.state.doubt
    assert told
    alone.begin()
    assert alone.state.doubt == told
    alone.part.refuse_if_there(alone.part.seen, Deadline(1))
    assert alone.state.doubt is None
    alone.begin()
    assert alone.state.doubt is None


def test_a_row_proves_nothing_while_a_stranger_is_there_or_was(alone: Alone) -> None:
    seen = alone.part.seen
    alone.comes()
    with pytest.raises(Refused, match="no voter"):
        alone.part.refuse_if_there(seen, Deadline(1))
    assert alone.state.doubt, "it was ended, and left its doubt"
    with pytest.raises(Refused, match="no voter"):
        alone.part.refuse_if_there(seen, Deadline(1))
    alone.part.refuse_if_there(alone.part.seen, Deadline(1))
    assert alone.state.doubt is None


def test_one_by_a_members_account_that_does_not_say_who_it_is_may_not_stay(
    alone: Alone,
) -> None:
    silent = replace(VOTER, session=7, server="")
    alone.comes(silent)
    alone.part.step()
    assert silent in alone.state.dumps, "a member's agent may be acknowledging what it had received"
    alone.now += NAMELESS_SECONDS
    alone.part.step()
    assert alone.server.dumps.there == alone.state.dumps == (VOTER, READER)
    assert not alone.server.dumps.locked
    assert alone.state.doubt
    assert "does not say which server it is" in alone.state.doubt.why


def test_one_that_cannot_be_ended_leaves_a_doubt_all_the_more(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(sessions: tuple[int, ...], deadline: Deadline) -> None:
        raise Refused("no")

    monkeypatch.setattr(alone.server.dumps, "end", fails)
    alone.comes()
    with pytest.raises(Refused):
        alone.part.step()
    assert alone.state.doubt
    assert alone.fallen


# -- in an agent ----------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.done(1, Start())
    world.until(lambda state: state.up)
    yield world
    world.end()


def promote(world: World) -> None:
    """Without a lease; it learns the members from its proof."""
    world.done(1, Promote(1, 1))
    world.done(1, Prove(1, ELECTORATE))


def test_the_mark_falls_with_a_stranger_and_stands_again_after_a_proof(world: World) -> None:
    promote(world)
    mark = world.state_dir / "primary"
    assert mark.exists()
    assert not world.state().state.let_through
    world.server.dumps.there = (STRANGER,)
    world.until(lambda state: state.doubt is not None)
    assert world.state().state.let_through, "the mark has fallen"
    assert world.server.dumps.look(Deadline(1)).dumps == ()
    proven = world.done(1, Prove(2, ELECTORATE)).state
    assert proven.doubt is None
    assert proven.proved == 2
    assert not proven.let_through


class LooksNeverAgain(SystemClock):
    """For the thread that looks at the replicas now and then no time passes."""

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        looks = threading.current_thread().name == "strangers"
        return super().wait(event, None if looks else seconds)


def test_a_row_that_a_stranger_acknowledged_proves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.clock = LooksNeverAgain()
    world.restart_agent()
    world.until(lambda state: state.up)
    promote(world)
    prove = world.server.prove

    def acknowledged(*args: Any, **more: Any) -> SemiSync:
        world.server.dumps.there = (STRANGER,)
        return prove(*args, **more)

    monkeypatch.setattr(world.server, "prove", acknowledged)
    reply = world.command(1, Prove(2, ELECTORATE))
    assert "no voter" in reply.message
    assert reply.state.proved == 1
    assert reply.state.let_through


def test_a_manager_names_sessions_to_be_ended(world: World) -> None:
    promote(world)
    world.server.dumps.there = (VOTER, replace(VOTER, session=4))
    reply = world.done(1, EndReplicas((4,), "server 99 is not b"))
    assert world.server.dumps.look(Deadline(1)).dumps == (VOTER,)
    assert reply.state.doubt
    assert reply.state.doubt.why == "server 99 is not b"
    assert reply.state.let_through


def test_one_that_follows_another_doubts_nothing_any_more(world: World) -> None:
    promote(world)
    world.server.dumps.there = (STRANGER,)
    world.until(lambda state: state.doubt is not None)
    world.server.now = replace(world.server.now, writable=False, semi_sync=SemiSync())
    world.until(lambda state: not state.writable)
    world.done(2, Follow("b", "127.0.0.1", 3306, semi_sync=True))
    assert world.state().state.doubt is None
    assert not (world.state_dir / "doubt").exists()
