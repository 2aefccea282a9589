"""The settings that the promise requires of a server: as it runs, and as it would boot.

``server/process/optionfile.py`` renders an option file that meets them all, and gives more of the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from holdfast.core.check.facts import Boot, Facts
from holdfast.core.check.findings import Finding, Level, ok
from holdfast.core.gtid import Flavor

PERSISTED = "mysqld-auto.cnf"
"""The file of variables that MySQL keeps (SET PERSIST), in its data directory."""

SWITCHES = {"1": "ON", "YES": "ON", "TRUE": "ON", "0": "OFF", "NO": "OFF", "FALSE": "OFF"}


@dataclass(frozen=True, slots=True)
class Demand:
    """One variable.

    :ivar default: the server's default, if the option file does not name it
    :ivar running: how bad another value is now; None if the running value says nothing, or is set by the agent
    :ivar boot: how bad another value is in the option file
    """

    key: str
    name: str
    wanted: str
    default: str
    running: Level | None
    boot: Level | None
    why: str

    def met_by(self, value: str) -> bool:
        return same_value(value, self.wanted)


def same_value(one: str, other: str) -> bool:
    """Whether both mean the same to a server: 1 and ON, for instance."""
    one, other = one.upper(), other.upper()
    return SWITCHES.get(one, one) == SWITCHES.get(other, other)


_WRONG, _WARNING, _NOTE = Level.WRONG, Level.WARNING, Level.NOTE

_IMAGES = "what was never acknowledged is undone from full row images"
_DURABLE = "a primary that loses its host must find what it has acknowledged"
_SOON = "a primary that is frozen is noticed after that many seconds"
_READ_ONLY = "a server that comes back must not take writes before it is known to be primary"
_ATTACHED = (
    "a server that comes back must follow nobody before its binlog was compared with the primary's"
)
_SOURCE_SIDE = "the agent switches it on when the server is made primary"
_REPLICA_SIDE = "the agent switches it on when the member votes"
_WAIT_POINT = "else others see rows that a failover takes back; Holdfast sets it on a primary"
_WAIT_ALONE = (
    "else commits are acknowledged at once when no replica is left; Holdfast sets it on a primary"
)
_ANYBODY = "anyone may do anything then, also on a read-only server"
_INIT_FILE = "it may open a server, or write on it; the agent starts the server without it"
_CUT_BY_ITSELF = (
    "unless its agent starts it, the server cuts its binlog at the first transaction that was prepared only, "
    "which may be one that was acknowledged"
)
_LOCAL = "statements give other rows elsewhere, and cannot be undone"
_HIDDEN = "an applier that skips errors makes members differ silently"
_UNREAD = "the end of a crashed primary's binlog cannot be read then: that member must be cloned"

_SHARED = (
    Demand("row-format", "binlog_format", "ROW", "", _WRONG, _WRONG, _LOCAL),
    Demand("row-image", "binlog_row_image", "FULL", "FULL", _WRONG, _WRONG, _IMAGES),
    Demand("checksum", "binlog_checksum", "CRC32", "CRC32", _WARNING, _WARNING,
           "a damaged binlog is not noticed"),
    Demand("read-only", "read_only", "ON", "OFF", None, _WRONG, _READ_ONLY),
    Demand("grants", "skip_grant_tables", "OFF", "OFF", None, _WRONG, _ANYBODY),
    Demand("init-file", "init_file", "", "", None, _WARNING, _INIT_FILE),
    Demand("flush", "innodb_flush_log_at_trx_commit", "1", "1", None, _WARNING, _DURABLE),
)  # fmt: skip

_MARIADB = (
    Demand("gtid", "gtid_strict_mode", "ON", "OFF", _WRONG, _WRONG,
           "servers that have diverged would go on replicating"),
    Demand("applied-changes", "log_slave_updates", "ON", "OFF", _WRONG, _WRONG,
           "a replica that takes over must have in its binlog what it applied"),
    Demand("auto-start", "skip_slave_start", "ON", "OFF", None, _WRONG, _ATTACHED),
    Demand("crash-recovery", "init_rpl_role", "MASTER", "MASTER", None, _WRONG, _CUT_BY_ITSELF),
    Demand("flush", "sync_binlog", "1", "0", None, _WARNING, _DURABLE),
    Demand("net-timeout", "slave_net_timeout", "1", "60", _WARNING, _WARNING, _SOON),
    Demand("semi-sync", "rpl_semi_sync_master_enabled", "OFF", "OFF", None, _WARNING, _SOURCE_SIDE),
    Demand("semi-sync", "rpl_semi_sync_slave_enabled", "OFF", "OFF", None, _WARNING, _REPLICA_SIDE),
    Demand("wait-point", "rpl_semi_sync_master_wait_point", "AFTER_SYNC", "AFTER_COMMIT",
           None, _WARNING, _WAIT_POINT),
    Demand("wait-alone", "rpl_semi_sync_master_wait_no_slave", "ON", "ON",
           _WARNING, _WARNING, _WAIT_ALONE),
    Demand("applier-errors", "slave_skip_errors", "OFF", "OFF", _WRONG, _WRONG, _HIDDEN),
    Demand("applier-errors", "slave_exec_mode", "STRICT", "STRICT", _WRONG, _WRONG, _HIDDEN),
    Demand("readable-binlog", "encrypt_binlog", "OFF", "OFF", _WARNING, _WARNING, _UNREAD),
    Demand("readable-binlog", "log_bin_compress", "OFF", "OFF", _WARNING, _WARNING, _UNREAD),
)  # fmt: skip

_MYSQL = (
    Demand("gtid", "gtid_mode", "ON", "OFF", _WRONG, _WRONG, "positions are GTIDs"),
    Demand("gtid", "enforce_gtid_consistency", "ON", "OFF", _WRONG, _WRONG,
           "statements that no GTID can name would break replication"),
    Demand("applied-changes", "log_replica_updates", "ON", "ON", _WRONG, _WRONG,
           "a replica that takes over must have in its binlog what it applied"),
    Demand("relay-log", "relay_log_recovery", "OFF", "OFF", _WRONG, _WRONG,
           "recovery drops what this server has received, acknowledged and not applied yet"),
    Demand("auto-start", "skip_replica_start", "ON", "OFF", None, _WRONG, _ATTACHED),
    Demand("read-only", "super_read_only", "ON", "OFF", None, _WARNING, _READ_ONLY),
    Demand("flush", "sync_binlog", "1", "1", None, _WARNING, _DURABLE),
    Demand("net-timeout", "replica_net_timeout", "1", "60", _WARNING, _WARNING, _SOON),
    Demand("performance-schema", "performance_schema", "ON", "ON", _WRONG, _WRONG,
           "the state of replication is read there"),
    Demand("commit-order", "replica_preserve_commit_order", "ON", "ON", _WARNING, _WARNING,
           "a replica would show commits in another order than they were made"),
    Demand("semi-sync", "rpl_semi_sync_source_enabled", "OFF", "OFF", None, _WRONG,
           f"a replica's applier hangs while it is on; {_SOURCE_SIDE}"),
    Demand("semi-sync", "rpl_semi_sync_replica_enabled", "OFF", "OFF", None, _WARNING,
           _REPLICA_SIDE),
    Demand("wait-point", "rpl_semi_sync_source_wait_point", "AFTER_SYNC", "AFTER_SYNC",
           None, _WARNING, _WAIT_POINT),
    Demand("wait-alone", "rpl_semi_sync_source_wait_no_replica", "ON", "ON",
           _WARNING, _WARNING, _WAIT_ALONE),
    Demand("applier-errors", "replica_skip_errors", "OFF", "OFF", _WRONG, _WRONG, _HIDDEN),
    Demand("applier-errors", "replica_exec_mode", "STRICT", "STRICT", _WRONG, _WRONG, _HIDDEN),
    Demand("readable-binlog", "binlog_encryption", "OFF", "OFF", _WARNING, _WARNING, _UNREAD),
    Demand("readable-binlog", "binlog_transaction_compression", "OFF", "OFF",
           _WARNING, _WARNING, _UNREAD),
)  # fmt: skip

_FORMAT = {Flavor.MARIADB: "MIXED", Flavor.MYSQL: "ROW"}

LARGEST_BINLOG = 256 * 1024 * 1024
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}


def demands(flavor: Flavor) -> tuple[Demand, ...]:
    return _SHARED + (_MARIADB if flavor is Flavor.MARIADB else _MYSQL)


def variables(flavor: Flavor) -> frozenset[str]:
    """Names of the variables that are checked on the running server."""
    return frozenset(demand.name for demand in demands(flavor))


def check_settings(facts: Facts) -> Iterator[Finding]:
    for demand in demands(facts.flavor):
        yield _judged(facts, demand)
    yield _binlog(facts)
    yield _file_size(facts)


def _judged(facts: Facts, demand: Demand) -> Finding:
    name, wanted, file = demand.name, demand.wanted, facts.boot.file
    text: list[str] = []
    mend: list[str] = []
    level = Level.OK
    running = facts.variables.get(name)
    if demand.running and running is not None and not demand.met_by(running):
        level = demand.running
        origin = facts.origins.get(name)
        text.append(f"{name} is {running or 'empty'} now{f' (from {origin})' if origin else ''}")
        mend.append(_now(demand))
    if demand.boot and not facts.boot.problem:
        booted = facts.boot.options.get(name, _default(demand, facts.flavor))
        if not demand.met_by(booted):
            level = max(level, demand.boot, key=list(Level).index)
            source = facts.boot.source(name)
            if name not in facts.boot.options:
                text.append(f"the option file leaves {name} = {booted}")
            elif source == file:
                text.append(f"the option file says {name} = {booted}")
            else:
                text.append(f"{source} says {name} = {booted}")
            mend.append(_in_files(name, wanted, source))
    if level is Level.OK:
        return ok(demand.key, f"{name} is {wanted or 'not set'}")
    return Finding(demand.key, level, f"{', and '.join(text)}: {demand.why}", "; ".join(mend))


def _in_files(name: str, wanted: str, source: str) -> str:
    """:param source: the file that the value comes from"""
    if PurePath(source).name == PERSISTED:
        return f"RESET PERSIST IF EXISTS {name}"
    return f"put {name} = {wanted} into {source}" if wanted else f"take {name} out of {source}"


def _default(demand: Demand, flavor: Flavor) -> str:
    return _FORMAT[flavor] if demand.name == "binlog_format" else demand.default


_AT_BOOT_ONLY = frozenset(
    {
        "log_slave_updates",
        "log_replica_updates",
        "relay_log_recovery",
        "performance_schema",
        "slave_skip_errors",
        "replica_skip_errors",
    }
)
_OWN_VALUE = frozenset({"binlog_format", "binlog_row_image"})
"""Each session has its own value, which it takes from the global one when it begins."""


def _now(demand: Demand) -> str:
    if demand.name in _AT_BOOT_ONLY:
        return "restart it afterwards"
    if demand.name == "gtid_mode":
        return "switch it on step by step, as MySQL's manual says"
    again = "; clients connect anew" if demand.name in _OWN_VALUE else ""
    return f"SET GLOBAL {demand.name} = {demand.wanted}{again}"


def _binlog(facts: Facts) -> Finding:
    """In the option file the binary log has a name; on the running server it is ON or OFF."""
    boots = facts.boot.options.get("log_bin", "ON" if facts.flavor is Flavor.MYSQL else "OFF")
    if "log_bin" in facts.variables and not facts.on("log_bin"):
        mend = f"put log_bin = binlog into {facts.boot.file}; restart it afterwards"
        return Finding("binlog", Level.WRONG, "it runs without a binary log", mend)
    if not facts.boot.problem and boots.upper() == "OFF":
        mend = f"put log_bin into {facts.boot.file}, with the name that it has now"
        return Finding("binlog", Level.WRONG, "the option file leaves the binary log off", mend)
    if not facts.problem and not facts.binlog_index_found:
        text = "the binary log's index is not where the agent's configuration says"
        return Finding(
            "binlog", Level.WRONG, text, "correct server.binlog_index in the agent's file"
        )
    return ok("binlog", "the binary log is on")


def _file_size(facts: Facts) -> Finding:
    size = _bytes(facts.boot.options.get("max_binlog_size", "1G"))
    if not facts.boot.problem and size > LARGEST_BINLOG:
        return Finding(
            "binlog-size",
            Level.NOTE,
            f"binlogs grow to {size >> 20} MB: a primary that crashed reads its last one through before it comes "
            "back, some seconds for each 100 MB",
            f"put max_binlog_size = 128M into {facts.boot.file}",
        )
    return ok("binlog-size", "binlogs are of a size that is read through quickly")


def _bytes(text: str) -> int:
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    return int(number) * _UNITS.get(unit, 1) if number.isdecimal() else 0


def booted(boot: Boot, name: str, default: str) -> str:
    return boot.options.get(name, default)
