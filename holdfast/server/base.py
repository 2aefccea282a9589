"""What an agent needs from its database server; ``local_server.py`` provides it.

Every method blocks, for use in a thread, and every one has a deadline. All are idempotent: called again after an
interruption at any point, they bring the server to the same state. None touches the binary log unless it says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.check.facts import Boot
from holdfast.core.gtid import Flavor
from holdfast.core.observed.blockers import Blocker
from holdfast.core.observed.dumps import Dump
from holdfast.core.settings import WaitPoint
from holdfast.core.timing import Timing
from holdfast.core.view import Replication, SemiSync
from holdfast.errors import CalledOff, DeadlinePassed, HoldfastError, Unreachable
from holdfast.server.authentication import Login
from holdfast.tls import Files


@dataclass(frozen=True, slots=True)
class Account:
    """A database account; ``repr`` never shows the password.

    :ivar tls: of an account that logs in over the network: it uses these files, and only on servers whose certificate
        their CA has signed
    :ivar read: reads the password again from its source
    """

    user: str
    password: str = field(repr=False)
    tls: Files | None = None
    read: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    def fresh(self) -> Account:
        """The account with the password as its file has it now; unchanged if the file cannot be read."""
        with contextlib.suppress(HoldfastError):
            return replace(self, password=self.read()) if self.read else self
        return self


@dataclass(frozen=True, slots=True)
class Source:
    """The primary to replicate from, and the member's own replication account on it.

    :ivar heartbeat: seconds after which an idle source sends a heartbeat; set when a server is made to follow it
    """

    host: str
    port: int
    account: Account
    heartbeat: float = Timing().heartbeat


class Crowded(Unreachable):
    """The server lives and accepts no more connections: all that it allows are in use."""


class SocketGone(Unreachable):
    """The socket's file was removed while a server listens there, and there is no other way to reach it."""


class NotListening(Unreachable):
    """No process listens at the server's socket: the server accepts no connections yet, or, when it shuts down, no
    more."""


class Deadline:
    """A moment on the monotonic clock by which work must end, and a way to call the work off.

    :ivar cancelled: checked often; a manager with a higher term sets it to get the agent's attention
    :ivar clock: by which it ends, and by which the work under it measures and waits
    """

    def __init__(
        self,
        seconds: float,
        cancelled: Callable[[], bool] = lambda: False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.seconds, self.cancelled, self.clock = seconds, cancelled, clock
        self._end = clock.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self._end - self.clock.monotonic())

    def to_its_end(self, seconds: float) -> Deadline:
        """A deadline for work that must not be left half done: never called off, with at least this much time left."""
        return self.afresh(max(self.left, seconds))

    def within(self, seconds: float) -> Deadline:
        """A deadline for a part of the work: ``seconds``, but no later than this one, and called off together."""
        return Deadline(min(seconds, self.left), self.cancelled, self.clock)

    def afresh(self, seconds: float) -> Deadline:
        """A deadline that does not depend on how much of this one is left, and is never called off."""
        return Deadline(seconds, clock=self.clock)

    def check(self, what: str) -> None:
        """:raises DeadlinePassed: time is up; :raises CalledOff: by a manager with a higher term"""
        if self.cancelled():
            raise CalledOff(f"{what}: called off by a newer term")
        if not self.left:
            raise DeadlinePassed(what, self.seconds)

    def wait_until(self, what: str, reached: Callable[[], bool], every: float = 0.002) -> None:
        """Poll ``reached`` each ``every`` seconds."""
        while not reached():
            self.check(what)
            self.clock.sleep(every)


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at a running server; the GTID sets are in its own text.

    On MariaDB ``received`` is ``@@gtid_binlog_state`` joined with the receiver's ``Gtid_IO_Pos``; on MySQL
    ``gtid_executed`` joined with ``RECEIVED_TRANSACTION_SET``. Whole transactions only.

    :ivar origin: stream of the GTIDs that it issues: ``@@server_uuid``, or ``@@gtid_domain_id-@@server_id``
    :ivar prepared: XA transactions that have been prepared for some seconds
    :ivar traces: changes whenever something came from the source, event or heartbeat
    :ivar redo_flush: ``innodb_flush_log_at_trx_commit``; -1: InnoDB keeps no redo log now (MySQL)
    :ivar shutting_out: global variables that are ON and keep clients from writing, although the server is writable
    """

    version: str
    server_id: int
    origin: str
    writable: bool
    received: str
    applied: str
    replication: Replication
    semi_sync: SemiSync
    barred: tuple[str, ...] = ()
    replicators: tuple[str, ...] | None = None
    prepared: tuple[str, ...] = ()
    traces: tuple[object, ...] = ()
    sync_binlog: int = 1
    redo_flush: int = 1
    shutting_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Booted:
    """How a server came up.

    :ivar shut: it was started so that it refuses clients, and still does
    :ivar wrong: each variable that does not have its forced value, with its value and where that comes from
    """

    shut: bool = False
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many sessions are connected.

    :ivar used: sessions; :ivar limit: ``max_connections`` now; :ivar was: before
    """

    used: int
    limit: int
    was: int


