"""What programs can read about a save of the record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.history.changed import RecordChange, changed
from holdfast.core.history.entry import Outcome
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record, Step, Transition, TransitionKind

VOTING = Configuration(frozenset({("m1", "a"), ("m2", "b"), ("m3", "c")}), 1)
WITHOUT = Configuration(frozenset({("m1", "a"), ("m3", "c")}), 1)
CALM = Record(7, "m1", 3, (VOTING,), 5)


def under_way(kind: TransitionKind, step: Step) -> Record:
    return replace(CALM, transition=Transition(kind, step))


def test_a_record_that_changes_nothing_of_this_is_an_empty_change() -> None:
    assert changed(CALM, replace(CALM, lease=3.0)) == RecordChange()


def test_another_primary_is_named() -> None:
    named = replace(under_way(TransitionKind.SWITCHOVER, Step.OPEN), primary="m2")
    change = changed(under_way(TransitionKind.SWITCHOVER, Step.FREEZE), named)
    assert change == RecordChange(named=True)


@pytest.mark.parametrize(
    ("kind", "step", "outcome"),
    [
        (TransitionKind.SWITCHOVER, Step.CHAIN, Outcome.UNDONE),
        (TransitionKind.SWITCHOVER, Step.FREEZE, Outcome.UNDONE),
        (TransitionKind.SWITCHOVER, Step.PROVE, Outcome.DONE),
        (TransitionKind.FAILOVER, Step.ELECT, Outcome.UNDONE),
        (TransitionKind.FAILOVER, Step.OPEN, Outcome.DONE),
        (TransitionKind.RESTART, Step.CLOSE, Outcome.UNDONE),
        (TransitionKind.RESTART, Step.OPEN, Outcome.DONE),
    ],
)
def test_what_is_under_way_ends(kind: TransitionKind, step: Step, outcome: Outcome) -> None:
    change = changed(under_way(kind, step), CALM)
    assert (change.ended, change.outcome) == (kind, outcome)


def test_a_step_that_follows_another_ends_nothing() -> None:
    before = under_way(TransitionKind.SWITCHOVER, Step.CHAIN)
    after = under_way(TransitionKind.SWITCHOVER, Step.FREEZE)
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
