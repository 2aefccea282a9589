"""A primary that takes no more writes from anybody, so that another can take over; and goes on if that cannot be had.

A session of ours takes the global read lock (FLUSH TABLES WITH READ LOCK): whoever writes waits, whatever he may, and
the lock is there once every statement and commit that was under way has ended, its acknowledgement included. The
clients' sessions are ended while it is held: so one that waits loses its connection, a single clean error. Only then
is the server made read-only, in that session, which waits for nothing: a statement that began on a read-only server
would be told so (error 1290) before its connection is lost, and perhaps many times.

On MariaDB tables are closed before, while everybody still writes: what the server has of them to write would hold the
lock up (50 to 160 ms after an ALTER USER, or the first time, on a busy disk; 0.3 ms so). There it waits for nobody.

The lock stays until the server follows another or opens again. MariaDB's ``read_only`` alone does not stop whoever has
READ ONLY ADMIN. Should the agent die the lock goes with its session, and ``read_only`` stays.

What holds it up (tested on both):

* a statement that writes (UPDATE, INSERT … SELECT, SELECT … FOR UPDATE, DDL), until it ends; LOCK TABLES … WRITE;
  a commit that waits for an acknowledgement;
* an open transaction does not, whatever it has changed, nor an XA transaction that is prepared: the one is rolled back
  with its session, the other stays prepared;
* MariaDB: no SELECT, LOCK TABLES … READ or HANDLER does;
* MySQL's lock closes all tables, so it waits for these three; and where it gives up, whoever reads such a table waits
  on, until they have ended (tested). So it is asked for only where nothing of that kind is seen. Otherwise
  ``super_read_only`` alone is set, which waits for none of them: whoever writes at that moment is told so (error 1290),
  before he loses his connection.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pymysql.constants import ER

from holdfast.core.blockers import Blocker
from holdfast.errors import DeadlinePassed, HoldfastError, OutcomeUnknown, Refused
from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection, StatementRefused
from holdfast.server.replication import waiting
from holdfast.server.replication.barring import Catalog
from holdfast.server.replication.client_sessions import Clients
from holdfast.server.replication.quiescing import end_statement

UNDO_SECONDS = 1.0
"""How long it may take to open the server again."""


NAMED = 3
"""How many of those that held it up a message names."""

UNSEEN = "; nothing is seen to hold it up: LOCK TABLES is seen here only where the plugin metadata_lock_info is loaded"

LIFTING_SECONDS = 1.0
"""How long a client that waits for the lock may take to be gone, before the lock is lifted."""

Done = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FrozenServer:
    """The server that is frozen, and how.

    :ivar commands: ends the lock's session when it is given up: left alone, its statement would strike later on
    :ivar side: ends the clients' sessions
    :ivar variable: what refuses writes
    :ivar enough: whether that does without the lock, where it cannot be had at once
    """

    commands: Connection
    side: Connection
    catalog: Catalog
    names: waiting.Names
    variable: str
    enough: bool


class Freezing:
    """The lock, and the session that holds it. For the thread that carries out commands.

    :param lock: a session of its own
    :param quick: whether the lock would wait for nothing but what must be waited for anyway
    :param ours: our own sessions
    :ivar held: whether the lock is
    :param culprits: who is at work for so many seconds
    """

    def __init__(
        self,
        lock: Connection,
        server: FrozenServer,
        quick: Callable[[Deadline], bool],
        ours: Callable[[], Collection[int]],
        culprits: Callable[[float, Deadline], Sequence[Blocker]],
    ) -> None:
        self._session = lock
        self._pinned = contextlib.ExitStack()
        self._other = server.commands
        self._catalog = server.catalog
        self._names = server.names
        self._variable = server.variable
        self._enough = server.enough
        self._quick = quick
        self._culprits = culprits
        self.clients = Clients(
            server.side, server.catalog, lambda: {*ours(), self._session.session_id}
        )
        self.held = False

    def freeze(self, deadline: Deadline, done: Done, stopped: Callable[[], None]) -> None:
        """:param stopped: called once nobody writes any more, before the clients' sessions are ended: who comes back at
            once must not come back here
        :raises Refused: not within the deadline; the server goes on as before
        """
        closed = bool(self._other.look("SELECT @@global.read_only AS ro", deadline)[0]["ro"])
        anew = not (closed and self._holds(deadline))
        if anew:
            self._drop()
            self._stop_writes(closed, deadline, done)
        try:
            stopped()
            self._end_sessions(deadline)
            done("sessions ended")
            if anew and self.held:
                self._refuse_writes(deadline, done)
        except HoldfastError as error:
            self._undo(closed, error)
            raise Refused(f"writes continue: {error}") from error

    def _end_sessions(self, deadline: Deadline) -> None:
        """Once all are told, nobody reads on here what another primary may have changed."""
        ending = self.clients.end()
        if not ending.told.wait(deadline.left):
            raise DeadlinePassed("ending the clients' sessions", deadline.seconds)
        if ending.failure is not None:
            raise ending.failure

    def lift(self, deadline: Deadline) -> None:
        """Let nobody write who has waited: he meant the primary. Does nothing where nothing is locked."""
        if self.held:
            patience = Deadline(min(LIFTING_SECONDS, deadline.left), deadline.cancelled)
            self.clients.end_waiting(patience)
            self._unlock(deadline)

    def release(self, deadline: Deadline) -> None:
        """The server is primary again: whoever waits may write."""
        if self.held:
            self._unlock(deadline)

    def close(self) -> None:
        """Give the session up, and with it the lock."""
        self._drop()
        self._session.close()

    def _stop_writes(self, closed: bool, deadline: Deadline, done: Done) -> None:
        begun = time.monotonic()
        try:
            if self._quick(deadline):
                self._lock(deadline, done)
            if not self.held:
                self._begin(deadline)
                self._refuse_writes(deadline, done)
            self._acknowledged(deadline)
        except HoldfastError as error:
            held_up = self._held_up_by(time.monotonic() - begun)
            self._undo(closed, error)
            raise Refused(f"writes continue: {error}{held_up}") from error

    def _lock(self, deadline: Deadline, done: Done) -> None:
        self._begin(deadline)
        done("looked")
        try:
            if not self._enough:
                self._strike("FLUSH LOCAL TABLES", deadline, deadline)
                done("tables closed")
            patience = deadline.left / 2 if self._enough else deadline.left
            lock = "FLUSH TABLES WITH READ LOCK"
            self._strike(lock, Deadline(patience, deadline.cancelled), deadline)
        except DeadlinePassed:
            if not self._enough:
                raise
            self._drop()
            return
        self.held = True
        done("locked")

    def _refuse_writes(self, deadline: Deadline, done: Done) -> None:
        self._strike(f"SET GLOBAL {self._variable} = 1", deadline, deadline)
        done("read-only")

    def _begin(self, deadline: Deadline) -> None:
        """Should this agent die, its statement does not wait much longer."""
        self._pinned.enter_context(self._session.one_session(deadline))
        seconds = max(1, math.ceil(deadline.left))
        self._session.run(f"SET SESSION lock_wait_timeout = {seconds}", deadline)

    def _strike(self, statement: str, patience: Deadline, deadline: Deadline) -> None:
        """Carry it out, or see to it that it is not carried out later."""
        session = self._session.session_id
        try:
            self._session.run(statement, patience)
        except StatementRefused as error:
            if error.code != ER.LOCK_WAIT_TIMEOUT:
                raise
            raise DeadlinePassed(statement, deadline.seconds) from error
        except HoldfastError:
            end_statement(self._other, self._catalog, session)
            raise

    def _acknowledged(self, deadline: Deadline) -> None:
        """Where commits wait after the engine's commit, they do without a lock."""
        while count := waiting.look_at(self._session, self._names, deadline).waiting:
            deadline.check(f"{count} commits wait for an acknowledgement")
            time.sleep(0.002)

    def _undo(self, closed: bool, error: HoldfastError) -> None:
        deadline = Deadline(UNDO_SECONDS)
        try:
            if not closed:
                self._other.run("SET GLOBAL read_only = 0", deadline)
        except HoldfastError as trouble:
            raise OutcomeUnknown(
                f"it is not frozen ({error}), and may not take writes either: {trouble}"
            ) from error
        finally:
            self._drop()

    def _held_up_by(self, seconds: float) -> str:
        """Looked for while the lock is waited for no more: but who held it up is there still."""
        try:
            found = self._culprits(seconds, Deadline(UNDO_SECONDS))
        except HoldfastError:
            return ""
        named = "; ".join(str(each) for each in found[:NAMED])
        more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
        if not named:
            return "" if self._enough else UNSEEN
        return f"; held up by {named}{more}"

    def _holds(self, deadline: Deadline) -> bool:
        if not self.held:
            return False
        try:
            self._session.look("SELECT 1", deadline)
        except HoldfastError:
            return False
        return True

    def _unlock(self, deadline: Deadline) -> None:
        with contextlib.suppress(OutcomeUnknown, StatementRefused):  # lost, and the lock with it
            self._session.run("UNLOCK TABLES", deadline)
        self._drop()

    def _drop(self) -> None:
        self.held = False
        self._pinned.close()
