"""MySQL 8.4 and 9."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.core.gtid import Flavor
from holdfast.core.observed.progress import Position
from holdfast.core.view import Receiver, Replication
from holdfast.errors import DeadlinePassed
from holdfast.server.base import Account, Crowded, Deadline, Observation, Source
from holdfast.server.connection import encryption
from holdfast.server.connection.hangup import FromReplicas, hanging_up
from holdfast.server.connection.sql import Connection, Row
from holdfast.server.primary.switching import SwitchingServer
from holdfast.server.replication import barring, waiting
from holdfast.server.replication.acknowledge import FilePosition
from holdfast.server.replication.following import (
    CONNECT_RETRY_SECONDS,
    RECEIVER,
    Following,
    changed,
)
from holdfast.server.replication.progress import (
    NOT_LET_IN,
    lacks_binlogs,
    lasting,
    nobody_listens,
    place,
)

# performance_schema, because SHOW REPLICA STATUS may wait for a STOP REPLICA
LOOK = f"""
    SELECT @@version AS version, @@server_id AS server_id, @@global.read_only AS read_only,
        @@server_uuid AS origin, @@global.gtid_executed AS applied,
        {waiting.MYSQL.columns},
        @@global.rpl_semi_sync_replica_enabled AS replica_side,
        @@global.sync_binlog AS sync_binlog, @@global.innodb_flush_log_at_trx_commit AS redo_flush,
        @@global.replica_exec_mode AS replica_exec_mode,
        conf.HOST AS host, conf.PORT AS port, conf.USER AS user, conn.SERVICE_STATE AS receiver,
        conn.RECEIVED_TRANSACTION_SET AS received, conn.LAST_ERROR_MESSAGE AS receiver_error,
        conn.LAST_ERROR_NUMBER AS receiver_code, conn.COUNT_RECEIVED_HEARTBEATS AS heartbeats,
        (SELECT COUNT_WRITE FROM performance_schema.file_summary_by_event_name
            WHERE EVENT_NAME = 'wait/io/file/sql/relaylog') AS relay_writes,
        appl.SERVICE_STATE AS applier,
        GTID_SUBSET(conn.RECEIVED_TRANSACTION_SET, @@global.gtid_executed) AS drained,
        (SELECT MAX(LAST_ERROR_MESSAGE)
            FROM performance_schema.replication_applier_status_by_worker) AS worker_error,
        (SELECT MAX(LAST_ERROR_MESSAGE)
            FROM performance_schema.replication_applier_status_by_coordinator) AS applier_error,
        (SELECT TIMESTAMPDIFF(MICROSECOND,
                MAX(LAST_APPLIED_TRANSACTION_ORIGINAL_COMMIT_TIMESTAMP), NOW(6)) / 1000000
            FROM performance_schema.replication_applier_status_by_worker) AS lag_seconds,
        (SELECT GROUP_CONCAT(FILTER_NAME, '=', FILTER_RULE SEPARATOR '\n')
            FROM performance_schema.replication_applier_filters
            WHERE CHANNEL_NAME = '' AND FILTER_RULE <> '') AS filters,
        (SELECT DESIRED_DELAY FROM performance_schema.replication_applier_configuration
            WHERE CHANNEL_NAME = '') AS delay
    FROM (SELECT 1) AS one
    LEFT JOIN performance_schema.replication_connection_configuration AS conf
        ON conf.CHANNEL_NAME = ''
    LEFT JOIN performance_schema.replication_connection_status AS conn ON conn.CHANNEL_NAME = ''
    LEFT JOIN performance_schema.replication_applier_status AS appl ON appl.CHANNEL_NAME = ''
"""

FOLLOWING = """
    SELECT conf.HOST AS host, conf.PORT AS port, conf.USER AS user,
        conf.SSL_ALLOWED AS encrypted, conf.SSL_CA_FILE AS ca, conf.SSL_CERTIFICATE AS cert,
        conf.SSL_KEY AS cert_key,
        conn.SERVICE_STATE AS receiver, conn.LAST_ERROR_NUMBER AS receiver_code,
        conn.RECEIVED_TRANSACTION_SET AS received,
        appl.SERVICE_STATE AS applier,
        (SELECT MAX(LAST_ERROR_MESSAGE)
            FROM performance_schema.replication_applier_status_by_worker) AS worker_error,
        (SELECT MAX(LAST_ERROR_MESSAGE)
            FROM performance_schema.replication_applier_status_by_coordinator) AS applier_error,
        (SELECT DESIRED_DELAY FROM performance_schema.replication_applier_configuration
            WHERE CHANNEL_NAME = '') AS delay
    FROM performance_schema.replication_connection_configuration AS conf
    LEFT JOIN performance_schema.replication_connection_status AS conn USING (CHANNEL_NAME)
    LEFT JOIN performance_schema.replication_applier_status AS appl USING (CHANNEL_NAME)
    WHERE CHANNEL_NAME = ''
