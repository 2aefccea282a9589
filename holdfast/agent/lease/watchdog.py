"""Feeds the kernel's watchdog while a primary's lease is held: a host that can no longer end its server is reset.

It helps where no signal and no gate does: a kernel that hangs, an agent that was stopped for good. A watchdog does not
ask why it is not fed: where one is configured, killing the agent resets its host. An agent that ends in order stops the
watchdog first.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import struct
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.server.process.process import Running

SET_TIMEOUT = 0xC0045706
"""WDIOC_SETTIMEOUT: _IOWR('W', 6, int), whole seconds (linux/watchdog.h)."""
LEAST_SECONDS = 2
GRACE_SECONDS = 1.0
"""Time that ending the server may take beyond the end of its lease."""
RETRY_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Device:
    """``/dev/watchdog``. Opening it starts the watchdog; raises OSError, as all methods do."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def set_timeout(self, seconds: int) -> None:
        fcntl.ioctl(self._fd, SET_TIMEOUT, struct.pack("i", seconds))

    def feed(self) -> None:
        os.write(self._fd, b"\0")

    def disarm(self) -> None:
        """Write the magic character: without it, closing the device does not stop the watchdog."""
        try:
            os.write(self._fd, b"V")
        finally:
            os.close(self._fd)


class Watchdog:
    """A guard of the lease keeper's.

    The watchdog is fed while the lease is held; then there is as much time to kill the server as it was set to. It is
    stopped when that server is gone.

    :param alarm: called with what is wrong with it, or "" once it was fed
    """

    def __init__(
        self,
        path: Path,
        writer: BackgroundWriter,
        alarm: Callable[[str], None],
        clock: Clock = SYSTEM_CLOCK,
        device: Callable[[Path], Device] = Device,
    ) -> None:
        self._path = path
        self._writer = writer
        self._alarm = alarm
        self._clock = clock
        self._open = device
        self._told = threading.Condition()
        self._armed = False
        self._until = 0.0
        self._length = 0.0
        self._device: Device | None = None
        self._failed: str | None = None
        self._stopped = False
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._told:
            self._stopped = True
            self._told.notify()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def arm(self, running: Running, until: float) -> None:
        self._settled.clear()
        with self._told:
            self._armed = True
            self._until = until
            self._told.notify()

    def extend(self, until: float) -> None:
        with self._told:
            self._until = max(self._until, until)

    def lift(self) -> None:
        with self._told:
            self._armed = False
            self._told.notify()

    def ready(self, seconds: float) -> None:
        self._clock.wait(self._settled, seconds)

    def _run(self) -> None:
        while True:
            with self._told:
                armed, until, stopped = self._armed, self._until, self._stopped
            if stopped or not armed:
                self._disarm()
            if stopped:
                return
            if armed:
                self._feed(until)
                self._settled.set()
            with self._told:
                self._clock.wait_for(self._told, partial(self._work, armed), self._pause(armed))

    def _work(self, armed: bool) -> bool:
        """Whether it was told something else, or to hold another server, since it was ``armed`` or not."""
        anew = self._armed and not self._settled.is_set()
        return self._stopped or self._armed != armed or anew

    def _pause(self, armed: bool) -> float | None:
        if not armed:
            return None
        return RETRY_SECONDS if self._failed else LEAST_SECONDS / 4

    def _feed(self, until: float) -> None:
        left = until - self._clock.boottime()
        try:
            if self._device is None:
                seconds = max(LEAST_SECONDS, math.ceil(left + GRACE_SECONDS))
                self._device = self._open(self._path)
                self._device.set_timeout(seconds)
            if left > 0:
                self._device.feed()
            self._say("")
        except OSError as error:
            self._say(f"the watchdog {self._path} cannot be fed: {error.strerror or error}")

    def _disarm(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            with contextlib.suppress(OSError):
                device.disarm()

    def _say(self, failed: str) -> None:
        if failed == self._failed:
            return
        self._failed = failed
        self._alarm(failed)
        if failed:
            self._writer.say(logger, failed, logging.WARNING)
