"""The agent's sessions on its server."""

from __future__ import annotations

from pathlib import Path

from holdfast.server.base import Account, Crowded, Deadline
from holdfast.server.connection import slots
from holdfast.server.connection.session_settings import SIDE_SETTINGS
from holdfast.server.connection.sql import Connection


class Sessions:
    """One session for each purpose, so that none waits behind another's statement.

    :ivar commands: carries out commands
    :ivar eyes: looks, without any statement that can hang
    :ivar proof: writes rows, so it may wait while commits wait
    :ivar side: writes nothing to the binlog, and its waits for locks are short
    :ivar blocking: looks at other sessions, from any thread; logs in when it is first used
    :ivar lock: holds the lock of a freeze (``primary/freezing.py``), which closes it
    """

    def __init__(self, socket: Path, admin: Account) -> None:
        self._socket = socket
        self._admin = admin
        self.eyes = Connection(socket, admin)
        self.commands = Connection(socket, admin)
        self.proof = Connection(socket, admin)
        self.side = Connection(socket, admin, SIDE_SETTINGS)
        self.blocking = Connection(socket, admin)
        self.lock = Connection(socket, admin)
        self._kept_open = [self.eyes, self.commands, self.proof, self.side]

    @property
    def user(self) -> str:
        """The account by which all of them log in."""
        return self._admin.user

    def another(self) -> Connection:
        """One more session, for a purpose of one flavor."""
        made = Connection(self._socket, self._admin)
        self._kept_open.append(made)
        return made

    def open(self, deadline: Deadline) -> None:
        """Open every session: a failover should not have to wait for a log-in.

        :raises Unreachable: while the server does not accept connections
        """
        for each in self._kept_open:
            try:
                each.look("SELECT 1", deadline)
            except Crowded:
                if each is self.eyes:
                    raise
                # the first has taken the reserved one
                slots.keep_one(self.eyes, 0, False, deadline)
                each.look("SELECT 1", deadline)

    def ids(self) -> set[int]:
        """The numbers of the sessions in the server, except for ``lock``."""
        return {each.session_id for each in (*self._kept_open, self.blocking)}

    def close(self) -> None:
        for each in (*self._kept_open, self.blocking):
            each.close()
