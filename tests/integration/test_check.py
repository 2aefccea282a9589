"""``holdfast check`` on real servers: what is right is found right, and each fault is found."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pymysql
import pytest
from typer.testing import CliRunner, Result

from holdfast.cli.main import app
from holdfast.core.check.facts import Facts
from holdfast.core.check.findings import Level
from holdfast.core.check.member import check_member
from holdfast.core.gtid import Flavor
from holdfast.server.base import Account
from holdfast.server.inspect.facts import ServerPlace, collect
from tests.integration.classic import CLUSTER, Classic, classic
from tests.integration.servers import ADMIN, BareServer, bare_servers, wait_until


def check(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", *arguments])


def findings(result: Result) -> dict[str, dict[str, list[str]]]:
    """Member -> level -> keys."""
    found: dict[str, dict[str, list[str]]] = {}
    for member in json.loads(result.stdout)["members"]:
        levels: dict[str, list[str]] = {"unanswered": [member["unanswered"]]}
        for each in member["findings"]:
            levels.setdefault(each["level"], []).append(each["key"])
        found[member["member"]] = levels
    return found


@pytest.fixture(scope="module")
def running(flavor: Flavor) -> Iterator[Classic]:
    with classic(flavor, 2) as made:
        made.start_daemons()
        yield made


def ask(cluster: Classic, *further: str) -> Result:
    return check(*cluster.arguments, "--cluster", CLUSTER, "--json", *further)


def test_a_cluster_that_can_be_adopted_has_nothing_wrong(running: Classic) -> None:
    result = ask(running)
    assert result.exit_code == 0, result.output
    found = findings(result)
    for name in ("m1", "m2"):
        assert "wrong" not in found[name]
        # its own option file has the default: noticed in the running server, not in the agent's file
        assert "net-timeout" in found[name]["warning"]
        assert {"gtid", "same-server", "service", "privileges"} <= set(found[name]["ok"])
        # how much is free depends on this machine
        assert "disk" in {*found[name]["ok"], *found[name]["warning"]}
    assert "accounts" in found[""]["note"], "adopting makes them"
    assert ask(running, "--strict").exit_code == 1


def test_the_text_for_people_names_what_is_not_right_with_its_mend(running: Classic) -> None:
    result = check(*running.arguments, "--cluster", CLUSTER)
    assert result.exit_code == 0, result.output
    assert "net-timeout: " in result.output
    assert "_net_timeout = 1" in result.output
    assert "right   " in result.output


def test_agents_can_be_asked_without_a_manager(running: Classic) -> None:
    urls = [word for s in running.servers for word in ("--agent", s.agent_url)]
    result = check(*urls, "--token-file", str(running.token), "--json")
    assert result.exit_code == 0, result.output
    assert set(findings(result)) == {"m1", "m2", ""}


def test_an_agent_that_does_not_answer_is_told(running: Classic) -> None:
    urls = ["--agent", running.servers[0].agent_url, "--agent", "http://127.0.0.1:9"]
    result = check(*urls, "--token-file", str(running.token), "--json")
    assert result.exit_code == 3, result.output
    assert findings(result)["http://127.0.0.1:9"]["unanswered"] != [""]


def test_what_was_broken_is_found_and_mended_it_is_right_again(running: Classic) -> None:
    primary, replica = (server.bare for server in running.servers)
    side = "replica" if primary.flavor is Flavor.MYSQL else "slave"
    primary.sql(
        "CREATE TABLE app.odd (id INT) ENGINE=MyISAM",
        "CREATE TABLE app.keyless (id INT) ENGINE=InnoDB",
        "SET GLOBAL binlog_row_image = MINIMAL",
    )
    replica.sql(f"SET GLOBAL {side}_exec_mode = IDEMPOTENT")
    running.wait_level()
    running.servers[1].write_option_file(read_only="OFF", replicate_do_db="app")
    result = ask(running)
    assert result.exit_code == 1, result.output
    found = findings(result)
    assert found["m1"]["wrong"] == ["row-image"]
    assert {"engine", "primary-key"} <= set(found["m1"]["warning"])
    assert set(found["m2"]["wrong"]) == {"read-only", "filters", "applier-errors"}

    primary.sql(
        "DROP TABLE app.odd", "DROP TABLE app.keyless", "SET GLOBAL binlog_row_image = FULL"
    )
    replica.sql(f"SET GLOBAL {side}_exec_mode = STRICT")
    running.servers[1].write_option_file()
    running.wait_level()
    assert ask(running).exit_code == 0


def place(server: BareServer, admin: Account = ADMIN) -> ServerPlace:
    return ServerPlace(
        member="m1",
        flavor=server.flavor,
        option_file=server.option_file,
        datadir=server.datadir,
        socket=server.socket,
        binlog_index=server.datadir / "binlog.index",
        admin=admin,
        account="repl_m1",
        listen="127.0.0.1:1",
    )


def pid(server: BareServer) -> int:
    assert server.process is not None
    return server.process.pid


@pytest.fixture(scope="module")
def two(flavor: Flavor) -> Iterator[list[BareServer]]:
    with bare_servers(flavor, 2) as servers:
        yield servers


def not_ok(facts: Facts) -> dict[str, str]:
    bad = (Level.WRONG, Level.WARNING)
    return {each.key: each.text for each in check_member(facts) if each.level in bad}


def test_our_own_option_file_leaves_nothing_to_say(two: list[BareServer]) -> None:
    facts = collect(place(two[0]), pid(two[0]))
    roomy = replace(facts, spaces=())  # no demands on the machine that runs the test
    assert not_ok(roomy) == {}


def test_an_administrator_with_few_rights_is_told_what_is_missing(two: list[BareServer]) -> None:
    """What such an account cannot query is a problem, not an error."""
    server = two[0]
    read_only = ["SET GLOBAL super_read_only = 0"] if server.flavor is Flavor.MYSQL else []
    server.sql(
        *read_only,
        "SET sql_log_bin = 0",
        "CREATE USER 'few'@'localhost' IDENTIFIED BY 'few'",
        "GRANT SELECT, REPLICATION SLAVE ON *.* TO 'few'@'localhost'",
    )
    rights = "REPLICATION CLIENT" if server.flavor is Flavor.MYSQL else "SLAVE MONITOR"
    few = Account("few", "few")
    assert "REPLICA" in collect(place(server, few), None).problem
    server.sql("SET sql_log_bin = 0", f"GRANT {rights} ON *.* TO 'few'@'localhost'")
    facts = collect(place(server, few), pid(server))
    assert facts.problem == ""
    assert "SHUTDOWN" in not_ok(facts)["privileges"]
    wrong_password = collect(place(server, Account("few", "no")), None)
    assert "few" in wrong_password.problem
    assert "process" in not_ok(collect(place(server), None)), "answers, and is not found"


def test_nothing_waits_behind_a_commit_that_waits_for_an_acknowledgement(
    two: list[BareServer],
) -> None:
    server = two[1]
    super_off = ["SET GLOBAL super_read_only = 0"] if server.flavor is Flavor.MYSQL else []
    server.sql(*super_off, "CREATE TABLE app.t (id INT PRIMARY KEY)")
    side = server.adapter.dialect.names.prefix
    server.sql("SET GLOBAL read_only = 0", f"SET GLOBAL {side}_enabled = 1")
    writers = [
        threading.Thread(target=write, args=(server, number), daemon=True) for number in range(3)
    ]
    for each in writers:
        each.start()
    status = f"SHOW GLOBAL STATUS LIKE '{side}_wait_sessions'"
    wait_until(lambda: int(server.sql(status)[0]["Value"]) > 0, 5, "a commit waits")
    begun = time.monotonic()
    facts = collect(place(server), pid(server))
    took = time.monotonic() - begun
    assert facts.problem == ""
    assert facts.foreign is not None
    assert facts.keyless is not None
    assert took < 2, f"{took:.1f} s"
    server.kill()
    for each in writers:
        each.join(10)


def write(server: BareServer, number: int) -> Any:
    with suppress(pymysql.err.MySQLError, OSError):
        server.sql(f"INSERT INTO app.t VALUES ({number})")


def test_a_server_that_is_down_is_judged_by_its_files(two: list[BareServer]) -> None:
    """The last test: the server is not started again."""
    two[1].kill()
    facts = collect(place(two[1]), None)
    assert facts.problem
    assert facts.boot.options["read_only"] == "ON"
    assert [each.key for each in check_member(facts) if each.level is Level.WRONG] == ["server"]
