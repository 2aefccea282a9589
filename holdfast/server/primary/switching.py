"""What both servers do when a primary hands over to another, with both running."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from holdfast.core.blockers import Blocker
from holdfast.core.check.facts import Boot
from holdfast.core.gtid import GtidSet, parse
from holdfast.errors import OutcomeUnknown, Refused
from holdfast.server.base import (
    RECEIVER_CONNECTING,
    RECEIVER_FAILED,
    RECEIVER_OFF,
    Account,
    Booted,
    Crowd,
    Deadline,
    Login,
    Source,
)
from holdfast.server.connection import processlist
from holdfast.server.connection.sql import Connection
from holdfast.server.primary import events
from holdfast.server.primary.blockers import blockers
from holdfast.server.primary.freeing import SessionFreeing
from holdfast.server.primary.freezing import Freezing, FrozenServer
from holdfast.server.procedures import SLICE_SECONDS, SqlServer
from holdfast.server.process import booted
from holdfast.server.replication import barring, slots
from holdfast.server.replication.dumps import DumpSessions
from holdfast.server.replication.following import RECEIVER_ERROR, RECEIVER_THREAD


class SwitchingServer(SqlServer):
    """A server that can be frozen, and that can be opened while it still follows."""

    _closed_for_all: ClassVar[bool]
    """Whether what refuses writes here refuses those of every account."""
    _applied_variable: ClassVar[str]

    def __init__(self, socket: Path, admin: Account) -> None:
        super().__init__(socket, admin)
        self.dumps = DumpSessions(self.flavor, socket, admin)
        self._blocking = Connection(socket, admin)
        self._files = Boot("")
        self._freezing = Freezing(
            Connection(socket, admin),
            FrozenServer(
                self._commands,
                self._side,
                self.catalog,
                self.names,
                self._refuse_writes,
                self._closed_for_all,
            ),
            self._locks_at_once,
            self._ours,
            lambda seconds, deadline: self._blockers(self._commands, seconds, deadline),
        )

    def receiver_thread(self, deadline: Deadline) -> int:
        rows = processlist.look(
            self._eyes,
            RECEIVER_THREAD[self.flavor],
            deadline,
            lambda row: row["command"] == "Slave_IO",
        )
        if rows:
            return int(rows[0]["id"])
        for row in self._eyes.look(RECEIVER_ERROR[self.flavor], deadline):
            if row.get("Slave_IO_Running", "No") != "No":
                return RECEIVER_CONNECTING
            if row["Last_IO_Errno"]:
                return RECEIVER_FAILED
        return RECEIVER_OFF

    def shut(self, deadline: Deadline) -> None:
        self._eyes.run(f"SET GLOBAL {self._refuse_writes} = 1", deadline)
        self._freezing.clients.end()  # a client that connected while it was open would read on here

    def put_back(self, values: Mapping[str, int], deadline: Deadline) -> None:
        if values:
            wanted = ", ".join(f"GLOBAL {name} = {value}" for name, value in values.items())
            self._eyes.run(f"SET {wanted}", deadline)
        self._eyes.run("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS", deadline)

    def _locks_at_once(self, deadline: Deadline) -> bool:
        """Whether the global read lock would wait only for what must be waited for anyway."""
        return True

    def close(self) -> None:
        super().close()
        self._freezing.close()
        self._blocking.close()
        self.dumps.close()

    def freeze(
        self, deadline: Deadline, done: Callable[[str], None], stopped: Callable[[str], None]
    ) -> str:
        if not self._commands.look("SELECT @@global.read_only AS closed", deadline)[0]["closed"]:
            try:
                events.write_down(self._commands, deadline)
            except OutcomeUnknown as error:
                raise Refused(f"writes continue: {error}") from error
            done("events written down")
        self._freezing.freeze(deadline, done, lambda: stopped(str(self._applied(deadline))))
        return str(self._applied(deadline))

    def booted(self, files: Boot, deadline: Deadline) -> Booted:
        self._files = files
        return booted.look(self._eyes, self.flavor, files, deadline)

    def let_clients_in(self, files: Boot, deadline: Deadline) -> None:
        booted.let_in(self._eyes, self.flavor, files, deadline)

    def mend_account(self, user: str, login: Login, deadline: Deadline) -> None:
        def mend(side: Connection, catalog: barring.Catalog, user: str, deadline: Deadline) -> None:
            barring.mend(side, catalog, user, login, barring.GRANTED[self.flavor], deadline)

        self._alter_account(mend, user, deadline)

    def end_sessions(self, sessions: Sequence[int], deadline: Deadline) -> None:
        self._freezing.clients.end_these(sessions, deadline)

    def free(self, deadline: Deadline, last_time: bool) -> Sequence[Blocker] | None:
        return SessionFreeing(self.flavor, self._blocking, self._ours).free(deadline, last_time)

    def keep_slot(self, given: int, promoting: bool, deadline: Deadline) -> Crowd:
        return slots.keep_one(self._eyes, given, promoting, deadline)

    def blockers(self, seconds: float, deadline: Deadline) -> Sequence[Blocker]:
        return self._blockers(self._blocking, seconds, deadline)

    def drain(self, deadline: Deadline, upto: str = "") -> None:
        if not upto:
            super().drain(deadline)
            return
        wanted = parse(self.flavor, upto)
        if self._applied(deadline).covers(wanted):
            return
        while not self._wait_applied(self._position_of(wanted), deadline, SLICE_SECONDS):
            deadline.check(f"applying up to {wanted.last()}")
            now = self._following(deadline)
            if not now.applier:
                raise Refused(
                    f"it has not applied {wanted.last()}, and its applier is not running: "
                    f"{now.applier_error or 'it was stopped'}"
                )
            if not now.receiver and not parse(self.flavor, now.received).covers(wanted):
                raise Refused(f"it has not received {wanted.last()}, and its receiver is stopped")

    def follow(self, source: Source, semi_sync: bool, deadline: Deadline) -> None:
        # the scheduler waits for the lock, to note what it did
        scheduled = self._freezing.held and events.running(self._commands, deadline)
        if scheduled:
            events.stop(self._commands, deadline)
        self._freezing.lift(deadline)
        now = self._following(deadline)
        self._follow(source, semi_sync, now, deadline)
        if scheduled:
            events.start(self._commands, deadline)
        if not now.host:  # the agent that should end them may have been killed
            self._freezing.clients.end()

    def resume_applier(self, deadline: Deadline) -> None:
        now = self._following(deadline)
        if now.host and not now.applier:
            self._start(deadline, receiver=False, applier=True)

    def commit_empty(self, gtids: Sequence[str], deadline: Deadline) -> None:
        raise Refused(f"{self.flavor} cannot commit transactions of other servers")

    def _prepared(self, domains: frozenset[int], deadline: Deadline) -> None:
        self._freezing.release(deadline)

    def open(self, deadline: Deadline, following: bool = False) -> None:
        self._freezing.release(deadline)
        super().open(deadline, following)

    def start_events(self, deadline: Deadline, failed: Callable[[str], None]) -> None:
        events.enable(self._commands, deadline, failed)
        events.start(self._commands, deadline)

    def stop_events(self, deadline: Deadline) -> None:
        events.stop(self._commands, deadline)

    def leave_events(self, deadline: Deadline) -> None:
        if booted.schedules(self._commands, self.flavor, self._files, deadline):
            events.start(self._commands, deadline)

    def leave(self, deadline: Deadline) -> None:
        now = self._following(deadline)
        if now.host:
            if now.receiver:
                self.stop_receiver(deadline)
            self._stop_applier(deadline)
            self._commands.run("RESET REPLICA ALL", deadline)
        self._set(deadline, {f"rpl_semi_sync_{self.replica_side}_enabled": 0})

    def _applied(self, deadline: Deadline) -> GtidSet:
        """The GTIDs in the server's own binlog."""
        row = self._commands.look(f"SELECT {self._applied_variable} AS applied", deadline)[0]
        return parse(self.flavor, row["applied"])

    def _position_of(self, wanted: GtidSet) -> str:
        """The set in the form that ``_wait_applied`` takes."""
        return str(wanted)

    def _ours(self) -> set[int]:
        return {each.session_id for each in (*self._sessions, self._blocking)}

    def _blockers(
        self, connection: Connection, seconds: float, deadline: Deadline
    ) -> tuple[Blocker, ...]:
        return blockers(connection, self.flavor, self._ours(), seconds, deadline)
