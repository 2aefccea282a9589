"""A second process that holds a primary to its lease: ``python -m holdfast.agent.lease.keeper_process STATE_DIR``.

The agent may hang, be stopped by a debugger, or be killed while its server continues to run. So this process, too,
kills the server when its lease is over, and runs what closes its ports in the kernel and feeds the watchdog. While the
agent does not renew the lease, this process asks the voters itself: a hanging agent alone does not cost the primary.

Its standard input is a socket that preserves message boundaries, on which the agent sends:

    JSON           the first message: the constant settings (:class:`Begin`), with the memory of ``words.py``
    token TEXT     the token to show to other members' agents from now on
    know JSON      the voters whose vouches the lease depends on from now on, and its duration (:class:`Known`)
    arm PID        hold that server to the lease; a pidfd comes with it
    lift           hold no server
    bye            the agent ends in order: its server is left as it is, and is not ended any more
    (end of file)  the agent was killed

It answers ``up`` once it has begun, ``gate TEXT`` and ``watchdog TEXT`` when these do not work (``TEXT`` empty: they
work again), and ``ready`` after each ``arm``, once gate and watchdog hold.

If the agent was killed, this process keeps the server running as long as the voters vouch. When they stop, it kills the
server, with one exception: the hosts of *all* of them say that no agent runs there. So when all agents of a cluster
end, perhaps for the same reason, its database lives: nothing can be elected without agents. Managers do not assume that
such a server ends with its lease (``core/rules/enforcement.py``).
"""

from __future__ import annotations

import array
import contextlib
import logging
import math
import os
import queue
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from holdfast import log, tls
from holdfast.agent.lease.gate import Gate
from holdfast.agent.lease.peers import Answer, Peers
from holdfast.agent.lease.state import Due, LeaseState, Question
from holdfast.agent.lease.watchdog import Watchdog
from holdfast.agent.lease.words import LeaseWords
from holdfast.agent.runtime import boottime
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.config.schema import LogFormat
from holdfast.core.answers.access import AccessRole
from holdfast.core.lease import Electorate
from holdfast.core.timing import Timing
from holdfast.http.wire import VouchRequest
from holdfast.server.process.process import Running

ASKS_AT = 0.4
"""The share of a lease that is left when this process asks the peers: the agent begins a little earlier."""
RENEWS_EVERY = 0.2
"""The share of a lease after which gate and watchdog get a renewal."""
PATIENCE = 0.3
"""The share of a lease that a peer has to answer."""
BEHIND_SECONDS = 0.005
"""This process kills so much later than the agent, which can report why: still within ``FENCE_SECONDS``."""
SWITCH_SECONDS = 0.0005
"""How long a thread that asks a peer may delay the thread that kills: a tenth of Python's default."""
GUARD_SECONDS = 1.0
RECOVER_SECONDS = 0.005
MESSAGE_BYTES = 65536
MOST_FILES = 2


@dataclass(frozen=True, slots=True)
class Begin:
    """:ivar name: of the member; :ivar cluster: of which the other members' agents must be, by their certificates
    :ivar token, files: what is shown to the other members' agents
    :ivar gate: argv that runs nft; empty: no gate
    :ivar insist: the gate is required; otherwise it is used where it works
    :ivar table: name of the gate's table
    """

    name: str
    cluster: str = ""
    token: str | None = None
    files: tls.Files | None = None
    gate: tuple[str, ...] = ()
    insist: bool = True
    table: str = ""
    watchdog: Path | None = None
    log_format: LogFormat = LogFormat.TEXT


@dataclass(frozen=True, slots=True)
class Known:
    """:ivar length: of a lease, in seconds"""

    electorate: Electorate | None
    length: float


BEGIN = TypeAdapter(Begin)
KNOWN = TypeAdapter(Known)

logger = logging.getLogger(__name__)


