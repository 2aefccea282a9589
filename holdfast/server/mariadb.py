"""MariaDB 10.11 and later."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

from holdfast.core.gtid import SEQUENCE_STEP, Flavor, GtidSet, parse
from holdfast.core.view import Receiver, Replication
from holdfast.errors import DeadlinePassed, Refused
from holdfast.server.base import Deadline, Source
from holdfast.server.connection import encryption
from holdfast.server.connection.sessions import Sessions
from holdfast.server.connection.sql import Connection, Row, StatementRefused
from holdfast.server.replication import barring, waiting
from holdfast.server.replication.acknowledge import FilePosition
from holdfast.server.replication.dialect import RELAXED, Dialect, FlavorParts, ServerLook
from holdfast.server.replication.following import (
    CONNECT_RETRY_SECONDS,
    FILTERS_KEPT,
    RECEIVER,
    Following,
    changed,
    filters,
)
from holdfast.server.replication.progress import (
    NOT_LET_IN,
    lacks_binlogs,
    lasting,
    nobody_listens,
    place,
)
from holdfast.server.replication.proof import NO_TABLE, ROW, ProofRows
from holdfast.server.replication.threads import ReplicationThreads

# not SHOW MASTER STATUS: it hangs while commits wait for an acknowledgement
LOOK = f"""
    SELECT @@version AS version, @@global.server_id AS server_id, @@global.read_only AS read_only,
        CONCAT(@@global.gtid_domain_id, '-', @@global.server_id) AS origin,
        @@global.gtid_binlog_state AS applied,
        {waiting.MARIADB.columns},
        @@global.rpl_semi_sync_slave_enabled AS replica_side,
        @@global.sync_binlog AS sync_binlog, @@global.innodb_flush_log_at_trx_commit AS redo_flush,
        @@global.slave_exec_mode AS slave_exec_mode, @@global.tx_read_only AS tx_read_only,
        @@global.replicate_events_marked_for_skip AS replicate_events_marked_for_skip
