"""Sessions that hold a promotion up are ended after a time limit, round by round, and named; no others are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from holdfast.agent.observe.freeing import AGAIN_SECONDS, FREE_SECONDS, PromotionFreeing
from holdfast.agent.runtime.steps import Steps
from holdfast.clock import SYSTEM_CLOCK
from holdfast.core.commands import Command, Drain, Follow, Promise, Promote
from holdfast.core.lease import Electorate
from holdfast.core.observed.blockers import Blocker, Holds
from holdfast.errors import Unreachable
from holdfast.server.base import Deadline, Server
from tests.unit.hand_clock import HandClock

WHO = Blocker(32, "backup", "db2", Holds.LOCK, 7.0, "")
PROMOTE = Promote(1, 7)
FOLLOW = Follow("a", "127.0.0.1", 3306, semi_sync=True)


class Clock:
    """:ivar asked: when the server was ordered to end sessions, and whether for the last time"""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[tuple[float, bool]] = []
        self.found: Sequence[Blocker] | None = (WHO,)
        self.answers = True

    def free(self, deadline: Deadline, last_time: bool) -> Sequence[Blocker] | None:
        self.asked.append((round(self.now, 2), last_time))
        if not self.answers:
            raise Unreachable("no answer")
        return self.found

    def looks(self, what: PromotionFreeing, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            what.looked()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def of(clock: Clock) -> PromotionFreeing:
    return PromotionFreeing(cast("Server", cast("Any", clock)), HandClock(lambda: clock.now))


@pytest.mark.parametrize("command", [Drain(), PROMOTE])
def test_they_are_ended_after_the_bound_and_those_that_are_not_known_in_the_second_round(
    clock: Clock, command: Command
) -> None:
    what, steps = of(clock), Steps(SYSTEM_CLOCK)
    with what.during(5, command, steps):
        clock.looks(what, FREE_SECONDS - 0.1)
        assert clock.asked == []
        clock.looks(what, 2 * AGAIN_SECONDS)
    first = 100.0 + FREE_SECONDS
    assert [last for _, last in clock.asked] == [False, True]
    assert clock.asked[0][0] == pytest.approx(first, abs=0.11)
    assert list(steps.ms) == [f"ended {WHO}"]
    clock.looks(what, 5.0)
    assert len(clock.asked) == 2, "nothing is under way"


def test_what_came_before_in_the_same_failover_counts(clock: Clock) -> None:
    what = of(clock)
    with what.during(5, Drain(), Steps(SYSTEM_CLOCK)):
        clock.looks(what, 1.5)
    with what.during(5, PROMOTE, Steps(SYSTEM_CLOCK)):
        clock.looks(what, 0.7)
    assert len(clock.asked) == 1
    clock.now += 60.0
    with what.during(5, PROMOTE, Steps(SYSTEM_CLOCK)):
        clock.looks(what, 1.0)
    assert len(clock.asked) == 1


def test_who_is_to_acknowledge_to_a_new_primary_has_had_its_time_since_it_promised(
    clock: Clock,
) -> None:
    what = of(clock)
    with what.during(5, Promise(), Steps(SYSTEM_CLOCK)):
        clock.looks(what, 0.1)
    clock.looks(what, FREE_SECONDS)
    assert clock.asked == [], "nothing is under way here"
    with what.during(5, FOLLOW, Steps(SYSTEM_CLOCK)):
        clock.looks(what, 0.2)
    assert len(clock.asked) == 1
    clock.now += 60.0
    with what.during(5, FOLLOW, Steps(SYSTEM_CLOCK)):
        clock.looks(what, 1.0)
    with what.during(6, FOLLOW, Steps(SYSTEM_CLOCK)):
        clock.looks(what, 9.0)
    assert len(clock.asked) == 1, "that is no failover"


def test_nobody_is_ended_in_a_switchover_or_for_another_command(clock: Clock) -> None:
    what = of(clock)
    switched = (
        Drain(upto="0-1-7"),
        Drain(electorate=Electorate("b", 1, 1, ())),
        Promote(1, 7, drained="0-1-7"),
    )
    for command in (*switched, FOLLOW):
        with what.during(5, command, Steps(SYSTEM_CLOCK)):
            clock.looks(what, 5.0)
    assert clock.asked == []


def test_a_server_that_does_not_tell_is_asked_again(clock: Clock) -> None:
    what = of(clock)
    clock.answers = False
    with what.during(5, PROMOTE, Steps(SYSTEM_CLOCK)):
        clock.looks(what, FREE_SECONDS + 3 * AGAIN_SECONDS)
    assert len(clock.asked) > 2
    assert not any(last for _, last in clock.asked)


@pytest.mark.parametrize(("found", "wanted"), [(None, False), ((), True)])
def test_all_go_only_where_something_waits_and_nobody_else_was_found(
    clock: Clock, found: Sequence[Blocker] | None, wanted: bool
) -> None:
    what = of(clock)
    clock.found = found
    with what.during(5, PROMOTE, Steps(SYSTEM_CLOCK)):
        clock.looks(what, FREE_SECONDS + 2 * AGAIN_SECONDS)
    assert any(last for _, last in clock.asked) is wanted
