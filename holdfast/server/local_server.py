"""The one server that an agent works with, put together from its parts by ``server/assembly.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from holdfast.core.check.facts import Boot
from holdfast.core.observed.blockers import Blocker
from holdfast.core.settings import WaitPoint
from holdfast.core.view import SemiSync
from holdfast.errors import OutcomeUnknown, Refused
from holdfast.server.authentication import Login
from holdfast.server.base import Booted, Crowd, Deadline, Observation, Source
from holdfast.server.connection import slots
from holdfast.server.connection.sessions import Sessions
from holdfast.server.connection.sql import Connection
from holdfast.server.data.xa import PreparedWatch
from holdfast.server.primary import events
from holdfast.server.primary.blockers import blockers
from holdfast.server.primary.freeing import SessionFreeing
from holdfast.server.primary.freezing import Freezing
from holdfast.server.process import booted
from holdfast.server.replication import quiescing, sending, waiting
from holdfast.server.replication.barring import MemberAccounts
from holdfast.server.replication.dialect import FlavorParts
from holdfast.server.replication.dumps import DumpSessions
from holdfast.server.replication.following import receiver_thread
from holdfast.server.replication.proof import prove
from holdfast.server.replication.replica_role import ReplicaRole
from holdfast.server.replication.threads import ReplicationThreads

DURABLE = {"sync_binlog": 1, "innodb_flush_log_at_trx_commit": 1}


class LocalServer:
    """Implements ``Server``.

    :param parts: what depends on the flavor
    """

    def __init__(self, sessions: Sessions, parts: FlavorParts, dumps: DumpSessions) -> None:
        self.sessions = sessions
        self.dialect = dialect = parts.dialect
        self.flavor = dialect.flavor
        self.dumps = dumps
        self._commands = sessions.commands
        self._eyes = sessions.eyes
        self._parts = parts
        self._threads = ReplicationThreads(sessions.commands, dialect)
        self._replica = ReplicaRole(sessions.commands, dialect, self._threads, parts.repointing)
        self._freezing = Freezing(sessions, dialect)
        self._freeing = SessionFreeing(dialect.flavor, sessions.blocking, sessions.ids)
        self._prepared = PreparedWatch(dialect.flavor, sessions.eyes)
        self._accounts = MemberAccounts(
            dialect.catalog,
            sessions.side,
            sessions.eyes,
            sessions.user,
            self._let_administrator_write,
        )
        self._files = Boot("")

    # its sessions

    def ping(self, deadline: Deadline) -> None:
        self.sessions.open(deadline)
        self._accounts.forget()
        self._prepared.begin()
        self._parts.repointing.begin()

    def part(self, deadline: Deadline) -> None:
        self._commands.set_global(self.dialect.parting_settings, deadline)
        self.close()

    def close(self) -> None:
        self.sessions.close()
        self._freezing.close()
        self.dumps.close()

    # looks

    def booted(self, files: Boot, deadline: Deadline) -> Booted:
        self._files = files
        return booted.look(self._eyes, self.flavor, files, deadline)

    def let_clients_in(self, files: Boot, deadline: Deadline) -> None:
        booted.let_in(self._eyes, self.flavor, files, deadline)

    def observe(self, deadline: Deadline) -> Observation:
        found = self._parts.look(deadline)
        row, names = found.row, self.dialect.names
        waits = waiting.look_at_status(self._eyes, names, deadline) if row["source_side"] else {}
        accounts = self._accounts.look(deadline)
        return Observation(
            version=row["version"],
            server_id=row["server_id"],
            origin=row["origin"],
            writable=not row["read_only"],
            received=",".join(filter(None, (found.applied, found.received))),
            applied=found.applied,
            replication=found.replication,
            semi_sync=waiting.semi_sync(names, row, waits, bool(row["replica_side"])),
            barred=accounts.barred,
            replicators=accounts.names,
            prepared=self._prepared.look(deadline),
            traces=found.traces,
            sync_binlog=row["sync_binlog"],
            redo_flush=row["redo_flush"],
            shutting_out=tuple(each for each in self.dialect.shutting_out if row[each]),
        )

    def receiver_thread(self, deadline: Deadline) -> int:
        return receiver_thread(self._eyes, self.flavor, deadline)

    def keep_slot(self, given: int, promoting: bool, deadline: Deadline) -> Crowd:
        return slots.keep_one(self._eyes, given, promoting, deadline)

    def blockers(self, seconds: float, deadline: Deadline) -> Sequence[Blocker]:
        ours = self.sessions.ids()
        return blockers(self.sessions.blocking, self.flavor, ours, seconds, deadline)

    def free(self, deadline: Deadline, last_time: bool) -> Sequence[Blocker] | None:
        return self._freeing.free(deadline, last_time)

    # at once, beside any other method

    def shut(self, deadline: Deadline) -> None:
        self._eyes.set_global({self.dialect.refuse_writes: 1}, deadline)
        # a client that connected while it was open would read on here
        self._freezing.clients.end(deadline)

    def put_back(self, values: Mapping[str, int], deadline: Deadline) -> None:
        self._eyes.set_global(values, deadline)
        self.dialect.switch_redo_log_on(self._eyes, deadline)
        self._eyes.run("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS", deadline)

    # as a replica

    def stop_receiver(self, deadline: Deadline) -> None:
        self._threads.stop_receiver(deadline)

    def drain(self, deadline: Deadline, upto: str = "") -> None:
        if upto:
            self._threads.drain_upto(upto, deadline)
        else:
            self._threads.drain(self._threads.following(deadline), deadline)

    def hold_applier(self, deadline: Deadline) -> None:
        self._threads.stop_applier(deadline)

    def resume_applier(self, deadline: Deadline) -> None:
        self._replica.resume_applier(deadline)

    def follow(self, source: Source, semi_sync: bool, deadline: Deadline) -> None:
        # the scheduler waits for the lock, to note what it did
        scheduled = self._freezing.held and events.running(self._commands, deadline)
        if scheduled:
            events.stop(self._commands, deadline)
        self._freezing.lift(deadline)
        now = self._threads.following(deadline)
        self._replica.follow(source, semi_sync, now, deadline)
        if scheduled:
            events.start(self._commands, deadline)
        if not now.host:  # the agent that should end them may have been killed
            self._freezing.clients.end(deadline)

    def leave(self, deadline: Deadline) -> None:
        self._replica.leave(deadline)

    # as a primary

    def prepare_primary(
        self,
        acks: int,
        deadline: Deadline,
        timeout_seconds: float = 0.0,
        wait_point: WaitPoint = WaitPoint.AFTER_SYNC,
        following: bool = False,
        domains: frozenset[int] = frozenset(),
    ) -> None:
        waiting.refuse_acks(self.dialect.names, acks)
        now = self._threads.following(deadline)
        if now.host and not following:
            if now.receiver:
                raise Refused("this server still receives: stop the receiver before it is promoted")
            self._threads.drain(now, deadline)
            self._replica.forget_source(deadline)
        receives = {} if following else {f"{self.dialect.names.replica}_enabled": 0}
        self._commands.set_global({**DURABLE, **receives}, deadline)
        self.set_acks(acks, deadline, timeout_seconds, wait_point)
        self._let_administrator_write(deadline)
        self._freezing.release(deadline)
        self._parts.rows.promoted(domains)

    def set_acks(
        self,
        acks: int,
        deadline: Deadline,
        timeout_seconds: float = 0.0,
        wait_point: WaitPoint = WaitPoint.AFTER_SYNC,
        again: bool = False,
    ) -> None:
        names, side = self.dialect.names, self.sessions.side
        waiting.refuse_acks(names, acks)
        if acks:
            sending.settle(self._commands, self.dialect.catalog, names, deadline)
            how = (acks, timeout_seconds, wait_point, again)
            waiting.switch_on(self._commands, side, names, *how, deadline)
        else:
            waiting.switch_off(self._commands, names, deadline)

    def wait_for_ackers(self, acks: int, deadline: Deadline) -> None:
        clients = f"{self.dialect.names.prefix}_clients"
        deadline.wait_until(
            f"waiting for {acks} semi-sync replicas",
            lambda: acks <= 0 or int(waiting.status(self._commands, clients, deadline)) >= acks,
        )

    def prove(
        self,
        term: int,
        serial: int,
        deadline: Deadline,
        insist: bool = True,
        following: bool = False,
    ) -> SemiSync:
        if not following:
            _refuse_if_following(self.sessions.proof, deadline)
        row, names = (term, serial), self.dialect.names
        return prove(self._parts.rows, row, self.sessions, names, deadline, insist)

    def commit_empty(self, gtids: Sequence[str], deadline: Deadline) -> None:
        self.dialect.commit_empty(self.sessions.proof, gtids, deadline)

    def open(self, deadline: Deadline, following: bool = False) -> None:
        self._freezing.release(deadline)
        if not following:
            _refuse_if_following(self._commands, deadline)
        self._commands.set_global(self.dialect.open_settings, deadline)

    def freeze(
        self, deadline: Deadline, done: Callable[[str], None], stopped: Callable[[str], None]
    ) -> str:
        if not self._commands.look("SELECT @@global.read_only AS closed", deadline)[0]["closed"]:
            try:
                events.write_down(self._commands, deadline)
            except OutcomeUnknown as error:
                raise Refused(f"writes continue: {error}") from error
            done("events written down")
        self._freezing.freeze(deadline, done, lambda: stopped(str(self._threads.applied(deadline))))
        return str(self._threads.applied(deadline))

    def quiesce(self, deadline: Deadline) -> None:
        dialect, side = self.dialect, self.sessions.side
        quiescing.refuse_writes(
            side, self._commands, dialect.catalog, dialect.refuse_writes, deadline
        )
        end_clients = self._freezing.clients.end_now
        quiescing.settle(side, dialect.names, dialect.catalog, end_clients, deadline)

    def end_sessions(self, sessions: Sequence[int], deadline: Deadline) -> None:
        self._freezing.clients.end_these(sessions, deadline)

    def start_events(self, deadline: Deadline, failed: Callable[[str], None]) -> None:
        events.enable(self._commands, deadline, failed)
        events.start(self._commands, deadline)

    def stop_events(self, deadline: Deadline) -> None:
        events.stop(self._commands, deadline)

    def leave_events(self, deadline: Deadline) -> None:
        if booted.schedules(self._commands, self.flavor, self._files, deadline):
            events.start(self._commands, deadline)

    # accounts of members

    def bar(self, user: str, deadline: Deadline) -> None:
        self._accounts.bar(user, deadline)

    def unbar(self, user: str, deadline: Deadline) -> None:
        self._accounts.unbar(user, deadline)

    def mend_account(self, user: str, login: Login, deadline: Deadline) -> None:
        self._accounts.mend(user, login, deadline)

    def _let_administrator_write(self, deadline: Deadline) -> None:
        """Other accounts stay read-only."""
        self._commands.set_global(self.dialect.administrator_writes, deadline)


def _refuse_if_following(connection: Connection, deadline: Deadline) -> None:
    if connection.look("SHOW REPLICA STATUS", deadline):
        raise Refused("this server follows another: a row of its own would make it diverge")
