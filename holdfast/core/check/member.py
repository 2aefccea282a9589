"""What is right and wrong with one member: facts in, findings out; ``together.py`` judges the members together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from holdfast.core.check import variables
from holdfast.core.check.encryption import check_encryption
from holdfast.core.check.facts import Facts, Space, Tables, Unit
from holdfast.core.check.findings import Finding, Level, names, ok
from holdfast.core.check.limits import check_limits
from holdfast.core.gtid import Flavor

SPACE_WARNING, SPACE_WRONG = 0.20, 0.05
"""Share of a file system that is free."""

OLDEST_MARIADB = {(10, 11): 12, (11, 4): 6, (11, 8): 2}
"""Series -> first release without MDEV-32960, MDEV-35109 and MDEV-36663."""
OLDEST_MYSQL = (8, 4, 0)

_EVERYWHERE = (
    *("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "RELOAD", "SHUTDOWN", "PROCESS"),
    *("CREATE USER", "REPLICATION SLAVE", "GRANT OPTION"),
)
ADMIN_PRIVILEGES = {
    Flavor.MARIADB: frozenset(
        {
            *_EVERYWHERE,
            "BINLOG ADMIN",
            "BINLOG MONITOR",
            "BINLOG REPLAY",
            "CONNECTION ADMIN",
            "READ_ONLY ADMIN",
            "REPLICATION MASTER ADMIN",
            "REPLICATION SLAVE ADMIN",
            "SLAVE MONITOR",
        }
    ),
    Flavor.MYSQL: frozenset(
        {
            *_EVERYWHERE,
            "REPLICATION CLIENT",
            "BACKUP_ADMIN",
            "BINLOG_ADMIN",
            "CLONE_ADMIN",
            "CONNECTION_ADMIN",
            "REPLICATION_SLAVE_ADMIN",
            "SYSTEM_VARIABLES_ADMIN",
        }
    ),
}
"""Of the agent's account, on all databases."""

VARIABLES = frozenset(
    {
        "log_bin",
        "log_bin_basename",
        "read_only",
        "datadir",
        "socket",
        "port",
        "server_id",
        "server_uuid",
        "version",
        "gtid_domain_id",
        "have_ssl",
        "ssl_ca",
        "ssl_cert",
        "event_scheduler",
        "lower_case_table_names",
        "binlog_storage_engine",
        "max_allowed_packet",
        "slave_max_allowed_packet",
        "replica_max_allowed_packet",
        "rpl_semi_sync_master_enabled",
        "rpl_semi_sync_slave_enabled",
        "rpl_semi_sync_source_enabled",
        "rpl_semi_sync_replica_enabled",
        "plugin_dir",
        "max_connections",
        "require_secure_transport",
    }
)


def wanted_variables(flavor: Flavor) -> frozenset[str]:
    """Names of the global variables that are judged."""
    return VARIABLES | variables.variables(flavor)


def check_member(facts: Facts) -> Iterator[Finding]:
    if facts.problem:
        text = f"its server cannot be queried: {facts.problem}"
        yield Finding(
            "server", Level.WRONG, text, "start it, or correct server.* in the agent's file"
        )
    else:
        yield from _version(facts)
    if facts.boot.problem:
        yield Finding("option-file", Level.WRONG, facts.boot.problem, "correct server.option_file")
    yield from variables.check_settings(facts)
    yield from _same_server(facts)
    yield from _filters(facts)
    yield from _service(facts)
    yield from _space(facts.spaces)
    yield from check_limits(facts)
    if facts.problem:
        return
    yield _process(facts)
    yield from _plugins(facts)
    yield from _privileges(facts)
    yield from _tables(facts)
    yield from _replication(facts)
    yield from check_encryption(facts)
    if facts.on("event_scheduler") and facts.events:
        text = f"{facts.events} events: they run on the primary alone"
        yield Finding("events", Level.NOTE, text, "enable them there after a change of primary")


def _version(facts: Facts) -> Iterator[Finding]:
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", facts.version)
    major, minor, patch = map(int, match.groups()) if match else (0, 0, 0)
    parts = (major, minor, patch)
    if facts.flavor is Flavor.MYSQL:
        if parts < OLDEST_MYSQL:
            yield Finding("version", Level.WRONG, f"MySQL {facts.version}", "upgrade to 8.4 or 9")
        else:
            yield ok("version", f"MySQL {facts.version}")
        return
    oldest = OLDEST_MARIADB.get((major, minor))
    if facts.variables.get("binlog_storage_engine"):
        yield Finding(
            "version",
            Level.WRONG,
            "its binary log is in InnoDB, for which there is no AFTER_SYNC",
            f"remove binlog_storage_engine from {facts.boot.file}, and restart it",
        )
    elif parts[:2] < (10, 11) or (oldest is not None and parts[2] < oldest):
        yield Finding(
            "version",
            Level.WRONG,
            f"MariaDB {facts.version} has bugs in semi-sync that lose or stall commits "
            "(MDEV-32960, MDEV-35109, MDEV-36663)",
            f"upgrade to {parts[0]}.{parts[1]}.{oldest}" if oldest else "upgrade to 10.11.12",
        )
    elif oldest is None:
        yield Finding(
            "version", Level.WARNING, f"MariaDB {facts.version} was not tested with Holdfast"
        )
    else:
        yield ok("version", f"MariaDB {facts.version}")


