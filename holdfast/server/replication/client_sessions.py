"""The clients' sessions, and how they are ended: replication, the server's own threads and ours are left alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable

from holdfast.errors import HoldfastError, Refused
from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection, Row
from holdfast.server.replication.barring import LOGGING_IN, Catalog, kill

SERVERS_OWN = ("system user", "event_scheduler", LOGGING_IN)

ENDING_SECONDS = 0.5
BACKGROUND_SECONDS = 30.0
AGAIN_SECONDS = 0.5
"""After this time, sessions that still exist are killed again."""

LOOK_SECONDS = 0.02

WAITS = "waiting for"
"""How the state of a session begins that waits for a lock of tables or for the global one."""


def is_client(row: Row) -> bool:
    """Whether a row of ``Catalog.sessions`` is a client's."""
    command = str(row["command"] or "").lower()
    return row["user"] not in SERVERS_OWN and "dump" not in command and command != "daemon"


class SessionEnding:
    """Clients' sessions that are being ended, in a separate thread.

    :ivar told: set once each of them was killed: a client that sends a statement after that gets no answer; or when
        that failed
    :ivar failure: why not all of them were killed, or None
    """

    def __init__(self) -> None:
        self.told = threading.Event()
        self.failure: HoldfastError | None = None


class Clients:
    """:param side: a session that is never occupied for long
    :param ours: our own sessions
    """

    def __init__(
        self, side: Connection, catalog: Catalog, ours: Callable[[], Collection[int]]
    ) -> None:
        self._side = side
        self._catalog = catalog
        self._ours = ours

    def end(self, deadline: Deadline) -> SessionEnding:
        """End all sessions that exist now, those at work first. This continues until they are gone, whatever else is
        done."""
        ending = SessionEnding()
        threading.Thread(
            target=self._end_all,
            args=(ending, deadline.afresh(BACKGROUND_SECONDS)),
            name="end sessions",
            daemon=True,
        ).start()
        return ending

    def end_now(self, deadline: Deadline) -> None:
        """End all sessions that exist now; returns once they are gone, or after ENDING_SECONDS."""
        patience = deadline.afresh(ENDING_SECONDS)
        left = {int(row["id"]) for row in self._there(deadline)}
        for each in left:
            kill(self._side, each, deadline)
        while left and patience.left:
            deadline.check("ending the clients' connections")
            deadline.clock.sleep(0.002)
            left &= {int(row["id"]) for row in self._there(deadline)}

    def end_these(self, sessions: Iterable[int], deadline: Deadline) -> None:
        """Returns once these are killed; those that are not clients' are left alone."""
        wanted = set(sessions)
        for row in self._there(deadline):
            if row["id"] in wanted:
                kill(self._side, int(row["id"]), deadline)

    def end_waiting(self, deadline: Deadline) -> None:
        """End all sessions; when this returns, none of them waits for a lock any more.

        :raises Refused: one does
        """
        told: set[int] = set()
        while True:
            there = self._there(deadline)
            for row in there:
                if row["id"] not in told:
                    kill(self._side, int(row["id"]), deadline)
                    told.add(int(row["id"]))
            if not any(_waits(row) for row in there):
                return
            if not deadline.left:
                raise Refused("a client's session that waits for a lock does not end")
            deadline.clock.sleep(0.001)

    def _end_all(self, ending: SessionEnding, deadline: Deadline) -> None:
        try:
            left = [int(row["id"]) for row in self._there(deadline)]
            while left:
                for each in left:
                    kill(self._side, each, deadline)
                ending.told.set()
                again = deadline.afresh(AGAIN_SECONDS)
                while left and again.left:
                    deadline.clock.sleep(LOOK_SECONDS)
                    there = {int(row["id"]) for row in self._there(deadline)}
                    left = [each for each in left if each in there]
        except (
            HoldfastError
        ) as error:  # the server is gone; or the Follow that makes it a replica ends them
            ending.failure = error
        finally:
            ending.told.set()

    def _there(self, deadline: Deadline) -> list[Row]:
        rows = self._side.look(self._catalog.sessions, deadline)
        ours = set(self._ours())  # looked up now, as this session may just have been opened
        return sorted(
            (row for row in rows if is_client(row) and row["id"] not in ours),
            key=lambda row: row["command"] == "Sleep",
        )


def _waits(row: Row) -> bool:
    return str(row["state"] or "").lower().startswith(WAITS)