"""


PASSES_NOTHING_OVER = {"slave_exec_mode": "STRICT", "replicate_events_marked_for_skip": "REPLICATE"}

GTID_OUT_OF_ORDER = 1950
"""ER_GTID_STRICT_OUT_OF_ORDER: the replica has logged a transaction of its own meanwhile."""

MEMORY_SECONDS = 2.0
"""How long a replica that begins to follow may look for MEMORY tables."""

TLS_COLUMNS = ("Master_SSL_Allowed", "Master_SSL_CA_File", "Master_SSL_Cert", "Master_SSL_Key")


def look(eyes: Connection, deadline: Deadline) -> ServerLook:
    row = eyes.look(LOOK, deadline)[0]
    # ALL: it counts heartbeats. The connection without a name is ours
    replicas = eyes.look("SHOW ALL SLAVES STATUS", deadline)
    status = [each for each in replicas if not each["Connection_name"]]
    return ServerLook(
        row,
        applied=row["applied"],
        received=status[0]["Gtid_IO_Pos"] if status else "",
        replication=_replication(status[0], row) if status else Replication(),
        traces=_traces(status[0]) if status else (),
    )


def following(commands: Connection, deadline: Deadline) -> Following:
    rows = commands.look("SHOW REPLICA STATUS", deadline)
    row: Row = rows[0] if rows else {}
    return Following(
        host=row.get("Master_Host", ""),
        port=row.get("Master_Port", 0),
        user=row.get("Master_User", ""),
        receiver=row.get("Slave_IO_Running", "No") != "No",
        connecting=row.get("Slave_IO_Running") == "Connecting",
        applier=row.get("Slave_SQL_Running", "No") != "No",
        receiver_code=row.get("Last_IO_Errno", 0),
        applier_error=_applier_error(row),
        received=row.get("Gtid_IO_Pos", ""),
        tls=encryption.set_up(row, TLS_COLUMNS),
        by_file=row.get("Using_Gtid") == "No",
        filtered=bool(filters(row, FILTERS_KEPT)) or _waits_on_purpose(row),
    )


def position(commands: Connection, deadline: Deadline) -> tuple[Receiver, FilePosition]:
    row = commands.look("SHOW REPLICA STATUS", deadline)[0]
    receiver = RECEIVER.get(row["Slave_IO_Running"], Receiver.CONNECTING)
    return receiver, (row["Master_Log_File"], row["Read_Master_Log_Pos"])


def wait_applied(
    commands: Connection, received: str, slice_seconds: float, deadline: Deadline
) -> bool:
    row = commands.look(
        "SELECT MASTER_GTID_WAIT(%s, %s) AS answer", deadline, (received, slice_seconds)
    )[0]
    return bool(row["answer"] == 0)


def stop_applier(commands: Connection, deadline: Deadline) -> None:
    """``Gtid_IO_Pos`` counts whole transactions only, and an applier that holds the beginning of one stops at once
    (tested), so nothing here asks for half-received ones."""
    commands.run("STOP REPLICA SQL_THREAD", deadline)


def switch_off(commands: Connection, deadline: Deadline) -> None:
    waiting.switch_off(commands, waiting.MARIADB, deadline)


def commit_empty(proof: Connection, gtids: Sequence[str], deadline: Deadline) -> None:
    raise Refused(f"{Flavor.MARIADB} cannot commit transactions of other servers")


def switch_redo_log_on(connection: Connection, deadline: Deadline) -> None:
    """It cannot be off."""


DIALECT = Dialect(
    flavor=Flavor.MARIADB,
    names=waiting.MARIADB,
    catalog=barring.MARIADB,
    refuse_writes="read_only",
    refuses_all=False,
    holding_tables="",
    replica_settings=RELAXED,
    open_settings={"read_only": 0},
    shutting_out=("tx_read_only",),
    administrator_writes={},  # it may always
    parting_settings={},
    hung_up_seconds=0.0,
    following=following,
    position=position,
    wait_applied=wait_applied,
    position_of=GtidSet.last,  # one GTID of each domain
    stop_applier=stop_applier,
    switch_off=switch_off,
    switch_redo_log_on=switch_redo_log_on,
    commit_empty=commit_empty,
)


class NumberedRows:
    """Implements ``ProofWriter``: the first rows of a promotion leave a gap in the sequence numbers, in each domain.

    What was cut from a former primary's binlog may still be on a server that is away. If its GTID were issued again
    with another content, it would be taken for the same transaction when that server comes back. MySQL has a new
    ``server_uuid`` for that; on MariaDB the numbers must go past all that can have been cut. A client chooses the
    domain of its session: so this is done in every domain that the server knows, or in which it took something back.
    """

    def __init__(self, proof: Connection, rows: ProofRows) -> None:
        self._proof = proof
        self._rows = rows
        self._renumbers: frozenset[int] | None = None

    def promoted(self, domains: frozenset[int]) -> None:
        self._renumbers = domains

    def commit(self, term: int, serial: int, deadline: Deadline) -> None:
        """Commit a row, and before the first one of a promotion one in each other domain.

        The server's own domain comes last: its row proves that everything before it is acknowledged. Replicas may apply
        domains in parallel: each row is new, so they do not conflict. If the table does not exist, Holdfast has cut
        nothing yet.
        """
        if self._renumbers is not None:
            self._leave_gaps(self._renumbers, term, serial, deadline)
        self._rows.commit(term, serial, deadline)
        self._renumbers = None

    def _leave_gaps(
        self, domains: frozenset[int], term: int, serial: int, deadline: Deadline
    ) -> None:
        row = self._proof.look(
            "SELECT @@global.gtid_binlog_pos AS heads, @@global.gtid_domain_id AS domain", deadline
        )[0]
        own, heads = int(row["domain"]), parse(Flavor.MARIADB, row["heads"]).heads()
        try:
            for domain in sorted((domains | {int(each) for each in heads}) - {own}):
                self._leave_gap(domain, heads, deadline)
                self._proof.run(ROW, deadline, (term, serial))
        except StatementRefused as error:
            if error.code not in NO_TABLE:
                raise
        self._leave_gap(own, heads, deadline)

    def _leave_gap(
        self, domain: int, heads: dict[str, tuple[int, str]], deadline: Deadline
    ) -> None:
        """The session's next transaction belongs to ``domain``, and begins the next million of its numbers.

        This takes two statements: the server compares the number with the head of the session's previous domain.
        """
        head, _ = heads.get(str(domain), (0, ""))
        number = (head // SEQUENCE_STEP + 1) * SEQUENCE_STEP
        self._proof.run("SET SESSION gtid_domain_id = %s", deadline, (domain,))
        self._proof.run("SET SESSION gtid_seq_no = %s", deadline, (number,))


class MariadbRepointing:
    """Implements ``Repointing``."""

    def __init__(self, sessions: Sessions, threads: ReplicationThreads) -> None:
        self._commands = sessions.commands
        self._side = sessions.side
        self._threads = threads
        self._memory_tables_open = False

    def begin(self) -> None:
        self._memory_tables_open = False

    def change_source(
        self, source: Source, now: Following, deadline: Deadline, anew: bool = False
    ) -> None:
        """Both threads must be stopped, and the relay log is dropped: so all of it is applied first."""
        if now.receiver:
            self._threads.stop_receiver(deadline)
            now = self._threads.following(deadline)
        if now.applier:
            self._threads.drain(now, deadline)
            self._threads.stop_applier(deadline)
        elif not anew:
            self._apply_relay_log(deadline)
        self._mend_position(deadline)
        self._commands.run(
            "CHANGE MASTER TO master_host = %s, master_port = %s, master_user = %s, "
            "master_password = %s, master_use_gtid = slave_pos, "
            "ignore_server_ids = (), do_domain_ids = (), ignore_domain_ids = (), master_delay = 0, "
            f"master_connect_retry = {CONNECT_RETRY_SECONDS}, "
            f"master_heartbeat_period = {source.heartbeat}"
            f"{encryption.options(Flavor.MARIADB, source.account)}",
            deadline,
            (
                *(source.host, source.port, source.account.user, source.account.password),
                *encryption.named(source.account.tls),
            ),
        )

    def before_start(self, deadline: Deadline, anew: bool) -> None:
        """The first thread to start while both are stopped drops the relay log, to fetch again what was not applied
        (MDEV-4698). But its source may be gone, and what was acknowledged must not be lost. So the relay log is applied
        first, except for what cannot be applied and was not acknowledged (``anew``)."""
        if not anew:
            self._apply_relay_log(deadline)
        self._open_memory_tables(deadline)

    def resume(self, now: Following, deadline: Deadline) -> None:
        """While the receiver runs, the applier starts without dropping the relay log."""
        if now.receiver:
            self._threads.start(deadline, applier=True)
        else:
            self._apply_relay_log(deadline)

    def _open_memory_tables(self, deadline: Deadline) -> None:
        """Open MEMORY tables, which a restart has emptied. The first session that opens one makes the server log that
        as a transaction of its own, at which its applier would stop; a session that logs nothing empties the table
        without that.

        Done once in a run of the server: to list the tables the server opens every table there is, and a failover waits
        for it. Best effort, for a limited time: what was logged is repaired, see ``core/members/own_writes.py``.
        """
        if self._memory_tables_open:
            return
        patience = deadline.within(MEMORY_SECONDS)
        with contextlib.suppress(StatementRefused, DeadlinePassed):
            rows = self._side.look(
                "SELECT TABLE_SCHEMA AS db, TABLE_NAME AS name FROM information_schema.TABLES "
                "WHERE ENGINE = 'MEMORY' AND TABLE_TYPE = 'BASE TABLE'",
                patience,
            )
            for row in rows:
                db, name = (str(part).replace("`", "``") for part in (row["db"], row["name"]))
                self._side.look(f"SELECT 1 FROM `{db}`.`{name}` LIMIT 0", patience)
            self._memory_tables_open = True

    def _apply_relay_log(self, deadline: Deadline) -> None:
        """Apply the relay log by file position, which keeps it. A server that was just started does not report what it
        had received, and need not: it is another incarnation.

        If this is interrupted, it is continued in the same run of the server. In the next run the position in the file
        may be older than the data: the applier would log a second time what it has.
        """
        now = self._threads.following(deadline)
        left = bool(now.received) and not self._threads.wait_applied(now.received, 0, deadline)
        if left and not now.by_file:
            row = self._commands.look("SHOW REPLICA STATUS", deadline)[0]
            self._commands.run(
                "CHANGE MASTER TO master_use_gtid = no, relay_log_file = %s, relay_log_pos = %s",
                deadline,
                (row["Relay_Log_File"], row["Relay_Log_Pos"]),
            )
        if left:
            self._threads.start(deadline, applier=True)
            self._threads.drain(now, deadline)
            self._threads.stop_applier(deadline)
        if left or now.by_file:
            self._commands.run("CHANGE MASTER TO master_use_gtid = slave_pos", deadline)

    def _mend_position(self, deadline: Deadline) -> None:
        """Set ``gtid_slave_pos`` from the binlog: a former primary did not keep it. A server that was copied from
        another has no binlog yet."""
        row = self._commands.look(
            "SELECT @@global.gtid_slave_pos AS applied, @@global.gtid_binlog_pos AS logged",
            deadline,
        )[0]
        applied, logged = (parse(Flavor.MARIADB, row[name]) for name in ("applied", "logged"))
        furthest = _furthest(applied, logged)
        if furthest != applied:
            self._commands.run("SET GLOBAL gtid_slave_pos = %s", deadline, (furthest.last(),))


def parts(sessions: Sessions) -> FlavorParts:
    return FlavorParts(
        DIALECT,
        partial(look, sessions.eyes),
        MariadbRepointing(sessions, ReplicationThreads(sessions.commands, DIALECT)),
        NumberedRows(sessions.proof, ProofRows(sessions, DIALECT)),
    )


def _furthest(applied: GtidSet, logged: GtidSet) -> GtidSet:
    """The position of a server in each domain: the furthest that it has reached."""
    heads = applied.heads()
    for domain, head in logged.heads().items():
        heads[domain] = max(heads.get(domain, (0, "")), head)
    texts = (f"{domain}-{server}-{number}" for domain, (number, server) in heads.items())
    return parse(applied.flavor, ",".join(texts))


def _traces(row: Row) -> tuple[object, ...]:
    """The position moves with each event, also within a transaction."""
    return (
        row["Master_Log_File"],
        row["Read_Master_Log_Pos"],
        row["Slave_received_heartbeats"],
        row["Gtid_IO_Pos"],
    )


def _waits_on_purpose(row: Row) -> bool:
    """Whether a delay is set up; it can be removed while nothing is applied."""
    return bool(row.get("SQL_Delay")) and row["Slave_SQL_Running"] == "No"


def _replication(row: Row, variables: Row) -> Replication:
    lag, applier = row["Seconds_Behind_Master"], row["Slave_SQL_Running"] != "No"
    return Replication(
        source=f"{row['Master_Host']}:{row['Master_Port']}",
        receiver=RECEIVER.get(row["Slave_IO_Running"], Receiver.CONNECTING),
        applier=applier,
        error=row["Last_SQL_Error"] or lasting(row["Last_IO_Error"]),
        lag_seconds=None if lag is None else float(lag),
        fetched=place(row["Master_Log_File"], row["Read_Master_Log_Pos"]),
        executed=place(row["Relay_Master_Log_File"], row["Exec_Master_Log_Pos"]),
        purged=lacks_binlogs(row["Last_IO_Errno"], row["Last_IO_Error"]),
        denied=row["Last_IO_Errno"] in NOT_LET_IN,
        refused=nobody_listens(row["Last_IO_Errno"], row["Last_IO_Error"]),
        user=row["Master_User"],
        # a rewind skips events, while nothing is applied
        filters=(*filters(row), *(changed(variables, PASSES_NOTHING_OVER) if applier else ())),
        delay=row["SQL_Delay"] or 0,
        applier_error=_applier_error(row),
    )


def _applier_error(row: Row) -> str:
    """The error at which the applier stops because of its data. A transaction that the server has logged itself says
    nothing about its data, and has a remedy of its own (``core/members/own_writes.py``)."""
    out_of_order = row.get("Last_SQL_Errno") == GTID_OUT_OF_ORDER
    return "" if out_of_order else row.get("Last_SQL_Error") or ""
