"""What is logged at which level: somebody who is woken at night filters by it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from holdfast.manager.events import EventKind, EventLog


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (EventKind.DETECTED, logging.ERROR),
        (EventKind.ALARM, logging.ERROR),
        (EventKind.UNACKNOWLEDGED, logging.ERROR),
        (EventKind.FAILED, logging.WARNING),
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
