"""Scheduled events run only on the primary.

Found on MariaDB 10.11 and MySQL 9.7, by trying:

* An event that is made or altered on the primary is SLAVESIDE_DISABLED (MySQL: REPLICA_SIDE_DISABLED) on its replicas,
  whether it is ENABLED or DISABLED there. So a replica does not know which events an operator has disabled.
* Nothing changes at a change of roles: on the new primary no event runs, and the former one still tries those that are
  ENABLED there. ``read_only`` refuses what they write, with two lines in the error log each time; MariaDB's does not if
  their definer may write nevertheless.
* ``ALTER EVENT … ENABLE`` on the new primary is replicated, and disables the event on the former one.
* It makes the account that runs it the definer, unless it names one. Time zone, SQL mode and body stay.

So the primary writes the names of the DISABLED events into a table of Holdfast, every few seconds if they have changed
(``agent/promise/disabled_events.py``), and before it is frozen: the next primary disables these, and enables the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection, Row, StatementRefused

TABLE = (
    "CREATE DATABASE IF NOT EXISTS holdfast",
    "CREATE TABLE IF NOT EXISTS holdfast.disabled_event ("
    "event_schema varchar(64) NOT NULL, event_name varchar(64) NOT NULL, "
    "PRIMARY KEY (event_schema, event_name)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
)

EVENTS = (
    "SELECT EVENT_SCHEMA AS event_schema, EVENT_NAME AS event_name, DEFINER AS definer, STATUS AS status "
    "FROM information_schema.EVENTS"
)
WRITTEN = "SELECT event_schema, event_name FROM holdfast.disabled_event"

UNKNOWN = frozenset({1049, 1146})
"""The database or the table does not exist."""

ON_REPLICAS = frozenset({"SLAVESIDE_DISABLED", "REPLICA_SIDE_DISABLED"})

Named = tuple[str, str]


def running(connection: Connection, deadline: Deadline) -> bool:
    return _scheduler(connection, deadline) == "ON"


def stop(connection: Connection, deadline: Deadline) -> None:
    """Stop the scheduler; one that was disabled at the start of the server cannot be switched."""
    if running(connection, deadline):
        connection.run("SET GLOBAL event_scheduler = OFF", deadline)


def start(connection: Connection, deadline: Deadline) -> None:
    if _scheduler(connection, deadline) == "OFF":
        connection.run("SET GLOBAL event_scheduler = ON", deadline)


def write_down(connection: Connection, deadline: Deadline) -> None:
    """On a primary: write down which events are DISABLED. Those that are off only as on a replica are left as they
    were."""
    events = connection.look(EVENTS, deadline)
    if not events:
        return
    before = _written(connection, deadline)
    keep = {_name(row) for row in events if row["status"] in ON_REPLICAS}
    disabled = {_name(row) for row in events if row["status"] == "DISABLED"}
    after = disabled | (before & keep)
    if after == before:
        return
    for statement in TABLE:
        connection.run(statement, deadline)
    for each in sorted(before - after):
        connection.run(
            "DELETE FROM holdfast.disabled_event WHERE event_schema = %s AND event_name = %s",
            deadline,
            each,
        )
    for each in sorted(after - before):
        connection.run("INSERT IGNORE INTO holdfast.disabled_event VALUES (%s, %s)", deadline, each)


def enable(connection: Connection, deadline: Deadline, failed: Callable[[str], None]) -> None:
    """On a primary that was a replica: set the events as they were on the former one.

    :param failed: called for an event that cannot be altered; the others are altered
    """
    events = [row for row in connection.look(EVENTS, deadline) if row["status"] in ON_REPLICAS]
    disabled = _written(connection, deadline) if events else set()
    for row in events:
        name = _name(row)
        what = "DISABLE" if name in disabled else "ENABLE"
        user, _, host = str(row["definer"]).rpartition("@")
        event = ".".join(_quoted(each) for each in name)
        try:
            connection.run(
                f"ALTER DEFINER = {_quoted(user)}@{_quoted(host)} EVENT {event} {what}", deadline
            )
        except StatementRefused as error:
            failed(f"the event {'.'.join(name)} is not altered: {error}")


def _scheduler(connection: Connection, deadline: Deadline) -> str:
    row = connection.look("SELECT @@global.event_scheduler AS scheduler", deadline)[0]
    return str(row["scheduler"])


def _written(connection: Connection, deadline: Deadline) -> set[Named]:
    try:
        return {_name(row) for row in connection.look(WRITTEN, deadline)}
    except StatementRefused as error:
        if error.code in UNKNOWN:
            return set()
        raise


def _name(row: Row) -> Named:
    return str(row["event_schema"]), str(row["event_name"])


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
