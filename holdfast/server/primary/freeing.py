"""A replica that is to become the primary, and cannot: sessions of clients hold what it waits for.

A long SELECT before a replicated ALTER TABLE, LOCK TABLES, a backup's FLUSH TABLES WITH READ LOCK, a transaction that
has locked rows: the applier waits for them, or Holdfast's own first row does. No commit completes meanwhile.

Only sessions that are known to block are ended, if the server shows them. MariaDB shows locks of rows, and others only
if its plugin ``metadata_lock_info`` is loaded: without it, sessions that run a statement or have a transaction open are
ended first, and then all clients, because a session that holds LOCK TABLES cannot be recognised at all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from holdfast.core.gtid import Flavor
from holdfast.core.observed.blockers import Blocker, Holds
from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection, Row
from holdfast.server.primary.blockers import LOCK_INFO_LOADED, SHOWN
from holdfast.server.replication.barring import kill
from holdfast.server.replication.client_sessions import WAITS, is_client

MARIADB_SESSIONS = """
    SELECT p.ID AS id, p.USER AS user, p.HOST AS host, p.COMMAND AS command, p.STATE AS state,
        p.INFO AS statement, p.TIME_MS / 1000 AS seconds, x.trx_state AS trx
    FROM information_schema.PROCESSLIST AS p
    LEFT JOIN information_schema.INNODB_TRX AS x ON x.trx_mysql_thread_id = p.ID
"""

MYSQL_SESSIONS = """
    SELECT t.PROCESSLIST_ID AS id, t.PROCESSLIST_HOST AS host,
        IF(t.NAME = 'thread/sql/one_connection', t.PROCESSLIST_USER, 'system user') AS user,
        t.PROCESSLIST_COMMAND AS command, t.PROCESSLIST_STATE AS state, t.PROCESSLIST_INFO AS statement,
        t.PROCESSLIST_TIME AS seconds, x.trx_state AS trx
    FROM performance_schema.threads AS t
    LEFT JOIN information_schema.innodb_trx AS x ON x.trx_mysql_thread_id = t.PROCESSLIST_ID
    WHERE t.PROCESSLIST_ID IS NOT NULL
"""

MARIADB_ROWS = """
    SELECT DISTINCT b.trx_mysql_thread_id AS id, r.trx_mysql_thread_id AS waiting
    FROM information_schema.INNODB_LOCK_WAITS AS w
    JOIN information_schema.INNODB_TRX AS b ON b.trx_id = w.blocking_trx_id
    JOIN information_schema.INNODB_TRX AS r ON r.trx_id = w.requesting_trx_id
"""

MARIADB_TABLES = """
    SELECT DISTINCT THREAD_ID AS id FROM information_schema.METADATA_LOCK_INFO
    WHERE TABLE_SCHEMA NOT IN ('performance_schema', 'information_schema')
"""

MYSQL_HOLDERS = """
    SELECT DISTINCT h.PROCESSLIST_ID AS id, w.PROCESSLIST_ID AS waiting
    FROM performance_schema.metadata_locks AS p
    JOIN performance_schema.threads AS w ON w.THREAD_ID = p.OWNER_THREAD_ID
    JOIN performance_schema.metadata_locks AS g ON g.OBJECT_TYPE = p.OBJECT_TYPE
        AND g.OBJECT_SCHEMA <=> p.OBJECT_SCHEMA AND g.OBJECT_NAME <=> p.OBJECT_NAME
        AND g.LOCK_STATUS = 'GRANTED' AND g.OWNER_THREAD_ID <> p.OWNER_THREAD_ID
    JOIN performance_schema.threads AS h ON h.THREAD_ID = g.OWNER_THREAD_ID
    WHERE p.LOCK_STATUS = 'PENDING' AND h.PROCESSLIST_ID IS NOT NULL
    UNION
    SELECT DISTINCT h.PROCESSLIST_ID AS id, w.PROCESSLIST_ID AS waiting
    FROM performance_schema.data_lock_waits AS l
    JOIN performance_schema.threads AS h ON h.THREAD_ID = l.BLOCKING_THREAD_ID
    JOIN performance_schema.threads AS w ON w.THREAD_ID = l.REQUESTING_THREAD_ID
    WHERE h.PROCESSLIST_ID IS NOT NULL
"""


class SessionFreeing:
    """:param side: a session that is never occupied for long; :param ours: the agent's own sessions"""

    def __init__(
        self, flavor: Flavor, side: Connection, ours: Callable[[], Collection[int]]
    ) -> None:
        self._flavor = flavor
        self._side = side
        self._ours = ours

    def free(self, deadline: Deadline, last_time: bool) -> tuple[Blocker, ...] | None:
        """End the sessions that now block the applier or our sessions; None if nothing waits for a lock.

        :param last_time: if it is not known which these are, end all clients
        """
        mysql = self._flavor is Flavor.MYSQL
        rows = self._side.look(MYSQL_SESSIONS if mysql else MARIADB_SESSIONS, deadline)
        ours = set(self._ours())
        waiting = {int(row["id"]) for row in rows if _is_held_up(row, ours)}
        if not waiting:
            return None
        clients = [row for row in rows if is_client(row) and row["id"] not in ours]
        known = self._known(waiting, deadline)
        ended = [row for row in clients if int(row["id"]) in known]
        if not ended and not mysql:
            ended = [row for row in clients if last_time or _at_work(row)]
        for row in ended:
            kill(self._side, int(row["id"]), deadline)
        return tuple(_told(row) for row in ended)

    def _known(self, waiting: Collection[int], deadline: Deadline) -> set[int]:
        mysql = self._flavor is Flavor.MYSQL
        found = self._side.look(MYSQL_HOLDERS if mysql else MARIADB_ROWS, deadline)
        known = {int(row["id"]) for row in found if row["waiting"] in waiting}
        if not mysql and not known and self._side.look(LOCK_INFO_LOADED, deadline):
            known = {int(row["id"]) for row in self._side.look(MARIADB_TABLES, deadline)}
        return known


def _is_held_up(row: Row, ours: Collection[int]) -> bool:
    """Whether the session is the applier's or ours, and waits for a lock."""
    state = str(row["state"] or "").lower()
    waits = row["trx"] == "LOCK WAIT" or (state.startswith(WAITS) and "lock" in state)
    return waits and (row["user"] == "system user" or row["id"] in ours)


def _at_work(row: Row) -> bool:
    """Whether the session runs a statement and does not itself wait for a lock, or has a transaction open."""
    state = str(row["state"] or "").lower()
    runs = row["command"] in ("Query", "Execute") and not state.startswith(WAITS)
    return runs or row["trx"] is not None


def _told(row: Row) -> Blocker:
    text = " ".join(str(row["statement"] or "").split())
    shown = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    holds = Holds.STATEMENT if shown else Holds.TRANSACTION if row["trx"] else Holds.LOCK
    seconds = round(float(row["seconds"] or 0.0), 1)
    return Blocker(
        int(row["id"]), str(row["user"] or ""), str(row["host"] or ""), holds, seconds, shown
    )