"""

# of a drained applier; what it still applies then is incomplete
HALF = """
    SELECT EXISTS (SELECT 1 FROM performance_schema.replication_connection_status
            WHERE QUEUEING_TRANSACTION <> '')
        OR EXISTS (SELECT 1 FROM performance_schema.replication_applier_status_by_worker
            WHERE APPLYING_TRANSACTION <> '') AS half
"""

QUEUED = """
    SELECT 1 FROM performance_schema.replication_connection_status
    WHERE CHANNEL_NAME = '' AND LAST_QUEUED_TRANSACTION <> ''
"""

APPLIER_THREADS = """
    SELECT PROCESSLIST_ID AS id, NAME = 'thread/sql/replica_sql' AS coordinator
    FROM performance_schema.threads
    WHERE NAME IN ('thread/sql/replica_sql', 'thread/sql/replica_worker')
        AND PROCESSLIST_ID IS NOT NULL
"""

# sessions that read for long, or keep tables open: the global read lock closes them all; writers are waited for anyway
HOLDING_TABLES = """
    SELECT 1 FROM performance_schema.threads AS t
    JOIN performance_schema.events_statements_current AS s USING (THREAD_ID)
    WHERE t.PROCESSLIST_COMMAND IN ('Query', 'Execute') AND t.PROCESSLIST_ID <> CONNECTION_ID()
        AND s.END_EVENT_ID IS NULL AND s.TIMER_WAIT > 20000000000
        AND NOT EXISTS (SELECT 1 FROM performance_schema.metadata_locks AS m
            WHERE m.OWNER_THREAD_ID = t.THREAD_ID AND m.OBJECT_TYPE = 'GLOBAL')
    UNION ALL
    SELECT 1 FROM performance_schema.table_handles AS h
    JOIN performance_schema.threads AS t ON t.THREAD_ID = h.OWNER_THREAD_ID
    WHERE t.PROCESSLIST_COMMAND = 'Sleep'
    LIMIT 1
