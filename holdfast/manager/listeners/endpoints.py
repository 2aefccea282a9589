"""Has each endpoint direct clients to where they must go now."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.answers.routing import Directions, directions
from holdfast.core.cluster import Cluster
from holdfast.core.record import Record
from holdfast.core.view import View
from holdfast.endpoint.base import Endpoint
from holdfast.errors import HoldfastError
from holdfast.manager.leader.events import EventKind, EventLog

AGAIN_SECONDS = 1.0
"""Each endpoint is set anew this often: it may have been restarted, or changed by others."""
FRESH_SECONDS = 1.0
"""A manager that leads looks several times a second; one that has not looked for so long leads no more."""
BACKOFF_SECONDS = (0.05, 2.0)
"""Pause after a failure: doubles from the first value up to the second."""

logger = logging.getLogger(__name__)


class Endpoints:
    """A Listener. Each endpoint has a task of its own: one that hangs delays no other."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        events: EventLog,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._shows = [_Show(each, events, clock) for each in endpoints]

    def looked(self, cluster: Cluster, record: Record | None, view: View) -> None:
        if self._shows:
            wanted = directions(cluster, record, view)
            for each in self._shows:
                each.want(wanted)

    def saved(
        self, cluster: Cluster, before: Record | None, record: Record, why: str, view: View
    ) -> None:
        self.looked(cluster, record, view)

    async def close(self) -> None:
        await asyncio.gather(*(each.close() for each in self._shows))


class _Show:
    """One endpoint, and the latest directions for it."""

    def __init__(self, endpoint: Endpoint, events: EventLog, clock: Clock) -> None:
        self._endpoint = endpoint
        self._events = events
        self._clock = clock
        self._wanted: Directions | None = None
        self._wanted_at = 0.0
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failed = ""
        self._shown: str | None = None
        self._changed_at: float | None = None

    def want(self, wanted: Directions) -> None:
        before, now = self._wanted, self._clock.monotonic()
        stale = now - self._wanted_at > FRESH_SECONDS
        self._wanted, self._wanted_at = wanted, now
        if before is None or stale or _gist(before) != _gist(wanted):
            if before is None or before.primary != wanted.primary:
                self._changed_at = now
            self._news.set()
        if self._task is None:
            self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._endpoint.close()

    async def _follow(self) -> None:
        backoff = BACKOFF_SECONDS[0]
        while True:
            pause = min(AGAIN_SECONDS, backoff) if self._failed else AGAIN_SECONDS
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(pause):
                    await self._news.wait()
            self._news.clear()
            wanted = self._wanted
            if wanted is None or self._clock.monotonic() - self._wanted_at > FRESH_SECONDS:
                continue
            try:
                await self._endpoint.show(wanted)
            except Exception as error:  # an error of one endpoint must not end its task
                if not isinstance(error, HoldfastError):
                    logger.exception("%s failed", self._endpoint.name)
                self._fails(str(error) or repr(error))
                backoff = min(2 * backoff, BACKOFF_SECONDS[1])
            else:
                backoff = BACKOFF_SECONDS[0]
                self._works(wanted)

    def _fails(self, reason: str) -> None:
        """Log a failure once, until the endpoint works again."""
        if not self._failed:
            text = f"{self._endpoint.name} cannot be updated: {reason}"
            self._events.add(EventKind.ALARM, text)
        self._failed = reason

    def _works(self, shown: Directions) -> None:
        if self._failed:
            self._events.add(EventKind.ENDPOINT, f"{self._endpoint.name} answers again")
            self._failed = ""
        name = shown.primary.name if shown.primary else ""
        if name == self._shown:
            return
        before, self._shown = self._shown, name
        began, self._changed_at = self._changed_at, None
        took = (self._clock.monotonic() - began) * 1000 if began is not None else 0.0
        if name:
            text = f"{self._endpoint.name} directs clients to {name}"
        elif before is None:
            return
        else:
            text = f"{self._endpoint.name}: {before} disabled, new connections queue"
        self._events.add(EventKind.ENDPOINT, text, name or before or "", took)


def _gist(wanted: Directions) -> Directions:
    """The directions without what changes all the time."""
    return replace(
        wanted, readers=tuple(replace(each, lag_seconds=None) for each in wanted.readers)
    )
