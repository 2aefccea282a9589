"""What shows that commits completed without a voter, where it is reported, and what is done about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.core.commands import Prove, SetAcks
from holdfast.core.decide import decide
from holdfast.core.decision import Send
from holdfast.core.observed.tally import Tally
from holdfast.core.rules.releases import Release, acknowledged, describe, holds_back, let_through
from holdfast.core.settings import WaitPoint
from holdfast.core.view import SemiSync
from holdfast.manager.leader.decision_log import DecisionLog
from holdfast.manager.leader.events import EventKind, EventLog
from tests.unit.looks import CLUSTER, RECORD, primary, replica, view

TALLY = Tally(acknowledged=10, let_through=3, switched_off=1)
WAITS = SemiSync(source=True, acks=2, tally=TALLY)


def test_commits_that_wait_without_end_are_held_back() -> None:
    assert holds_back(WAITS)
    assert let_through(2, TALLY, WAITS) is None
    assert let_through(2, TALLY, replace(WAITS, tally=replace(TALLY, acknowledged=99))) is None
    assert let_through(1, TALLY, WAITS) is None, "waiting for more than was asked is no harm"


@pytest.mark.parametrize(
    "changes",
    [
        {"source": False},
        {"degraded": True},
        {"timeout_seconds": 0.1},
        {"waits_alone": False},
        {"wait_point": WaitPoint.AFTER_COMMIT},
        {"acks": 1},
    ],
    ids=str,
)
def test_whatever_makes_commits_wait_less_lets_them_through(changes: dict[str, Any]) -> None:
    now = replace(WAITS, **changes)
    assert let_through(2, TALLY, now)
    assert holds_back(now) is ("acks" in changes), "one is enough where one was asked for"


def test_what_was_let_through_between_two_looks_is_counted() -> None:
    more = replace(WAITS, tally=replace(TALLY, let_through=5))
    assert let_through(2, TALLY, more) == Release(
        "the server counts commits without an acknowledgement", 2
    )
    off = replace(WAITS, tally=replace(TALLY, switched_off=2))
    assert let_through(2, TALLY, off) == Release("the waiting was switched off, and on again")


@pytest.mark.parametrize("name", ["acknowledged", "let_through", "switched_off"])
def test_counters_that_went_down_hide_what_was_before(name: str) -> None:
    found = let_through(2, TALLY, replace(WAITS, tally=replace(TALLY, **{name: 0})))
    assert found is not None
    assert found.count == 0
    assert not acknowledged(WAITS, replace(WAITS, tally=replace(TALLY, **{name: 0})))


def test_a_row_is_acknowledged_where_nothing_at_all_was_let_through_meanwhile() -> None:
    assert acknowledged(WAITS, replace(WAITS, tally=replace(TALLY, acknowledged=11)))
    assert not acknowledged(WAITS, replace(WAITS, tally=replace(TALLY, let_through=4)))
    assert not acknowledged(WAITS, replace(WAITS, tally=replace(TALLY, switched_off=2)))
    assert not acknowledged(WAITS, replace(WAITS, degraded=True))
    assert not acknowledged(WAITS, replace(WAITS, acks=1))
    assert not acknowledged(WAITS, SemiSync())


def test_it_is_told_in_words() -> None:
    assert (
        describe(Release("because", 1)) == "1 transaction was acknowledged without a voter: because"
    )
    assert describe(Release("because", 7), "m1").startswith("7 transactions were acknowledged")
    assert describe(Release("because"), "m1") == (
        "commits on m1 may have completed without a voter: because"
    )


def test_a_row_is_proved_again_and_says_why_until_then() -> None:
    """From that row on, what the primary issues is pending again."""
    members = (replica("m2"), replica("m3"))
    assert decide(CLUSTER, RECORD, view(primary(proved=7), *members)).well
    found = decide(CLUSTER, RECORD, view(primary(proved=7, let_through="a hand"), *members))
    assert [type(s.command) for s in found.steps if isinstance(s, Send)] == [Prove]
    assert "may have completed without a voter: a hand" in found.reason
    alone = decide(CLUSTER, RECORD, view(primary(proved=7, let_through="a hand")))
    assert not [s for s in alone.steps if isinstance(s, Send) and isinstance(s.command, Prove)]


def test_a_primary_that_does_not_wait_while_no_replica_is_connected_is_told_to() -> None:
    waits = replace(primary().semi_sync, waits_alone=False)
    found = decide(CLUSTER, RECORD, view(primary(semi_sync=waits), replica("m2"), replica("m3")))
    assert SetAcks(1) in [s.command for s in found.steps if isinstance(s, Send)]


def test_it_is_an_event_once() -> None:
    """Also for a member that is no longer primary, and for what a new manager finds unrepaired."""
    events = EventLog("c")
    heard: list[str] = []
    events.hearers.append(
        lambda e: heard.append(e.text) if e.kind is EventKind.UNACKNOWLEDGED else None
    )

    def tell(decision_log: DecisionLog, **changes: Any) -> list[str]:
        heard.clear()
        look = view(primary(**changes), replica("m2"), replica("m3"))
        decision = decide(CLUSTER, RECORD, look)
        decision_log.decided(CLUSTER, RECORD, look, decision, decision)
        return list(heard)

    first = DecisionLog(events)
    assert tell(first, unacknowledged=4) == []
    assert tell(first, unacknowledged=6, let_through="a hand") == [
        "2 transactions were acknowledged without a voter on m1: a hand"
    ]
    assert tell(first, unacknowledged=6, let_through="a hand") == []
    assert tell(first, unacknowledged=7, let_through="a hand", writable=False)
    assert tell(first, unacknowledged=7) == []
    assert tell(DecisionLog(events), unacknowledged=7) == []
    assert tell(DecisionLog(events), unacknowledged=7, let_through="a hand") == [
        "7 transactions were acknowledged without a voter on m1: a hand"
    ]
