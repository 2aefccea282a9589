"""The option file (``my.cnf``) of a member: what Holdfast's promises require of a stock server.

A member boots read-only, following no source, with semi-sync off on both sides: the agent gives it its role over SQL
after the boot. Nothing is ever written with ``SET PERSIST``. An agent does not trust the file: it also forces on the
command line what the promise requires of a boot (``forced.py``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput
from holdfast.server.connection import encryption
from holdfast.tls import Files

BINLOG = "binlog"
"""Base name of the binary log's files, in the data directory."""

NET_TIMEOUT_SECONDS = 1
"""After this much silence (heartbeats included) a receiver drops its connection: so a frozen source is noticed."""

BINLOG_EXPIRE_SECONDS = 7 * 86400

Value = str | int

_OURS = frozenset(
    {
        "datadir",
        "socket",
        "port",
        "server_id",
        "log_bin",
        "read_only",
        "super_read_only",
        "skip_slave_start",
        "skip_replica_start",
        "log_slave_updates",
        "log_replica_updates",
        "gtid_mode",
        "enforce_gtid_consistency",
        "gtid_strict_mode",
        "gtid_domain_id",
        "binlog_format",
        "binlog_row_image",
        "relay_log_recovery",
        "binlog_checksum",
        "rpl_semi_sync_master_enabled",
        "rpl_semi_sync_slave_enabled",
        "rpl_semi_sync_source_enabled",
        "rpl_semi_sync_replica_enabled",
        "rpl_semi_sync_master_timeout",
        "rpl_semi_sync_source_timeout",
        "rpl_semi_sync_master_wait_point",
        "rpl_semi_sync_source_wait_point",
        "rpl_semi_sync_master_wait_no_slave",
        "rpl_semi_sync_source_wait_no_replica",
        "init_rpl_role",
    }
)
"""Options on which the promise rests: an operator cannot override them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerOptions:
    """The content of a member's option file. Memory is small unless ``buffer_pool_mb`` says more. Files that are not
    named are put into ``datadir``.

    :ivar cpus: of the database host; this host's if not given
    :ivar tmpdir: a folder of this server's own: when MariaDB starts, it removes the temporary tables that it finds
        there, also those of another server
    :ivar tls: the server's certificate, and the CA that must have signed those of others
    :ivar extra: an operator's own options, by name; they override the defaults given here
    """

    flavor: Flavor
    datadir: Path
    tmpdir: Path
    socket: Path
    port: int
    server_id: int
    bind_address: str = "127.0.0.1"
    pid_file: Path | None = None
    error_log: Path | None = None
    buffer_pool_mb: int = 128
    max_connections: int = 500
    cpus: int | None = None
    tls: Files | None = None
    extra: Mapping[str, Value] | None = None

    def render(self) -> str:
        """The text of the file.

        :raises BadInput: ``extra`` names an option on which the promise rests
        """
        options: dict[str, Value] = {
            "datadir": str(self.datadir),
            "tmpdir": str(self.tmpdir),
            "socket": str(self.socket),
            "port": self.port,
            "bind_address": self.bind_address,
            "server_id": self.server_id,
            "pid_file": str(self.pid_file or self.datadir / "server.pid"),
            "log_error": str(self.error_log or self.datadir / "error.log"),
            "max_connections": self.max_connections,
            "innodb_buffer_pool_size": f"{self.buffer_pool_mb}M",
            **encryption.option_file(self.tls),
            **_SHARED,
            **(_MARIADB if self.flavor is Flavor.MARIADB else _MYSQL),
        }
        if self.flavor is Flavor.MYSQL:
            # on two cores, four workers cost a fifth more per transaction than two
            workers = max(2, min(8, self.cpus or os.cpu_count() or 2))
            options["replica_parallel_workers"] = workers
        for name, value in (self.extra or {}).items():
            options[_allowed(name, value)] = value
        lines = [f"{name} = {value}" for name, value in options.items()]
        if self.flavor is Flavor.MYSQL:
            lines += [f"plugin-load-add = {plugin}" for plugin in _MYSQL_PLUGINS]
        return "\n".join(["[mysqld]", *lines, ""])


def _allowed(name: str, value: Value) -> str:
    """The option's name with underscores, without a prefix."""
    option = name.replace("-", "_").lower()
    bare = option.removeprefix("loose_")
    negated = bare.removeprefix("skip_").removeprefix("disable_").removeprefix("enable_")
    if not _OURS.isdisjoint({bare, negated}):
        raise BadInput(f"server.options.{name}", "is set by Holdfast and cannot be overridden")
    if not option.isidentifier() or "\n" in str(value):
        raise BadInput(f"server.options.{name!r}", "must be one option with one value")
    return option


_SHARED: dict[str, Value] = {
    "skip_name_resolve": "ON",
    "character_set_server": "utf8mb4",
    "log_bin": BINLOG,
    "relay_log": "relay",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",  # rewinding needs both images
    "binlog_checksum": "CRC32",
    "binlog_expire_logs_seconds": BINLOG_EXPIRE_SECONDS,
    # a returning primary reads all of its last file before it starts: some seconds for each 100 MB
    "max_binlog_size": 128 * 1024 * 1024,
    "read_only": "ON",
    # durable at boot: the agent relaxes a replica when it makes it follow
    "sync_binlog": 1,
    "innodb_flush_log_at_trx_commit": 1,
    "innodb_autoinc_lock_mode": 2,
}

_MARIADB: dict[str, Value] = {
    "skip_slave_start": "ON",
    "log_slave_updates": "ON",
    "gtid_strict_mode": "ON",
    "gtid_domain_id": 0,
    "performance_schema": "OFF",
    "slave_net_timeout": NET_TIMEOUT_SECONDS,
    "slave_parallel_threads": 4,
    "slave_parallel_mode": "optimistic",
    "rpl_semi_sync_master_enabled": "OFF",
    "rpl_semi_sync_slave_enabled": "OFF",
    "rpl_semi_sync_master_wait_point": "AFTER_SYNC",  # the default is AFTER_COMMIT
    "rpl_semi_sync_master_wait_no_slave": "ON",
    "rpl_semi_sync_master_timeout": 18446744073709551615,
    # stopping a receiver opens a connection to a source that may be frozen
    "rpl_semi_sync_slave_kill_conn_timeout": 1,
}

_MYSQL: dict[str, Value] = {
    "skip_replica_start": "ON",
    "super_read_only": "ON",
    "log_replica_updates": "ON",
    "gtid_mode": "ON",
    "enforce_gtid_consistency": "ON",
    "mysqlx": "OFF",
    "performance_schema": "ON",  # the state of replication is read there
    "performance_schema_instrument": "memory/%=OFF",  # a twentieth of a replica's work
    # recovery would drop what this server received, acknowledged and had not applied
    "relay_log_recovery": "OFF",
    "replica_net_timeout": NET_TIMEOUT_SECONDS,
    "replica_preserve_commit_order": "ON",
    "rpl_semi_sync_source_enabled": "OFF",
    "rpl_semi_sync_replica_enabled": "OFF",
    "rpl_semi_sync_source_wait_point": "AFTER_SYNC",
    "rpl_semi_sync_source_wait_no_replica": "ON",
    "rpl_semi_sync_source_timeout": 4294967295,
}

_MYSQL_PLUGINS = ("mysql_clone.so", "semisync_source.so", "semisync_replica.so")