class KeeperProcess:
    """:param alarm: on the clock of leases, what the loop that keeps the lease sleeps by"""

    def __init__(
        self,
        agent: socket.socket,
        begin: Begin,
        words: LeaseWords,
        clock: Clock = SYSTEM_CLOCK,
        alarm: boottime.Sleep | None = None,
    ) -> None:
        self._agent = agent
        self._begin = begin
        self._words = words
        self._attended = True
        self._ended = False
        self._lease_state = LeaseState(length=Timing().lease, ask_at=ASKS_AT)
        self._running: Running | None = None
        self._fenced = False
        self._answers: queue.SimpleQueue[tuple[str, Question, Answer]] = queue.SimpleQueue()
        self._refused: dict[str, float] = {}
        self._clock = clock
        self._alarm = alarm or boottime.Alarm()
        self._failed = ""
        self._peers = Peers(shown(begin))
        self._writer = BackgroundWriter()
        self._guards: Sequence[Gate | Watchdog] = tuple(self._made_guards())

    def run(self) -> None:
        """Run until the agent ends in order, or was killed and there is no server left to hold."""
        self._writer.start()
        self._peers.start()
        for each in self._guards:
            each.start()
        self._tell("up")
        # no permission: on a loaded host the process waits for a processor
        with contextlib.suppress(OSError):
            policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(1))
        while self._needed:
            try:
                self._once()
            except Exception as error:  # without this loop nothing ends a server whose agent hangs
                if (failed := repr(error)) != self._failed:
                    self._failed = failed
                    self._say(f"keeping the lease failed: {failed}")
                self._clock.sleep(RECOVER_SECONDS)  # not the alarm: it may be what has failed
        for each in self._guards:
            each.stop()
        for each in self._guards:
            each.join(GUARD_SECONDS)
        self._writer.stop(GUARD_SECONDS)

    def _once(self) -> None:
        while self._attended and self._heard():
            pass
        running = self._running
        if running is not None and not running.alive:
            self._lift()
            running = None
        if running is not None:
            self._renew()
        now = self._words.looked_at = self._clock.boottime()
        until = None
        if running is not None and not self._fenced:
            if self._lease_state.held(now - BEHIND_SECONDS):
                if self._lease_state.due(now) is Due.ASK:
                    self._ask(self._lease_state.ask(now))
                until = self._next(now)
            elif self._stands_back(now):
                running = None
            else:
                self._fence(running, now)
        files = [self._agent.fileno()] if self._attended else []
        files += [running.fd] if running is not None else []
        if self._needed:
            self._alarm.sleep(until, *files)

    @property
    def _needed(self) -> bool:
        return not self._ended and (self._attended or self._running is not None)

    def _next(self, now: float) -> float:
        """The time at which something will be due."""
        lease_state = self._lease_state
        end = lease_state.until + BEHIND_SECONDS
        due = lease_state.next()
        if due is None or not lease_state.held(now):
            return end
        # what goes into the kernel must be far from its end; and the agent sees that this process lives
        share = RENEWS_EVERY if self._guards else 1.0
        return min(due, end, now + lease_state.length * share)

    def _renew(self) -> None:
        """Take in renewals by the agent and by the voters; after every message, as the electorate may have changed."""
        lease_state, before = self._lease_state, self._lease_state.until
        lease_state.fed(self._words.agent_until)
        while not self._answers.empty():
            name, question, answer = self._answers.get()
            self._refused.pop(name, None)
            if answer is Answer.NOBODY_THERE:
                self._refused[name] = question.at
            elif answer is Answer.VOUCHED and lease_state.vouched(name, question):
                self._words.keeper_until = lease_state.until
        if lease_state.until > before:
            self._extended()

    def _ask(self, question: Question) -> None:
        known, length = self._lease_state.known, self._lease_state.length
        if known is None:
            return
        if self._lease_state.until == question.at + length:  # no confirmation is needed
            self._words.keeper_until = self._lease_state.until
            self._extended()
        request = VouchRequest(member=self._begin.name, address=known.address, seconds=length)

        def answered(name: str, answer: Answer) -> None:
            self._answers.put((name, question, answer))
            self._alarm.ring()

        self._peers.ask(known.agents, request, length * PATIENCE, answered)

    def _extended(self) -> None:
        for each in self._guards:
            each.extend(self._lease_state.until)

    def _stands_back(self, now: float) -> bool:
        """Whether the server is left alone although its lease is over; see the head of this module."""
        known = self._lease_state.known
        if self._attended or known is None or not known.agents:
            return False
        latest = [self._refused.get(name, -math.inf) for name in known.agents]
        if min(latest) < now - self._lease_state.length:
            return False
        self._lift()
        self._say(
            "the lease of the server is over, and its agent is gone, as are the agents of "
            f"{', '.join(sorted(known.agents))}: the server keeps running, and nothing ends it"
        )
        return True

    def _fence(self, running: Running, now: float) -> None:
        self._fenced = True
        running.kill()
        late = (now - self._lease_state.until) * 1000
        self._say(
            f"killed the server {late:.1f} ms after the end of its lease: its agent "
            f"{'does not renew it' if self._attended else 'is gone'}, and {self._lease_state.shortfall()}"
        )

    def _say(self, text: str) -> None:
        self._writer.say(logger, text, logging.WARNING)

    # -- messages of the agent ------------------------------------------------------------------------

    def _heard(self) -> bool:
        """Read one message; returns whether there was one."""
        try:
            data, fds = received(self._agent)
        except BlockingIOError:
            return False
        word, _, rest = data.decode().partition(" ")
        match word:
            case "know":
                known = KNOWN.validate_json(rest)
                self._lease_state.length = known.length
                self._lease_state.known = known.electorate
                if known.electorate is not None:
                    self._peers.know(known.electorate.agents)
            case "token":
                self._peers.show(rest)
            case "arm" if fds:
                self._arm(Running(int(rest), fds.pop(0), "", child=False))
            case "lift":
                self._lift()
            case "bye":
                self._lift()
                self._ended = True
            case "":
                self._attended = False
        for fd in fds:
            os.close(fd)
        return bool(word)

    def _arm(self, running: Running) -> None:
        self._running, self._fenced = running, False
        self._lease_state.fed(self._words.agent_until)
        self._lease_state.enforce(self._clock.boottime(), grace=False)
        for each in self._guards:
            each.arm(running, self._lease_state.until)
        threading.Thread(target=self._tell_ready, name="ready", daemon=True).start()

    def _tell_ready(self) -> None:
        for each in self._guards:
            each.ready(GUARD_SECONDS)
        self._tell("ready")

    def _lift(self) -> None:
        self._running = None
        self._lease_state.release()
        for each in self._guards:
            each.lift()

    # -- messages to the agent ------------------------------------------------------------------------

    def _tell(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the agent is gone, or does not read
            self._agent.send(text.encode()[:MESSAGE_BYTES], socket.MSG_DONTWAIT)

    def _made_guards(self) -> Iterator[Gate | Watchdog]:
        begin = self._begin
        if begin.gate:
            yield Gate(
                begin.gate,
                begin.table,
                self._writer,
                lambda failed: self._tell(f"gate {failed}"),
                self._clock,
                insist=begin.insist,
            )
        if begin.watchdog is not None:
            yield Watchdog(
                begin.watchdog,
                self._writer,
                lambda failed: self._tell(f"watchdog {failed}"),
                self._clock,
            )


def shown(begin: Begin) -> tls.Credentials:
    """The credentials for other members' agents. Only agents' certificates are accepted from peers: any other
    certificate of the CA could otherwise vouch.

    :raises BadInput: a file is not as it should be
    """
    if begin.files is None:
        return tls.Credentials(begin.token)
    needed = tls.Needed(AccessRole.AGENT, (begin.cluster,))
    certificates = tls.Certificates(begin.files, needed=needed, expected=AccessRole.AGENT)
    certificates.keep_fresh()
    return tls.Credentials(begin.token, certificates.client)


def received(channel: socket.socket) -> tuple[bytes, list[int]]:
    """The next message, and the file descriptors that came with it; an empty one when there will be none.

    :raises BlockingIOError: there is none now
    """
    fds = array.array("i")
    size = socket.CMSG_SPACE(MOST_FILES * fds.itemsize)
    try:
        data, more, _, _ = channel.recvmsg(MESSAGE_BYTES, size, socket.MSG_DONTWAIT)
    except BlockingIOError:
        raise
    except OSError:
        return b"", []
    for level, kind, content in more:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)


def main() -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    # this process reloads its certificates by itself; the agent sends the rest
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    agent = socket.socket(fileno=0)
    select.select([agent], [], [])
    data, fds = received(agent)
    if not data or not fds:
        return
    begin = BEGIN.validate_json(data)
    log.setup(begin.log_format)
    KeeperProcess(agent, begin, LeaseWords(fds[0]), SYSTEM_CLOCK).run()


if __name__ == "__main__":
    main()
