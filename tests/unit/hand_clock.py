"""Clocks that a test sets, or lets go faster."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from holdfast.clock import SystemClock


class HandClock(SystemClock):
    """:param shows: asked at each look at it, for the time of day, too. To sleep on it, or to wait, takes real time"""

    def __init__(self, shows: Callable[[], float]) -> None:
        self._shows = shows

    def now(self) -> float:
        return self._shows()

    def monotonic(self) -> float:
        return self._shows()

    def boottime(self) -> float:
        return self._shows()


class PacedClock(SystemClock):
    """Goes ``pace`` times as fast as the system's, and all that is slept on it or waited for takes as much less."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._begun = super().now(), super().monotonic(), super().boottime()

    def now(self) -> float:
        return self._paced(self._begun[0], super().now())

    def monotonic(self) -> float:
        return self._paced(self._begun[1], super().monotonic())

    def boottime(self) -> float:
        return self._paced(self._begun[2], super().boottime())

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds / self._pace)

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        return super().wait(event, self._real(seconds))

    def wait_for(
        self, changed: threading.Condition, reached: Callable[[], bool], seconds: float | None
    ) -> bool:
        return super().wait_for(changed, reached, self._real(seconds))

    async def pause(self, seconds: float) -> None:
        await super().pause(seconds / self._pace)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return super().timeout(self._real(seconds))

    def _paced(self, begun: float, shown: float) -> float:
        return begun + (shown - begun) * self._pace

    def _real(self, seconds: float | None) -> float | None:
        return None if seconds is None else seconds / self._pace


class LaterClock(SystemClock):
    """The system's, but for what was skipped."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def skip(self, seconds: float) -> None:
        self._skipped += seconds

    def now(self) -> float:
        return super().now() + self._skipped

    def monotonic(self) -> float:
        return super().monotonic() + self._skipped

    def boottime(self) -> float:
        return super().boottime() + self._skipped