@dataclass(frozen=True, slots=True)
class DumpLook:
    """The replicas' sessions on a server.

    :ivar clients: how many semi-sync replicas the server counts; 0 if each session shows whether it is one
    """

    dumps: tuple[Dump, ...] = ()
    clients: int = 0


class Dumps(Protocol):
    """See ``server/replication/dumps.py``. For one thread at a time, beside any method of :class:`Server`."""

    def look(self, deadline: Deadline, fresh: bool = True) -> DumpLook:
        """:param fresh: do not rely on what was seen a moment ago"""

    def end(self, sessions: tuple[int, ...], deadline: Deadline) -> None:
        """When this returns, nothing that these sessions send is received any more."""

    def shut_out(self, account: str, deadline: Deadline) -> bool:
        """Lock an account that is used by replicas only; whether that was done."""

    def applied(self, deadline: Deadline) -> str:
        """The GTIDs in the server's binlog, as ``Observation.applied``."""


RECEIVER_OFF, RECEIVER_FAILED, RECEIVER_CONNECTING = 0, -1, -2
"""Instead of the number of a receiver's thread: none runs; it ended with an error; it has not been connected yet, and
MariaDB does not show which thread it is."""


class Server(Protocol):
    """One database server, reached over its local socket by an administrative account."""

    @property
    def flavor(self) -> Flavor: ...

    @property
    def dumps(self) -> Dumps:
        """The replicas' sessions here."""

    def ping(self, deadline: Deadline) -> None:
        """Log in. :raises Unreachable: the server does not accept connections"""

    def booted(self, files: Boot, deadline: Deadline) -> Booted:
        """How the server came up, compared with what its agent forces at the start; see ``server/process/forced.py``.

        :param files: what it would boot with if nothing were forced
        """

    def let_clients_in(self, files: Boot, deadline: Deadline) -> None:
        """Undo what has kept clients out since the start."""

    def observe(self, deadline: Deadline) -> Observation:
        """Look, without a statement that can wait behind a commit. Uses a connection of its own, so it may run beside
        any other method."""

    def receiver_thread(self, deadline: Deadline) -> int:
        """The number of the receiver's thread, a new one at each start of it, or one of the three numbers above. May
        run beside any other method."""

    def shut(self, deadline: Deadline) -> None:
        """Take no more writes of clients, and begin to end their sessions. May run beside any other method. If it
        raises, this may still happen later: the server must not be used any more."""

    def put_back(self, values: Mapping[str, int], deadline: Deadline) -> None:
        """Set these global variables, switch InnoDB's redo log on, and flush it. May run beside any other method."""

    def stop_receiver(self, deadline: Deadline) -> None: ...

    def drain(self, deadline: Deadline, upto: str = "") -> None:
        """Wait until all that was received is applied; or, with ``upto``, until these GTIDs are, received or not yet.

        :raises Refused: the applier does not run although something is left to apply; holds its error
        """

    def hold_applier(self, deadline: Deadline) -> None:
        """Stop only the applier, at the end of a transaction or at the beginning of one."""

    def resume_applier(self, deadline: Deadline) -> None:
        """Start a stopped applier again; what was received is kept, whether the receiver runs or not. Does nothing
        without a source."""

    def commit_empty(self, gtids: Sequence[str], deadline: Deadline) -> None:
        """MySQL, on a primary: commit an empty transaction for each of these single GTIDs that the server lacks.

        :raises Refused: MariaDB cannot do this
        """

    def follow(self, source: Source, semi_sync: bool, deadline: Deadline) -> None:
        """Replicate from ``source``, read-only, relaxed flushing, source-side semi-sync off.

        If the source is the same as before, the threads are started, and the receiver is restarted only if
        ``semi_sync`` changes (events received and not applied are kept). If it is another source, the server drains
        first. A server that was just started may drop what it had received and not applied: it is another incarnation.
        """

    def prepare_primary(
        self,
        acks: int,
        deadline: Deadline,
        timeout_seconds: float = 0.0,
        wait_point: WaitPoint = WaitPoint.AFTER_SYNC,
        following: bool = False,
        domains: frozenset[int] = frozenset(),
    ) -> None:
        """Stop following, flush durably (1/1), make commits wait as with ``set_acks``; still read-only.

        Expects that the receiver is stopped and the applier drained.

        :param following: the server still follows a frozen primary, and has applied everything that one has
        :param domains: MariaDB: domains to be numbered anew though the server may know nothing of them
        """

    def wait_for_ackers(self, acks: int, deadline: Deadline) -> None:
        """Wait until ``acks`` semi-sync replicas are connected."""

    def set_acks(
        self,
        acks: int,
        deadline: Deadline,
        timeout_seconds: float = 0.0,
        wait_point: WaitPoint = WaitPoint.AFTER_SYNC,
        again: bool = False,
    ) -> None:
        """On a primary: commits wait for ``acks`` from now on (0: for none, the primary serves alone). The change
        leaves no moment in which commits do not wait.

        What was acknowledged before the change counts as before; ``prove`` shows when the new waiting holds.

        :param timeout_seconds: 0: never
        :param again: wait again at once, if the server has given it up
        """

    def prove(
        self,
        term: int,
        serial: int,
        deadline: Deadline,
        insist: bool = True,
        following: bool = False,
    ) -> SemiSync:
        """Commit a row in ``holdfast.proof``, also on a read-only primary; returns once it is acknowledged.

        Binlog order makes the row a barrier: its ackers hold everything before it. If a time-out let the row through,
        another follows, unless not ``insist``: then the answer says ``degraded``.

        :param following: see :meth:`prepare_primary`
        :returns: how commits waited then
        :raises DeadlinePassed: the commit still waits in the server
        """

    def bar(self, user: str, deadline: Deadline) -> None:
        """Lock the replication account ``user`` here and end all its connections, also while commits wait.

        When this returns, nothing that its member sends is received any more. This is not written to the binlog.
        """

    def unbar(self, user: str, deadline: Deadline) -> None: ...

    def mend_account(self, user: str, login: Login, deadline: Deadline) -> None:
        """Make the replication account ``user`` log in that way here, also while commits wait; not in the binlog.

        A locked account stays locked, and a missing one is created locked: see ``server/replication/barring.py``.
        """

    def quiesce(self, deadline: Deadline) -> None:
        """Bring a primary to a state in which it can be shut down: it refuses writes, and no commit waits.

        :raises Refused: that cannot be done; :meth:`open` undoes it, on a primary that was open
        """

    def part(self, deadline: Deadline) -> None:
        """The last step before an orderly shutdown: no session is left for which the server would wait."""

    def open(self, deadline: Deadline, following: bool = False) -> None:
        """Let clients write.

        :param following: see :meth:`prepare_primary`
        """

    def leave(self, deadline: Deadline) -> None:
        """Stop following: on a server that was opened while it followed a frozen primary."""

    def freeze(
        self, deadline: Deadline, done: Callable[[str], None], stopped: Callable[[str], None]
    ) -> str:
        """Take no more writes, and end the clients' sessions: see ``server/primary/freezing.py``.

        When it returns what it has applied, no commit is under way or waits. :meth:`open` and :meth:`follow` end it.

        :param stopped: called with what the server has applied as soon as that is final, before the clients' sessions
            are ended
        :raises Refused: not within the deadline; the server continues as before
        """

    def start_events(self, deadline: Deadline, failed: Callable[[str], None]) -> None:
        """Switch the scheduler on, and the events as on the former primary: see ``server/primary/events.py``.

        :param failed: called for each event that cannot be altered
        """

    def stop_events(self, deadline: Deadline) -> None:
        """Switch the scheduler off."""

    def leave_events(self, deadline: Deadline) -> None:
        """Leave events to the operator: the scheduler is as the option files say, unless it was switched by hand since
        the agent started the server with the scheduler off."""

    def end_sessions(self, sessions: Sequence[int], deadline: Deadline) -> None:
        """End these clients' connections; sessions that do not exist or are not clients' are left alone."""

    def free(self, deadline: Deadline, last_time: bool) -> Sequence[Blocker] | None:
        """End the clients whose sessions now block the applier or a promotion, and report them; see
        ``server/primary/freeing.py``. None: nothing waits for a lock. From any thread."""

    def keep_slot(self, given: int, promoting: bool, deadline: Deadline) -> Crowd:
        """Keep a connection free for a replica or the agent; see ``server/connection/slots.py``. From any thread."""

    def blockers(self, seconds: float, deadline: Deadline) -> Sequence[Blocker]:
        """What has been open or running for so long that it would block :meth:`freeze`. From any thread."""

    def close(self) -> None:
        """Drop the connections."""
