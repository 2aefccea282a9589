"""What an agent forces on the command line of the server that it starts, and how it verifies that the server obeyed.

An option file, a variable that MySQL keeps (``SET PERSIST``) or an init file may say otherwise, by a mistake or since
long ago: a server that boots open accepts writes that no other member has, before its agent has looked at it.

Found on MariaDB 10.11 and MySQL 9.7, by trying (``test_server_boot.py``):

* The command line overrides option files. MySQL's persisted variables override the command line, but not
  ``--persisted-globals-load=OFF``. So if one of them contradicts what is forced, they are not loaded, and all others
  are given on the command line. The file stays as it is.
* An init file runs with every privilege, before the first client. An empty name is an error on MySQL; ``/dev/null`` is
  an init file without a statement on both.
* Clients are kept out until the agent has looked: MySQL by ``offline_mode``, MariaDB by ``max_user_connections = -1``.
  Both let in accounts that may administer connections, such as the agent's, and both can be reset at run time. MariaDB
  does not keep out accounts with a limit of connections of their own. They find a server that is read-only, like all
  others.
* ``SHOW VARIABLES`` does not have ``init_rpl_role``, nor MariaDB's ``skip_slave_start``: its threads show that the
  server follows no source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.core.check.facts import Boot
from holdfast.core.check.variables import same_value
from holdfast.core.gtid import Flavor
from holdfast.server.process import boot

NO_FILE = "/dev/null"


@dataclass(frozen=True, slots=True)
class Forced:
    """One option.

    :ivar name: as the variable is called
    :ivar loose: a server that does not know it ignores it
    """

    name: str
    value: str
    loose: bool = False

    @property
    def argument(self) -> str:
        option = self.name.replace("_", "-")
        return f"--{'loose-' if self.loose else ''}{option}={self.value}"


_SHARED = (
    Forced("read_only", "ON"),
    Forced("init_file", NO_FILE),
    Forced("skip_grant_tables", "OFF"),  # else anybody may do anything, read-only or not
    # durable: until it is made to follow, nothing has recorded that it is not
    Forced("sync_binlog", "1"),
    Forced("innodb_flush_log_at_trx_commit", "1"),
    Forced("tc_heuristic_recover", "OFF", loose=True),
    # what was never acknowledged is undone from full row images
    Forced("binlog_format", "ROW", loose=True),
    Forced("binlog_row_image", "FULL"),
)
_MARIADB = (
    Forced("skip_slave_start", "ON"),
    Forced("init_rpl_role", "MASTER"),  # SLAVE cuts the binlog at the first prepared transaction
    Forced("rpl_semi_sync_master_enabled", "OFF"),
    Forced("rpl_semi_sync_slave_enabled", "OFF"),
    Forced("log_slave_updates", "ON"),
    Forced("gtid_strict_mode", "ON"),
    Forced("slave_skip_errors", "OFF"),
    Forced("slave_exec_mode", "STRICT"),
    Forced("replicate_events_marked_for_skip", "REPLICATE"),
)
_MYSQL = (
    Forced("super_read_only", "ON"),
    Forced("skip_replica_start", "ON"),
    Forced("relay_log_recovery", "OFF"),
    Forced("rpl_semi_sync_source_enabled", "OFF", loose=True),
    Forced("rpl_semi_sync_replica_enabled", "OFF", loose=True),
    Forced("group_replication_start_on_boot", "OFF", loose=True),
    Forced("log_replica_updates", "ON"),
    Forced("gtid_mode", "ON"),
    Forced("enforce_gtid_consistency", "ON"),
    Forced("replica_skip_errors", "OFF"),
    Forced("replica_exec_mode", "STRICT"),
)

DOOR = {
    Flavor.MARIADB: Forced("max_user_connections", "-1"),
    Flavor.MYSQL: Forced("offline_mode", "ON"),
}
"""What keeps clients out until the agent has looked at the server."""
DOOR_OPEN = {Flavor.MARIADB: "0", Flavor.MYSQL: "OFF"}
"""The servers' own defaults."""

SCHEDULER = "event_scheduler"
SCHEDULER_OFF = ("OFF", "DISABLED")


def forced(flavor: Flavor, files: Boot) -> tuple[Forced, ...]:
    """:param files: what the server would boot with"""
    # a scheduler that is disabled cannot be switched on later, and the operator wants that
    disabled = files.options.get(SCHEDULER, "").upper() == "DISABLED"
    scheduler = Forced(SCHEDULER, "DISABLED" if disabled else "OFF")
    own = _MARIADB if flavor is Flavor.MARIADB else _MYSQL
    return (*_SHARED, *own, scheduler)


def command_line(flavor: Flavor, option_file: Path, datadir: Path) -> tuple[str, ...]:
    """The options that follow ``--defaults-file``."""
    files = boot.read(option_file, flavor, "", datadir)
    ours = (*forced(flavor, files), DOOR[flavor])
    kept = boot.persisted(datadir) if flavor is Flavor.MYSQL else {}
    return (*_handed_over(ours, kept), *(each.argument for each in ours))


def _handed_over(ours: tuple[Forced, ...], kept: Mapping[str, str]) -> Iterator[str]:
    """Persisted variables as options, if the server must not load them."""
    values = {each.name: each.value for each in ours}
    named = {name: boot.known_as(name, Flavor.MYSQL) for name in kept}
    if all(same_value(kept[n], values[own]) for n, own in named.items() if own in values):
        return
    yield "--persisted-globals-load=OFF"
    for name, value in kept.items():
        if named[name] not in values:
            yield f"--loose-{name}={value}"


def contradictions(
    flavor: Flavor, files: Boot, variables: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Each variable of a server started in this way that has another value: name and value.

    :param variables: of the running server
    """
    for each in forced(flavor, files):
        value = variables.get(each.name)
        if value is None or same_value(value, each.value):
            continue
        if each.name == SCHEDULER and value.upper() in SCHEDULER_OFF:
            continue
        yield each.name, value
    if variables.get("log_bin", "ON").upper() in ("OFF", "0"):
        yield "log_bin", "OFF"
