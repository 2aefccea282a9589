"""The first look at a server that its agent has started: whether it booted with what its command line forces."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.core.check.facts import Boot
from holdfast.core.check.variables import same_value
from holdfast.core.gtid import Flavor
from holdfast.server.base import Booted, Deadline
from holdfast.server.connection.sql import Connection, Row
from holdfast.server.process.forced import DOOR, DOOR_OPEN, SCHEDULER, contradictions, forced

_SOURCES = {
    Flavor.MYSQL: "SELECT LOWER(VARIABLE_NAME) AS name, VARIABLE_SOURCE AS origin, VARIABLE_PATH AS path "
    "FROM performance_schema.variables_info WHERE VARIABLE_NAME IN ({})",
    Flavor.MARIADB: "SELECT LOWER(VARIABLE_NAME) AS name, GLOBAL_VALUE_ORIGIN AS origin, GLOBAL_VALUE_PATH AS path "
    "FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME IN ({})",
}
_THREADS = {
    Flavor.MYSQL: "SELECT 1 FROM performance_schema.replication_connection_status WHERE SERVICE_STATE <> 'OFF' "
    "UNION ALL SELECT 1 FROM performance_schema.replication_applier_status WHERE SERVICE_STATE <> 'OFF'",
    Flavor.MARIADB: "SHOW ALL SLAVES STATUS",
}
_BINLOG = {Flavor.MYSQL: "SHOW BINARY LOG STATUS", Flavor.MARIADB: "SHOW MASTER STATUS"}
_REPLICATED = {
    Flavor.MYSQL: "SELECT FILTER_NAME AS name, FILTER_RULE AS value "
    "FROM performance_schema.replication_applier_global_filters",
    Flavor.MARIADB: "SELECT VARIABLE_NAME AS name, GLOBAL_VALUE AS value "
    "FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME IN ('REPLICATE_DO_DB', 'REPLICATE_IGNORE_DB', "
    "'REPLICATE_DO_TABLE', 'REPLICATE_IGNORE_TABLE', 'REPLICATE_WILD_DO_TABLE', 'REPLICATE_WILD_IGNORE_TABLE', "
    "'REPLICATE_REWRITE_DB')",
}
_SKIP_START = {Flavor.MYSQL: "skip_replica_start", Flavor.MARIADB: "skip_slave_start"}
FROM_COMMAND_LINE = "from its command line: see server.command in the agent's file"
_COMMAND_LINE = frozenset({"COMMAND_LINE", "COMMAND-LINE"})


def look(connection: Connection, flavor: Flavor, files: Boot, deadline: Deadline) -> Booted:
    """:param files: what the server would boot with if nothing were forced"""
    door = DOOR[flavor]
    names = [door.name, "log_bin", *(each.name for each in forced(flavor, files))]
    rows = connection.look(
        f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({_marks(names)})", deadline, names
    )
    variables = {str(row["Variable_name"]).lower(): str(row["Value"]) for row in rows}
    wrong = dict(contradictions(flavor, files, variables))
    threads = connection.look(_THREADS[flavor], deadline)
    if any(map(_runs, threads)):
        wrong[_SKIP_START[flavor]] = "OFF"
    asked = [door.name, *wrong]
    found = connection.look(_SOURCES[flavor].format(_marks(asked)), deadline, asked)
    sources = {str(row["name"]): row for row in found}
    shut = variables.get(door.name, "").upper() == door.value and _forced(sources, door.name)
    told = [f"{name} = {value} ({_source(sources, name)})" for name, value in wrong.items()]
    for name, value in _filters(connection, flavor, deadline).items():
        where = f"from {files.sources[name]}" if name in files.sources else FROM_COMMAND_LINE
        told.append(f"{name} = {value} ({where})")
    return Booted(shut, tuple(told))


def let_in(connection: Connection, flavor: Flavor, files: Boot, deadline: Deadline) -> None:
    """Let in as many clients as the option files allow."""
    name = DOOR[flavor].name
    value = files.options.get(name, DOOR_OPEN[flavor])
    connection.run(f"SET GLOBAL {name} = {_literal(value)}", deadline)


def files_of(
    connection: Connection, flavor: Flavor, names: list[str], deadline: Deadline
) -> dict[str, str]:
    """The file from which each of these variables was taken; variables that were set otherwise are left out."""
    rows = connection.look(_SOURCES[flavor].format(_marks(names)), deadline, names)
    return {str(row["name"]): str(row["path"]) for row in rows if row["path"]}


def schedules(connection: Connection, flavor: Flavor, files: Boot, deadline: Deadline) -> bool:
    """Whether the event scheduler is off only because the agent forced it off at the start."""
    default = "ON" if flavor is Flavor.MYSQL else "OFF"
    if not files.file or not same_value(files.options.get(SCHEDULER, default), "ON"):
        return False
    rows = connection.look(_SOURCES[flavor].format("%s"), deadline, (SCHEDULER,))
    return bool(rows) and str(rows[0]["origin"]).upper() in _COMMAND_LINE


def _literal(value: str) -> str:
    """The value as SET accepts it: a number or a word."""
    text = value.strip()
    return text if text.lstrip("-").isalnum() else "DEFAULT"


def _marks(names: list[str]) -> str:
    return ", ".join(["%s"] * len(names))


def _runs(row: Row) -> bool:
    """Whether a thread runs. MariaDB's row has both threads; MySQL's rows are the threads that run."""
    threads = [row[name] for name in ("Slave_IO_Running", "Slave_SQL_Running") if name in row]
    return not threads or any(each != "No" for each in threads)


def _forced(sources: Mapping[str, Row], name: str) -> bool:
    """Whether the variable still has its forced value: a variable set by SQL has another origin. If the server does not
    show the origin, only the value counts."""
    return name not in sources or str(sources[name]["origin"]).upper() in _COMMAND_LINE


def _filters(connection: Connection, flavor: Flavor, deadline: Deadline) -> dict[str, str]:
    """What the server leaves out of its binary log, or out of what it replicates: no option overrides that."""
    found = {}
    for row in connection.look(_BINLOG[flavor], deadline):
        found["binlog_do_db"] = str(row["Binlog_Do_DB"])
        found["binlog_ignore_db"] = str(row["Binlog_Ignore_DB"])
    for row in connection.look(_REPLICATED[flavor], deadline):
        found[str(row["name"]).lower()] = str(row["value"])
    return {name: value for name, value in found.items() if value}


def _source(sources: Mapping[str, Row], name: str) -> str:
    row = sources.get(name)
    if row is None:
        return "the server does not tell where from"
    if row["path"]:
        return f"from {row['path']}"
    origin = str(row["origin"]).upper()
    if origin in _COMMAND_LINE:
        return FROM_COMMAND_LINE
    if origin in ("DYNAMIC", "SQL"):
        return "set by somebody since it was started"
    return "its own default"
