"""Members that freeze, die one after another, diverge or fall too far behind, on real servers under load.

Each scenario ends with the check that every acknowledged write is on every server, and all tables are the same.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.sandbox.waiting import Status
from tests.integration.cluster import (
    Clusters,
    admin,
    again_whole,
    by_hand,
    events,
    member_of,
    replicas,
    take_away,
    wait_failed_over,
    writing,
)


def role(status: Status, name: str) -> str:
    return str(member_of(status, name)["role"])


def wait_evicted(sandbox: Sandbox, *names: str) -> Status:
    """Wait until none of them votes, while the primary takes writes."""
    return sandbox.wait_until(
        lambda s: s["writable"] and not any(member_of(s, name)["votes"] for name in names),
        20,
        f"{', '.join(names)} to vote no longer",
    )


def saved_texts(sandbox: Sandbox, name: str) -> list[Path]:
    """What a member saved for operators to read, newest last."""
    folder = sandbox.spec.member(name).folder / "agent"
    return sorted(folder.rglob("*.txt"), key=lambda path: path.stat().st_mtime)


def test_a_frozen_replica_is_evicted_and_votes_again_when_it_thaws(
    cluster: Sandbox, run: int
) -> None:
    frozen = replicas(cluster.wait_whole())[0]
    with writing(cluster, run) as writers:
        cluster.stop(frozen)
        try:
            status = wait_evicted(cluster, frozen)
            assert "its server does not answer" in str(events(cluster))
            writers.wait_for(200)  # while it is frozen
        finally:
            cluster.cont(frozen)
        assert status["primary"] == cluster.wait_whole(30)["primary"]
        writers.check()


def test_with_durability_all_a_frozen_voter_holds_commits_up_only_until_it_is_evicted(
    cluster: Sandbox, run: int
) -> None:
    cluster.manager.change_settings(CLUSTER, {"durability": "all"})
    acks = 1 if cluster.spec.flavor is Flavor.MARIADB else 2

    def voters_of(status: Status) -> list[str]:
        return [name for name in replicas(status) if role(status, name) == "voter"]

    voters = voters_of(
        cluster.wait_until(lambda s: s["whole"] and len(voters_of(s)) == s["acks"] == acks, 30)
    )
    with writing(cluster, run) as writers:
        cluster.stop(voters[0])
        try:
            wait_evicted(cluster, voters[0])
            writers.wait_for(200)
        finally:
            cluster.cont(voters[0])
        cluster.wait_whole(30)
        writers.check()


def test_a_replica_is_lost_and_then_the_primary_and_the_survivor_has_everything(
    cluster: Sandbox, run: int
) -> None:
    status = cluster.wait_whole()
    gone, survivor = replicas(status)
    with writing(cluster, run) as writers:
        cluster.kill_agent(gone)
        cluster.kill_server(gone)
        wait_evicted(cluster, gone)
        writers.wait_for(200)
        cluster.kill_server("primary")
        assert wait_failed_over(cluster, str(status["primary"])) == survivor
        writers.wait_for(100)
        cluster.start_agent(gone)
        cluster.wait_whole(40)
        writers.check()


def test_a_replica_that_lost_its_relay_log_is_no_heir(cluster: Sandbox, run: int) -> None:
    """It had received and acknowledged, and applied nothing of it; it is restarted, and then the primary dies."""
    status = cluster.wait_whole()
    victim = replicas(status)[0]
    with writing(cluster, run) as writers:
        admin(cluster, victim, "STOP REPLICA SQL_THREAD")
        writers.wait_for(50)
        cluster.kill_server(victim)
        cluster.kill_server("primary")
        cluster.wait_whole(40)
        writers.wait_for(50)
        writers.check()


def test_what_an_administrator_wrote_on_a_replica_is_kept_in_a_file_and_undone(
    cluster: Sandbox, run: int
) -> None:
    victim = replicas(cluster.wait_whole())[0]
    before = len(saved_texts(cluster, victim))
    with writing(cluster, run) as writers:
        writers.wait_for(20)
        by_hand(
            cluster,
            victim,
            f"INSERT INTO app.writes VALUES ({run}, 99, 1, NOW(6))",
            f"DELETE FROM app.writes WHERE run = {run} AND writer = 1 AND n = 1",
        )
        cluster.wait_until(
            lambda s: len(saved_texts(cluster, victim)) > before and s["whole"], 60, "a rewind"
        )
        writers.check()
    text = saved_texts(cluster, victim)[-1].read_text()
    assert "app.writes" in text
    assert "99" in text


def test_ddl_in_the_pending_log_of_a_crashed_primary(cluster: Sandbox, run: int) -> None:
    """MySQL rolls it back; MariaDB cannot, so that server is cloned."""
    status = cluster.wait_whole()
    old = str(status["primary"])
    cluster.manager.pause(CLUSTER, "receivers are stopped by hand")
    for name in replicas(status):
        admin(cluster, name, "STOP REPLICA IO_THREAD")
    with cluster.connect(old, database="app", read_timeout=1) as connection:
        with pytest.raises(Exception, match=r"Lost connection|timed out"):
            connection.query("CREATE TABLE never (n INT PRIMARY KEY)")
        cluster.server(old).kill()
    cluster.manager.resume(CLUSTER)
    wait_failed_over(cluster, old)
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        cluster.wait_whole(90)
        writers.check()
    tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_name = 'never'"
    assert {each.name: admin(cluster, each.name, tables) for each in cluster.members()} == {
        each.name: [(0,)] for each in cluster.members()
    }


def test_a_member_whose_binlogs_were_purged_meanwhile_is_cloned(cluster: Sandbox, run: int) -> None:
    status = cluster.wait_whole()
    primary, away = str(status["primary"]), replicas(status)[0]
    with writing(cluster, run) as writers:
        cluster.kill_agent(away)
        cluster.kill_server(away)
        wait_evicted(cluster, away)
        writers.wait_for(100)
        admin(cluster, primary, "FLUSH BINARY LOGS")
        for name in (primary, *(n for n in replicas(status) if n != away)):
            admin(cluster, name, "FLUSH BINARY LOGS")
        last = admin(cluster, primary, "SHOW BINARY LOGS")[-1][0]
        cluster.wait_until(lambda s: s["writable"], 5)
        admin(cluster, primary, f"PURGE BINARY LOGS TO '{last}'")
        cluster.start_agent(away)
        cluster.wait_whole(90)
        assert "clone" in str(events(cluster))
        writers.check()


def test_a_replica_and_the_primary_are_restarted_on_purpose(cluster: Sandbox, run: int) -> None:
    status = cluster.wait_whole()
    runs = {each["name"]: each["incarnation"] for each in status["members"]}
    with writing(cluster, run) as writers:
        for name in (replicas(status)[0], str(status["primary"])):
            cluster.manager.restart_member(CLUSTER, name, waiting=True)
            after = cluster.wait_until(again_whole(name, runs[name]), 60, f"{name} to be back")
            assert after["primary"] == status["primary"], "nobody takes over from a planned restart"
            writers.wait_for(50)
        writers.check()


def test_five_members_and_three_failures_in_sequence(
    clusters: Clusters, flavor: Flavor, run: int
) -> None:
    """No member is back when the next one dies, but the others became voters of each other: primary, replica,
    primary."""
    cluster = clusters.whole(flavor, 5)
    with writing(cluster, run) as writers:
        gone = [cluster.kill_server("primary")]
        wait_failed_over(cluster, gone[0])
        take_away(cluster, gone[0])
        status = wait_evicted(cluster, *gone)
        writers.wait_for(50)
        gone.append(next(n for n in replicas(status) if role(status, n) == "voter"))
        take_away(cluster, gone[1])
        wait_evicted(cluster, *gone)
        writers.wait_for(50)
        gone.append(cluster.kill_server("primary"))
        wait_failed_over(cluster, gone[2])
        take_away(cluster, gone[2])
        status = wait_evicted(cluster, *gone)
        writers.wait_for(50)
        assert len({status["primary"], *gone}) == 4
        for name in gone:
            cluster.start_agent(name)
        cluster.wait_whole(90)
        writers.check()


def test_two_members_that_block_when_alone(clusters: Clusters, flavor: Flavor, run: int) -> None:
    cluster = clusters.whole(flavor, 2)
    other = replicas(cluster.wait_whole())[0]
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        cluster.kill_agent(other)
        cluster.kill_server(other)
        cluster.wait_until(lambda s: member_of(s, other)["state"] == "unknown", 10)
        time.sleep(1.0)  # what was received before is acknowledged by now
        before = writers.workload.acknowledged()
        time.sleep(1.0)
        assert writers.workload.acknowledged() == before, "acknowledged by nobody but the primary"
        cluster.start_agent(other)
        cluster.wait_whole(40)
        writers.wait_for(50)
        wait_failed_over(cluster, cluster.kill_server("primary"))
        cluster.wait_whole(40)
        writers.check()


def test_two_members_of_which_one_serves_alone(
    clusters: Clusters, flavor: Flavor, run: int
) -> None:
    cluster = clusters.whole(flavor, 2)
    cluster.manager.change_settings(CLUSTER, {"when_alone": "serve"})
    status = cluster.wait_whole()
    primary, other = str(status["primary"]), replicas(status)[0]
    with writing(cluster, run) as writers:
        cluster.kill_agent(other)
        cluster.kill_server(other)
        cluster.wait_until(lambda s: s["acks"] == 0, 10, "it to serve alone")
        writers.wait_for(100)
        # no other member has what it acknowledged alone: it comes back in place
        run_before = member_of(cluster.status(), primary)["incarnation"]
        cluster.kill_server(primary)
        cluster.start_agent(other)
        after = cluster.wait_until(
            lambda s: s["whole"] and member_of(s, primary)["incarnation"] != run_before, 60
        )
        assert after["primary"] == primary
        assert after["acks"] == 1
        writers.wait_for(50)
        writers.check()
