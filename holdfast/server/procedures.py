"""What both servers do in the same order; ``mariadb.py`` and ``mysql.py`` fill in the statements.

The order protects received transactions: nothing here purges a relay log with a transaction that is not applied, except
on a server that has just been started (it is another incarnation).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pymysql.constants import ER

from holdfast.core.gtid import Flavor
from holdfast.core.rules.releases import acknowledged
from holdfast.core.settings import WaitPoint
from holdfast.core.view import Receiver, SemiSync
from holdfast.errors import Refused
from holdfast.server.base import Account, Crowded, Deadline, Observation, Source
from holdfast.server.connection.hangup import ToSource, hanging_up
from holdfast.server.connection.session_settings import SIDE_SETTINGS
from holdfast.server.connection.sql import Connection, StatementRefused
from holdfast.server.data.xa import PreparedWatch
from holdfast.server.replication import barring, quiescing, sending, slots, waiting
from holdfast.server.replication.acknowledge import FilePosition, acknowledge_received
from holdfast.server.replication.client_sessions import Clients
from holdfast.server.replication.following import Following
from holdfast.server.replication.proof import PROOF_SCHEMA

PROVE_AGAIN_SECONDS = 0.02
"""The first pause between two rows, while semi-sync is degraded."""

SLICE_SECONDS = 0.2
"""How long one wait in the server lasts, before the applier is checked again."""

REPLICATORS_SECONDS = 5.0
"""How often to look up which accounts may replicate, and which of them are locked (perhaps by hand)."""


_Alter = Callable[[Connection, barring.Catalog, str, Deadline], None]


class SqlServer(ABC):
    """Implements ``Server`` over four sessions: for commands, for looking, for what may wait, and for what is not
    written to the binlog."""

    flavor: ClassVar[Flavor]

    source_side: ClassVar[Literal["master", "source"]]
    replica_side: ClassVar[Literal["slave", "replica"]]
    _refuse_writes: ClassVar[Literal["read_only", "super_read_only"]]
    names: ClassVar[waiting.Names]
    catalog: ClassVar[barring.Catalog]

    def __init__(self, socket: Path, admin: Account) -> None:
        self._admin = admin.user
        self._commands = Connection(socket, admin)
        self._eyes = Connection(socket, admin)
        self._proof = Connection(socket, admin)
        self._side = Connection(socket, admin, SIDE_SETTINGS)
        self._sessions: tuple[Connection, ...] = (
            self._eyes,
            self._commands,
            self._proof,
            self._side,
        )
        self._known = barring.Replicators((), ())
        self._known_until = 0.0
        self._xa = PreparedWatch(self.flavor, self._eyes)

    # what differs

    @abstractmethod
    def observe(self, deadline: Deadline) -> Observation: ...

    @abstractmethod
    def _following(self, deadline: Deadline) -> Following: ...

    @abstractmethod
    def _wait_applied(self, received: str, deadline: Deadline, slice_seconds: float) -> bool:
        """Wait at most a slice until ``received`` is applied, and return whether it is."""

    @abstractmethod
    def _change_source(
        self, source: Source, now: Following, deadline: Deadline, anew: bool = False
    ) -> None:
        """Make the server follow another source; on return the receiver is stopped. Drains if it must: not with
        ``anew``."""

    @abstractmethod
    def _stop_applier(self, deadline: Deadline) -> None:
        """Stop a drained applier at once, even one that holds half a transaction."""

    @abstractmethod
    def _position(self, deadline: Deadline) -> tuple[Receiver, FilePosition]:
        """The receiver's state, and the position up to which it has read its source's binlog."""

    @abstractmethod
    def _let_administrator_write(self, deadline: Deadline) -> None:
        """Other accounts stay read-only."""

    # what does not

    def ping(self, deadline: Deadline) -> None:
        """Open every session: a failover should not have to wait for a log-in."""
        for connection in self._sessions:
            try:
                connection.look("SELECT 1", deadline)
            except Crowded:
                if connection is self._eyes:
                    raise
                slots.keep_one(
                    self._eyes, 0, False, deadline
                )  # the first has taken the reserved one
                connection.look("SELECT 1", deadline)
        self._known_until = 0.0
        self._xa.begin()

    def part(self, deadline: Deadline) -> None:
        self.close()

    def close(self) -> None:
        for connection in self._sessions:
            connection.close()

    def stop_receiver(self, deadline: Deadline) -> None:
        """Stop the receiver within some 30 ms, whatever its source does; see ``server/connection/hangup.py``.

        If the agent may not hang up, a source that is frozen, or cut off without a reset, delays this for a second:
        MySQL waits for its connection (``replica_net_timeout``), MariaDB connects to end the dump thread there
        (``rpl_semi_sync_slave_kill_conn_timeout``; 0 would be 24 s).
        """
        now = self._following(deadline)
        port = self._commands.look("SELECT @@port AS own", deadline)[0]["own"]
        with hanging_up(self._commands.server_pid, ToSource(now.host, now.port, port)):
            self._commands.run("STOP REPLICA IO_THREAD", deadline)

    def drain(self, deadline: Deadline, upto: str = "") -> None:
        self._drain(self._following(deadline), deadline)

    def hold_applier(self, deadline: Deadline) -> None:
        self._stop_applier(deadline)

    def _follow(self, source: Source, semi_sync: bool, now: Following, deadline: Deadline) -> None:
        """:param now: how the server follows until now"""
        # MySQL may take a second to switch the source side off, so a former primary receives before that: this makes it
        # a voter. Its applier starts after it, or it would wait for acknowledgements
        late = self._become_replica(deadline, later=not now.host)
        # no commit relied on what it received without acknowledging it: what cannot be applied is fetched again
        broken = bool(now.applier_error) and not now.applier
        anew = broken and self._acknowledges(deadline) is False
        known = now.is_from(source) and not (now.by_file and now.receiver)  # as set by hand
        if not known:
            if now.applier_error and not anew:  # what it received is lost with the relay log
                self._drain(now, deadline)
            self._change_source(source, now, deadline, anew)
            now = self._following(deadline)
        if self._acknowledges(deadline) is not semi_sync or now.connecting:
            if now.receiver:
                self.stop_receiver(deadline)
            self._set(deadline, {f"rpl_semi_sync_{self.replica_side}_enabled": int(semi_sync)})
            self._start(deadline, receiver=True, applier=not (now.applier or late), anew=anew)
        else:
            applier = not (now.applier or late)
            self._start(deadline, receiver=not now.receiver, applier=applier, anew=anew)
        if late:
            self._switch_off(deadline)
            self._start(deadline, receiver=False, applier=True)
        if known and semi_sync:
            row = self._commands.look("SELECT @@server_id AS id", deadline)[0]
            own, look = row["id"], partial(self._position, deadline)
            acknowledge_received(self.flavor, source, own, look, deadline)

    def prepare_primary(
        self,
        acks: int,
        deadline: Deadline,
        timeout_seconds: float = 0.0,
        wait_point: WaitPoint = WaitPoint.AFTER_SYNC,
        following: bool = False,
        domains: frozenset[int] = frozenset(),
    ) -> None:
        self._refuse_acks(acks)
        now = self._following(deadline)
        values = {"sync_binlog": 1, "innodb_flush_log_at_trx_commit": 1}
        if not following:
            values[f"rpl_semi_sync_{self.replica_side}_enabled"] = 0
        if now.host and not following:
            if now.receiver:
                raise Refused("this server still receives: stop the receiver before it is promoted")
            self._drain(now, deadline)
            self._stop_applier(deadline)
            self._commands.run("RESET REPLICA ALL", deadline)
        self._set(deadline, values)
        self.set_acks(acks, deadline, timeout_seconds, wait_point)
        self._let_administrator_write(deadline)
        self._prepared(domains, deadline)

    @abstractmethod
    def _prepared(self, domains: frozenset[int], deadline: Deadline) -> None:
        """Further preparations of a primary before it is opened."""

    def set_acks(
        self,
        acks: int,
        deadline: Deadline,
        timeout_seconds: float = 0.0,
        wait_point: WaitPoint = WaitPoint.AFTER_SYNC,
        again: bool = False,
    ) -> None:
        self._refuse_acks(acks)
        if acks:
            sending.settle(self._commands, self.catalog, self.names, deadline)
            how = (acks, timeout_seconds, wait_point, again)
            waiting.switch_on(self._commands, self._side, self.names, *how, deadline)
        else:
            waiting.switch_off(self._commands, self.names, deadline)

    def wait_for_ackers(self, acks: int, deadline: Deadline) -> None:
        status = f"Rpl_semi_sync_{self.source_side}_clients"
        deadline.wait_until(
            f"waiting for {acks} semi-sync replicas",
            lambda: acks <= 0 or int(self._status(self._commands, status, deadline)) >= acks,
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
            self._refuse_if_following(self._proof, deadline)
        pause = PROVE_AGAIN_SECONDS
        while True:
            begun = waiting.look_at(self._commands, self.names, deadline)
            self._commit_row(term, serial, deadline)
            if not begun.source:
                return begun
            ended = waiting.look_at(self._commands, self.names, deadline)
            if acknowledged(begun, ended):
                return begun
            if not insist:
                return replace(begun, degraded=True)
            deadline.check("waiting for a row to be acknowledged: commits were let through")
            time.sleep(pause)
            pause = min(2 * pause, PROVE_AGAIN_SECONDS * 16)

    def _commit_row(self, term: int, serial: int, deadline: Deadline) -> None:
        row = "INSERT INTO holdfast.proof (term, serial) VALUES (%s, %s)"
        for _ in range(3):
            try:
                return self._proof.run(row, deadline, (term, serial))
            except StatementRefused as error:
                if error.code == ER.OPTION_PREVENTS_STATEMENT:
                    self._let_administrator_write(deadline)
                elif error.code in (ER.BAD_DB_ERROR, ER.NO_SUCH_TABLE):
                    self._make_proof_table(deadline)
                else:
                    raise
        raise Refused("holdfast.proof was made and is not there: somebody drops it")

    def _make_proof_table(self, deadline: Deadline) -> None:
        self._let_administrator_write(deadline)
        for statement in PROOF_SCHEMA:
            self._proof.run(statement, deadline)

    def open(self, deadline: Deadline, following: bool = False) -> None:
        if not following:
            self._refuse_if_following(self._commands, deadline)
        self._set(deadline, {"read_only": 0})

    def bar(self, user: str, deadline: Deadline) -> None:
        if user == self._admin:
            raise Refused(f"{user} is the agent's own account: locked, nobody could unlock it")
        self._alter_account(barring.bar, user, deadline)

    def unbar(self, user: str, deadline: Deadline) -> None:
        self._alter_account(barring.unbar, user, deadline)

    def quiesce(self, deadline: Deadline) -> None:
        quiescing.refuse_writes(
            self._side, self._commands, self.catalog, self._refuse_writes, deadline
        )
        clients = Clients(
            self._side, self.catalog, lambda: {each.session_id for each in self._sessions}
        )
        quiescing.settle(self._side, self.names, self.catalog, clients.end_now, deadline)

    # parts

    def _alter_account(self, alter: _Alter, user: str, deadline: Deadline) -> None:
        try:
            alter(self._side, self.catalog, user, deadline)
        except StatementRefused as error:
            if error.code != ER.OPTION_PREVENTS_STATEMENT:
                raise
            self._let_administrator_write(deadline)
            alter(self._side, self.catalog, user, deadline)
        finally:
            self._known_until = 0.0

    def _replicators(self, deadline: Deadline) -> barring.Replicators:
        """The accounts that may replicate; looked up now and then."""
        now = time.monotonic()
        if now >= self._known_until:
            self._known = barring.replicators(self._eyes, self.catalog, deadline)
            self._known_until = now + REPLICATORS_SECONDS
        return self._known

    def _drain(self, now: Following, deadline: Deadline) -> None:
        if not now.received:
            return
        while not self._wait_applied(now.received, deadline, SLICE_SECONDS):
            deadline.check(f"applying {now.received}")
            look = self._following(deadline)
            if not look.applier:
                raise Refused(
                    "received transactions are left and the applier is not running: "
                    f"{look.applier_error or 'it was stopped'}"
                )

    def _become_replica(self, deadline: Deadline, later: bool) -> bool:
        """Read-only, source side off, relaxed flushing; a primary is never turned into that.

        Switching the source side off answers OK to every commit that waits for an acknowledgement.

        :param later: the source side may be left on for the moment; returns whether it was
        """
        enabled = f"rpl_semi_sync_{self.source_side}_enabled"
        row = self._commands.look(
            f"SELECT @@global.read_only AS read_only, @@global.{enabled} AS source_side", deadline
        )[0]
        if not row["read_only"]:
            raise Refused("this server is writable: a primary is fenced and restarted, not turned")
        if row["source_side"]:
            waiting = f"Rpl_semi_sync_{self.source_side}_wait_sessions"
            if int(self._status(self._commands, waiting, deadline)):
                raise Refused("commits wait for an acknowledgement here: fence and restart it")
        late = later and bool(row["source_side"])
        self._set(deadline, {**self._replica_settings(), **({} if late else {enabled: 0})})
        return late

    def _switch_off(self, deadline: Deadline) -> None:
        """Switch the source side off: no commit waits for an acknowledgement any more; none does now."""
        waiting.switch_off(self._commands, self.names, deadline)

    def _replica_settings(self) -> dict[str, int]:
        """Relaxed flushing: a replica at 1/1 falls behind. Flush 2, not 0: with 0 a killed server would lose from
        InnoDB what its binlog has."""
        return {"sync_binlog": 0, "innodb_flush_log_at_trx_commit": 2}

    def _acknowledges(self, deadline: Deadline) -> bool | None:
        """Whether the receiver acknowledges; None if its setting and its behaviour differ."""
        setting = f"@@global.rpl_semi_sync_{self.replica_side}_enabled"
        enabled = bool(self._commands.look(f"SELECT {setting} AS enabled", deadline)[0]["enabled"])
        status = f"Rpl_semi_sync_{self.replica_side}_status"
        if not enabled and self._status(self._commands, status, deadline) == "ON":
            return None
        return enabled

    def _start(
        self, deadline: Deadline, *, receiver: bool, applier: bool, anew: bool = False
    ) -> None:
        match receiver, applier:
            case True, True:
                self._commands.run("START REPLICA", deadline)
            case True, False:
                self._commands.run("START REPLICA IO_THREAD", deadline)
            case False, True:
                self._commands.run("START REPLICA SQL_THREAD", deadline)

    def _refuse_if_following(self, connection: Connection, deadline: Deadline) -> None:
        if connection.look("SHOW REPLICA STATUS", deadline):
            raise Refused("this server follows another: a row of its own would make it diverge")

    def _refuse_acks(self, acks: int) -> None:
        if acks < 0:
            raise Refused(f"{acks} acknowledgements: must not be negative")

    def _set(self, deadline: Deadline, values: dict[str, int]) -> None:
        settings = ", ".join(f"GLOBAL {name} = {value}" for name, value in values.items())
        self._commands.run(f"SET {settings}", deadline)

    def _status(self, connection: Connection, name: str, deadline: Deadline) -> str:
        rows = connection.look(f"SHOW GLOBAL STATUS LIKE '{name}'", deadline)
        if not rows:
            raise Refused(f"the server has no status {name}: its semi-sync plugins are not loaded")
        return str(rows[0]["Value"])
