"""One connection stays reserved for replicas and the agent, and clients get no more than they had."""

from __future__ import annotations

from typing import Any, cast

import pytest

from holdfast.agent.observe.slots import EVERY_SECONDS, WAITED_SECONDS, Slots
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, ServerStatus
from holdfast.server.base import Crowd, Deadline, Server
from holdfast.server.connection.slots import MOST_MORE, ROOM, wanted
from tests.unit.hand_clock import HandClock


@pytest.mark.parametrize(
    ("used", "limit", "expected"),
    [
        (7, 40, 40),
        (40, 40, 40),  # all in use, and one reserved beyond
        (41, 40, 41),  # the reserved one is taken
        (43, 42, 43),
        (41, 43, 41),  # one client has left: another must not take its place
        (12, 43, 40),  # there is room again
        (400, 399, 40 + MOST_MORE),
    ],
)
def test_the_limit_leaves_one_reserved_and_nothing_for_clients(
    used: int, limit: int, expected: int
) -> None:
    assert wanted(Crowd(used, limit, limit), 40, False) == expected


def test_a_promotion_that_waits_makes_room_for_replicas_without_the_privilege() -> None:
    assert wanted(Crowd(40, 40, 40), 40, True) == 40 + ROOM
    assert wanted(Crowd(50, 56, 56), 40, True) == 56, "nothing is taken back while it waits"
    assert wanted(Crowd(99, 99, 99), 40, True) == 40 + MOST_MORE
    assert wanted(Crowd(7, 40, 40), 40, True) == 40


class World:
    """:ivar asked: with which limit, and whether for a promotion"""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[tuple[int, bool]] = []
        self.crowd = Crowd(7, 40, 40)
        state = MemberState("a", Flavor.MARIADB, server=ServerStatus.UP, incarnation="r")
        self.published = PublishedState(state, HandClock(lambda: self.now))
        self.slots = Slots(cast("Server", cast("Any", self)), self.published)

    def keep_slot(self, given: int, promoting: bool, deadline: Deadline) -> Crowd:
        self.asked.append((given, promoting))
        return self.crowd

    def look(self, seconds: float = EVERY_SECONDS) -> None:
        self.now += seconds
        self.slots.looked()


@pytest.fixture
def world() -> World:
    return World()


def test_it_is_looked_at_once_a_second_and_at_each_look_of_a_promotion(world: World) -> None:
    for _ in range(8):
        world.look(EVERY_SECONDS / 4)
    assert len(world.asked) == 2
    world.published.change(busy="promote")
    world.asked.clear()
    world.look(0.1)
    world.look(WAITED_SECONDS - 0.1)
    world.look(0.1)
    assert world.asked == [(0, False), (0, False), (0, True)]


def test_what_the_server_was_given_is_remembered_told_and_put_back(world: World) -> None:
    world.look()
    world.crowd = Crowd(41, 41, 40)
    world.look()
    assert "max_connections is 40" in world.published.state.reason
    assert "it is 41" in world.published.state.reason
    world.crowd = Crowd(12, 40, 41)
    world.look()
    assert world.asked == [(0, False), (0, False), (40, False)]
    assert world.published.state.reason == ""


def test_another_limit_by_a_hand_counts(world: World) -> None:
    world.crowd = Crowd(41, 41, 40)
    world.look()
    world.crowd = Crowd(41, 500, 500)
    world.look()
    world.look()
    assert [given for given, _ in world.asked] == [0, 40, 0]
    assert world.published.state.reason == ""


def test_another_run_of_the_server_has_its_own(world: World) -> None:
    world.crowd = Crowd(41, 41, 40)
    world.look()
    world.published.change(incarnation="s")
    world.look()
    assert [given for given, _ in world.asked] == [0, 0]
    world.published.change(server=ServerStatus.STARTING)
    world.look()
    assert len(world.asked) == 2
