"""A replica that an operator opens is closed by its agent, whether a manager leads or not; one that a command opened is
not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from holdfast.agent.promise.pending_mark import PendingMark
from holdfast.agent.promise.releasing import Releases
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.commands import Follow, Promote
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, Replication, ServerStatus
from holdfast.errors import Refused
from holdfast.server.base import Server
from tests.unit.agent_world import MemoryServer, World, do_now, running

FOLLOW = Follow("b", "127.0.0.1", 3306, semi_sync=True)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[World]:
    with running(tmp_path) as world:
        yield world


def open_it(world: World) -> None:
    """As an operator does."""
    world.server.now = replace(world.server.now, writable=True)


def closed(world: World) -> bool:
    return "shut" in world.server.calls and not world.server.now.writable


@pytest.mark.parametrize("detached", [False, True])
def test_a_replica_is_closed_also_where_a_hand_took_its_source_away(
    detached: bool, up: World
) -> None:
    run = up.done(1, FOLLOW).state.incarnation
    if detached:
        up.server.now = replace(up.server.now, replication=Replication())
    open_it(up)
    up.until(lambda _: closed(up))
    state = up.until(lambda state: state.reason == "")
    assert (state.incarnation, state.writable) == (run, False)


def test_one_that_cannot_be_closed_is_killed(up: World) -> None:
    up.done(1, FOLLOW)
    up.server.stuck.add("shut")
    open_it(up)
    state = up.until(lambda state: state.server is ServerStatus.DOWN)
    assert "this replica was made writable by hand, and cannot be made read-only" in state.reason


def test_one_that_was_primary_is_a_replica_like_any_other(up: World) -> None:
    up.done(1, Promote(acks=1, serial=1))
    up.server.now = replace(up.server.now, writable=False)
    up.until(lambda state: not state.writable)
    up.done(2, FOLLOW)
    open_it(up)
    up.until(lambda _: closed(up))


@pytest.mark.parametrize(
    ("term", "opened", "replication", "closes"),
    [
        (1, "", Replication("b:1"), True),
        (1, "another run", Replication("b:1"), True),
        (1, "a run", Replication("b:1"), False),  # a switchover opens it while it still follows
        (1, "a run", Replication(), False),
        (1, "", Replication(), False),  # a primary that was adopted, and has no lease yet
        (0, "", Replication("b:1"), False),  # a replica that is not adopted yet
    ],
)
def test_what_its_agent_has_opened_stays_open_and_before_it_is_adopted_nothing_is_done_to_it(
    term: int, opened: str, replication: Replication, closes: bool, tmp_path: Path
) -> None:
    server = MemoryServer()
    state = MemberState("a", Flavor.MARIADB, term=term, promised=0, server=ServerStatus.UP)
    published = PublishedState(replace(state, incarnation="a run"))
    killed: list[str] = []
    mark = PendingMark(tmp_path / "primary", tmp_path / "index", do_now)
    releases = Releases(
        cast("Server", server),
        published,
        mark,
        tmp_path / "sock",
        lambda run: run == opened,
        killed.append,
    )
    server.now = replace(server.now, writable=True, replication=replication)
    if closes:
        with pytest.raises(Refused, match="it is read-only again"):
            releases.seen(server.now, time.monotonic())
    else:
        releases.seen(server.now, time.monotonic())
    assert server.now.writable is not closes
    assert killed == []
