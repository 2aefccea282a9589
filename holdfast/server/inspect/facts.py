"""Collects what a check judges: from the running server over SQL, and from the host's files.

No query here waits behind a commit that waits for an acknowledgement, and each has a deadline.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.check.facts import Boot, Facts, Space, Tables, Upstream
from holdfast.core.check.member import wanted_variables
from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError
from holdfast.server.base import Account, Deadline
from holdfast.server.connection.sql import Connection, Row, StatementRefused
from holdfast.server.process import boot, booted, limits, units
from holdfast.server.replication.dumps import DumpSessions
from holdfast.server.replication.following import filters
from holdfast.server.replication.progress import lasting
from holdfast.tls import Files, days_left

SQL_SECONDS = 3.0
TABLES_SECONDS = 5.0
MOST_NAMES = 5

GTIDS = {
    Flavor.MARIADB: "SELECT @@global.gtid_binlog_state AS applied, "
    "CONCAT(@@global.gtid_domain_id, '-', @@server_id) AS origin",
    Flavor.MYSQL: "SELECT @@global.gtid_executed AS applied, @@server_uuid AS origin",
}

EVENTS = "SELECT COUNT(*) AS events FROM information_schema.events WHERE EVENT_SCHEMA <> 'sys'"
FOREIGN = """
    SELECT CONCAT(table_schema, '.', table_name) AS name FROM information_schema.tables
    WHERE table_type = 'BASE TABLE' AND engine <> 'InnoDB' AND table_schema NOT IN
        ('mysql', 'sys', 'performance_schema', 'information_schema')
    ORDER BY 1
"""
KEYLESS = """
    SELECT CONCAT(table_schema, '.', table_name) AS name FROM information_schema.tables
    WHERE table_type = 'BASE TABLE' AND table_schema NOT IN
        ('mysql', 'sys', 'performance_schema', 'information_schema')
        AND (table_schema, table_name) NOT IN (SELECT table_schema, table_name
            FROM information_schema.statistics WHERE index_name = 'PRIMARY')
    ORDER BY 1
"""
LENIENT = """
    SELECT User AS value FROM mysql.user WHERE Repl_slave_priv = 'Y' AND ssl_type NOT IN ('X509', 'SPECIFIED')
        AND Host NOT IN ('localhost', '127.0.0.1', '::1')
