"""An agent distinguishes a broken applier, and one that is held up, from look to look."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.agent.observe.applying import (
    FORGIVEN_SECONDS,
    GONE_SECONDS,
    STEADY_SECONDS,
    ApplierWatch,
)
from holdfast.core.gtid import Flavor
from holdfast.core.view import Receiver, Replication
from holdfast.server.base import Observation
from tests.unit.agent_world import MemoryServer

ERROR = "Can't find record in 't'"


def look(
    received: str = "0-1-10", applied: str = "0-1-10", error: str = "", **changes: Any
) -> Observation:
    replication = Replication("a:1", Receiver.ON, not error, error, applier_error=error)
    following = replace(replication, **changes)
    return replace(MemoryServer().now, received=received, applied=applied, replication=following)


STOPPED = look(applied="0-1-7", error=ERROR)
TRIES = look(applied="0-1-7")


@pytest.fixture
def watch() -> ApplierWatch:
    made = ApplierWatch(Flavor.MARIADB)
    assert not made.seen(look(), 0.0).error
    return made


def test_one_that_is_tried_again_and_again_is_broken_all_the_while(watch: ApplierWatch) -> None:
    assert watch.seen(STOPPED, 10.0).error == ERROR
    for at in range(11, 60, 2):
        tried = watch.seen(TRIES, float(at))
        assert (tried.error, tried.seconds) == (ERROR, at - 10.0)
        assert watch.seen(STOPPED, at + 0.1).error == ERROR


def test_the_same_trouble_in_other_words_is_no_news(watch: ApplierWatch) -> None:
    watch.seen(STOPPED, 10.0)
    assert watch.seen(look(applied="0-1-7", error=f"{ERROR} at log.1"), 11.0).error == ERROR
    further = watch.seen(look(applied="0-1-8", error="table is full"), 12.0)
    assert (further.error, further.seconds) == ("table is full", 2.0)


def test_one_that_comes_past_it_and_has_nothing_left_is_sound(watch: ApplierWatch) -> None:
    watch.seen(STOPPED, 10.0)
    assert not watch.seen(look(), 11.0).error


def test_one_that_comes_on_is_sound_only_when_it_has_run_for_a_while(watch: ApplierWatch) -> None:
    """With several threads, one continues for a moment."""
    watch.seen(STOPPED, 10.0)
    runs = look("0-1-90", "0-1-8")
    assert watch.seen(runs, 11.0).error
    assert watch.seen(runs, 11.0 + STEADY_SECONDS - 0.1).error
    assert not watch.seen(runs, 11.0 + STEADY_SECONDS).error


def test_a_server_that_was_restarted_has_nothing_left_because_it_has_received_nothing(
    watch: ApplierWatch,
) -> None:
    watch.seen(STOPPED, 10.0)
    nothing = look("0-1-7", "0-1-7")
    assert watch.seen(nothing, 11.0).error
    connecting = look("0-1-7", "0-1-7", receiver=Receiver.CONNECTING)
    assert watch.seen(connecting, 99.0).error
    assert watch.seen(nothing, 100.0).error
    assert not watch.seen(nothing, 100.0 + STEADY_SECONDS).error, "a hand has mended it"


def test_a_primary_has_no_applier(watch: ApplierWatch) -> None:
    watch.seen(STOPPED, 10.0)
    assert not watch.seen(MemoryServer().now, 11.0).error


def test_a_copy_that_has_not_helped_is_counted_for_an_hour(watch: ApplierWatch) -> None:
    watch.replaced(5.0)  # an operator's clone of a member that was sound
    assert watch.seen(STOPPED, 10.0).repairs == 0
    watch.replaced(20.0)
    again = watch.seen(STOPPED, 21.0)
    assert (again.error, again.seconds, again.repairs) == (ERROR, 0.0, 1)
    assert watch.seen(STOPPED, 20.0 + FORGIVEN_SECONDS).repairs == 0


def test_one_that_finishes_nothing_although_something_is_left_is_held_up(
    watch: ApplierWatch,
) -> None:
    assert watch.seen(look("0-1-10", "0-1-10"), 50.0).stalled == 0, "nothing is left"
    assert watch.seen(look("0-1-11", "0-1-10"), 51.0).stalled == 1.0
    assert watch.seen(look("0-1-12", "0-1-10"), 53.0).stalled == 3.0
    assert watch.seen(look("0-1-12", "0-1-11"), 54.0).stalled == 0
    assert watch.seen(look("0-1-12", "0-1-11", error=ERROR), 60.0).stalled == 0, "broken is worse"


def test_files_that_are_removed_while_it_runs_are_told_once_no_purge_explains_it(
    watch: ApplierWatch,
) -> None:
    assert not watch.seen(look(), 5.0).removed, "who may not read the index sees none, ever"
    watch.seen(look(), 10.0, files=True)
    assert not watch.seen(look(), 10.0 + GONE_SECONDS - 0.1).removed
    gone = watch.seen(look(), 15.0)
    assert (gone.removed, gone.error, gone.seconds) == (True, "", 5.0)
    assert not watch.seen(look(), 15.1, files=True).removed


def test_a_copy_in_place_of_data_without_binlog_files_is_a_repair(watch: ApplierWatch) -> None:
    watch.seen(look(), 0.0, files=True)
    assert watch.seen(look(), 10.0).removed
    watch.replaced(11.0)
    after = watch.seen(look(), 12.0)
    assert not after.removed, "its new server has just begun"
    assert after.repairs == 1
