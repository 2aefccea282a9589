"""What an agent needs of its database server; ``mariadb.py`` and ``mysql.py`` provide it.

Every method blocks, for use in a thread, and every one has a deadline. All are idempotent: called again after
an interruption at any point they bring the server to the same state. None touches the binary log
unless it says so.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

from holdfast.core.blockers import Blocker
from holdfast.core.check.facts import Boot
from holdfast.core.gtid import Flavor
from holdfast.core.observed.dumps import Dump
from holdfast.core.settings import WaitPoint
from holdfast.core.timing import Timing
from holdfast.core.view import Replication, SemiSync
from holdfast.errors import CalledOff, DeadlinePassed, HoldfastError, Unreachable
from holdfast.server.authentication import identified
from holdfast.tls import Files


@dataclass(frozen=True, slots=True)
class Account:
    """A database account; ``repr`` never shows the password.

    :ivar tls: of one that logs in over the network: with these files, and only there where their CA has signed
    :ivar read: reads the password from where it came from
    """

    user: str
    password: str = field(repr=False)
    tls: Files | None = None
    read: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    def fresh(self) -> Account:
        """With the password as it stands in its file now; as it is, where that cannot be read."""
        with contextlib.suppress(HoldfastError):
            return replace(self, password=self.read()) if self.read else self
        return self


@dataclass(frozen=True, slots=True)
class Login:
    """How a replication account logs in: what the server keeps instead of its password, and whether it wants a
    certificate as well."""

    authentication: str
    encrypted: bool = False

    def clause(self, flavor: Flavor) -> str:
        return identified(flavor, self.authentication) + " REQUIRE X509" * self.encrypted


@dataclass(frozen=True, slots=True)
class Source:
    """The primary to replicate from, and the member's own replication account on it.

    :ivar heartbeat: seconds after which it speaks when it has nothing to send; set when a server is pointed at it
    """

    host: str
    port: int
    account: Account
    heartbeat: float = Timing().heartbeat


class Crowded(Unreachable):
    """The server lives and takes no more connections: all that it may have are in use."""


class SocketGone(Unreachable):
    """The file of the local socket was removed from under a server that listens there, and there is no other way in."""


class NotListening(Unreachable):
    """No process listens at the server's socket: it takes no connections yet, or, shutting down, no more."""


class Deadline:
    """A moment on the monotonic clock by which work must end, and a way to call it off.

    :ivar cancelled: asked often; a manager with a higher term sets it to get the agent's attention
    """

    def __init__(self, seconds: float, cancelled: Callable[[], bool] = lambda: False) -> None:
        self.seconds = seconds
        self.cancelled = cancelled
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left; never negative."""
        return max(0.0, self._end - time.monotonic())

    def to_its_end(self, seconds: float) -> Deadline:
        """For what may not be left half done: one that is never called off, and leaves at least so much time."""
        return Deadline(max(self.left, seconds))

    def check(self, what: str) -> None:
        """:raises DeadlinePassed: when time is up; :raises CalledOff: by a manager with a higher term"""
        if self.cancelled():
            raise CalledOff(f"{what}: called off by a newer term")
        if not self.left:
            raise DeadlinePassed(what, self.seconds)

    def wait_until(self, what: str, reached: Callable[[], bool], every: float = 0.002) -> None:
        """Poll ``reached`` each ``every`` seconds."""
        while not reached():
            self.check(what)
            time.sleep(every)


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at a running server; the GTID sets are in its own text.

    On MariaDB ``received`` is ``@@gtid_binlog_state`` joined with the receiver's ``Gtid_IO_Pos``; on MySQL
    ``gtid_executed`` joined with ``RECEIVED_TRANSACTION_SET``. Whole transactions only.

    :ivar origin: stream of the GTIDs that it issues: ``@@server_uuid``, or ``@@gtid_domain_id-@@server_id``
    :ivar prepared: XA transactions that have been prepared for some seconds
    :ivar traces: what came from the source has left: another value whenever something came, event or heartbeat
    :ivar redo_flush: ``innodb_flush_log_at_trx_commit``
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


@dataclass(frozen=True, slots=True)
class Booted:
    """How a server came up.

    :ivar shut: it was started so that clients are kept out, and nobody has let them in since
    :ivar wrong: each variable that is not as it was forced, with its value and where that comes from
    """

    shut: bool = False
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many are connected.

    :ivar used: sessions; :ivar limit: ``max_connections`` now; :ivar was: before
    """

    used: int
    limit: int
    was: int


