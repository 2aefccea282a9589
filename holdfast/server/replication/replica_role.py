"""A server becomes the replica of a source, and ceases to be one.

The order protects received transactions: nothing here purges a relay log with a transaction that is not applied, except
on a server that has just been started (it is another incarnation).
"""

from __future__ import annotations

from functools import partial

from holdfast.errors import Refused
from holdfast.server.base import Deadline, Source
from holdfast.server.connection.sql import Connection
from holdfast.server.replication import waiting
from holdfast.server.replication.acknowledge import acknowledge_received
from holdfast.server.replication.dialect import Dialect, Repointing
from holdfast.server.replication.following import Following
from holdfast.server.replication.threads import ReplicationThreads

HANGING_UP_SECONDS = 0.005
"""How often a new primary looks whether the former one has hung up."""


class ReplicaRole:
    """:param commands: the session that ``threads`` and ``repointing`` go by"""

    def __init__(
        self,
        commands: Connection,
        dialect: Dialect,
        threads: ReplicationThreads,
        repointing: Repointing,
    ) -> None:
        self._commands = commands
        self._dialect = dialect
        self._threads = threads
        self._repointing = repointing

    def follow(self, source: Source, semi_sync: bool, now: Following, deadline: Deadline) -> None:
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
                self._threads.drain(now, deadline)
            self._repointing.change_source(source, now, deadline, anew)
            now = self._threads.following(deadline)
        applier = not (now.applier or late)
        if self._acknowledges(deadline) is not semi_sync or now.connecting:
            if now.receiver:
                self._threads.stop_receiver(deadline)
            enabled = f"{self._dialect.names.replica}_enabled"
            self._commands.set_global({enabled: int(semi_sync)}, deadline)
            self._start(deadline, receiver=True, applier=applier, anew=anew)
        else:
            self._start(deadline, receiver=not now.receiver, applier=applier, anew=anew)
        if late:
            self._dialect.switch_off(self._commands, deadline)
            self._threads.start(deadline, applier=True)
        if known and semi_sync:
            own = self._commands.look("SELECT @@server_id AS id", deadline)[0]["id"]
            look = partial(self._dialect.position, self._commands, deadline)
            acknowledge_received(self._dialect.flavor, source, own, look, deadline)

    def resume_applier(self, deadline: Deadline) -> None:
        """See ``Server.resume_applier``."""
        now = self._threads.following(deadline)
        if now.host and not now.applier:
            self._repointing.resume(now, deadline)

    def leave(self, deadline: Deadline) -> None:
        """Stop following, after the former primary has hung up, if that happens soon: MySQL's needs a connected replica
        for that (``Dialect.switch_off``)."""
        now = self._threads.following(deadline)
        patience = deadline.within(self._dialect.hung_up_seconds)
        while now.receiver and not now.connecting and patience.left:
            deadline.clock.sleep(HANGING_UP_SECONDS)
            now = self._threads.following(deadline)
        if now.host:
            if now.receiver:
                self._threads.stop_receiver(deadline)
            self.forget_source(deadline)
        self._commands.set_global({f"{self._dialect.names.replica}_enabled": 0}, deadline)

    def forget_source(self, deadline: Deadline) -> None:
        """Stop following; the receiver is stopped already, and what it received is applied."""
        self._threads.stop_applier(deadline)
        self._commands.run("RESET REPLICA ALL", deadline)

    def _start(self, deadline: Deadline, *, receiver: bool, applier: bool, anew: bool) -> None:
        if receiver and applier:
            self._repointing.before_start(deadline, anew)
        self._threads.start(deadline, receiver=receiver, applier=applier)

    def _become_replica(self, deadline: Deadline, later: bool) -> bool:
        """Read-only, source side off, relaxed flushing; a primary is never turned into that.

        Switching the source side off answers OK to every commit that waits for an acknowledgement.

        :param later: the source side may be left on for the moment; returns whether it was
        """
        source_side = self._dialect.names.prefix
        row = self._commands.look(
            f"SELECT @@global.read_only AS read_only, @@global.{source_side}_enabled AS source_side",
            deadline,
        )[0]
        if not row["read_only"]:
            raise Refused("this server is writable: a primary is fenced and restarted, not turned")
        if row["source_side"] and int(
            waiting.status(self._commands, f"{source_side}_wait_sessions", deadline)
        ):
            raise Refused("commits wait for an acknowledgement here: fence and restart it")
        late = later and bool(row["source_side"])
        off = {} if late else {f"{source_side}_enabled": 0}
        self._commands.set_global({**self._dialect.replica_settings, **off}, deadline)
        return late

    def _acknowledges(self, deadline: Deadline) -> bool | None:
        """Whether the receiver acknowledges; None if its setting and its behaviour differ."""
        side = self._dialect.names.replica
        asked = f"SELECT @@global.{side}_enabled AS enabled"
        enabled = bool(self._commands.look(asked, deadline)[0]["enabled"])
        if not enabled and waiting.status(self._commands, f"{side}_status", deadline) == "ON":
            return None
        return enabled
