"""Runs the keeper process, which holds the server to its lease as well, for as long as the agent lives."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.agent.lease.keeper_process import BEGIN, KNOWN, Begin, Known, received
from holdfast.agent.lease.words import LeaseWords
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.helper_process import hang_up, helper_process
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.lease import Electorate, Protection
from holdfast.core.timing import Timing
from holdfast.server.process.process import Running

MODULE = "holdfast.agent.lease.keeper_process"
AGAIN_SECONDS = 1.0
"""Minimum time between two starts of the process."""
LOOK_SECONDS = 1.0
"""How often the agent checks whether the process stands still."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Helpers:
    """What guards a server beside the agent, and runs in the keeper process.

    :ivar process: that process itself runs
    :ivar gate, watchdog: they were tried, and work
    """

    process: bool = False
    gate: bool = False
    watchdog: bool = False

    @property
    def protections(self) -> tuple[Protection, ...]:
        each = ((self.process, Protection.KEEPER), (self.gate, Protection.GATE))
        found = (*each, (self.watchdog, Protection.WATCHDOG))
        return tuple(what for works, what in found if self.process and works)


class SecondKeeper:
    """A guard of the lease keeper's. Only `ready` and `join` block.

    :ivar words: the memory that both share
    :param alarm: called with the guard's name and what is wrong with it, or ""
    :param wait: a server is opened only once gate and watchdog hold it
    :param changed: called when :attr:`helpers` has changed
    """

    def __init__(
        self,
        state_dir: Path,
        begin: Begin,
        writer: BackgroundWriter,
        alarm: Callable[[str, str], None],
        wait: bool,
        changed: Callable[[Helpers], None] = lambda _: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._clock = clock
        self._place = str(state_dir.absolute())
        self._begin = begin
        self._writer = writer
        self._alarm = alarm
        self._wait = wait
        self._changed = changed
        self.words = LeaseWords()
        self._lock = threading.Lock()
        self._known: Known | None = None
        self._running: Running | None = None
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._faults: dict[str, str] = {}
        """Fault texts by guard: "" for one that works; one that was not tried yet has no entry."""
        self._helpers = Helpers()
        self._settled = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="second keeper", daemon=True)

    @property
    def until(self) -> float:
        """The time until which voters have confirmed the lease to the process, on the clock of leases."""
        return self.words.keeper_until

    def start(self) -> None:
        """Start the process. One that a former agent left is ended first: it does not know this agent's lease."""
        for pid, fd in keepers(self._place):
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)
            self._writer.say(
                logger, f"the keeper process of the agent before this one is ended (pid {pid})"
            )
        self._thread.start()

    def stop(self) -> None:
        """The agent ends in order: the server continues to run, and nothing ends it."""
        self._stopped.set()
        with self._lock:
            self._send("bye")
            self._hang_up()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def know(self, electorate: Electorate | None, length: float) -> None:
        """Use this electorate. From now on only its voters' confirmations prolong the lease: the process reads this
        before it counts them."""
        with self._lock:
            known = Known(electorate, length)
            if known != self._known:
                self._known = known
                self._send_known()

    def show(self, token: str) -> None:
        """Show another token to the other members' agents from now on."""
        with self._lock:
            self._begin = replace(self._begin, token=token)
            self._send(f"token {token}")

    def arm(self, running: Running, until: float) -> None:
        self._settled.clear()
        self.words.agent_until = until
        with self._lock:
            self._running = running
            self._send_armed()

    def extend(self, until: float) -> None:
        self.words.agent_until = until

    def lift(self) -> None:
        with self._lock:
            self._running = None
            self._send("lift")

    def ready(self, seconds: float) -> None:
        if self._wait and self._helpers.process:
            self._clock.wait(self._settled, seconds)

    # -- the process ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped.is_set():
            begun = self._clock.monotonic()
            try:
                self._attend()
            except OSError as error:
                self._tell("keeper", f"cannot be run: {error.strerror or error}")
            else:
                if not self._stopped.is_set():
                    self._tell("keeper", "has ended, and is started again")
            left = begun + AGAIN_SECONDS - self._clock.monotonic()
            self._clock.wait(self._stopped, max(0.0, left))

    def _attend(self) -> None:
        """Start the process, and read its messages until it ends.

        :raises OSError: it cannot be started
        """
        own, process = helper_process(MODULE, self._place)
        begin = BEGIN.dump_json(self._begin)
        try:
            socket.send_fds(own, [begin], [self.words.fd])
        except OSError:  # the process has ended already
            own.close()
            process.kill()
            process.wait()
            raise
        with self._lock:
            self._process, self._channel = process, own
            for tried_anew in ("gate", "watchdog"):
                self._faults.pop(tried_anew, None)
            if self._begin.token:  # the token may have been renewed since
                self._send(f"token {self._begin.token}")
            self._send_known()
            self._send_armed()
            if self._stopped.is_set():
                self._send("bye")
                self._hang_up()
        while self._listens(own):
            pass
        with self._lock:
            self._hang_up()
        own.close()
        self._helps(Helpers())
        if self._stopped.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(AGAIN_SECONDS)
                return
        process.kill()
        process.wait()

    def _listens(self, channel: socket.socket) -> bool:
        """Read its next message; returns whether there may be more."""
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        if not poll.poll(LOOK_SECONDS * 1000):
            return not self._hangs()
        try:
            data, _ = received(channel)
        except BlockingIOError:
            return True
        word, _, rest = data.decode().partition(" ")
        match word:
            case "up":
                self._tell("keeper", "")
                self._helps(Helpers(True))
            case "ready":
                self._settled.set()
            case "gate" | "watchdog":
                self._tell(word, rest)
            case _:
                return False
        return True

    def _hangs(self) -> bool:
        """Whether the process holds a server and has not looked at its clock for longer than a lease."""
        with self._lock:
            held, length = self._running, self._known.length if self._known else Timing().lease
            alive = held is not None and held.alive and self._helpers.process
        if not alive or self._clock.boottime() < self.words.looked_at + length + LOOK_SECONDS:
            return False
        if self._clock.boottime() >= self.words.agent_until:  # this agent stood still as well
            return False
        self._tell("keeper", "hangs, and is started again")
        return True

    # -- messages to the process; with the lock held --------------------------------------------------

    def _send_known(self) -> None:
        if self._known is not None:
            self._send(f"know {KNOWN.dump_json(self._known).decode()}")

    def _send_armed(self) -> None:
        if self._running is not None:
            self._send(f"arm {self._running.pid}", self._running.fd)

    def _send(self, text: str, *fds: int) -> None:
        """Send a message. A process that cannot be reached must not go by former messages: it is ended."""
        if self._channel is None:
            return
        try:
            if fds:
                socket.send_fds(self._channel, [text.encode()], list(fds), socket.MSG_DONTWAIT)
            else:
                self._channel.send(text.encode(), socket.MSG_DONTWAIT)
        except OSError:
            if self._process is not None:
                self._process.kill()
            self._hang_up()

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        hang_up(channel)

    # -- messages of the process ---------------------------------------------------------------------

    def _tell(self, what: str, fault: str) -> None:
        if self._faults.get(what) == fault:
            return
        self._faults[what] = fault
        if what == "keeper":
            fault = fault and f"the process that ends its server with the lease, too, {fault}"
            if fault:
                self._writer.say(logger, fault, logging.WARNING)
        if what != "gate" or self._begin.insist:
            self._alarm(what, fault)
        works = {each: self._faults.get(each) == "" for each in ("gate", "watchdog")}
        self._helps(Helpers(self._helpers.process, **works))

    def _helps(self, helpers: Helpers) -> None:
        if helpers != self._helpers:
            self._helpers = helpers
            self._changed(helpers)


def keepers(place: str) -> list[tuple[int, int]]:
    """Keeper processes for that state directory, by pid and pidfd: killed agents leave them."""
    found = []
    own = os.getuid()
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        pid = int(entry.name)
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            ours = words[-2:] == [MODULE.encode(), os.fsencode(place)]
            if ours and Path(f"/proc/{pid}").stat().st_uid == own:
                found.append((pid, fd))
                continue
        except OSError:
            pass
        os.close(fd)
    return found
