"""A restart of the primary, step by step: by order, and because it hangs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.change.restart import CLOSING, RESTARTING, close_step
from holdfast.core.commands import Fence, Restart, Start
from holdfast.core.decide import decide
from holdfast.core.decision import Decision, Send
from holdfast.core.rules.returned import OPENING
from holdfast.core.view import MemberState, Receiver, Replication, ServerStatus, View
from tests.unit.looks import CLUSTER, RECORD, primary, replica, saved, view

ORDERED = replace(RECORD, transition=CLOSING)
ENDED = [ServerStatus.DYING, ServerStatus.DOWN]


def seen(state: MemberState) -> View:
    return view(state, replica("m2"), replica("m3"))


def closing(status: ServerStatus, busy: str) -> MemberState:
    return primary(server=status, writable=False, busy=busy)


@pytest.mark.parametrize("status", ENDED)
def test_while_the_agent_restarts_it_nothing_else_is_done(status: ServerStatus) -> None:
    found = seen(closing(status, RESTARTING))
    waits = Decision("the server of m1, the primary, is being restarted")
    assert close_step(ORDERED, found) == waits
    assert decide(CLUSTER, ORDERED, found) == waits


@pytest.mark.parametrize("status", ENDED)
def test_one_that_ended_with_nobody_restarting_it_is_opened_like_one_that_died(
    status: ServerStatus,
) -> None:
    record = saved(decide(CLUSTER, ORDERED, seen(closing(status, ""))))
    assert record.transition == OPENING
    assert record.primary == "m1"


def test_a_server_that_runs_as_before_is_told_to_restart() -> None:
    assert close_step(ORDERED, seen(primary())).steps == (Send("m1", Restart()),)


def test_a_server_that_runs_anew_is_opened() -> None:
    anew = primary(incarnation="b", writable=False)
    assert saved(close_step(ORDERED, seen(anew))).transition == OPENING


def test_without_its_agent_it_is_waited_for() -> None:
    assert close_step(ORDERED, view(replica("m2"), replica("m3"))).steps == ()


HANGS = {"silent_seconds": 60.0, "writable": True}
VOTERS_WERE_RESTARTED = [replica("m2", incarnation="b"), replica("m3", incarnation="b")]


def hung(*others: MemberState, **changes: object) -> View:
    heard = Replication("127.0.0.1:3301", Receiver.ON, True, unheard=60.0)
    deaf = [replace(state, replication=heard) for state in others]
    return view(primary(**{**HANGS, **changes}), *deaf)


def test_one_that_hangs_and_that_nobody_can_replace_is_killed_and_restarted_in_place() -> None:
    found = hung(*VOTERS_WERE_RESTARTED)
    told = decide(CLUSTER, RECORD, found)
    record = saved(told)
    assert "m1 is killed and will be restarted in place" in told.reason
    assert record.transition == OPENING
    assert decide(CLUSTER, record, found).steps == (Send("m1", Fence()),)
    gone = hung(*VOTERS_WERE_RESTARTED, server=ServerStatus.DOWN, writable=False)
    assert decide(CLUSTER, record, gone).steps == (Send("m1", Start()),)


def test_it_is_waited_for_so_long_that_it_cannot_be_taken_for_busy() -> None:
    assert decide(CLUSTER, RECORD, hung(*VOTERS_WERE_RESTARTED, silent_seconds=19.0)).steps == ()


def test_one_that_hangs_while_it_comes_back_in_place_is_killed_again() -> None:
    """It has an incarnation that the record does not know yet."""
    returning = replace(RECORD, transition=OPENING)
    found = hung(*VOTERS_WERE_RESTARTED, incarnation="b", writable=False)
    assert decide(CLUSTER, returning, found).steps == (Send("m1", Fence()),)
    for seen in (0.2, 19.0):
        busy = hung(*VOTERS_WERE_RESTARTED, incarnation="b", writable=False, silent_seconds=seen)
        assert Send("m1", Fence()) not in decide(CLUSTER, returning, busy).steps


def test_one_that_was_restarted_by_somebody_else_is_compared_before_anything_else() -> None:
    found = hung(*VOTERS_WERE_RESTARTED, incarnation="b", writable=False)
    assert saved(decide(CLUSTER, RECORD, found)).transition == OPENING


def test_where_somebody_can_take_over_it_is_replaced() -> None:
    found = hung(replica("m2"), replica("m3"))
    assert saved(decide(CLUSTER, RECORD, found)).electing


def test_where_a_setting_forbids_a_failover_people_decide() -> None:
    by_hand = replace(CLUSTER, settings=replace(CLUSTER.settings, automatic_failover=False))
    for others in (VOTERS_WERE_RESTARTED, [replica("m2"), replica("m3")]):
        assert decide(by_hand, RECORD, hung(*others)).steps == ()
