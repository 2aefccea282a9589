"""MySQL 8.4 and 9."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from holdfast.core.gtid import Flavor
from holdfast.core.observed.progress import Position
from holdfast.core.view import Receiver, Replication
from holdfast.errors import DeadlinePassed
from holdfast.server.base import Crowded, Deadline, Source
from holdfast.server.connection import encryption
from holdfast.server.connection.hangup import FromReplicas, hanging_up
from holdfast.server.connection.sessions import Sessions
from holdfast.server.connection.sql import Connection, Row
from holdfast.server.replication import barring, waiting
from holdfast.server.replication.acknowledge import FilePosition
from holdfast.server.replication.dialect import RELAXED, Dialect, FlavorParts, ServerLook
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
from holdfast.server.replication.proof import ProofRows
from holdfast.server.replication.threads import ReplicationThreads

REDO_LOG_OFF = (
    "EXISTS (SELECT 1 FROM performance_schema.global_status "
    "WHERE VARIABLE_NAME = 'Innodb_redo_log_enabled' AND VARIABLE_VALUE = 'OFF')"
)
"""0.1 ms. Then a server that is killed cannot start again."""

# performance_schema, because SHOW REPLICA STATUS may wait for a STOP REPLICA
LOOK = f"""
    SELECT @@version AS version, @@server_id AS server_id, @@global.read_only AS read_only,
        @@server_uuid AS origin, @@global.gtid_executed AS applied,
        {waiting.MYSQL.columns},
        @@global.rpl_semi_sync_replica_enabled AS replica_side,
        @@global.sync_binlog AS sync_binlog,
        IF({REDO_LOG_OFF}, -1, @@global.innodb_flush_log_at_trx_commit) AS redo_flush,
        @@global.replica_exec_mode AS replica_exec_mode,
        @@global.offline_mode AS offline_mode, @@global.transaction_read_only AS transaction_read_only,
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

PLACES_SECONDS = 0.2
"""How long to wait for positions: their statement waits for a STOP REPLICA."""


