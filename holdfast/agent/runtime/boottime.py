"""The clock of leases, and a sleep that ends at a moment on it.

CLOCK_BOOTTIME keeps running while the host is suspended, and cannot be set. A sleep on it ends at once when a host that
was suspended past its end resumes; one on Python's own clock would keep sleeping.
"""

from __future__ import annotations

import ctypes
import os
import select
import time
from typing import Protocol

_TFD_TIMER_ABSTIME = 1
_NS = 1_000_000_000
FLOOR_SECONDS = 0.0005
"""Minimum sleep of a thread whose sleep before ended at once. Such threads may have a real-time priority: one that
never sleeps takes a processor from all others, for good. (A moment in the past did that once: the agent of a healthy
primary got no processor for 24 s, and its server was killed.)"""
MOST_FLOOR_SECONDS = 0.004
"""The minimum doubles up to here while sleeps keep ending at once: one round of a loop takes some 0.15 ms, so a loop
that has gone wrong takes 4 % of a processor. It stays below what the end of a lease allows (``FENCE_SECONDS``)."""


def now() -> float:
    """Seconds on the clock of leases."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class Sleep(Protocol):
    """How a loop sleeps."""

    def ring(self) -> None:
        """Wake the thread that sleeps now, or is about to."""

    def sleep(self, until: float | None, *files: int) -> None:
        """Return at ``until`` (None: never), after :meth:`ring`, or when one of ``files`` becomes readable."""


class Floor:
    """The minimum of the next sleep, from how long the sleeps before took. Pure: time is an argument.

    A single sleep that ends at once costs nothing: the thread continues without delay.

    :ivar seconds: the next sleep takes at least so long
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def slept(self, seconds: float) -> None:
        """A sleep has taken so long, its minimum not counted."""
        if seconds >= FLOOR_SECONDS:
            self.seconds = 0.0
        else:
            self.seconds = min(max(FLOOR_SECONDS, 2 * self.seconds), MOST_FLOOR_SECONDS)


class Alarm:
    """Lets one thread sleep until a moment, and others wake it; even when misused, it lets the thread sleep."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        self._timer = self._libc.timerfd_create(time.CLOCK_BOOTTIME, flags)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._floor = Floor()

    def ring(self) -> None:
        os.eventfd_write(self._bell, 1)

    def sleep(self, until: float | None, *files: int) -> None:
        if self._floor.seconds:
            time.sleep(self._floor.seconds)
        begun = now()
        self._set(until)
        poll = select.poll()
        for each in (self._timer, self._bell, *files):
            poll.register(each, select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        for own in ready & {self._timer, self._bell}:
            os.read(own, 8)
        self._floor.slept(now() - begun)

    def close(self) -> None:
        os.close(self._timer)
        os.close(self._bell)

    def _set(self, until: float | None) -> None:
        # a value of 0 switches the timer off
        nanoseconds = 0 if until is None else max(1, int(until * _NS))
        value = _Time(nanoseconds // _NS, nanoseconds % _NS)
        setting = _Setting(_Time(0, 0), value)
        if self._libc.timerfd_settime(self._timer, _TFD_TIMER_ABSTIME, ctypes.byref(setting), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")
