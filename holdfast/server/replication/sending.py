"""Whether a primary has sent its replicas everything that it has.

A replica that has just connected is not sent anything at once: the primary reads its binlog file from the beginning to
find the replica's position. MariaDB 10.11 took 100 ms for a file of 90 MB. Commits that begin to wait for that
replica's acknowledgement before it has everything wait as long.
"""

from __future__ import annotations

from holdfast.errors import DeadlinePassed
from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection
from holdfast.server.replication.barring import Catalog
from holdfast.server.replication.waiting import Names

PATIENCE_SECONDS = 0.5
"""Commits wait for no acknowledgement meanwhile, so this is short. Commits then wait for a replica that needs
longer."""

LOOK_SECONDS = 0.004

DUMP = "Binlog Dump"
"""How the command of such a session begins, with GTIDs or without."""

SENT = "has sent all binlog"
"""Both servers' state of a session that has sent everything and waits for more to be written."""


def settle(connection: Connection, catalog: Catalog, names: Names, deadline: Deadline) -> None:
    """Before commits of an open primary begin to wait: give the replicas that it is sending to a moment to receive
    everything.

    They need not be at the head at the same moment, but each must have been there once. Returns at once if commits
    already wait, or if no client can write.

    :raises DeadlinePassed: the deadline's, not the patience's
    """
    row = connection.look(
        f"SELECT @@global.read_only AS closed, @@global.{names.prefix}_enabled AS waits", deadline
    )[0]
    if row["closed"] or row["waits"]:
        return
    seen: set[int] = set()

    def sent() -> bool:
        sending = dumps(connection, catalog, deadline)
        seen.update(session for session, done in sending.items() if done)
        return sending.keys() <= seen

    patience = deadline.within(PATIENCE_SECONDS)
    try:
        patience.wait_until("sending replicas the end of the binlog", sent, LOOK_SECONDS)
    except DeadlinePassed:
        deadline.check("sending replicas the end of the binlog")


def dumps(connection: Connection, catalog: Catalog, deadline: Deadline) -> dict[int, bool]:
    """The sessions in which replicas are sent the binlog, and whether each has been sent all of it."""
    return {
        int(row["id"]): SENT in str(row["state"] or "")
        for row in connection.look(catalog.sessions, deadline)
        if str(row["command"]).startswith(DUMP)
    }
