"""The server's sessions, also if a query for them finds no room for the temporary table that it needs.

MariaDB makes one on disk for ``information_schema.PROCESSLIST``: with a full ``tmpdir`` each such query fails (1021).
SHOW PROCESSLIST needs none, but returns all sessions: so it is used only then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection, Row, StatementRefused

NO_ROOM = frozenset({3, 20, 1021, 1026, 1030, 1114})
"""A temporary table could not be written."""


def look(
    session: Connection,
    query: str,
    deadline: Deadline,
    keep: Callable[[Row], bool],
    args: Sequence[object] = (),
) -> list[Row]:
    """The result of the query, with columns among id, user, host, command, state, port (of the other end).

    :param keep: whether the query would return this session
    """
    try:
        return session.look(query, deadline, args)
    except StatementRefused as error:
        if error.code not in NO_ROOM:
            raise
    return [
        row for row in map(_named, session.look("SHOW FULL PROCESSLIST", deadline)) if keep(row)
    ]


def _named(row: Row) -> Row:
    host = str(row["Host"] or "")
    return {
        "id": row["Id"],
        "user": row["User"],
        "host": host,
        "command": row["Command"],
        "state": row["State"],
        "port": host.rpartition(":")[2],
    }
