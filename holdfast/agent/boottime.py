"""The clock of leases, and a sleep that ends at a moment on it.

CLOCK_BOOTTIME goes on while the host is suspended, and nobody can set it. A sleep on it ends at once when a host that
was suspended past its end comes back; one on Python's own clock would go on sleeping.
"""

from __future__ import annotations

import ctypes
import os
import select
import time

_TFD_TIMER_ABSTIME = 1
_NS = 1_000_000_000
FLOOR_SECONDS = 0.0005
"""So long a thread sleeps at least that has just been woken: those that use this may have a real-time priority, and one
that never slept would take a processor from all others."""


def now() -> float:
    """Seconds on the clock of leases."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class Alarm:
    """Lets one thread sleep until a moment, and others wake it."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        self._timer = self._libc.timerfd_create(time.CLOCK_BOOTTIME, flags)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._woken = 0.0

    def ring(self) -> None:
        """Wake whoever sleeps now, or is about to."""
        os.eventfd_write(self._bell, 1)

    def sleep(self, until: float | None, *files: int) -> None:
        """Return at ``until`` (None: never), when somebody rings, or when one of ``files`` becomes readable."""
        if now() < self._woken + FLOOR_SECONDS:
            time.sleep(FLOOR_SECONDS)
        self._set(until)
        poll = select.poll()
        for each in (self._timer, self._bell, *files):
            poll.register(each, select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        for own in ready & {self._timer, self._bell}:
            os.read(own, 8)
        self._woken = now()

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
