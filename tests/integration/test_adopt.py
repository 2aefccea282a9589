"""An existing cluster is taken over under load, or refused with all that stands against it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from holdfast.cli.main import app
from holdfast.core.gtid import Flavor
from tests.integration.classic import CLUSTER, OLD, Classic, classic, follow
from tests.integration.servers import wait_until

SEMI_SYNC: dict[Flavor, tuple[dict[str, str | int], dict[str, str | int]]] = {
    Flavor.MARIADB: (
        {"rpl_semi_sync_master_enabled": "ON"},
        {"rpl_semi_sync_slave_enabled": "ON"},
    ),
    Flavor.MYSQL: (
        {"plugin-load-add": "semisync_source.so", "rpl_semi_sync_source_enabled": "ON"},
        {"plugin-load-add": "semisync_replica.so", "rpl_semi_sync_replica_enabled": "ON"},
    ),
}
"""How a primary and its replicas may have been set up before: with a time-out of ten seconds."""


def adopt(cluster: Classic, *further: str) -> Result:
    return CliRunner().invoke(app, ["adopt", *cluster.arguments, "--cluster", CLUSTER, *further])


def refused(cluster: Classic) -> list[str]:
    """All that stands against it; nothing was done."""
    result = adopt(cluster, "--json", "--dry-run")
    assert result.exit_code == 1, result.output
    assert adopt(cluster, "--yes").exit_code != 0
    assert cluster.status()["primary"] is None
    return list(json.loads(result.stdout)["against"])


def follows_as(cluster: Classic, number: int) -> str:
    row = cluster.servers[number].bare.sql("SHOW REPLICA STATUS")[0]
    return str(row.get("Source_User") or row.get("Master_User"))


@pytest.fixture(scope="module")
def unadopted(flavor: Flavor) -> Iterator[Classic]:
    """Each test leaves it as it was."""
    with classic(flavor) as made:
        made.start_daemons()
        yield made


def test_under_load_it_becomes_whole_and_survives_the_loss_of_its_primary(flavor: Flavor) -> None:
    with classic(flavor) as running, running.writing() as workload:
        running.start_daemons()
        begun = workload.report().times()[-1]
        result = adopt(running, "--yes", "--timeout", "60")
        assert result.exit_code == 0, f"{result.output}\n{result.exception}\n{running.logs()}"
        status = running.status()
        assert (status["primary"], status["acks"], status["mode"]) == ("m1", 1, "strong")
        assert {member["role"] for member in status["members"]} == {"primary", "voter"}
        for number in (1, 2):
            assert follows_as(running, number) == running.servers[number].account.user
        gap = workload.report().gaps_after(begun)[0]
        print(f"\nlongest gap between acknowledged writes while adopting: {gap.ms:.0f} ms")
        flushed = running.primary.sql(
            "SELECT @@sync_binlog AS b, @@innodb_flush_log_at_trx_commit AS r"
        )
        assert flushed == [{"b": 1, "r": 1}]
        relaxed = running.servers[0].folder / "state" / "relaxed"
        wait_until(lambda: not relaxed.exists(), 10, "what was not flushed before is on disk")
        again = adopt(running, "--yes")
        assert again.exit_code == 1
        assert "managed already" in str(again.exception)

        before = workload.acknowledged()
        running.primary.kill()
        wait_until(
            lambda: running.status()["primary"] != "m1" and workload.acknowledged() > before + 100,
            30,
            "another takes over and is written to",
        )
        report = workload.stop()
        running.wait_whole()
        assert running.servers[0].process().find() is not None, "its agent has started it"
        running.check(report)


def wait_carried_out(running: Classic, commands: int) -> None:
    wait_until(lambda: carried_out(running) >= commands, 20, "it has begun")


def test_killed_while_it_adopts_a_manager_leaves_what_another_goes_on_with(flavor: Flavor) -> None:
    """It was semi-sync, and must not wait for replicas that acknowledge no more. Accounts have other passwords."""
    primary, replica = SEMI_SYNC[flavor]
    with (
        classic(flavor, extra={0: primary, 1: replica, 2: replica}) as running,
        running.writing() as workload,
    ):
        for server in running.servers:
            running.primary.sql(f"CREATE USER '{server.account.user}'@'%' IDENTIFIED BY 'other'")
        running.start_daemons()
        for commands in (2, 7):
            attempt = threading.Thread(target=adopt, args=(running, "--yes"))
            attempt.start()
            wait_carried_out(running, commands)
            running.kill_manager()
            attempt.join(30)
            running.start_manager()
        if running.status()["primary"] is None:
            result = adopt(running, "--yes")
            assert result.exit_code == 0, f"{result.output}\n{result.exception}\n{running.logs()}"
        running.wait_whole()
        report = workload.stop()
        assert report.gaps_after(0)[0].ms < 9000, "nothing waited for a time-out"
        running.check(report)


def carried_out(cluster: Classic) -> int:
    """How many commands this manager has had carried out."""
    events = cluster.client.events(CLUSTER, 0, 0)
    return len([event for event in events if event["kind"] == "command"])


def test_without_an_order_a_running_cluster_is_left_alone(unadopted: Classic) -> None:
    reason = unadopted.status()["reason"]
    assert any(each in reason for each in ("holdfast adopt", "starting", "no answer yet"))
    assert not [e for e in unadopted.client.events(CLUSTER, 0, 0) if e["kind"] == "command"]


def test_a_dry_run_tells_the_plan_and_does_nothing(unadopted: Classic) -> None:
    result = adopt(unadopted, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "m1 is primary and stays it" in result.output
    assert "m2, m3" in result.output
    assert unadopted.status()["primary"] is None
    assert follows_as(unadopted, 1) == OLD.user
    users = {row["User"] for row in unadopted.primary.sql("SELECT User FROM mysql.user")}
    assert not any(user.startswith("repl_") for user in users)


def test_members_that_the_manager_does_not_have_are_refused(unadopted: Classic) -> None:
    result = adopt(unadopted, "--dry-run", "--member", f"m9={unadopted.servers[0].agent_url}")
    assert result.exit_code == 1
    assert "the manager's file has other members" in str(result.exception)


def test_two_servers_that_take_writes_are_refused(unadopted: Classic) -> None:
    second = unadopted.servers[1].bare
    second.sql("SET GLOBAL read_only = 0")
    assert any("m1 and m2 take writes" in reason for reason in refused(unadopted))
    second.sql("SET GLOBAL read_only = 1")


def test_a_replica_that_does_not_follow_the_primary_is_refused(unadopted: Classic) -> None:
    second, third = (server.bare for server in unadopted.servers[1:])
    second.sql("STOP REPLICA")
    third.sql("STOP REPLICA", "RESET REPLICA ALL")
    reasons = refused(unadopted)
    assert any("m2 does not replicate" in reason for reason in reasons), reasons
    assert any("m3 does not replicate: let it" in reason for reason in reasons), reasons
    second.sql("START REPLICA")
    follow(third, second)
    wait_until(
        lambda: any("m3 follows m2" in reason for reason in refused(unadopted)), 10, "a chain"
    )
    third.sql("STOP REPLICA", "RESET REPLICA ALL")
    follow(third, unadopted.primary, gtid=False)
    wait_until(
        lambda: any("m3 replicates by file and position" in r for r in refused(unadopted)),
        10,
        "a replica without GTIDs",
    )
    third.sql("STOP REPLICA", "RESET REPLICA ALL")
    follow(third, unadopted.primary)
    unadopted.wait_level()


def test_what_a_check_finds_wrong_is_refused(unadopted: Classic) -> None:
    third = unadopted.servers[2]
    third.write_option_file(read_only="OFF", binlog_format="STATEMENT")
    wrong = [reason for reason in refused(unadopted) if reason.startswith("m3: the option file")]
    assert len(wrong) == 2, wrong
    third.write_option_file()


def test_a_replica_with_a_transaction_of_its_own_is_refused(unadopted: Classic) -> None:
    """The last one: it cannot be undone."""
    unadopted.servers[1].bare.sql("CREATE TABLE app.stray (id INT PRIMARY KEY)")
    assert any("m2 has transactions that m1 lacks" in reason for reason in refused(unadopted))
