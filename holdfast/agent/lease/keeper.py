"""Keeps a primary's lease, and kills its server when the lease is over.

The keeper has a thread of its own that touches no disk, no SQL, no name server and no log: whatever stalls these, the
thread still kills in time.

The server is killed by SIGKILL at once, on MySQL too. ``offline_mode`` would need a connection to a server that may be
the very thing that hangs, and takes 30 ms where all is well. A signal takes effect before any thread of the server
continues: what the kernel takes down of the process after that, for 10 to 60 ms, answers no client.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from holdfast.agent.lease.electorate import ElectorateFile
from holdfast.agent.lease.peers import Answer, Peers
from holdfast.agent.lease.state import Due, LeaseState, Question
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.runtime import boottime
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.lease import Electorate, Lease, LeaseHolder
from holdfast.core.view import MemberState
from holdfast.errors import DeadlinePassed, Refused
from holdfast.http.wire import Grant, VouchRequest
from holdfast.server.base import Deadline
from holdfast.server.process.process import Running

PATIENCE = 0.3
"""The share of a lease that a peer has to answer."""
GUARD_SECONDS = 1.0
"""How long the opening of a server waits for its other guards."""
RECOVER_SECONDS = 0.005

logger = logging.getLogger(__name__)


class Guard(Protocol):
    """An additional mechanism that holds the server to its lease. Only :meth:`ready` may block."""

    def arm(self, running: Running, until: float) -> None:
        """Hold that run of the server from now on: the lease ends at ``until``."""

    def extend(self, until: float) -> None:
        """The lease ends at ``until`` now."""

    def lift(self) -> None:
        """Hold no server: it is gone, or follows another."""

    def ready(self, seconds: float) -> None:
        """Wait for at most ``seconds`` until the guard holds. The guard itself reports where it cannot."""


class Second(Protocol):
    """Another process of this host that holds the same lease, and asks the same voters when this agent does not.

    :ivar until: the time until which voters have confirmed the lease to that process
    """

    @property
    def until(self) -> float: ...

    def know(self, electorate: Electorate | None, length: float) -> None:
        """Use this electorate. When this returns, only its members' confirmations prolong the lease."""


@dataclass(frozen=True, slots=True)
class Upholders:
    """What holds the server to its lease besides this agent.

    :ivar second: one of ``guards``
    """

    guards: Sequence[Guard] = ()
    second: Second | None = None


