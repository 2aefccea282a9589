"""Replication and the agent can always log in, no matter how many connections clients hold.

Both servers admit one session more than ``max_connections``, of an account with CONNECTION ADMIN (MariaDB) or
CONNECTION_ADMIN (MySQL): the agent's and the replicas' accounts have that. Once this reserved slot is taken, the limit
is raised by one. That admits no client, since all that it allows is in use, and there is a reserved slot again. This is
repeated, one by one, until all replicas are connected; a client that takes what becomes free is never quicker.

If the replicas' accounts lack the privilege, they compete with the clients: then a promotion that waits for them makes
room for some more.
"""

from __future__ import annotations

from holdfast.server.base import Crowd, Deadline
from holdfast.server.connection.sql import Connection

MOST_MORE = 64
"""The limit is raised by this much at most: for replicas, for the agent's needs, and for some that administrators
took."""

ROOM = 16
"""How many more connections are allowed if a promotion waits for replicas without the privilege."""


def look(connection: Connection, deadline: Deadline) -> Crowd:
    limit = connection.look("SELECT @@global.max_connections AS most", deadline)[0]["most"]
    rows = connection.look("SHOW GLOBAL STATUS LIKE 'Threads_connected'", deadline)
    return Crowd(int(rows[0]["Value"]), int(limit), int(limit))


def wanted(found: Crowd, given: int, promoting: bool) -> int:
    """The limit by which one slot is reserved, and clients get no more than they had.

    :param given: the limit by the server's own settings
    :param promoting: a promotion has waited for its replicas for a while
    """
    most = given + MOST_MORE
    if not promoting:
        return max(given, min(found.used, most))
    full = found.used >= found.limit
    return max(given, min(found.limit + ROOM if full else found.limit, most))


def keep_one(connection: Connection, given: int, promoting: bool, deadline: Deadline) -> Crowd:
    """Keep one slot reserved. :param given: 0: the limit as it is now"""
    found = look(connection, deadline)
    limit = wanted(found, given or found.limit, promoting)
    if limit != found.limit:
        connection.run(f"SET GLOBAL max_connections = {limit}", deadline)
    return Crowd(found.used, limit, found.limit)
