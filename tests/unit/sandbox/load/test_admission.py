"""The figures of an admission come from the writers' journals and the manager's events."""

from __future__ import annotations

import pytest

from holdfast.sandbox.load.admission import Admission, Look, Window, _admission
from holdfast.sandbox.load.events import SeenEvent
from holdfast.sandbox.load.journal import Journal, WriteReport
from holdfast.sandbox.load.verification import WriteVerification


def report(*writers: list[float]) -> WriteReport:
    journals = [Journal(number) for number in range(1, len(writers) + 1)]
    for journal, times in zip(journals, writers, strict=True):
        for number, at in enumerate(times):
            journal.acknowledge(number, at)
    return WriteReport(1, journals)


def test_the_longest_gap_counts_when_it_only_begins_or_ends_in_the_window() -> None:
    seen = report([10.0, 10.1, 10.9], [10.05, 11.0, 11.1])
    window = Window.of(seen, 2, 10.2, 10.3)
    assert window.longest is not None
    assert (window.longest.begin, window.longest.end) == (10.1, 10.9)
    assert window.ms == pytest.approx(800)
    assert window.one_writer_ms == pytest.approx(950)


def test_what_lies_outside_the_window_does_not_count() -> None:
    window = Window.of(report([1.0, 5.0, 5.1, 5.2, 9.0]), 1, 5.05, 5.15)
    assert window.ms == pytest.approx(100)
    assert Window.of(report([1.0]), 1, 2.0, 3.0).ms is None


def test_what_the_kill_did_is_not_counted_as_quiet() -> None:
    seen = report([1.0, 1.1, 1.18, 1.9, 2.0])
    assert Window.of(seen, 1, 1.0, 1.2, beyond=False).ms == pytest.approx(100)
    assert Window.of(seen, 1, 1.0, 1.2).ms == pytest.approx(720)


def test_searches_for_the_primary_are_no_writers() -> None:
    window = Window.of(report([1.0, 1.1, 1.2], [1.0, 1.2]), 1, 1.0, 1.2)
    assert window.one_writer_ms == pytest.approx(100)


def test_an_admission_lasts_until_its_last_step_and_a_while() -> None:
    events = [
        SeenEvent(1.0, "decided", "one vote less", "m1"),
        SeenEvent(2.0, "decided", "one vote more", "m1", admitted=("m2",)),
        SeenEvent(2.1, "decided", "they vote", "m1", settled=True),
        SeenEvent(2.2, "whole", "all well"),
        SeenEvent(2.4, "command", "m2 is well", "m2", {"following": 300.0}, 350.0, "follow"),
        SeenEvent(2.9, "command", "m3 is well", "m3", {}, 1.0, "follow"),
    ]
    begin, end, steps = _admission(events, "m2", 0.5, 2.2)
    assert begin == 2.0
    assert end == pytest.approx(2.7)
    assert steps == tuple(events[1:5])


def test_stages_and_steps_are_told_in_their_order_with_their_times() -> None:
    looks = (
        Look(0.0, "", None, None),
        Look(1.0, "learner", 500, 9.0),
        Look(1.5, "learner", 300, 5.0),
        Look(3.0, "voter", 0, None),
    )
    events = (
        SeenEvent(2.0, "command", "m2 is well", "m2", {"following": 30.0}, 35.0, "follow"),
        SeenEvent(2.1, "command", "m3 is well", "m3", {"following": 20.0}, 40.0, "follow"),
        SeenEvent(2.2, "decided", "something"),
    )
    window = Window(0.0, 1.0, None, 0.0)
    found = Admission(
        "m2", report(), window, None, window, window, looks, events, {}, 1.0, WriteVerification(())
    )
    assert found.stage_ms == {"not following": 1000.0, "learner": 2000.0}
    assert found.step_ms == {"follow": 40.0, "follow.following": 30.0}
