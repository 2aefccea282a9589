"""A cluster that somebody else has set up is taken over under load, or refused with all that stands against it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from holdfast.cli.main import app
from holdfast.core.gtid import Flavor
from holdfast.sandbox.workload import Workload
from tests.integration.classic import CLUSTER, OLD, Classic, classic, follow
from tests.integration.servers import wait_until


def adopt(cluster: Classic, *further: str) -> Result:
    return CliRunner().invoke(
        app, ["adopt", *cluster.arguments, "--cluster", CLUSTER, *further], catch_exceptions=True
    )


def refused(cluster: Classic) -> list[str]:
    """All that stands against it; nothing was done."""
    result = adopt(cluster, "--json", "--dry-run")
    assert result.exit_code == 1, result.output
    assert adopt(cluster, "--yes").exit_code != 0
    assert cluster.status()["primary"] is None
    return list(json.loads(result.stdout)["against"])


@pytest.fixture
def running(flavor: Flavor) -> Iterator[Classic]:
    with classic(flavor) as made:
        made.start_daemons()
        yield made


@pytest.fixture
def writing(running: Classic) -> Iterator[Workload]:
    workload = running.workload()
    workload.start()
    yield workload
    workload.stop()


def test_under_load_it_becomes_whole_and_loses_its_primary_without_losing_a_write(
    running: Classic, writing: Workload
) -> None:
    wait_until(lambda: writing.acknowledged() > 200, 20, "writes before")
    begun = writing.report().times()[-1]
    result = adopt(running, "--yes", "--timeout", "60")
    assert result.exit_code == 0, f"{result.output}\n{result.exception}\n{running.logs()}"
    status = running.wait_whole(1)
    assert status["primary"] == "m1"
    assert status["acks"] == 1
    assert {member["role"] for member in status["members"]} == {"primary", "voter"}
    for server in running.servers[1:]:
        assert follows_as(running, server.name) == server.account.user
    before = writing.acknowledged()
    gap = writing.report().gaps_after(begun)[0]
    print(f"\nlongest gap between acknowledged writes while adopting: {gap.ms:.0f} ms")
    running.primary.kill()
    wait_until(
        lambda: running.status()["primary"] != "m1" and writing.acknowledged() > before + 100,
        30,
        f"another takes over; {running.logs()}",
    )
    report = writing.stop()
    status = running.wait_whole()
    assert running.servers[0].process().find() is not None
    running.check(report)


def follows_as(cluster: Classic, name: str) -> str:
    server = next(each.bare for each in cluster.servers if each.name == name)
    row = server.sql("SHOW REPLICA STATUS")[0]
    return str(row.get("Source_User") or row.get("Master_User"))


def test_a_dry_run_tells_the_plan_and_does_nothing(running: Classic) -> None:
    result = adopt(running, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "m1 is primary and stays it" in result.output
    assert "m2, m3" in result.output
    assert running.status()["primary"] is None
    assert follows_as(running, "m2") == OLD.user
    users = {row["User"] for row in running.primary.sql("SELECT User FROM mysql.user")}
    assert not any(user.startswith("repl_") for user in users)


def test_adopted_again_it_is_refused(running: Classic) -> None:
    assert adopt(running, "--yes").exit_code == 0
    result = adopt(running, "--yes")
    assert result.exit_code == 1
    assert "managed already" in str(result.exception)


def test_what_stands_against_it_is_told_at_once_and_nothing_is_done(running: Classic) -> None:
    second, third = running.servers[1:]
    # two that take writes
    second.bare.sql("SET GLOBAL read_only = 0")
    assert any("m1 and m2 both take writes" in reason for reason in refused(running))
    second.bare.sql("SET GLOBAL read_only = 1")
    # a chain
    third.bare.sql("STOP REPLICA", "RESET REPLICA ALL")
    assert any("m3 follows nobody" in reason for reason in refused(running))
    follow(third.bare, second.bare)
    wait_until(
        lambda: any("m3 follows m2" in reason for reason in refused(running)), 10, "seen as a chain"
    )
    third.bare.sql("STOP REPLICA", "RESET REPLICA ALL")
    # positions that are no GTIDs
    follow(third.bare, running.primary, gtid=False)
    wait_until(
        lambda: any("m3 replicates by file and position" in r for r in refused(running)),
        10,
        "seen to use no GTIDs",
    )
    third.bare.sql("STOP REPLICA", "RESET REPLICA ALL")
    follow(third.bare, running.primary)
    # a replica that stands still
    second.bare.sql("STOP REPLICA")
    assert any("m2 does not replicate" in reason for reason in refused(running))
    second.bare.sql("START REPLICA")
    # an option file that would boot it as something else
    third.write_option_file(read_only="OFF")
    against = refused(running)
    assert [reason for reason in against if reason.startswith("m3: the option file says read_only")]
    third.write_option_file()
    # what only a replica has
    closed = "SET GLOBAL super_read_only = 0"
    if running.primary.flavor is Flavor.MYSQL:
        second.bare.sql(closed)
    second.bare.sql("CREATE TABLE app.stray (id INT PRIMARY KEY)")
    wait_until(
        lambda: (
            any("m2 has transactions that m1 lacks" in r for r in refused(running))
            or running.primary.flavor is Flavor.MYSQL
        ),
        10,
        "the stray is seen",
    )
    running.primary.sql("SELECT 1")


def test_an_adoption_that_was_cut_short_is_done_again(running: Classic, writing: Workload) -> None:
    """Its accounts are there, one replica follows by its own, and there is no record."""
    for server in running.servers:
        running.primary.sql(
            f"CREATE USER '{server.account.user}'@'%' IDENTIFIED BY 'another password'"
        )
    result = adopt(running, "--yes")
    assert result.exit_code == 0, f"{result.output}\n{result.exception}\n{running.logs()}"
    report = writing.stop()
    running.wait_whole()
    running.check(report)


def test_without_an_order_a_running_cluster_is_left_alone(running: Classic) -> None:
    reason = running.status()["reason"]
    assert "holdfast adopt" in reason or "starting" in reason
    assert not [e for e in running.client.events(CLUSTER, 0, 0) if e["kind"] == "command"]
