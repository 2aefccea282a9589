"""Has a virtual address held while this agent's server is the open primary, under a lease that holds.

The agent uses only its own server's state and its own lease. A separate process (``process.py``) touches the address;
this module sends it orders, and reads the results.
"""

from __future__ import annotations

import json
import logging
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.agent.lease.gate import listens_at
from holdfast.agent.lease.words import LeaseWords
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.helper_process import hang_up, helper_process
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.vip.process import MESSAGE_BYTES
from holdfast.config.vip import VipConfig
from holdfast.core.view import MemberState, ServerStatus
from holdfast.server.process.process import Running

_FOUND = "the virtual address {ip} was on although this server is no primary: taken off"
CLOSE_SECONDS = 0.05
"""It usually takes a millisecond."""
AGAIN_SECONDS = 1.0
"""Minimum time between two starts of the process."""

logger = logging.getLogger(__name__)


def belongs(state: MemberState, running: Running | None) -> bool | None:
    """Whether the address belongs to this server, apart from its lease; None: not known, as it was not observed yet.

    :param running: the run of the server that the lease is kept for
    """
    if running is None or state.incarnation != running.incarnation:
        return False
    if state.server is ServerStatus.STARTING:
        return None
    return state.up and state.writable and not state.stopped


@dataclass(frozen=True, slots=True)
class _Order:
    """What the process is to do; its text is the message.

    :ivar running: the server for which it holds the address until ``until``; None: it drops the address
    """

    running: Running | None = None
    until: float = 0.0

    def __str__(self) -> str:
        return "drop" if self.running is None else f"hold {self.until!r}"


_DROP = _Order()


