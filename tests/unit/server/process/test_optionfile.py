"""The option file contains what the promises depend on, and an operator cannot override it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput
from holdfast.server.process import optionfile
from holdfast.server.process.optionfile import Value


def rendered(flavor: Flavor, extra: Mapping[str, Value] | None = None) -> dict[str, str]:
    text = optionfile.ServerOptions(
        flavor=flavor,
        datadir=Path("/data"),
        tmpdir=Path("/tmp/own"),
        socket=Path("/run/sock"),
        port=3306,
        server_id=7,
        extra=extra,
    ).render()
    head, *lines = text.splitlines()
    assert head == "[mysqld]"
    pairs = [line.split(" = ", 1) for line in lines]
    return dict(pairs)


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_member_boots_durable_read_only_and_following_nobody(flavor: Flavor) -> None:
    options = rendered(flavor)
    assert options["read_only"] == "ON"
    assert options["sync_binlog"] == options["innodb_flush_log_at_trx_commit"] == "1"
    assert options["server_id"] == "7"
    skip = "skip_slave_start" if flavor is Flavor.MARIADB else "skip_replica_start"
    assert options[skip] == "ON"
    assert all(value == "OFF" for name, value in options.items() if name.endswith("_enabled"))


def test_semi_sync_waits_after_sync_for_ever() -> None:
    maria, my = rendered(Flavor.MARIADB), rendered(Flavor.MYSQL)
    assert maria["rpl_semi_sync_master_wait_point"] == "AFTER_SYNC"
    assert my["rpl_semi_sync_source_wait_point"] == "AFTER_SYNC"
    assert maria["rpl_semi_sync_master_timeout"] == str(2**64 - 1)
    assert my["rpl_semi_sync_source_timeout"] == str(2**32 - 1)
    assert maria["rpl_semi_sync_master_wait_no_slave"] == "ON"
    assert my["rpl_semi_sync_source_wait_no_replica"] == "ON"


def test_mysql_keeps_its_relay_log_and_loads_semi_sync() -> None:
    options = rendered(Flavor.MYSQL)
    assert options["relay_log_recovery"] == "OFF"
    assert options["super_read_only"] == "ON"
    assert options["plugin-load-add"].startswith("semisync_")


def test_a_persons_options_win_over_defaults() -> None:
    options = rendered(Flavor.MYSQL, {"max-connections": 20, "innodb_buffer_pool_size": "4G"})
    assert options["max_connections"] == "20"
    assert options["innodb_buffer_pool_size"] == "4G"


@pytest.mark.parametrize(
    "name",
    ["relay_log_recovery", "loose-relay-log-recovery", "READ_ONLY", "gtid-strict-mode", "log_bin"],
)
def test_what_the_promise_rests_on_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=name):
        rendered(Flavor.MYSQL, {name: "ON"})


@pytest.mark.parametrize("name", ["skip-log-bin", "disable_log_bin", "skip-slave-start=0\nlog_bin"])
def test_no_way_around(name: str) -> None:
    with pytest.raises(BadInput):
        rendered(Flavor.MARIADB, {name: "1"})
