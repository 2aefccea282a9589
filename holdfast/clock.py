"""Time, as all parts of a daemon know it: one object, made where the daemon is put together and handed down from there.

Nothing else reads a clock, sleeps or waits for a time, so that another clock in its place changes the time of them all.
What the kernel times itself is not part of it: time-outs of sockets, ends of processes and of threads. An alarm on the
clock of leases (``agent/runtime/boottime.py``) is the kernel's as well.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol


class Clock(Protocol):
    """All in seconds."""

    def now(self) -> float:
        """Since 1970. It may be stepped: for people, and for what people schedule."""

    def monotonic(self) -> float:
        """Nobody can set it; it stands still while the host is suspended."""

    def boottime(self) -> float:
        """The clock of leases: nobody can set it, and it counts while the host is suspended, too."""

    def sleep(self, seconds: float) -> None: ...

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        """Whether ``event`` was set, at the latest after ``seconds`` (None: without end)."""

    def wait_for(
        self, changed: threading.Condition, reached: Callable[[], bool], seconds: float | None
    ) -> bool:
        """As ``Condition.wait_for``; to be called with ``changed`` held."""

    async def pause(self, seconds: float) -> None:
        """Sleep, on the event loop."""

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Cancels what is awaited within the block after ``seconds``, and raises TimeoutError (None: never)."""


class SystemClock:
    """The kernel's clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        return event.wait(seconds)

    def wait_for(
        self, changed: threading.Condition, reached: Callable[[], bool], seconds: float | None
    ) -> bool:
        return changed.wait_for(reached, seconds)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(seconds)


SYSTEM_CLOCK: Final[Clock] = SystemClock()
"""For defaults of parameters, and for where a daemon is put together."""
