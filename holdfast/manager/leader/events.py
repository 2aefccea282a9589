"""Recent events of a cluster, for the log and for those who watch it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.history.changed import RecordChange
from holdfast.log import say

KEPT = 1000

logger = logging.getLogger(__name__)


class EventKind(StrEnum):
    """LED: this manager leads from now on. DETECTED: the primary is gone. ALARM: an operator should look, Holdfast does
    nothing by itself. DECIDED: a record was saved. COMMAND: an agent has carried out a command; FAILED: it has not.
    BLOCKED: no commit succeeds, or they do again. DEGRADED: commits stop waiting for acknowledgements, or wait again.
    UNACKNOWLEDGED: commits that should have waited were released without a voter. CONCERN: an operator should attend to
    something, although the member is well. WHOLE: every member is well again. CONFIGURED: an operator has changed
    settings or members; ORDERED: an operator has given an order; NOT_BEGUN: the order did not begin, and perhaps no
    client waits for it. CLONED: a member's data was replaced by a copy of another's. ENDPOINT: it directs clients to
    another server. HOOK: an executable of the user's, or a webhook, was called. VERIFIED: a member holds the same as
    the primary."""

    LED = "led"
    DETECTED = "detected"
    ALARM = "alarm"
    DECIDED = "decided"
    COMMAND = "command"
    FAILED = "failed"
    BLOCKED = "blocked"
    DEGRADED = "degraded"
    UNACKNOWLEDGED = "unacknowledged"
    CONCERN = "concern"
    WHOLE = "whole"
    CONFIGURED = "configured"
    ORDERED = "ordered"
    NOT_BEGUN = "not begun"
    CLONED = "cloned"
    ENDPOINT = "endpoint"
    HOOK = "hook"
    VERIFIED = "verified"


LEVELS = {
    EventKind.DETECTED: logging.ERROR,
    EventKind.ALARM: logging.ERROR,
    EventKind.UNACKNOWLEDGED: logging.ERROR,
    EventKind.BLOCKED: logging.ERROR,
    EventKind.CONCERN: logging.WARNING,
    EventKind.FAILED: logging.WARNING,
    EventKind.NOT_BEGUN: logging.WARNING,
    EventKind.DEGRADED: logging.WARNING,
}
"""The levels at which they are logged; all others as INFO."""


@dataclass(frozen=True, slots=True)
class AskedCommand:
    """A command that was sent to an agent.

    :ivar command: its name, as on the wire
    :ivar ordered: an operator ordered it
    :ivar steps: milliseconds of its parts
    """

    command: str
    ordered: bool = False
    steps: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``text`` is for people, and may be reworded at any time: programs read the other fields.

    :ivar id: grows, across restarts of the manager too
    :ivar at: seconds since 1970
    :ivar member: which it concerns, or ""; of DECIDED: the primary in the new record
    :ivar ms: how long it took
    :ivar steps: milliseconds of its parts
    :ivar command: of COMMAND, and of FAILED where it was one: its name, as on the wire; else ""
    :ivar ordered: an operator ordered that command
    :ivar change: of DECIDED: what the new record changes
    """

    id: int
    at: float
    kind: EventKind
    text: str
    member: str = ""
    ms: float = 0.0
    steps: dict[str, float] = field(default_factory=dict)
    command: str = ""
    ordered: bool = False
    change: RecordChange | None = None


class EventLog:
    """The last events of one cluster; each of them is logged as a line too.

    :ivar hearers: are called with each new event; none may block, or fail
    """

    def __init__(self, cluster: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._cluster = cluster
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._last = int(clock.now() * 1000)
        self._changed = asyncio.Event()
        self.hearers: list[Callable[[Event], None]] = []

    @property
    def last(self) -> int:
        """The number of the last event."""
        return self._last

    def add(
        self,
        kind: EventKind,
        text: str,
        member: str = "",
        ms: float = 0.0,
        level: int | None = None,
        about: AskedCommand | RecordChange | None = None,
    ) -> None:
        """:param level: at which it is logged; None: that of its kind
        :param about: what programs read of a command, or of a record that was saved
        """
        self._last += 1
        asked = about if isinstance(about, AskedCommand) else AskedCommand("")
        event = Event(
            id=self._last,
            at=self._clock.now(),
            kind=kind,
            text=text,
            member=member,
            ms=round(ms, 2),
            steps=asked.steps,
            command=asked.command,
            ordered=asked.ordered,
            change=about if isinstance(about, RecordChange) else None,
        )
        self._events.append(event)
        self._changed.set()
        self._changed = asyncio.Event()
        level = LEVELS.get(kind, logging.INFO) if level is None else level
        took = {"ms": event.ms} if ms else {}
        say(logger, text, level, cluster=self._cluster, event=kind.value, **took)
        for hear in self.hearers:
            hear(event)

    async def since(self, number: int, wait: float) -> list[Event]:
        """Returns the events after ``number``; waits up to ``wait`` seconds for the first."""
        if self._last <= number and wait > 0:
            try:
                async with self._clock.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                return []
        return [event for event in self._events if event.id > number]
