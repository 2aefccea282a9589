"""The process that holds a virtual address for an agent: ``python -m holdfast.agent.vip.process JSON``.

It is a separate process, as the address must survive its agent for a while and must not survive its server: it sees the
end of both. It never waits for a disk, a log, a name server or the agent, and the agent's other work does not delay it.
When the whole host stands still, the lifetime in the kernel ends the address.

Its standard input is a socket that preserves message boundaries, on which the agent sends:

    hold UNTIL         the server is the open primary, under a lease until then on the clock of leases; a pidfd of that
                       server comes with the first one, and where there is a keeper process the memory in which it
                       writes until when it has the lease upheld (``agent/lease/words.py``): the agent may hang
    drop               it is not
    (end of file)      the agent is gone

It answers ``on``; ``off`` (after each drop; ``off found`` where the address was on and no process had set it so);
``rival HARDWARE`` and ``trouble TEXT`` (nothing after the word: no longer).

Before its first order it touches nothing. With that order it takes over from the process that a former agent has left.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys

from holdfast.agent.lease.words import LeaseWords
from holdfast.agent.runtime import boottime
from holdfast.agent.vip.claim import Claim
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.endpoint.vip import Vip
from holdfast.errors import Refused

ANNOUNCE_AFTER = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
ANNOUNCE_EVERY = 5.0
"""Later announcements, for hosts that were cut off when the address moved."""
UNATTENDED_EVERY = 0.5
"""Without an agent, how often it checks whether another host has the address."""
READ_EVERY = 0.2
"""How often it checks whether the lease is upheld while the agent is silent: the lifetime in the kernel is rounded down
to whole seconds, and ends before the lease does."""
RIVAL_SECONDS = 8.0
"""So long after its last announcement a rival counts as gone."""
RETRY_SECONDS = 0.5
YIELD_SECONDS = 0.2
MESSAGE_BYTES = 4096
MOST_FILES = 2


class VipProcess:
    """:param alarm: on the clock of leases, what the only loop in here sleeps by"""

    def __init__(
        self,
        vip: Vip,
        linger: float,
        agent: socket.socket,
        clock: Clock = SYSTEM_CLOCK,
        alarm: boottime.Sleep | None = None,
    ) -> None:
        self._vip = vip
        self._claim = Claim(linger)
        self._agent = agent
        self._server = -1
        self._words: LeaseWords | None = None
        self._ordered = False
        self._seat: socket.socket | None = None
        self._on: bool | None = None
        self._put_at = 0.0
        self._announced = 0
        self._announce_at = 0.0
        self._retry_at = 0.0
        self._rival = ""
        self._rival_at = 0.0
        self._said: dict[str, str] = {}
        self._clock = clock
        self._alarm = alarm or boottime.Alarm()

    def run(self) -> None:
        """Run until the agent is gone and there is no address left to hold."""
        self._say("trouble", self._vip.trouble())
        while self._claim.attended or self._claim.holds(self._clock.boottime()):
            # one reading of the clock for both: what ends between two readings would be missed by the sleep
            now = self._clock.boottime()
            self._settle(now)
            self._alarm.sleep(self._next(now), *self._files())
            self._look()
        self._settle(self._clock.boottime())

    def _files(self) -> list[int]:
        fds = [self._agent.fileno()] if self._claim.attended else []
        fds += [self._server] if self._server >= 0 else []
        fds += [self._seat.fileno()] if self._seat else []
        return fds + ([self._vip.fd] if self._vip.fd is not None else [])

    def _look(self) -> None:
        """Take in what has happened."""
        while self._claim.attended and self._heard():
            pass
        if self._server >= 0 and _readable(self._server):
            os.close(self._server)
            self._server = -1
            self._claim.dropped()
        if self._words is not None and self._claim.attended:
            self._claim.upheld(self._words.keeper_until)
        if rival := self._vip.rival():
            self._rival, self._rival_at = rival, self._clock.boottime()
            self._claim.contested()
        if self._seat is not None:
            self._asked_to_yield(self._seat)

    def _heard(self) -> bool:
        """Read one message; returns whether there was one."""
        fds = array.array("i")
        try:
            text, more, _, _ = self._agent.recvmsg(
                MESSAGE_BYTES, socket.CMSG_SPACE(MOST_FILES * fds.itemsize), socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return False
        except OSError:
            text, more = b"", []
        for level, kind, data in more:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if fds:
            if self._server >= 0:
                os.close(self._server)
            self._server = fds[0]
            self._read_along(*fds[1:])
        word, _, rest = text.decode().partition(" ")
        match word:
            case "":
                self._claim.abandoned(self._clock.boottime())
                self._announce_at = 0.0
            case "hold" if self._server >= 0:
                self._claim.held(float(rest))
            case _:
                self._claim.dropped()
                self._on = None  # checked and answered in any case
        if word and not self._ordered:
            self._ordered = True
            self._take_over()
        return True

    def _read_along(self, fd: int | None = None) -> None:
        # the memory is the same as long as the agent lives
        if fd is not None and self._words is None:
            self._words = LeaseWords(fd)
        elif fd is not None:
            os.close(fd)

    def _settle(self, now: float) -> None:
        """Put the address where it belongs."""
        if not self._ordered:
            return
        try:
            if self._claim.holds(now):
                self._hold(now)
            elif self._on is not False and now >= self._retry_at:
                if self._server >= 0:
                    # its clients can still be reached; a server that ends closes its connections itself
                    self._vip.hang_up()
                found = self._vip.remove() and self._on is None and not self._put_at
                self._put_off(found)
            elif self._on is False and self._retry_at:  # what failed is not wanted any more
                self._retry_at = 0.0
                self._say("trouble", self._vip.trouble())
        except Refused as error:
            self._retry_at = now + RETRY_SECONDS
            self._say("trouble", str(error))
        if self._rival and (not self._on or now >= self._rival_at + RIVAL_SECONDS):
            self._rival = ""
        self._say("rival", self._rival)

    def _hold(self, now: float) -> None:
        if now < self._retry_at:
            return
        seconds = self._claim.renewal(now)
        if seconds is None and self._retry_at:
            seconds = 1  # what failed is done now
        if seconds is not None and (self._vip.put(seconds) or not self._on):
            self._announced, self._put_at, self._announce_at = 0, now, now
        if not self._on:
            self._on = True
            self._tell("on")
        if now >= self._announce_at:
            self._announce(now)
        self._retry_at = 0.0
        self._say("trouble", "")

    def _announce(self, now: float) -> None:
        self._announced += 1
        if not self._claim.attended:
            self._announce_at = now + UNATTENDED_EVERY
        elif self._announced < len(ANNOUNCE_AFTER):
            self._announce_at = self._put_at + ANNOUNCE_AFTER[self._announced]
        else:
            self._announce_at = now + ANNOUNCE_EVERY
        # a host without a known lease must not draw clients away from one that has it
        self._vip.announce(tell=self._claim.attended)

    def _put_off(self, found: bool) -> None:
        self._on = False
        self._retry_at = 0.0
        self._tell("off found" if found else "off")
        self._vip.hush()
        self._say("trouble", self._vip.trouble())

    def _next(self, now: float) -> float | None:
        """The time at which something will be due. What was due up to now is done: a moment in the past would end every
        sleep at once, and this process may have a real-time priority.
        """
        if not self._ordered:
            return None
        moments = [self._claim.next(now)]
        if self._on:
            moments.append(self._announce_at)
        if self._retry_at:
            moments = [self._claim.until, self._retry_at]
        if not self._claim.attended:
            moments.append(now + UNATTENDED_EVERY)
        elif self._words is not None and self._on:
            moments.append(now + READ_EVERY)
        due = [each for each in moments if each is not None and each > now]
        return min(due, default=None)

    def _say(self, about: str, text: str) -> None:
        """Send only what has changed."""
        if self._said.get(about, "") != text:
            self._said[about] = text
            self._tell(f"{about} {text}")

    def _tell(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the agent is gone, or does not read
            self._agent.send(text.encode()[:MESSAGE_BYTES], socket.MSG_DONTWAIT)

    # -- one process after the other ----------------------------------------------------------------

    def _take_over(self) -> None:
        """Take over from the process that a former agent has left, which ends without touching the address."""
        for _ in range(2):
            seat = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            try:
                seat.bind(self._place)
                seat.listen(4)
            except OSError:
                seat.close()
                self._ask_to_yield()
            else:
                self._seat = seat
                return
        self._say("trouble", f"another process holds the virtual address {self._vip} on this host")

    def _ask_to_yield(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked:
            asked.settimeout(YIELD_SECONDS)
            with contextlib.suppress(OSError):
                asked.connect(self._place)
                asked.recv(1)

    def _asked_to_yield(self, seat: socket.socket) -> None:
        """Yield to another process of this user, unless this one's agent lives."""
        with contextlib.suppress(OSError):
            asked, _ = seat.accept()
            with asked:
                credentials = asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                if (
                    not self._claim.attended
                    and struct.unpack("=iII", credentials)[1] == os.getuid()
                ):
                    seat.close()
                    os._exit(0)

    @property
    def _place(self) -> bytes:
        """A socket in the abstract space of this host's network: it ends with the process."""
        return f"\0holdfast-vip-{self._vip}-{self._vip.interface}".encode()


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def main() -> None:
    signal.signal(
        signal.SIGHUP, signal.SIG_IGN
    )  # SIGHUP is for the agent: there is nothing to read again
    told = json.loads(sys.argv[1])
    # no permission: on a loaded host the process waits for a processor
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    agent = socket.socket(fileno=0)
    vip = Vip(told["address"], told["interface"])
    VipProcess(vip, told["linger"], agent, SYSTEM_CLOCK).run()


if __name__ == "__main__":
    main()
