"""What would block a freeze, or be rolled back by it: open transactions, long statements, locks of tables.

MySQL shows for each session whether it holds what a freeze waits for. MariaDB shows that only if its plugin
``metadata_lock_info`` is loaded: without it LOCK TABLES and FLUSH TABLES WITH READ LOCK of other sessions cannot be
seen, and whether a statement writes is judged by how it begins.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from holdfast.core.gtid import Flavor
from holdfast.core.observed.blockers import Blocker, Holds
from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection, Row
from holdfast.server.replication.client_sessions import is_client

SHOWN = 80
"""How much of a statement is shown."""

COARSE_SECONDS = 2.0
"""MariaDB shows a transaction's beginning in whole seconds."""

HARMLESS = re.compile(
    r"\s*\(*\s*(SELECT|SHOW|DESC|DESCRIBE|EXPLAIN|SET|USE|HELP|CHECKSUM|VALUES|DO|KILL)\b",
    re.IGNORECASE,
)
OWN = re.compile(r"\s*INSERT INTO holdfast\.(proof|probe)\b")
"""What agents write to find out whether commits complete: it waits if they do not."""
LOCKS_ROWS = re.compile(r"\bFOR\s+(UPDATE|SHARE)\b|\bLOCK\s+IN\s+SHARE\s+MODE\b", re.IGNORECASE)

# in microseconds, which no time zone changes; one row a session
MYSQL = """
    SELECT t.PROCESSLIST_ID AS id, t.PROCESSLIST_USER AS user, t.PROCESSLIST_HOST AS host,
        t.PROCESSLIST_COMMAND AS command,
        COALESCE(t.PROCESSLIST_INFO, s.SQL_TEXT) AS statement,
        IF(s.END_EVENT_ID IS NULL, s.TIMER_WAIT / 1e12, NULL) AS statement_seconds,
        (SELECT MAX(e.TIMER_WAIT) / 1e12 FROM performance_schema.events_transactions_current AS e
            WHERE e.THREAD_ID = t.THREAD_ID AND e.STATE = 'ACTIVE') AS transaction_seconds,
        COALESCE(x.trx_rows_modified + x.trx_lock_structs, 0) AS changes,
        t.PROCESSLIST_TIME AS idle_seconds,
        EXISTS (SELECT 1 FROM performance_schema.metadata_locks AS m
            WHERE m.OWNER_THREAD_ID = t.THREAD_ID AND m.OBJECT_TYPE = 'GLOBAL'
            AND m.LOCK_TYPE = 'INTENTION_EXCLUSIVE') AS writes,
        EXISTS (SELECT 1 FROM performance_schema.metadata_locks AS m
            WHERE m.OWNER_THREAD_ID = t.THREAD_ID AND m.LOCK_STATUS = 'GRANTED' AND (
                m.OBJECT_TYPE = 'GLOBAL' AND m.LOCK_TYPE = 'SHARED'
                OR t.PROCESSLIST_COMMAND = 'Sleep' AND m.OBJECT_TYPE = 'TABLE' AND m.LOCK_TYPE IN
                    ('SHARED_NO_READ_WRITE', 'SHARED_READ_ONLY', 'SHARED_NO_WRITE'))) AS locks
    FROM performance_schema.threads AS t
    LEFT JOIN information_schema.innodb_trx AS x ON x.trx_mysql_thread_id = t.PROCESSLIST_ID
    LEFT JOIN performance_schema.events_statements_current AS s
        ON s.THREAD_ID = t.THREAD_ID AND s.NESTING_EVENT_LEVEL = 0
    WHERE t.TYPE = 'FOREGROUND' AND t.PROCESSLIST_ID IS NOT NULL
"""

# innodb_trx has the time of the host's zone
MARIADB = """
    SELECT p.ID AS id, p.USER AS user, p.HOST AS host, p.COMMAND AS command, p.INFO AS statement,
        IF(p.COMMAND IN ('Query', 'Execute'), p.TIME_MS / 1000, NULL) AS statement_seconds,
        TIMESTAMPDIFF(SECOND, x.trx_started, CONVERT_TZ(NOW(), @@time_zone, 'SYSTEM'))
            AS transaction_seconds,
        COALESCE(x.trx_rows_modified + x.trx_lock_structs, 0) AS changes,
        p.TIME_MS / 1000 AS idle_seconds, NULL AS writes, 0 AS locks
    FROM information_schema.PROCESSLIST AS p
    LEFT JOIN information_schema.INNODB_TRX AS x ON x.trx_mysql_thread_id = p.ID
"""

LOCK_INFO_LOADED = (
    "SELECT 1 FROM information_schema.PLUGINS "
    "WHERE PLUGIN_NAME = 'METADATA_LOCK_INFO' AND PLUGIN_STATUS = 'ACTIVE'"
)

# LOCK TABLES and FLUSH TABLES WITH READ LOCK
LOCK_INFO = """
    SELECT DISTINCT THREAD_ID AS id FROM information_schema.METADATA_LOCK_INFO
    WHERE LOCK_MODE IN ('MDL_SHARED_NO_READ_WRITE', 'MDL_SHARED_READ_ONLY',
        'MDL_BACKUP_FTWRL1', 'MDL_BACKUP_FTWRL2')
"""


def blockers(
    connection: Connection,
    flavor: Flavor,
    ours: Collection[int],
    seconds: float,
    deadline: Deadline,
) -> tuple[Blocker, ...]:
    """The sessions that would block a freeze, the oldest first. A session that holds a lock of tables is named whatever
    its age, because neither server shows the lock's age: the age is that of the session's last statement."""
    rows = connection.look(MYSQL if flavor is Flavor.MYSQL else MARIADB, deadline)
    locking: set[int] = set()
    if flavor is Flavor.MARIADB and connection.look(LOCK_INFO_LOADED, deadline):
        locking = {int(row["id"]) for row in connection.look(LOCK_INFO, deadline)}
    found = [
        _blocker(row, bool(row["locks"]) or row["id"] in locking, seconds)
        for row in rows
        if is_client(row) and row["id"] not in ours and not OWN.match(str(row["statement"] or ""))
    ]
    return tuple(sorted(filter(None, found), key=lambda each: -each.seconds))


def _blocker(row: Row, locks: bool, seconds: float) -> Blocker | None:
    running = float(row["statement_seconds"] or 0.0)
    open_for = float(row["transaction_seconds"] or 0.0) if row["changes"] else 0.0
    if locks:
        return _made(row, Holds.LOCK, float(row["idle_seconds"] or 0.0))
    if running and open_for < running + COARSE_SECONDS:  # a transaction of one statement
        at_work = running >= seconds and (_writes(row) or row["changes"])
        return _made(row, Holds.STATEMENT, running) if at_work else None
    if row["changes"] and open_for >= seconds:
        return _made(row, Holds.TRANSACTION, open_for)
    return None


def _writes(row: Row) -> bool:
    if row["writes"] is not None:
        return bool(row["writes"])
    text = str(row["statement"] or "")
    return bool(text) and (not HARMLESS.match(text) or bool(LOCKS_ROWS.search(text)))


def _made(row: Row, holds: Holds, seconds: float) -> Blocker:
    text = " ".join(str(row["statement"] or "").split())
    shown = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    host = str(row["host"] or "")
    return Blocker(int(row["id"]), str(row["user"] or ""), host, holds, round(seconds, 3), shown)