@dataclass(frozen=True, slots=True)
class DumpLook:
    """The replicas' sessions on a server.

    :ivar clients: how many semi-sync replicas the server counts; 0 where each session shows whether it is one
    """

    dumps: tuple[Dump, ...] = ()
    clients: int = 0


class Dumps(Protocol):
    """See ``server/replication/dumps.py``. For one thread at a time, beside any method of :class:`Server`."""

    def look(self, deadline: Deadline, fresh: bool = True) -> DumpLook:
        """:param fresh: do not go by what was seen a moment ago"""

    def end(self, sessions: tuple[int, ...], deadline: Deadline) -> None:
        """What they send is received no more when this returns."""

    def shut_out(self, account: str, deadline: Deadline) -> bool:
        """Lock an account by which nobody but replicas is connected; whether that was done."""

    def applied(self, deadline: Deadline) -> str:
        """What is in its binlog, as ``Observation.applied``."""


RECEIVER_OFF, RECEIVER_FAILED, RECEIVER_CONNECTING = 0, -1, -2
"""In place of the number of a receiver's thread: none runs; it ended with an error; it has not been connected yet, and
MariaDB does not tell which thread it is."""


class Server(Protocol):
    """One database server, spoken to over its local socket by an administrative account."""

    flavor: ClassVar[Flavor]

    @property
    def dumps(self) -> Dumps:
        """The replicas' sessions here."""

    def ping(self, deadline: Deadline) -> None:
        """Log in. :raises Unreachable: while it does not accept connections"""

    def booted(self, files: Boot, deadline: Deadline) -> Booted:
        """How it came up, compared with what its agent's start forces; see ``server/process/forced.py``.

        :param files: what it would boot with, were nothing forced
        """

    def let_clients_in(self, files: Boot, deadline: Deadline) -> None:
        """Undo what has kept them out since the start."""

    def observe(self, deadline: Deadline) -> Observation:
        """Look, without any statement that can hang behind a waiting commit. Uses a connection of its own,
        so it may run beside any other method."""

    def receiver_thread(self, deadline: Deadline) -> int:
        """The number of its receiver's thread, another one with each start of it, or one of the three numbers above.
        Beside any other method, too."""

    def shut(self, deadline: Deadline) -> None:
        """Take no more writes of clients, and begin to end their sessions; beside any other method, too. Where it
        raises it may come about later: the server must not be used any more."""

    def put_back(self, values: Mapping[str, int], deadline: Deadline) -> None:
        """Set these global variables, and flush InnoDB's redo log; beside any other method, too."""

    def stop_receiver(self, deadline: Deadline) -> None: ...

    def drain(self, deadline: Deadline, upto: str = "") -> None:
        """Wait until all that was received is applied; or, with ``upto``, these GTIDs, received or not yet.

        :raises Refused: when the applier is not running although something is left to apply: says its error
        """

    def hold_applier(self, deadline: Deadline) -> None:
        """Stop the applier alone, at the end of a transaction or at the beginning of one."""

    def resume_applier(self, deadline: Deadline) -> None:
        """Have a stopped applier run again; what was received is kept, whether the receiver runs or not. Without a
        source there is nothing to do."""

    def commit_empty(self, gtids: Sequence[str], deadline: Deadline) -> None:
        """MySQL, on a primary: an empty transaction of each of these single GTIDs that it lacks.

        :raises Refused: MariaDB cannot
        """

    def follow(self, source: Source, semi_sync: bool, deadline: Deadline) -> None:
        """Replicate from ``source``, read-only, relaxed flushing, source-side semi-sync off.

        The same source as before: threads are started, the receiver restarted only when ``semi_sync`` changes
        (events received and not applied are kept). Another source: drain first. A server that was just
        started may drop what it had received and not applied: it is another incarnation.
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
        """Follow nobody any more, flush durably (1/1), commits wait as with ``set_acks``; still read-only.

        Expects the receiver stopped and the applier drained.

        :param following: it goes on following a primary that is frozen, and has applied all that one has
        :param domains: MariaDB: those that are to be numbered anew though it may know nothing of them
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
        """On a primary: commits wait for ``acks`` (0: for nobody, it serves alone), without a moment between
        the former waiting and this one in which they do not.

        What was acknowledged under the former one counts as that did: ``prove`` tells when this one holds.

        :param timeout_seconds: 0: never
        :param again: begin to wait again at once, should the server have given it up
        """

    def prove(
        self,
        term: int,
        serial: int,
        deadline: Deadline,
        insist: bool = True,
        following: bool = False,
    ) -> SemiSync:
        """Commit a row in ``holdfast.proof``, as a read-only primary too; returns once it is acknowledged.

        Binlog order makes it a barrier: its ackers hold everything before it. A row that a time-out let through
        is followed by another, unless not ``insist``: then the answer says ``degraded``.

        :param following: see :meth:`prepare_primary`
        :returns: how commits waited then
        :raises DeadlinePassed: the commit goes on waiting in the server
        """

    def bar(self, user: str, deadline: Deadline) -> None:
        """Lock the replication account ``user`` here and end all its connections, also while commits wait.

        When this returns, nothing that its member sends is received any more. Not written to the binlog.
        """

    def unbar(self, user: str, deadline: Deadline) -> None: ...

    def mend_account(self, user: str, login: Login, deadline: Deadline) -> None:
        """Have the replication account ``user`` log in that way here, also while commits wait; not in the binlog.

        It stays locked where it is, and is made locked where it is missing: see ``server/replication/barring.py``.
        """

    def quiesce(self, deadline: Deadline) -> None:
        """Bring a primary to where it can be shut down: it refuses writes, and no commit waits.

        :raises Refused: it cannot be; :meth:`open` undoes what was done, on a primary that was open
        """

    def part(self, deadline: Deadline) -> None:
        """The last thing before an orderly shutdown: nobody is connected any more for whom it would wait."""

    def open(self, deadline: Deadline, following: bool = False) -> None:
        """Let clients write.

        :param following: see :meth:`prepare_primary`
        """

    def leave(self, deadline: Deadline) -> None:
        """Follow nobody any more: of a server that was opened while it followed a frozen primary."""

    def freeze(
        self, deadline: Deadline, done: Callable[[str], None], stopped: Callable[[str], None]
    ) -> str:
        """Take no more writes from anybody, and end the clients' sessions: see ``server/primary/freezing.py``. No
        commit is under way or waits when it returns what it has applied. :meth:`open` and :meth:`follow` end it.

        :param stopped: told what it has applied as soon as that is all, before the clients' sessions are ended
        :raises Refused: not within the deadline; the server goes on as before
        """

    def start_events(self, deadline: Deadline, failed: Callable[[str], None]) -> None:
        """The scheduler is on, and the events as they were on the former primary: see ``server/primary/events.py``.

        :param failed: told of each that cannot be altered
        """

    def stop_events(self, deadline: Deadline) -> None:
        """The scheduler is off."""

    def leave_events(self, deadline: Deadline) -> None:
        """Events are the operator's matter: the scheduler is as the option files say, where nobody has switched it
        since its agent started the server with the scheduler off."""

    def end_sessions(self, sessions: Sequence[int], deadline: Deadline) -> None:
        """End these clients' connections; what is none, or not a client's, is left alone."""

    def free(self, deadline: Deadline, last_time: bool) -> Sequence[Blocker] | None:
        """End the clients whose sessions hold up the applier or a promotion now, and say who they were; see
        ``server/primary/freeing.py``. None: nothing waits for a lock. From any thread."""

    def keep_slot(self, given: int, promoting: bool, deadline: Deadline) -> Crowd:
        """See that a connection is left for a replica or the agent; see ``server/replication/slots.py``. From any
        thread."""

    def blockers(self, seconds: float, deadline: Deadline) -> Sequence[Blocker]:
        """What is open or runs for so long, and would be in the way of :meth:`freeze`. From any thread."""

    def close(self) -> None:
        """Drop the connections."""
