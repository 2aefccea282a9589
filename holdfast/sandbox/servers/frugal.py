"""Options that make a server small that runs beside others for a while: half of a MySQL's memory, a fifth of its
start."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.core.gtid import Flavor
from holdfast.server.process.optionfile import Value

_OPTIONS: Mapping[Flavor, Mapping[str, Value]] = {
    Flavor.MARIADB: {},
    Flavor.MYSQL: {
        "innodb_log_buffer_size": "1M",
        # Holdfast reads nothing that these tables would hold
        "performance_schema_digests_size": 100,
        "performance_schema_error_size": 0,
        "performance_schema_events_stages_history_long_size": 0,
        "performance_schema_events_statements_history_long_size": 0,
        "performance_schema_events_transactions_history_long_size": 0,
        "performance_schema_events_waits_history_long_size": 0,
        "performance_schema_max_digest_length": 0,
        "performance_schema_max_thread_instances": 600,
    },
}


def frugal(flavor: Flavor) -> dict[str, Value]:
    """Options by name; a user's own options override them."""
    return dict(_OPTIONS[flavor])
