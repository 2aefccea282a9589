"""A clock that a test sets."""

from __future__ import annotations

from collections.abc import Callable

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