class Keeper:
    """:ivar run: names this run of the agent, and so its clock
    :param alarm: on the clock of leases, what the thread that keeps the lease sleeps by
    """

    def __init__(
        self,
        published: PublishedState,
        server_run: ServerRun,
        refuses: Callable[[int, str], bool],
        file: ElectorateFile,
        peers: Peers,
        writer: BackgroundWriter,
        besides: Upholders,
        alarm: boottime.Sleep | None = None,
    ) -> None:
        self._second = besides.second
        self.run = secrets.token_hex(8)
        self._published = published
        self._server_run = server_run
        self._refuses = refuses
        self._file = file
        self._peers = peers
        self._writer = writer
        self._guards = besides.guards
        self._clock = published.clock
        self._alarm = alarm or boottime.Alarm()
        self._lock = threading.Lock()
        self._lease_state = LeaseState(file.kept.electorate, file.kept.lease)
        self._running: Running | None = None
        self._fenced = False
        self._told = Lease()
        self._telling = threading.Lock()
        self._failed = ""
        self._stopped = False
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def start(self) -> None:
        """Begin. A server found running that must not outlive its lease gets one lease's time to have it upheld."""
        self._share()
        running = self._server_run.current()
        if running is not None and running.incarnation == self._file.kept.incarnation:
            self._enforce(running, grace=True)
        if self._lease_state.known is not None:
            self._peers.know(self._lease_state.known.agents)
        self._tell()  # before the first request is answered
        self._thread.start()

    def stop(self) -> None:
        """End the keeper; the server continues to serve, and is not killed any more."""
        self._stopped = True
        self._alarm.ring()

    @property
    def accounts(self) -> frozenset[str]:
        """Replication accounts of all members; empty until this member has learned them as a primary."""
        known = self._lease_state.known
        return (
            known.accounts if known and known.primary == self._published.state.name else frozenset()
        )

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def seen(self, state: MemberState) -> MemberState:
        """Returns ``state`` with what is left of the lease at this moment."""
        with self._lock:
            enforced = self._lease_state.enforced
            left = max(0.0, self._lease_state.until - self._clock.boottime())
        return replace(state, lease=replace(state.lease, left=left) if enforced else Lease())

    def granted(self, grant: Grant) -> bool:
        """A manager renews the lease; returns whether the grant was of use. Never blocks."""
        state = self._published.state
        if grant.run != self.run or grant.electorate.primary != state.name:
            return False
        if self._refuses(grant.term, grant.leader) or not grant.lease > 0:
            return False
        with self._lock:
            before = self._lease_state.by
            good = self._lease_state.grant(self._clock.boottime(), grant.until, grant.lease)
            news = self._lease_state.entrust(grant.electorate)
            if good:
                self._extended()
        if news:
            self._share()
            self._note(grant.electorate, grant.lease)
            self._tell()
        if good:
            self._adopt(state)
        if before is not self._lease_state.by:
            self._alarm.ring()
        return good

    def entrust(self, electorate: Electorate | None) -> None:
        """Take over the electorate given with a command: on disk when this returns. None: as before.

        :raises Refused: it cannot be written
        """
        if electorate is None:
            return
        self._file.keep(electorate, self._lease_state.length)
        with self._lock:
            self._lease_state.entrust(electorate)
        self._share()
        self._peers.know(electorate.agents)
        self._tell()

    def proved(self) -> None:
        """A server that is open already is held to its lease from now on."""
        self._adopt(self._published.state)

    def about_to_open(self) -> None:
        """Do the part of :meth:`before_opening` that waits for the disk.

        :raises Refused: it cannot be written, or the server is gone
        """
        self._file.enforcing(self._present().incarnation)

    def before_opening(self, deadline: Deadline) -> None:
        """Call right before the server is opened: from now on it does not outlive its lease in any case.

        :raises Refused: no manager has granted it one
        """
        running = self._present()
        patience = deadline.within(self._lease_state.length)
        try:
            patience.wait_until("a lease", lambda: self._lease_state.held(self._clock.boottime()))
        except DeadlinePassed:
            raise Refused(
                f"cannot open: for {patience.seconds:.1f} s no manager has granted "
                f"{self._published.state.name} a lease, and without one its server may not answer clients"
            ) from None
        self._file.enforcing(running.incarnation)
        self._enforce(running, grace=False)
        for each in self._guards:
            each.ready(min(GUARD_SECONDS, deadline.left))

    def opens(self) -> None:
        """Note that a command is about to open the server. :raises Refused: it is gone"""
        self._file.opens(self._present().incarnation)

    def _present(self) -> Running:
        running = self._server_run.current()
        if running is None:
            raise Refused("cannot open: the server is gone")
        return running

    def stand_down(self) -> None:
        """The server follows another. Never blocks."""
        self._file.opens("")
        with self._lock:
            if self._lease_state.enforced:
                self._release()
        if self._file.kept.incarnation:  # also where the server was to be opened, and was not
            self._writer.do(self._note_standing_down)

    def _note_standing_down(self) -> None:
        if not self._lease_state.enforced:  # and was not opened again meanwhile
            self._file.enforcing("")

    def _adopt(self, state: MemberState) -> None:
        """Hold a server to its lease that takes clients already. Never blocks."""
        if not (state.writable and state.up) or state.replication.source:
            return
        if self._lease_state.known is None or self._lease_state.enforced:
            return
        running = self._server_run.current()
        if running is not None and running.incarnation == state.incarnation:
            self._enforce(running, grace=True)
            self._writer.do(lambda: self._file.enforcing(running.incarnation))

    def _enforce(self, running: Running, grace: bool) -> None:
        with self._lock:
            self._running = running
            self._fenced = False
            self._lease_state.enforce(self._clock.boottime(), grace)
            for each in self._guards:
                each.arm(running, self._lease_state.until)
        self._alarm.ring()

    def _share(self) -> None:
        """Give the second keeper the same lease."""
        if self._second is not None:
            with self._lock:
                known, length = self._lease_state.known, self._lease_state.length
            self._second.know(known, length)

    def _note(self, electorate: Electorate, lease: float) -> None:
        self._peers.know(electorate.agents)
        self._writer.do(lambda: self._file.keep(electorate, lease))

    def _extended(self) -> None:
        if self._lease_state.enforced:
            for each in self._guards:
                each.extend(self._lease_state.until)

    def _answered(self, name: str, question: Question, answer: Answer) -> None:
        if answer is not Answer.VOUCHED:
            return
        with self._lock:
            if self._fenced or not self._lease_state.vouched(name, question):
                return
            self._extended()
        self._alarm.ring()

    def _keep(self) -> None:
        # on a fully loaded host this thread would wait for a processor while the server still answers
        with contextlib.suppress(OSError):  # no permission
            policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(1))
        while not self._stopped:
            try:
                self._keep_once()
            except (
                Exception
            ) as error:  # without this thread nothing ends a server whose lease is over
                self._fails(repr(error))
                self._clock.sleep(RECOVER_SECONDS)  # not the alarm: it may be what has failed

    def _fails(self, failed: str) -> None:
        """Log a failure once, not two hundred times a second."""
        if failed != self._failed:
            self._failed = failed
            self._writer.say(logger, f"keeping the lease failed: {failed}", logging.ERROR)

    def _keep_once(self) -> None:
        with self._lock:
            running, due, question = self._running, Due.NOTHING, None
            if running is not None and not running.alive:
                self._release()
                running = None
            # this agent may have stood still, while the second keeper had its lease upheld
            second = self._second if running is not None else None
            if second is not None and self._lease_state.fed(second.until):
                self._extended()
            now = self._clock.boottime()
            if running is not None and not self._fenced:
                due = self._lease_state.due(now)
            if due is Due.ASK:
                question = self._lease_state.ask(now)
                self._extended()  # where no confirmation is needed
            self._fenced |= due is Due.FENCE
            until = self._lease_state.next() if running is not None and not self._fenced else None
        if due is Due.FENCE:
            self._fence(now)
        if question is not None:
            self._ask(question)
        self._tell()
        self._alarm.sleep(until, *([running.fd] if running is not None else []))

    def _fence(self, now: float) -> None:
        lease_state = self._lease_state
        since = now - lease_state.renewed_at
        silence = f"for {since:.1f} s" if since < 1e6 else "since this agent started"
        self._server_run.kill(
            f"its lease is over: no manager has renewed it {silence}, and {lease_state.shortfall()}"
        )
        late = (self._clock.boottime() - lease_state.until) * 1000
        self._writer.say(
            logger, f"killed {late:.1f} ms after the end of the lease", logging.WARNING
        )

    def _ask(self, question: Question) -> None:
        lease_state, name = self._lease_state, self._published.state.name
        if lease_state.known is None:
            return
        request = VouchRequest(
            member=name, address=lease_state.known.address, seconds=lease_state.length
        )
        patience = lease_state.length * PATIENCE
        self._peers.ask(
            lease_state.known.agents,
            request,
            patience,
            lambda peer, answer: self._answered(peer, question, answer),
        )

    def _release(self) -> None:
        self._running = None
        self._lease_state.release()
        for each in self._guards:
            each.lift()

    def _tell(self) -> None:
        """Publish what changes rarely; log one line when another party begins to uphold the lease."""
        lease_state = self._lease_state
        with self._telling:
            by = LeaseHolder.NOBODY if self._fenced or not lease_state.enforced else lease_state.by
            known = lease_state.known if lease_state.enforced else None
            told = Lease(lease_state.enforced, by, quorums=known.quorums if known else None)
            if told == self._told:
                return
            before, self._told = self._told, told
            self._published.change(lease=told)
        if before.by is not told.by and lease_state.enforced and not self._fenced:
            self._writer.say(logger, _HOLDERS[told.by])


_HOLDERS = {
    LeaseHolder.MANAGER: "the manager renews this primary's lease",
    LeaseHolder.PEERS: "no manager renews this primary's lease: its voters renew it",
    LeaseHolder.NOBODY: "nothing renews this primary's lease yet: it lasts for one lease time unless it is renewed",
}
