"""Which member to verify next, and what a difference means for which member may take over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.change.takeover import FailoverOrder
from holdfast.core.change.takeover import against as against_failover
from holdfast.core.commands import Verify
from holdfast.core.decide import decide
from holdfast.core.decision import Send
from holdfast.core.gtid import Flavor
from holdfast.core.members.rejoin import best_donor
from holdfast.core.members.verification import due, objections, told
from holdfast.core.observed.comparison import Difference, Verification
from holdfast.core.observed.progress import Progress
from holdfast.core.record import Pause, Record
from holdfast.core.rules.election import Elected, NobodyElected, elect
from holdfast.core.settings import Settings
from holdfast.core.view import MemberState, View
from tests.unit.looks import CLUSTER, RECORD, down, primary, replica, unseen, view

DAY = 86_400.0
WEEKLY = replace(CLUSTER, settings=Settings(verify_every=7 * DAY))
ODD = (Difference("shop.orders", "id behind 5 up to 9"),)
STEP = Verify("m1", "")


def verified(began: float, ended: float = 0.0, different: int = 0) -> Verification:
    return Verification(began, ended, "m1", 12, 1, 3400, different)


def seen(*others: MemberState, date: float = 100 * DAY) -> View:
    return view(primary(), *others, date=date)


def test_nothing_is_due_without_a_schedule_but_what_was_interrupted() -> None:
    assert due(CLUSTER, RECORD, seen(replica("m2"), replica("m3"))) is None
    interrupted = replica("m3", verified=verified(99 * DAY))
    assert due(CLUSTER, RECORD, seen(replica("m2"), interrupted)) == Send("m3", STEP)


def test_the_one_whose_last_verification_is_longest_ago_comes_first() -> None:
    old = replica("m2", verified=verified(90 * DAY, 90.1 * DAY))
    older = replica("m3", verified=verified(89 * DAY, 89.1 * DAY))
    never = replica("m3")
    assert due(WEEKLY, RECORD, seen(old, older)) == Send("m3", STEP)
    assert due(WEEKLY, RECORD, seen(old, never)) == Send("m3", STEP)
    fresh = replica("m3", verified=verified(95 * DAY, 95.1 * DAY))
    assert due(WEEKLY, RECORD, seen(old, fresh)) == Send("m2", STEP)
    assert due(WEEKLY, RECORD, seen(replace(fresh, name="m2"), fresh)) is None


def test_one_member_at_a_time_and_only_where_nothing_else_goes_on() -> None:
    busy = replica("m2", verified=verified(99 * DAY), progress=Progress("verifying against m1"))
    waiting = replica("m3", verified=verified(98 * DAY))
    assert due(WEEKLY, RECORD, seen(busy, waiting)) is None
    assert objections(WEEKLY, RECORD, seen(busy, waiting), "m3") == (
        "m2 is being verified, and one member is at a time",
    )
    assert objections(WEEKLY, RECORD, seen(busy, waiting), "m2") == ()
    paused = replace(RECORD, paused=Pause("x"))
    assert due(WEEKLY, paused, seen(replica("m2"), replica("m3"))) is None


@pytest.mark.parametrize(
    ("record", "members", "name", "objection"),
    [
        (None, [replica("m2")], "m2", "has no primary yet"),
        (RECORD, [replica("m2")], "m1", "is the primary"),
        (RECORD, [("m2", unseen("m2"))], "m2", "does not answer"),
        (RECORD, [replica("m2", progress=Progress("cloning"))], "m2", "is busy: cloning"),
        (RECORD, [replica("m2", suspects=("a.b",))], "m2", "is being repaired first"),
        (RECORD, [replica("m2", incarnation="b")], "m2", "does not follow m1"),
    ],
    ids=["nobody", "primary", "silent", "busy", "suspect", "elsewhere"],
)
def test_what_stands_against_it(
    record: Record | None, members: list[MemberState], name: str, objection: str
) -> None:
    (found,) = objections(CLUSTER, record, view(primary(), *members), name)
    assert objection in found


def test_a_member_that_differs_may_not_take_over_and_gives_no_copy_unless_nobody_else_is_there() -> (
    None
):
    odd, good = replica("m2", differs=ODD), replica("m3")
    chosen = elect([odd, good], CLUSTER)
    assert isinstance(chosen, Elected)
    assert chosen.state.name == "m3"
    nobody = elect([odd], CLUSTER)
    assert isinstance(nobody, NobodyElected)
    assert "m2: it differs from the primary in shop.orders (id behind 5 up to 9)" in nobody.reason
    assert best_donor(CLUSTER, RECORD, view(primary(), odd), "m3") == "m1"


def test_an_operator_may_name_one_that_differs() -> None:
    """Perhaps the primary was wrong."""
    gone = view(down("m1"), *(replica(name, differs=ODD) for name in ("m2", "m3")))
    assert against_failover(CLUSTER, RECORD, gone, FailoverOrder("m2")) == ()
    (why,) = against_failover(CLUSTER, RECORD, gone, FailoverOrder())
    assert "differs from the primary" in why


def test_status_names_the_table_the_rows_and_what_to_do() -> None:
    decision = decide(CLUSTER, RECORD, view(primary(), replica("m2", differs=ODD), replica("m3")))
    assert not decision.well
    assert decision.reason == (
        "m2: it differs from m1 in shop.orders (id behind 5 up to 9), and may not take over; "
        "holdfast member clone m2 replaces its data"
    )


def test_what_came_of_it() -> None:
    fine = replica("m2", verified=verified(1.0, 2.0))
    assert told(fine) == ("m2 holds the same as m1 in 12 tables (3400 rows); 1 cannot be compared")
    odd = replica("m2", verified=verified(1.0, 2.0, 1), differs=ODD)
    assert told(odd) == (
        "m2 differs from m1 in shop.orders (id behind 5 up to 9); 1 cannot be compared"
    )
    assert told(replica("m2", verified=verified(1.0))) == told(replica("m2")) == ""
    assert fine.flavor is Flavor.MARIADB


def test_a_verification_keeps_nobody_waiting() -> None:
    """Any command interrupts it."""
    busy = replica("m2", verified=verified(99 * DAY), progress=Progress("verifying against m1"))
    assert busy.verifying
    assert busy.occupied is None
    cloning = replica("m2", verified=verified(99 * DAY, 99.1 * DAY), progress=Progress("cloning"))
    assert cloning.occupied == Progress("cloning")
