"""What programs can read about a save of the record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.change.restart import CLOSING
from holdfast.core.history.changed import RecordChange, changed
from holdfast.core.history.entry import Outcome
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.rules.returned import OPENING
from holdfast.core.transition import Bootstrap, Failover, Step, Strengthen, Switchover, Transition

VOTING = Configuration(frozenset({("m1", "a"), ("m2", "b"), ("m3", "c")}), 1)
WITHOUT = Configuration(frozenset({("m1", "a"), ("m3", "c")}), 1)
CALM = Record(7, "m1", 3, (VOTING,), 5)


def under_way(transition: Transition) -> Record:
    return replace(CALM, transition=transition)


def test_a_record_that_changes_nothing_of_this_is_an_empty_change() -> None:
    assert changed(CALM, replace(CALM, lease=3.0)) == RecordChange()


def test_another_primary_is_named() -> None:
    named = replace(under_way(Switchover(Step.OPEN, "m2")), primary="m2")
    change = changed(under_way(Switchover(Step.FREEZE, "m2")), named)
    assert change == RecordChange(named=True)


@pytest.mark.parametrize(
    ("transition", "outcome"),
    [
        (Switchover(Step.CHAIN, "m2"), Outcome.UNDONE),
        (Switchover(Step.FREEZE, "m2"), Outcome.UNDONE),
        (Switchover(Step.OPEN, "m2"), Outcome.DONE),
        (Failover(Step.ELECT, "m1"), Outcome.UNDONE),
        (Failover(Step.OPEN, "m1"), Outcome.DONE),
        (CLOSING, Outcome.UNDONE),
        (OPENING, Outcome.DONE),
    ],
)
def test_what_is_under_way_ends(transition: Transition, outcome: Outcome) -> None:
    change = changed(under_way(transition), CALM)
    assert (change.ended, change.outcome) == (transition.kind, outcome)


@pytest.mark.parametrize("transition", [Bootstrap(), Strengthen()])
def test_what_the_history_has_no_entry_of_is_no_end(transition: Transition) -> None:
    assert changed(under_way(transition), CALM) == RecordChange()


def test_a_step_that_follows_another_ends_nothing() -> None:
    before = under_way(Switchover(Step.CHAIN, "m2"))
    after = under_way(Switchover(Step.FREEZE, "m2"))
    assert changed(before, after).ended is None


def test_voters_come_go_and_are_settled() -> None:
    leaving = CALM.extended(WITHOUT)
    assert changed(CALM, leaving) == RecordChange(dismissed=("m2",))
    settled = leaving.settled("a")
    assert changed(leaving, settled) == RecordChange(settled=True)
    coming = settled.extended(VOTING)
    assert changed(settled, coming) == RecordChange(admitted=("m2",))


def test_another_run_of_a_voter_is_admitted_anew() -> None:
    anew = Configuration(frozenset({("m1", "a"), ("m2", "d"), ("m3", "c")}), 1)
    change = changed(CALM, CALM.extended(anew))
    assert (change.admitted, change.dismissed) == (("m2",), ("m2",))
