"""How often replication was steered in this run of a server, by whomever: what an agent that was away can ask."""

from __future__ import annotations

from holdfast.core.gtid import Flavor
from holdfast.server.base import Deadline
from holdfast.server.sql import Connection

COUNTERS = {
    Flavor.MARIADB: (
        "Com_change_master",
        "Com_reset",
        "Com_start_all_slaves",
        "Com_start_slave",
        "Com_stop_all_slaves",
        "Com_stop_slave",
    ),
    Flavor.MYSQL: (
        "Com_change_replication_source",
        "Com_change_repl_filter",
        "Com_replica_start",
        "Com_replica_stop",
        "Com_reset",
    ),
}
"""They only grow, also over FLUSH STATUS, and begin anew with the server."""


def steered(eyes: Connection, flavor: Flavor, deadline: Deadline) -> int:
    """How many statements of the kinds that can take away what was received the server has executed."""
    names = ", ".join(f"'{name}'" for name in COUNTERS[flavor])
    rows = eyes.look(f"SHOW GLOBAL STATUS WHERE Variable_name IN ({names})", deadline)
    return sum(int(row["Value"]) for row in rows)