def _same_server(facts: Facts) -> Iterator[Finding]:
    """Whether the server that runs now is the one that its option file describes."""
    if facts.boot.problem:
        return
    other: list[str] = []
    boot = facts.boot.options
    for name, now in (("datadir", facts.datadir), ("socket", facts.socket)):
        if name not in boot or _real(facts, boot[name]) != _real(facts, now):
            other.append(f"{name} = {now}")
    if not facts.problem:
        for name, default in (("port", "3306"), ("server_id", "1")):
            if boot.get(name, default) != facts.variables.get(name, default):
                other.append(f"{name} = {facts.variables[name]}")
        base = facts.variables.get("log_bin_basename", "")
        named = boot.get("log_bin", "")
        if base and named not in ("", "ON", "OFF"):
            whole = PurePath(facts.datadir) / named
            if _real(facts, str(whole.parent)) != _real(facts, str(PurePath(base).parent)) or (
                whole.stem != PurePath(base).stem
            ):
                other.append(f"log_bin = {base}")
        running = facts.variables.get("datadir", facts.datadir)
        if _real(facts, running) != _real(facts, facts.datadir):
            yield Finding(
                "same-server",
                Level.WRONG,
                f"the server at {facts.socket} has its data in {running}, not in {facts.datadir}",
                "correct server.datadir or server.socket in the agent's file",
            )
            return
    if other:
        text = "the option file starts another server than the one that runs"
        yield Finding(
            "same-server", Level.WRONG, text, f"put {'; '.join(other)} into {facts.boot.file}"
        )
    else:
        yield ok("same-server", "the option file starts the server that runs")


def _filters(facts: Facts) -> Iterator[Finding]:
    found = {*facts.boot.filters, *(each for up in facts.upstreams for each in up.filters)}
    if found:
        text = f"something is left out of replication ({names(found)}): members would differ"
        yield Finding(
            "filters", Level.WRONG, text, f"remove it from {facts.boot.file}, and restart"
        )
    else:
        yield ok("filters", "everything is replicated")


def _service(facts: Facts) -> Iterator[Finding]:
    why = "a plain restart commits what was never acknowledged before it can be cut"
    troubles = [(unit, text) for unit in facts.units if (text := _trouble(unit))]
    for unit, text in troubles:
        mend = f"systemctl mask {unit.name} (running processes stay)"
        yield Finding("service", Level.WRONG, f"{text}: {why}; the agent starts the server", mend)
    if facts.supervisor:
        text = f"{facts.supervisor} starts the server again when it ends: {why}"
        mend = f"end {facts.supervisor} with SIGKILL (the server keeps running), and start it by the agent"
        yield Finding("service", Level.WRONG, text, mend)
    if not troubles and not facts.supervisor:
        yield ok("service", "only the agent starts the server")
    for unit in facts.units:
        if not unit.masked and not _trouble(unit):
            text = f"{unit.name} could start the server by hand"
            yield Finding("service", Level.NOTE, text, f"systemctl mask {unit.name}")


def _real(facts: Facts, path: str) -> PurePath:
    """The real path: two names may lead to one folder."""
    return PurePath(facts.real.get(path, path))


def _trouble(unit: Unit) -> str:
    """What a unit does that only the agent may do, or ""."""
    if unit.masked:
        return ""
    if unit.enabled:
        return f"{unit.name} starts the server at boot"
    if unit.runs_it and unit.restart != "no":
        return f"{unit.name} restarts the server (Restart={unit.restart})"
    return ""


def _space(spaces: Iterable[Space]) -> Iterator[Finding]:
    for space in spaces:
        share = space.free / space.total if space.total else 1.0
        left = f"{space.path}: {share:.0%} free ({space.free / 2**30:.1f} GB)"
        if share < SPACE_WARNING:
            level = Level.WRONG if share < SPACE_WRONG else Level.WARNING
            yield Finding("disk", level, left, "make room: a full disk stops all commits")
        else:
            yield ok("disk", left)


def _process(facts: Facts) -> Finding:
    """Whether the server can be killed: one that cannot be killed cannot be fenced."""
    mend = "run the agent as the server's user or as root, in the same container"
    if not facts.pid:
        text = f"the server answers, and no process of this host is found that has {facts.datadir}"
        return Finding("process", Level.WRONG, text, f"{mend}; or correct server.datadir")
    if not facts.signals:
        text = f"the agent may not end the server (pid {facts.pid}), so it could not fence it"
        return Finding("process", Level.WRONG, text, mend)
    return ok("process", f"the server is process {facts.pid}, which the agent may end")


