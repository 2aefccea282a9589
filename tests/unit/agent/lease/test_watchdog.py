"""The watchdog, with a device in memory: a real one resets the machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.agent.lease.watchdog import Device, Watchdog
from holdfast.agent.runtime import boottime
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.server.process.process import Running

LEASE = 1.2


class MemoryDevice(Device):
    """Resets nothing, and says when a real one would have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.timeout = 60
        self.fed_at = time.monotonic()
        self.fed = 0
        self.stopped = False
        self.broken = False

    def set_timeout(self, seconds: int) -> None:
        self.timeout = seconds

    def feed(self) -> None:
        if self.broken:
            raise OSError(5, "Input/output error")
        self.fed += 1
        self.fed_at = time.monotonic()

    def disarm(self) -> None:
        self.stopped = True

    @property
    def resets_in(self) -> float:
        return self.fed_at + self.timeout - time.monotonic()


class Kennel:
    """A watchdog, its devices and its alarms."""

    def __init__(self) -> None:
        self.devices: list[MemoryDevice] = []
        self.alarms: list[str] = []
        self.missing = False
        self.dog = Watchdog(
            Path("/dev/watchdog"), BackgroundWriter(), self.alarms.append, device=self._open
        )
        self.dog.start()

    def _open(self, path: Path) -> MemoryDevice:
        if self.missing:
            raise FileNotFoundError(2, "No such file or directory")
        self.devices.append(MemoryDevice(path))
        return self.devices[-1]

    def arm(self, running: Running, seconds: float = LEASE) -> None:
        self.dog.arm(running, boottime.now() + seconds)
        self.dog.ready(5)


@pytest.fixture
def kennel() -> Iterator[Kennel]:
    kennel = Kennel()
    yield kennel
    kennel.dog.stop()
    kennel.dog.join(5)


@pytest.fixture
def running() -> Running:

    return Running(os.getpid(), os.pidfd_open(os.getpid()), "x", False)


def until(reached: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_begins_with_the_lease_and_its_timeout_leaves_time_to_kill(
    kennel: Kennel, running: Running
) -> None:
    assert kennel.devices == []
    kennel.arm(running)
    (device,) = kennel.devices
    assert device.path == Path("/dev/watchdog")
    assert device.timeout == 3  # a lease of 1.2 s plus one second, in whole seconds
    assert device.fed == 1


def test_it_is_fed_while_the_lease_is_held(kennel: Kennel, running: Running) -> None:
    kennel.arm(running)
    (device,) = kennel.devices
    for _ in range(20):
        kennel.dog.extend(boottime.now() + LEASE)
        assert device.resets_in > LEASE
        time.sleep(0.1)
    assert device.fed >= 3


def test_once_the_lease_is_over_it_is_fed_no_more(kennel: Kennel, running: Running) -> None:
    kennel.arm(running, 0.3)
    (device,) = kennel.devices
    time.sleep(0.4)
    fed = device.fed
    time.sleep(1.2)
    assert device.fed == fed
    assert not device.stopped, "a server that cannot be killed costs the host"


def test_it_is_stopped_when_the_server_is_gone_and_begins_anew(
    kennel: Kennel, running: Running
) -> None:
    kennel.arm(running)
    kennel.dog.lift()
    until(lambda: kennel.devices[0].stopped)
    kennel.arm(running)
    assert len(kennel.devices) == 2


def test_an_agent_that_ends_in_order_stops_it(kennel: Kennel, running: Running) -> None:
    kennel.arm(running)
    kennel.dog.stop()
    kennel.dog.join(5)
    assert kennel.devices[0].stopped
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}


def test_without_a_device_there_is_an_alarm(kennel: Kennel, running: Running) -> None:
    kennel.missing = True
    kennel.arm(running)
    assert kennel.alarms == ["the watchdog /dev/watchdog cannot be fed: No such file or directory"]


def test_a_device_that_takes_no_food_is_told_once(kennel: Kennel, running: Running) -> None:
    kennel.arm(running, 60)
    kennel.devices[0].broken = True
    until(lambda: len(kennel.alarms) == 2)
    assert kennel.alarms[0] == ""
    assert "Input/output error" in kennel.alarms[1]
    kennel.dog.lift()
    until(lambda: kennel.devices[0].stopped)


def test_what_a_device_is_told(tmp_path: Path) -> None:
    """The bytes that the kernel gets; a plain file refuses the ioctl."""
    path = tmp_path / "watchdog"
    path.touch()
    device = Device(path)
    with pytest.raises(OSError, match="ioctl"):
        device.set_timeout(3)
    device.feed()
    device.disarm()
    assert path.read_bytes() == b"\0V"