class MysqlLooks:
    """Looks at the default channel. For one thread."""

    def __init__(self, sessions: Sessions) -> None:
        self._eyes = sessions.eyes
        self._places = sessions.another()
        self._last_places = (Position(), Position())

    def look(self, deadline: Deadline) -> ServerLook:
        row = self._eyes.look(LOOK, deadline)[0]
        received = _one_line(row["received"])
        return ServerLook(
            row,
            applied=_one_line(row["applied"]),
            received=received,
            replication=self._replication(row, deadline),
            # a transaction that is long under way is counted as received at its end, but written as it comes
            traces=(row["heartbeats"], received, row["relay_writes"]) if row["host"] else (),
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
            patience = deadline.afresh(min(PLACES_SECONDS, deadline.left))
            rows = self._places.look("SHOW REPLICA STATUS", patience)
        except (DeadlinePassed, Crowded):
            return self._last_places
        for row in rows:
            self._last_places = (
                place(row["Source_Log_File"], row["Read_Source_Log_Pos"]),
                place(row["Relay_Source_Log_File"], row["Exec_Source_Log_Pos"]),
            )
        return self._last_places


def following(commands: Connection, deadline: Deadline) -> Following:
    rows = commands.look(FOLLOWING, deadline)
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


def position(commands: Connection, deadline: Deadline) -> tuple[Receiver, FilePosition]:
    row = commands.look("SHOW REPLICA STATUS", deadline)[0]
    receiver = RECEIVER.get(row["Replica_IO_Running"], Receiver.CONNECTING)
    return receiver, (row["Source_Log_File"], row["Read_Source_Log_Pos"])


def wait_applied(
    commands: Connection, received: str, slice_seconds: float, deadline: Deadline
) -> bool:
    row = commands.look(
        "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s) AS late", deadline, (received, slice_seconds)
    )[0]
    return bool(row["late"] == 0)


def stop_applier(commands: Connection, deadline: Deadline) -> None:
    """STOP waits 60 s for the rest of a transaction that was half received, and so does a coordinator that is killed
    and then stopped before it noticed. KILL alone ends it and its workers in 3 ms; if STOP was already given, killing
    the workers helps, in 300 ms."""
    if commands.look(HALF, deadline)[0]["half"]:
        patience = deadline.afresh(0)
        kill_workers = False
        while threads := commands.look(APPLIER_THREADS, deadline):
            if not patience.left:
                for thread in threads:
                    if thread["coordinator"] or kill_workers:
                        barring.kill(commands, int(thread["id"]), deadline)
                patience, kill_workers = deadline.afresh(KILL_AGAIN_SECONDS), True
            deadline.check("stopping the applier within a half-received transaction")
            deadline.clock.sleep(0.002)
    commands.run("STOP REPLICA SQL_THREAD", deadline)


def switch_off(commands: Connection, deadline: Deadline) -> None:
    """Without its delay if a replica is still connected; replicas reconnect if they should."""
    row = commands.look("SELECT @@port AS own", deadline)[0]
    replicas = commands.look(REPLICAS, deadline)
    ports = frozenset(int(each["port"]) for each in replicas if str(each["port"]).isdigit())
    with hanging_up(commands.server_pid, FromReplicas(row["own"], ports), deadline.clock):
        waiting.switch_off(commands, waiting.MYSQL, deadline)


def commit_empty(proof: Connection, gtids: Sequence[str], deadline: Deadline) -> None:
    """The server itself skips a GTID that it already has."""
    try:
        for gtid in gtids:
            proof.run("SET SESSION gtid_next = %s", deadline, (gtid,))
            proof.run("START TRANSACTION", deadline)
            proof.run("COMMIT", deadline)
        proof.run("SET SESSION gtid_next = 'AUTOMATIC'", deadline)
    except BaseException:
        proof.close()
        raise


def switch_redo_log_on(connection: Connection, deadline: Deadline) -> None:
    if connection.look(f"SELECT {REDO_LOG_OFF} AS off", deadline)[0]["off"]:
        connection.run("ALTER INSTANCE ENABLE INNODB REDO_LOG", deadline)


DIALECT = Dialect(
    flavor=Flavor.MYSQL,
    names=waiting.MYSQL,
    catalog=barring.MYSQL,
    refuse_writes="super_read_only",
    refuses_all=True,
    holding_tables=HOLDING_TABLES,
    replica_settings={**RELAXED, "super_read_only": 1, "offline_mode": 0},
    # also for clients that were turned away before a shutdown that did not come
    open_settings={"read_only": 0, "offline_mode": 0},
    shutting_out=("offline_mode", "transaction_read_only"),
    administrator_writes={"super_read_only": 0},
    # the server would wait for idle sessions, 10 s while a replica is connected
    parting_settings={"offline_mode": 1},
    hung_up_seconds=0.5,
    following=following,
    position=position,
    wait_applied=wait_applied,
    position_of=str,
    stop_applier=stop_applier,
    switch_off=switch_off,
    switch_redo_log_on=switch_redo_log_on,
    commit_empty=commit_empty,
)


class MysqlRepointing:
    """Implements ``Repointing``."""

    def __init__(self, commands: Connection, threads: ReplicationThreads) -> None:
        self._commands = commands
        self._threads = threads

    def begin(self) -> None:
        """Nothing is remembered of a run."""

    def change_source(
        self, source: Source, now: Following, deadline: Deadline, anew: bool = False
    ) -> None:
        """Change the source. The applier runs meanwhile, so what was received stays in the relay log.

        A stopped applier is started for it, unless this run of the server has received nothing: then the relay log is
        left from before a crash, and fetched again.
        """
        if now.receiver:
            self._threads.stop_receiver(deadline)
        if not now.applier and not anew and self._commands.look(QUEUED, deadline):
            self._threads.start(deadline, applier=True)
            self._threads.drain(now, deadline)
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
            f"CHANGE REPLICATION SOURCE TO {place}{encryption.options(Flavor.MYSQL, account)}"
            f"{rest}{position if not now.applier else ''}",
            deadline,
            (
                *(source.host, source.port, account.user, account.password),
                *encryption.named(account.tls),
            ),
        )

    def before_start(self, deadline: Deadline, anew: bool) -> None:
        """The relay log is kept whatever starts first."""

    def resume(self, now: Following, deadline: Deadline) -> None:
        self._threads.start(deadline, applier=True)


def parts(sessions: Sessions) -> FlavorParts:
    threads = ReplicationThreads(sessions.commands, DIALECT)
    return FlavorParts(
        DIALECT,
        MysqlLooks(sessions).look,
        MysqlRepointing(sessions.commands, threads),
        ProofRows(sessions, DIALECT),
    )


def _one_line(gtids: str | None) -> str:
    """MySQL breaks long sets into lines."""
    return (gtids or "").replace("\n", "")
