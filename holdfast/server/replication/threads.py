"""Receiver and applier of a server: how they are started, stopped and waited for."""

from __future__ import annotations

from holdfast.core.gtid import GtidSet, parse
from holdfast.errors import Refused
from holdfast.server.base import Deadline
from holdfast.server.connection.hangup import ToSource, hanging_up
from holdfast.server.connection.sql import Connection
from holdfast.server.replication.dialect import Dialect
from holdfast.server.replication.following import Following

SLICE_SECONDS = 0.2
"""How long one wait in the server lasts, before the applier is checked again."""


class ReplicationThreads:
    """:param commands: the session by which everything is done"""

    def __init__(self, commands: Connection, dialect: Dialect) -> None:
        self._commands = commands
        self._dialect = dialect

    def following(self, deadline: Deadline) -> Following:
        return self._dialect.following(self._commands, deadline)

    def start(self, deadline: Deadline, *, receiver: bool = False, applier: bool = False) -> None:
        match receiver, applier:
            case True, True:
                self._commands.run("START REPLICA", deadline)
            case True, False:
                self._commands.run("START REPLICA IO_THREAD", deadline)
            case False, True:
                self._commands.run("START REPLICA SQL_THREAD", deadline)

    def stop_receiver(self, deadline: Deadline) -> None:
        """Stop the receiver within some 30 ms, whatever its source does; see ``server/connection/hangup.py``.

        If the agent may not hang up, a source that is frozen, or cut off without a reset, delays this for a second:
        MySQL waits for its connection (``replica_net_timeout``), MariaDB connects to end the dump thread there
        (``rpl_semi_sync_slave_kill_conn_timeout``; 0 would be 24 s).
        """
        now = self.following(deadline)
        port = self._commands.look("SELECT @@port AS own", deadline)[0]["own"]
        source = ToSource(now.host, now.port, port)
        with hanging_up(self._commands.server_pid, source, deadline.clock):
            self._commands.run("STOP REPLICA IO_THREAD", deadline)

    def stop_applier(self, deadline: Deadline) -> None:
        """Stop a drained applier at once, even one that holds half a transaction."""
        self._dialect.stop_applier(self._commands, deadline)

    def applied(self, deadline: Deadline) -> GtidSet:
        """The GTIDs in the server's own binlog."""
        asked = f"SELECT {self._dialect.catalog.applied} AS applied"
        return parse(self._dialect.flavor, self._commands.look(asked, deadline)[0]["applied"])

    def wait_applied(self, received: str, seconds: float, deadline: Deadline) -> bool:
        """Wait at most so many seconds until ``received`` is applied, and return whether it is."""
        return self._dialect.wait_applied(self._commands, received, seconds, deadline)

    def drain(self, now: Following, deadline: Deadline) -> None:
        """Wait until everything is applied that ``now`` says was received.

        :raises Refused: the applier is not running
        """
        if not now.received:
            return
        while not self.wait_applied(now.received, SLICE_SECONDS, deadline):
            deadline.check(f"applying {now.received}")
            look = self.following(deadline)
            if not look.applier:
                raise Refused(
                    "received transactions are left and the applier is not running: "
                    f"{look.applier_error or 'it was stopped'}"
                )

    def drain_upto(self, upto: str, deadline: Deadline) -> None:
        """Wait until these GTIDs are applied, received or not yet.

        :raises Refused: the applier is not running, or they were not received and the receiver is stopped
        """
        wanted = parse(self._dialect.flavor, upto)
        if self.applied(deadline).covers(wanted):
            return
        while not self.wait_applied(self._dialect.position_of(wanted), SLICE_SECONDS, deadline):
            deadline.check(f"applying up to {wanted.last()}")
            now = self.following(deadline)
            if not now.applier:
                raise Refused(
                    f"it has not applied {wanted.last()}, and its applier is not running: "
                    f"{now.applier_error or 'it was stopped'}"
                )
            if not now.receiver and not parse(self._dialect.flavor, now.received).covers(wanted):
                raise Refused(f"it has not received {wanted.last()}, and its receiver is stopped")
