"""A planned restart of the primary, step by step: nobody else takes over for a server that is on its way out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.commands import Restart
from holdfast.core.decide import decide
from holdfast.core.decision import Decision, Send
from holdfast.core.restart import CLOSING, OPENING, RESTARTING, close_step
from holdfast.core.view import MemberState, ServerStatus, View
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