"""


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """Where a member's server is, as its agent is configured.

    :ivar account: name of the member's own replication account
    :ivar api: certificates of the agent's API; :ivar tls: of replication
    :ivar root: of the file system; another one for tests
    :ivar clock: of who looks
    """

    member: str
    flavor: Flavor
    option_file: Path
    datadir: Path
    socket: Path
    binlog_index: Path
    admin: Account
    account: str
    listen: str
    api: Files | None = None
    tls: Files | None = None
    root: Path = Path("/")
    clock: Clock = SYSTEM_CLOCK


def collect(place: ServerPlace, pid: int | None, counting: bool = True) -> Facts:
    """:param pid: of the running server, if the agent knows one
    :param counting: also count tables and events, for which a server that has many needs seconds
    """
    dumps = DumpSessions(place.flavor, place.socket, place.admin)
    facts = Facts(
        place.member,
        place.flavor,
        datadir=str(place.datadir),
        socket=str(place.socket),
        account=place.account,
        pid=pid or 0,
        signals=_signals(pid),
        units=units.find_units(place.root, pid),
        supervisor=units.supervisor(place.root, pid),
        binlog_index_found=place.binlog_index.exists(),
        open_files=_open_files(pid),
        spaces=_spaces((place.datadir, place.binlog_index.parent)),
        listen=place.listen,
        guarded=place.api is not None,
        encrypting=place.tls is not None,
        certificates=_lasting((place.api, place.tls)),
    )
    connection = Connection(place.socket, place.admin)
    try:
        deadline = Deadline(SQL_SECONDS, clock=place.clock)
        facts = _asked(facts, connection, deadline)
        with contextlib.suppress(StatementRefused):  # too few privileges, which the check reports
            facts = replace(facts, dumps=dumps.look(deadline.afresh(SQL_SECONDS)).dumps)
        if counting:
            facts = _counted(facts, connection, deadline)
    except HoldfastError as error:
        facts = replace(facts, problem=str(error))
    finally:
        connection.close()
        dumps.close()
    read = boot.read(place.option_file, place.flavor, facts.version, place.datadir)
    return replace(facts, boot=read, real=_real(facts, read))


def _open_files(pid: int | None) -> tuple[int, int] | None:
    server = limits.of_server(pid) if pid else 0
    return (server, limits.inherited()) if server else None


def _real(facts: Facts, files: Boot) -> dict[str, str]:
    """The real paths of all folders that are compared by their names."""
    base = facts.variables.get("log_bin_basename", "")
    named = files.options.get("log_bin", "")
    paths = {
        facts.datadir,
        facts.socket,
        *(files.options.get(name, "") for name in ("datadir", "socket")),
        facts.variables.get("datadir", ""),
        os.path.dirname(base),
        os.path.dirname(os.path.join(facts.datadir, named)),
    }
    return {path: os.path.realpath(path) for path in paths if path}


def _asked(facts: Facts, connection: Connection, deadline: Deadline) -> Facts:
    wanted = sorted(wanted_variables(facts.flavor))
    marks = ", ".join(["%s"] * len(wanted))
    rows = connection.look(
        f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({marks})", deadline, wanted
    )
    variables = {str(row["Variable_name"]): str(row["Value"]) for row in rows}
    mysql = facts.flavor is Flavor.MYSQL
    gtids = connection.look(GTIDS[facts.flavor], deadline)[0]
    status = "SHOW REPLICA STATUS" if mysql else "SHOW ALL REPLICAS STATUS"
    upstreams = connection.look(status, deadline)
    return replace(
        facts,
        version=variables.get("version", ""),
        applied=str(gtids["applied"]).replace("\n", ""),
        origin=str(gtids["origin"]),
        variables=variables,
        origins=booted.files_of(connection, facts.flavor, wanted, deadline),
        plugins=_plugins(variables.get("plugin_dir", "")),
        upstreams=tuple(map(_mysql_upstream if mysql else _mariadb_upstream, upstreams)),
        privileges=_privileges(connection.look("SHOW GRANTS", deadline)),
        replicators=_column(
            connection, "SELECT User AS value FROM mysql.user WHERE Repl_slave_priv = 'Y'", deadline
        ),
        lenient=_column(connection, LENIENT, deadline),
        backup_admins=_column(
            connection,
            "SELECT USER AS value FROM mysql.global_grants WHERE PRIV = 'BACKUP_ADMIN'",
            deadline,
        )
        if mysql
        else frozenset(),
        installed=_column(connection, "SELECT dl AS value FROM mysql.plugin", deadline),
    )


def _counted(facts: Facts, connection: Connection, before: Deadline) -> Facts:
    mysql = facts.flavor is Flavor.MYSQL
    deadline = before.afresh(SQL_SECONDS)
    return replace(
        facts,
        events=int(connection.look(EVENTS, deadline)[0]["events"]),
        foreign=_tables(connection, FOREIGN, mysql, before.afresh(TABLES_SECONDS)),
        keyless=_tables(connection, KEYLESS, mysql, before.afresh(TABLES_SECONDS)),
    )


def _lasting(those: Sequence[Files | None]) -> dict[str, int]:
    found: dict[str, int] = {}
    for files in those:
        for path in (files.cert, files.ca) if files is not None else ():
            with contextlib.suppress(HoldfastError):
                found[str(path)] = days_left(path)
    return found


def _column(connection: Connection, sql: str, deadline: Deadline) -> frozenset[str]:
    return frozenset(str(row["value"]) for row in connection.look(sql, deadline))


def _tables(connection: Connection, sql: str, mysql: bool, deadline: Deadline) -> Tables | None:
    """None if there are so many tables that the server takes too long."""
    milliseconds = int(TABLES_SECONDS * 1000) - 500
    limit = (
        f"SET SESSION max_execution_time = {milliseconds}, lock_wait_timeout = 1"
        if mysql
        else f"SET SESSION max_statement_time = {milliseconds / 1000}, lock_wait_timeout = 1"
    )
    try:
        connection.run(limit, deadline)
        names = [str(row["name"]) for row in connection.look(sql, deadline)]
    except HoldfastError:
        return None
    return Tables(len(names), tuple(names[:MOST_NAMES]))


def _mysql_upstream(row: Row) -> Upstream:
    return Upstream(
        host=str(row["Source_Host"]),
        port=int(row["Source_Port"]),
        user=str(row["Source_User"]),
        channel=str(row["Channel_Name"] or ""),
        server_id=int(row["Source_Server_Id"] or 0),
        uuid=str(row["Source_UUID"] or ""),
        gtid=bool(int(row["Auto_Position"])),
        receiver=row["Replica_IO_Running"] == "Yes",
        applier=row["Replica_SQL_Running"] == "Yes",
        error=str(row["Last_SQL_Error"] or lasting(row["Last_IO_Error"] or "")),
        tls=row["Source_SSL_Allowed"] == "Yes",
        delay_seconds=int(row["SQL_Delay"] or 0),
        filters=filters(row),
    )


def _mariadb_upstream(row: Row) -> Upstream:
    return Upstream(
        host=str(row["Master_Host"]),
        port=int(row["Master_Port"]),
        user=str(row["Master_User"]),
        channel=str(row["Connection_name"] or ""),
        server_id=int(row["Master_Server_Id"] or 0),
        gtid=row["Using_Gtid"] != "No",
        receiver=row["Slave_IO_Running"] == "Yes",
        applier=row["Slave_SQL_Running"] == "Yes",
        error=str(row["Last_SQL_Error"] or lasting(row["Last_IO_Error"] or "")),
        tls=row["Master_SSL_Allowed"] == "Yes",
        delay_seconds=int(row["SQL_Delay"] or 0),
        filters=filters(row),
    )


def _privileges(rows: Sequence[Row]) -> frozenset[str]:
    """The account's privileges on all databases, from ``SHOW GRANTS``."""
    found: set[str] = set()
    for row in rows:
        grant = str(next(iter(row.values())))
        match = re.match(r"GRANT (.+?) ON \*\.\* TO ", grant)
        if match:
            found |= {each.strip().upper() for each in match.group(1).split(",")}
            if grant.endswith("WITH GRANT OPTION"):
                found.add("GRANT OPTION")
    return frozenset(found)


def _signals(pid: int | None) -> bool:
    try:
        os.kill(pid or os.getpid(), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True


def _plugins(folder: str) -> frozenset[str]:
    try:
        return frozenset(name for name in os.listdir(folder) if name.startswith("semisync_"))
    except OSError:
        return frozenset()


def _spaces(folders: Sequence[Path]) -> tuple[Space, ...]:
    """Each file system once."""
    found: dict[int, Space] = {}
    for folder in folders:
        try:
            device, room = folder.stat().st_dev, os.statvfs(folder)
        except OSError:
            continue
        size = room.f_frsize
        found.setdefault(device, Space(str(folder), room.f_blocks * size, room.f_bavail * size))
    return tuple(found.values())