def _plugins(facts: Facts) -> Iterator[Finding]:
    sides = ("master", "slave") if facts.flavor is Flavor.MARIADB else ("source", "replica")
    missing = [side for side in sides if f"rpl_semi_sync_{side}_enabled" not in facts.variables]
    absent = [side for side in missing if f"semisync_{side}.so" not in facts.plugins]
    if absent:
        files = names(f"semisync_{side}.so" for side in absent)
        text = f"there is no {files} in {facts.variables.get('plugin_dir', 'its plugin_dir')}"
        yield Finding("plugins", Level.WRONG, text, "install the server's package that has it")
    elif missing:
        yield Finding(
            "plugins",
            Level.WARNING,
            f"semi-sync is not loaded ({names(missing)}); holdfast adopt loads it, for later starts too",
            "; ".join(
                f"INSTALL PLUGIN rpl_semi_sync_{s} SONAME 'semisync_{s}.so'" for s in missing
            ),
        )
    elif lacking := [side for side in sides if not _loaded_at_boot(facts, side)]:
        loads = "; ".join(f"plugin-load-add = semisync_{side}.so" for side in lacking)
        text = "semi-sync is loaded now, and would not be after a restart"
        yield Finding("plugins", Level.WRONG, text, f"put {loads} into {facts.boot.file}")
    else:
        yield ok("plugins", "semi-sync is there")


def _loaded_at_boot(facts: Facts, side: str) -> bool:
    """Whether semi-sync is loaded at boot. MariaDB has it built in."""
    if facts.flavor is Flavor.MARIADB or facts.boot.problem:
        return True
    name = f"semisync_{side}"
    return f"{name}.so" in facts.installed or name in facts.boot.options.get("plugin_load", "")


def _privileges(facts: Facts) -> Iterator[Finding]:
    missing = ADMIN_PRIVILEGES[facts.flavor] - facts.privileges
    if "ALL PRIVILEGES" in facts.privileges:
        missing &= {"GRANT OPTION"}
    if missing - facts.privileges:
        text = f"the agent's account lacks {names(missing)}"
        mend = "GRANT ALL PRIVILEGES ON *.* TO it WITH GRANT OPTION"
        yield Finding("privileges", Level.WRONG, text, mend)
    else:
        yield ok("privileges", "the agent's account may do what it must")


def _tables(facts: Facts) -> Iterator[Finding]:
    for key, tables, what, level, mend in (
        (
            "engine",
            facts.foreign,
            "not InnoDB: they survive no crash, and what was written there cannot be rolled back",
            Level.WARNING,
            "ALTER TABLE … ENGINE=InnoDB",
        ),
        (
            "primary-key",
            facts.keyless,
            "without a primary key: replicas look for each row in the whole table",
            Level.WARNING,
            "give each a primary key",
        ),
    ):
        if tables is None:
            yield Finding(key, Level.NOTE, f"tables could not be counted in time ({key})")
        elif tables.count:
            yield Finding(key, level, f"{_listed(tables)} {what}", mend)
        else:
            yield ok(key, f"every table is as it should be ({key})")


def _listed(tables: Tables) -> str:
    more = ", …" if tables.count > len(tables.names) else ""
    number = "1 table" if tables.count == 1 else f"{tables.count} tables"
    return f"{number} ({', '.join(tables.names)}{more})"


def _replication(facts: Facts) -> Iterator[Finding]:
    """Packets, and several sources; ``core/change/adopt.py`` judges which source it follows."""
    if len(facts.upstreams) > 1:
        sources = names(f"{up.channel or 'default'}: {up.address}" for up in facts.upstreams)
        text = f"it follows several sources ({sources})"
        yield Finding("sources", Level.WRONG, text, "reset all connections but the default one")
    elif facts.upstreams and facts.upstreams[0].channel:
        text = f"it follows by a connection of the name {facts.upstreams[0].channel!r}"
        yield Finding(
            "sources", Level.WRONG, text, "set it up as the default connection, without name"
        )
    else:
        yield ok("sources", "it follows one source at most")
    if delay := max((up.delay_seconds for up in facts.upstreams), default=0):
        text = f"it applies {delay} s late on purpose: it could not take over before that"
        how = "MASTER_DELAY" if facts.flavor is Flavor.MARIADB else "SOURCE_DELAY"
        yield Finding("delay", Level.WRONG, text, f"{how} = 0, or leave it out of the cluster")
    side = "slave" if facts.flavor is Flavor.MARIADB else "replica"
    packet = int(facts.variables.get("max_allowed_packet", "0") or 0)
    taken = int(facts.variables.get(f"{side}_max_allowed_packet", "0") or 0)
    if taken and taken < packet:
        text = f"{side}_max_allowed_packet ({taken}) is less than max_allowed_packet ({packet})"
        mend = f"SET GLOBAL {side}_max_allowed_packet = 1073741824, and in {facts.boot.file}"
        yield Finding("packets", Level.WARNING, f"{text}: a large row stops a replica", mend)
    else:
        yield ok("packets", "replicas take all that the primary takes")
