"""What is logged at which level: operators' alarms filter by it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from holdfast.core.decision import Decision
from holdfast.core.record import Record
from holdfast.core.rules.returned import OPENING
from holdfast.core.transition import Failover, Step, Switchover, Transition
from holdfast.core.view import MemberState, View
from holdfast.manager.leader.decision_log import BLOCKED_SECONDS, DecisionLog, level
from holdfast.manager.leader.events import Event, EventKind, EventLog
from tests.unit.looks import CLUSTER, NOW, RECORD, primary, replica, view


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (EventKind.DETECTED, logging.ERROR),
        (EventKind.ALARM, logging.ERROR),
        (EventKind.UNACKNOWLEDGED, logging.ERROR),
        (EventKind.BLOCKED, logging.ERROR),
        (EventKind.CONCERN, logging.WARNING),
        (EventKind.FAILED, logging.WARNING),
        (EventKind.NOT_BEGUN, logging.WARNING),
        (EventKind.DEGRADED, logging.WARNING),
        (EventKind.DECIDED, logging.INFO),
        (EventKind.WHOLE, logging.INFO),
    ],
)
def test_level(kind: EventKind, level: int, caplog: pytest.LogCaptureFixture) -> None:
    async def add() -> None:
        EventLog("c").add(kind, "something")

    with caplog.at_level(logging.INFO, "holdfast"):
        asyncio.run(add())
    assert [record.levelno for record in caplog.records] == [level]


ELECTING, OPEN = Failover(Step.ELECT, "m1"), Failover(Step.OPEN, "m1")
SWITCHING = Switchover(Step.CHAIN, "m2")


@pytest.mark.parametrize(
    ("before", "after", "how"),
    [
        (None, ELECTING, logging.WARNING),
        (None, OPENING, logging.WARNING),
        (SWITCHING, ELECTING, logging.WARNING),
        (ELECTING, OPEN, logging.INFO),
        (None, SWITCHING, logging.INFO),
        (OPEN, None, logging.INFO),
    ],
)
def test_a_failover_that_begins_is_a_warning(
    before: Transition | None, after: Transition | None, how: int
) -> None:
    was, now = replace(RECORD, transition=before), replace(RECORD, transition=after)
    assert level(was, now) == how


def told(*looks: tuple[float, View], record: Record = RECORD) -> list[Event]:
    """The events of these looks, each at its moment."""
    events = EventLog("c")
    decision_log = DecisionLog(events)
    decision = Decision("something")
    for at, found in looks:
        decision_log.decided(CLUSTER, record, replace(found, now=at), decision, decision)
    return list(events._events)


def stuck(seconds: float) -> MemberState:
    return primary(stuck_seconds=seconds, stuck="No space left on device")


def test_commits_that_are_blocked_are_told_once_and_when_they_come_through_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    others = replica("m2"), replica("m3")
    blocked, well = view(stuck(3.0), *others), view(primary(), *others)
    later = NOW + BLOCKED_SECONDS
    with caplog.at_level(logging.INFO, "holdfast"):
        events = told((NOW, blocked), (later, blocked), (later + 1, blocked), (later + 2, well))
    assert [each.kind for each in events] == [EventKind.BLOCKED] * 2
    assert events[0].text.startswith("commits on m1 are blocked: a small write has not come")
    assert "No space left on device" in events[0].text
    assert events[1].text == "commits on m1 come through again"
    assert [each.levelno for each in caplog.records] == [logging.ERROR, logging.INFO]


def test_what_passes_at_once_is_not_told() -> None:
    others = replica("m2"), replica("m3")
    blocked, well = view(stuck(3.0), *others), view(primary(), *others)
    assert told((NOW, blocked), (NOW + 0.5, well), (NOW + 2, blocked), (NOW + 2.5, well)) == []


@pytest.mark.parametrize(("writable", "how"), [(True, logging.INFO), (False, logging.WARNING)])
def test_a_reason_is_a_warning_while_nobody_takes_writes(
    writable: bool, how: int, caplog: pytest.LogCaptureFixture
) -> None:
    decision_log = DecisionLog(EventLog("c"))
    found = view(primary(writable=writable), replica("m2"), replica("m3"))
    with caplog.at_level(logging.INFO, "holdfast"):
        decision_log.decided(CLUSTER, RECORD, found, Decision("one"), Decision("another"))
    assert [record.levelno for record in caplog.records] == [how]