class Address:
    """A guard of the lease keeper's.

    Only `join`, `gone` and, for a moment, `changed` block.

    :ivar shown: the address is on
    :param alarm: called with what is wrong with the address, or ""
    :param words: until when a keeper process has the lease upheld
    """

    def __init__(
        self,
        config: VipConfig,
        published: PublishedState,
        writer: BackgroundWriter,
        alarm: Callable[[str], None],
        words: LeaseWords | None = None,
    ) -> None:
        self._words = words
        self._config = config
        self._published = published
        self._clock = published.clock
        self._writer = writer
        self._alarm = alarm
        self._lock = threading.Lock()
        self._running: Running | None = None
        self._until = 0.0
        self._sent: _Order | None = None
        self._channel: socket.socket | None = None
        self._off = threading.Event()
        self.shown = False
        self._said: dict[str, str] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="address", daemon=True)

    def start(self) -> None:
        """Call once it is known whether the lease of a server that was found is kept: any other address is removed."""
        self._thread.start()

    def stop(self) -> None:
        """The server continues to run, and the address stays."""
        self._stopped.set()
        with self._lock:
            self._hang_up()

    def join(self, seconds: float) -> None:
        if self._thread.is_alive():
            self._thread.join(seconds)

    def arm(self, running: Running, until: float) -> None:
        with self._lock:
            self._running, self._until = running, until
            self._order()

    def extend(self, until: float) -> None:
        with self._lock:
            self._until = max(self._until, until)
            self._order()

    def lift(self) -> None:
        with self._lock:
            self._running = None
            self._order()

    def ready(self, seconds: float) -> None:
        """An opening never waits for this guard."""

    def changed(self) -> None:
        """The published state has changed.

        A server that was closed so that another one can be opened is published as closed only once the address is off.
        The wait happens in the thread that has observed the server, and in no other: the end of a server is published
        at once.
        """
        with self._lock:
            dropped = self._drops()
        if dropped and self._published.state.up:
            self.gone(CLOSE_SECONDS)

    def gone(self, seconds: float) -> bool:
        """Wait for at most ``seconds``; returns whether the address is off."""
        return self._clock.wait(self._off, seconds)

    def _drops(self) -> bool:
        """Send the order; returns whether it changes from hold to drop."""
        held = self._sent is not None and self._sent.running is not None
        self._order()
        return held and self._sent == _DROP

    def _order(self) -> None:
        running = self._running
        wanted = belongs(self._published.state, running)
        if wanted is None or self._channel is None:
            return
        order = _Order(running, self._until) if running is not None and wanted else _DROP
        before = self._sent
        if order == before:
            return
        self._off.clear()
        self._sent = order  # before the answer arrives
        running, named = order.running, before.running if before else None
        try:
            data = str(order).encode()
            if running is not None and running is not named:
                more = [self._words.fd] if self._words else []
                fds = [running.fd, *more]
                socket.send_fds(self._channel, [data], fds, socket.MSG_DONTWAIT)
            else:
                self._channel.send(data, socket.MSG_DONTWAIT)
        except OSError:  # the process has ended, or does not read: the next order repeats it
            self._sent = before

    def _run(self) -> None:
        while not self._stopped.is_set():
            begun = self._clock.monotonic()
            try:
                self._attend()
            except OSError as error:
                self._tell(
                    "process", f"cannot start the process that holds it: {error.strerror or error}"
                )
            else:
                if not self._stopped.is_set():
                    self._tell(
                        "process", "the process that holds it has ended: it is started again"
                    )
            left = begun + AGAIN_SECONDS - self._clock.monotonic()
            self._clock.wait(self._stopped, max(0.0, left))

    def _attend(self) -> None:
        """Start the process and read its messages until it ends.

        :raises OSError: it cannot be started
        """
        own, process = helper_process("holdfast.agent.vip.process", self._told_at_start())
        with self._lock:
            self._channel = own
            self._sent = None
            self._order()
            if self._stopped.is_set():
                self._hang_up()
        self._tell("process", "")
        while text := _received(own):
            self._heard(*text.partition(" ")[::2])
        with self._lock:
            self._hang_up()
        own.close()
        self.shown = False
        if self._stopped.is_set():
            process.returncode = 0  # the process outlives this agent, and Popen need not care
            return
        process.kill()
        process.wait()

    def _told_at_start(self) -> str:
        config = self._config
        told = {"address": config.address, "interface": config.interface, "linger": config.linger}
        return json.dumps(told)

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        hang_up(channel)

    def _heard(self, word: str, rest: str) -> None:
        ip, interface = self._config.ip, self._config.interface
        match word:
            case "on":
                self.shown = True
                self._writer.say(logger, f"the virtual address {ip} is on, at {interface}")
                self._writer.do(self._check_listening)
            case "off":
                if rest:
                    self._writer.say(logger, _FOUND.format(ip=ip), logging.WARNING)
                elif self.shown:
                    self._writer.say(logger, f"the virtual address {ip} is off")
                self.shown = False
                if self._sent == _DROP:
                    self._off.set()
                self._tell("listening", "")
            case "rival":
                self._tell("rival", rest and f"{rest} on the same network claims it, too")
            case _:
                self._tell("trouble", rest)

    def _check_listening(self) -> None:
        running = self._running
        if running is not None and not listens_at(running.pid, self._config.ip):
            self._tell(
                "listening",
                "the server does not listen there, so clients cannot connect through it: add it to bind_address, or "
                "set that to *",
            )

    def _tell(self, about: str, text: str) -> None:
        if self._said.get(about, "") == text:
            return
        self._said[about] = text
        ip = self._config.ip
        texts = [each for each in self._said.values() if each]
        whole = "; ".join(
            each if ip in each else f"the virtual address {ip}: {each}" for each in texts
        )
        self._alarm(whole)
        if text:
            self._writer.say(logger, whole, logging.WARNING)


def _received(channel: socket.socket) -> str:
    """The next message; "" when there will be none."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    try:
        poll.poll()
        return channel.recv(MESSAGE_BYTES).decode()
    except OSError:
        return ""