"""

KILL_AGAIN_SECONDS = 0.1

REPLICAS = """\
SELECT SUBSTRING_INDEX(host, ':', -1) AS port FROM performance_schema.processlist
WHERE command LIKE 'Binlog Dump%'"""

HUNG_UP_SECONDS = 0.5
"""How long a new primary waits for the former one to hang up."""

PLACES_SECONDS = 0.2
"""How long to wait for positions: their statement waits for a STOP REPLICA."""


class MysqlServer(SwitchingServer):
    """MySQL's statements for replication, on the default channel."""

    flavor = Flavor.MYSQL
    source_side = "source"
    replica_side = "replica"
    names = waiting.MYSQL
    catalog = barring.MYSQL
    _refuse_writes = "super_read_only"
    _closed_for_all = True
    _applied_variable = "@@global.gtid_executed"

    def __init__(self, socket: Path, admin: Account) -> None:
        super().__init__(socket, admin)
        self._places = Connection(socket, admin)
        self._sessions = (*self._sessions, self._places)
        self._last_places = (Position(), Position())

    def observe(self, deadline: Deadline) -> Observation:
        row = self._eyes.look(LOOK, deadline)[0]
        applied, received = _one_line(row["applied"]), _one_line(row["received"])
        waits = (
            waiting.look_at_status(self._eyes, self.names, deadline) if row["source_side"] else {}
        )
        accounts = self._replicators(deadline)
        return Observation(
            version=row["version"],
            server_id=row["server_id"],
            origin=row["origin"],
            writable=not row["read_only"],
            received=",".join(filter(None, (applied, received))),
            applied=applied,
            replication=self._replication(row, deadline),
            semi_sync=waiting.semi_sync(self.names, row, waits, bool(row["replica_side"])),
            barred=accounts.barred,
            replicators=accounts.names,
            prepared=self._xa.look(deadline),
            # a long transaction counts as received at its end, but is written as it comes
            traces=(row["heartbeats"], received, row["relay_writes"]) if row["host"] else (),
            sync_binlog=row["sync_binlog"],
            redo_flush=row["redo_flush"],
        )

    def _replication(self, row: Row, deadline: Deadline) -> Replication:
        if not row["host"]:
            return Replication()
        fetched, executed = (
            (Position(), Position()) if row["replica_side"] else self._look_at_places(deadline)
        )
        receiver = Receiver((row["receiver"] or "OFF").lower())
        lag: float | None = None
        if receiver is Receiver.ON and row["drained"]:
            lag = 0.0
        elif row["lag_seconds"] is not None and not row["drained"]:
            lag = max(0.0, float(row["lag_seconds"]))
        trouble = row["receiver_error"] or ""
        return Replication(
            source=f"{row['host']}:{row['port']}",
            receiver=receiver,
            applier=row["applier"] == "ON",
            error=row["worker_error"] or row["applier_error"] or lasting(trouble),
            lag_seconds=lag,
            fetched=fetched,
            executed=executed,
            purged=lacks_binlogs(row["receiver_code"] or 0, trouble),
            denied=row["receiver_code"] in NOT_LET_IN,
            refused=nobody_listens(row["receiver_code"] or 0, trouble),
            user=row["user"] or "",
            filters=(
                *(row["filters"] or "").lower().splitlines(),
                *changed(row, {"replica_exec_mode": "STRICT"}),
            ),
            delay=row["delay"] or 0,
            applier_error=row["worker_error"] or row["applier_error"] or "",
        )

    def _look_at_places(self, deadline: Deadline) -> tuple[Position, Position]:
        """The positions, for a learner only: a voter is at the head, and each look at it should cost little."""
        try:
            rows = self._places.look(
                "SHOW REPLICA STATUS", Deadline(min(PLACES_SECONDS, deadline.left))
            )
        except (DeadlinePassed, Crowded):
            return self._last_places
        for row in rows:
            self._last_places = (
                place(row["Source_Log_File"], row["Read_Source_Log_Pos"]),
                place(row["Relay_Source_Log_File"], row["Exec_Source_Log_Pos"]),
            )
        return self._last_places

    def _following(self, deadline: Deadline) -> Following:
        rows = self._commands.look(FOLLOWING, deadline)
        row: Row = rows[0] if rows else {}
        return Following(
            host=row.get("host") or "",
            port=row.get("port") or 0,
            user=row.get("user") or "",
            receiver=(row.get("receiver") or "OFF") != "OFF",
            connecting=row.get("receiver") == "CONNECTING",
            applier=row.get("applier") == "ON",
            receiver_code=row.get("receiver_code") or 0,
            applier_error=row.get("worker_error") or row.get("applier_error") or "",
            received=_one_line(row.get("received")),
            tls=encryption.set_up(row, ("encrypted", "ca", "cert", "cert_key")),
            filtered=bool(row.get("delay")) and row.get("applier") != "ON",
        )

    def _wait_applied(self, received: str, deadline: Deadline, slice_seconds: float) -> bool:
        row = self._commands.look(
            "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s) AS late", deadline, (received, slice_seconds)
        )[0]
        return bool(row["late"] == 0)

    def _stop_applier(self, deadline: Deadline) -> None:
        """Stop the applier at once. STOP waits 60 s for the rest of a transaction that was half received, and so does a
        coordinator that is killed and then stopped before it noticed. KILL alone ends it and its workers in 3 ms; if
        STOP was already given, killing the workers helps, in 300 ms."""
        if self._commands.look(HALF, deadline)[0]["half"]:
            patience = Deadline(0)
            kill_workers = False
            while threads := self._commands.look(APPLIER_THREADS, deadline):
                if not patience.left:
                    for thread in threads:
                        if thread["coordinator"] or kill_workers:
                            barring.kill(self._commands, int(thread["id"]), deadline)
                    patience, kill_workers = Deadline(KILL_AGAIN_SECONDS), True
                deadline.check("stopping the applier within a half-received transaction")
                time.sleep(0.002)
        self._commands.run("STOP REPLICA SQL_THREAD", deadline)

    def commit_empty(self, gtids: Sequence[str], deadline: Deadline) -> None:
        """The server itself skips a GTID that it already has."""
        try:
            for gtid in gtids:
                self._proof.run("SET SESSION gtid_next = %s", deadline, (gtid,))
                self._proof.run("START TRANSACTION", deadline)
                self._proof.run("COMMIT", deadline)
            self._proof.run("SET SESSION gtid_next = 'AUTOMATIC'", deadline)
        except BaseException:
            self._proof.close()
            raise

    def _change_source(
        self, source: Source, now: Following, deadline: Deadline, anew: bool = False
    ) -> None:
        """Change the source. The applier runs meanwhile, so what was received stays in the relay log.

        A stopped applier is started for it, unless this run of the server has received nothing: then the relay log is
        left from before a crash, and fetched again.
        """
        if now.receiver:
            self.stop_receiver(deadline)
        if not now.applier and not anew and self._commands.look(QUEUED, deadline):
            self._start(deadline, receiver=False, applier=True)
            self._drain(now, deadline)
            now = replace(now, applier=True)
        place = "SOURCE_HOST = %s, SOURCE_PORT = %s, SOURCE_USER = %s, SOURCE_PASSWORD = %s"
        # what was set up by hand may lack these; they can change while the applier runs
        rest = (
            ", GET_SOURCE_PUBLIC_KEY = 1, "
            f"SOURCE_CONNECT_RETRY = {CONNECT_RETRY_SECONDS}, SOURCE_RETRY_COUNT = 4294967295, "
            f"SOURCE_HEARTBEAT_PERIOD = {source.heartbeat}"
        )
        position = ", SOURCE_AUTO_POSITION = 1, SOURCE_DELAY = 0"
        account = source.account
        self._commands.run(
            f"CHANGE REPLICATION SOURCE TO {place}{encryption.options(self.flavor, account)}"
            f"{rest}{position if not now.applier else ''}",
            deadline,
            (
                *(source.host, source.port, account.user, account.password),
                *encryption.named(account.tls),
            ),
        )

    def _replica_settings(self) -> dict[str, int]:
        return {**super()._replica_settings(), "super_read_only": 1, "offline_mode": 0}

    def _position(self, deadline: Deadline) -> tuple[Receiver, FilePosition]:
        row = self._commands.look("SHOW REPLICA STATUS", deadline)[0]
        receiver = RECEIVER.get(row["Replica_IO_Running"], Receiver.CONNECTING)
        return receiver, (row["Source_Log_File"], row["Read_Source_Log_Pos"])

    def part(self, deadline: Deadline) -> None:
        """Shut clients out: the server would wait for idle sessions, 10 s while a replica is connected."""
        self._set(deadline, {"offline_mode": 1})
        super().part(deadline)

    def open(self, deadline: Deadline, following: bool = False) -> None:
        """Open the server, also for clients that :meth:`part` has turned away, in case the shutdown did not come."""
        super().open(deadline, following)
        self._set(deadline, {"offline_mode": 0})

    def _locks_at_once(self, deadline: Deadline) -> bool:
        return not self._commands.look(HOLDING_TABLES, deadline)

    def _switch_off(self, deadline: Deadline) -> None:
        """Switch the source side off without its delay if a replica is still connected; replicas reconnect if they
        should."""
        row = self._commands.look("SELECT @@port AS own", deadline)[0]
        replicas = self._commands.look(REPLICAS, deadline)
        ports = frozenset(int(each["port"]) for each in replicas if str(each["port"]).isdigit())
        with hanging_up(self._commands.server_pid, FromReplicas(row["own"], ports)):
            super()._switch_off(deadline)

    def leave(self, deadline: Deadline) -> None:
        """Leave after the former primary has hung up (:meth:`_switch_off`), if that happens soon: it needs a connected
        replica for that."""
        patience = Deadline(min(HUNG_UP_SECONDS, deadline.left), deadline.cancelled)
        while (now := self._following(deadline)).receiver and not now.connecting and patience.left:
            time.sleep(0.005)
        super().leave(deadline)

    def _let_administrator_write(self, deadline: Deadline) -> None:
        self._set(deadline, {"super_read_only": 0})


def _one_line(gtids: str | None) -> str:
    """MySQL breaks long sets into lines."""
    return (gtids or "").replace("\n", "")
