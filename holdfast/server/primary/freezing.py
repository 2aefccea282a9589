"""A primary that takes no more writes, so that another can take over; and that continues if that fails.

A session of ours takes the global read lock (FLUSH TABLES WITH READ LOCK): every session that writes waits, whatever
its privileges, and the lock is granted once every statement and commit that was under way has ended, its
acknowledgement included. The clients' sessions are ended while the lock is held: so a session that waits loses its
connection, a single clean error. Only then is the server made read-only, in that session, which waits for nothing: a
statement that began on a read-only server would get error 1290 before its connection is lost, and perhaps many times.

On MariaDB tables are closed before that, while clients still write: what the server has of them to write would delay
the lock (50 to 160 ms after an ALTER USER, or the first time, on a busy disk; 0.3 ms this way). Closing them waits for
no session.

The lock stays until the server follows another or opens again. MariaDB's ``read_only`` alone does not stop accounts
with READ ONLY ADMIN. If the agent dies, the lock goes with its session, and ``read_only`` stays.

What delays it (tested on both):

* a statement that writes (UPDATE, INSERT … SELECT, SELECT … FOR UPDATE, DDL), until it ends; LOCK TABLES … WRITE; a
  commit that waits for an acknowledgement;
* not an open transaction, whatever it has changed, nor a prepared XA transaction: the former is rolled back with its
  session, the latter stays prepared;
* MariaDB: no SELECT, LOCK TABLES … READ or HANDLER does;
* MySQL's lock closes all tables, so it waits for these three; and if it gives up, sessions that read such a table still
  wait until the three have ended (tested). So the lock is requested only if nothing of that kind is seen. Otherwise
  only ``super_read_only`` is set, which waits for none of them: a client that writes at that moment gets error 1290
  before it loses its connection.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

from pymysql.constants import ER

from holdfast.errors import DeadlinePassed, HoldfastError, OutcomeUnknown, Refused
from holdfast.server.base import Deadline
from holdfast.server.connection.sessions import Sessions
from holdfast.server.connection.sql import StatementRefused
from holdfast.server.primary.blockers import blockers
from holdfast.server.replication import waiting
from holdfast.server.replication.client_sessions import Clients
from holdfast.server.replication.dialect import Dialect
from holdfast.server.replication.quiescing import end_statement

UNDO_SECONDS = 1.0
"""How long it may take to open the server again."""


NAMED = 3
"""How many of the sessions that delayed it a message names."""

UNSEEN = "; nothing is seen to hold it up: LOCK TABLES is seen here only where the plugin metadata_lock_info is loaded"

LIFTING_SECONDS = 1.0
"""How long a client that waits for the lock may take to be gone, before the lock is lifted."""

Done = Callable[[str], None]


class Freezing:
    """The lock, and the session that holds it. For the thread that carries out commands.

    :ivar clients: the clients' sessions
    :ivar held: whether the lock is held
    """

    def __init__(self, sessions: Sessions, dialect: Dialect) -> None:
        self._sessions = sessions
        self._session = sessions.lock
        self._pinned = contextlib.ExitStack()
        self._other = sessions.commands
        self._dialect = dialect
        # without the lock, if the lock cannot be had at once
        self._enough = dialect.refuses_all
        self.clients = Clients(
            sessions.side, dialect.catalog, lambda: {*sessions.ids(), self._session.session_id}
        )
        self.held = False

    def freeze(self, deadline: Deadline, done: Done, stopped: Callable[[], None]) -> None:
        """:param stopped: called once no session writes any more, before the clients' sessions are ended: a client that
            reconnects at once must not reconnect here
        :raises Refused: not within the deadline; the server continues as before
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
            self._undo(closed, error, deadline.afresh(UNDO_SECONDS))
            raise Refused(f"writes continue: {error}") from error

    def _end_sessions(self, deadline: Deadline) -> None:
        """Returns once all sessions were killed: none reads any more here what another primary may have changed."""
        ending = self.clients.end(deadline)
        if not deadline.clock.wait(ending.told, deadline.left):
            raise DeadlinePassed("ending the clients' sessions", deadline.seconds)
        if ending.failure is not None:
            raise ending.failure

    def lift(self, deadline: Deadline) -> None:
        """End the clients that wait to write, and unlock: their writes were meant for the primary. Does nothing if
        nothing is locked."""
        if self.held:
            patience = deadline.within(LIFTING_SECONDS)
            self.clients.end_waiting(patience)
            self._unlock(deadline)

    def release(self, deadline: Deadline) -> None:
        """The server is primary again: sessions that wait may write."""
        if self.held:
            self._unlock(deadline)

    def close(self) -> None:
        """Give the session up, and with it the lock."""
        self._drop()
        self._session.close()

    def _stop_writes(self, closed: bool, deadline: Deadline, done: Done) -> None:
        begun = deadline.clock.monotonic()
        try:
            if self._is_quick(deadline):
                self._lock(deadline, done)
            if not self.held:
                self._begin(deadline)
                self._refuse_writes(deadline, done)
            self._acknowledged(deadline)
        except HoldfastError as error:
            seconds = deadline.clock.monotonic() - begun
            held_up = self._held_up_by(seconds, deadline.afresh(UNDO_SECONDS))
            self._undo(closed, error, deadline.afresh(UNDO_SECONDS))
            raise Refused(f"writes continue: {error}{held_up}") from error

    def _is_quick(self, deadline: Deadline) -> bool:
        """Whether the lock would wait only for what must be waited for anyway."""
        holding = self._dialect.holding_tables
        return not holding or not self._other.look(holding, deadline)

    def _lock(self, deadline: Deadline, done: Done) -> None:
        self._begin(deadline)
        done("looked")
        try:
            if not self._enough:
                self._strike("FLUSH LOCAL TABLES", deadline, deadline)
                done("tables closed")
            patience = deadline.left / 2 if self._enough else deadline.left
            lock = "FLUSH TABLES WITH READ LOCK"
            self._strike(lock, deadline.within(patience), deadline)
        except DeadlinePassed:
            if not self._enough:
                raise
            self._drop()
            return
        self.held = True
        done("locked")

    def _refuse_writes(self, deadline: Deadline, done: Done) -> None:
        self._strike(f"SET GLOBAL {self._dialect.refuse_writes} = 1", deadline, deadline)
        done("read-only")

    def _begin(self, deadline: Deadline) -> None:
        """Begin the session. If this agent dies, its statement does not wait much longer."""
        self._pinned.enter_context(self._session.one_session(deadline))
        seconds = max(1, math.ceil(deadline.left))
        self._session.run(f"SET SESSION lock_wait_timeout = {seconds}", deadline)

    def _strike(self, statement: str, patience: Deadline, deadline: Deadline) -> None:
        """Carry out the statement, or make sure that it is not carried out later."""
        session = self._session.session_id
        try:
            self._session.run(statement, patience)
        except StatementRefused as error:
            if error.code != ER.LOCK_WAIT_TIMEOUT:
                raise
            raise DeadlinePassed(statement, deadline.seconds) from error
        except HoldfastError:
            end_statement(self._other, self._dialect.catalog, session, deadline)
            raise

    def _acknowledged(self, deadline: Deadline) -> None:
        """Wait for acknowledgements: commits that wait after the engine's commit hold no lock meanwhile."""
        while count := waiting.look_at(self._session, self._dialect.names, deadline).waiting:
            deadline.check(f"{count} commits wait for an acknowledgement")
            deadline.clock.sleep(0.002)

    def _undo(self, closed: bool, error: HoldfastError, deadline: Deadline) -> None:
        try:
            if not closed:
                self._other.run("SET GLOBAL read_only = 0", deadline)
        except HoldfastError as trouble:
            raise OutcomeUnknown(
                f"it is not frozen ({error}), and may not take writes either: {trouble}"
            ) from error
        finally:
            self._drop()

    def _held_up_by(self, seconds: float, deadline: Deadline) -> str:
        """The sessions that delayed the lock. They are looked up after the lock was given up, when they are still
        there."""
        try:
            ours = self._sessions.ids()
            found = blockers(self._other, self._dialect.flavor, ours, seconds, deadline)
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
