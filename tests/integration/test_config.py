"""What operators change while a cluster runs: settings, members, restarts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput, Refused
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.server.connection.login import SafeLogin
from tests.integration.cluster import Clusters, member_of, replicas, writing

WITH_A_LEARNER = {"members.m3.voter": "false", "ack_patience": "700ms"}


def settings_of(cluster: Sandbox) -> dict[str, tuple[Any, str]]:
    found = cluster.manager.settings(CLUSTER)["settings"]
    return {each["key"]: (each["value"], each["source"]) for each in found}


def holdfast(cluster: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    place = {"HOLDFAST_MANAGER": cluster.spec.manager_url}
    place["HOLDFAST_TOKEN_FILE"] = str(cluster.spec.token_file)
    return subprocess.run(
        [sys.executable, "-m", "holdfast.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **place},
        check=False,
    )


def test_a_setting_reaches_the_running_manager_and_survives_its_restart(cluster: Sandbox) -> None:
    changed = holdfast(cluster, "config", "set", "ack_patience", "2s", "mode", "async")
    assert changed.returncode == 0, changed.stderr
    assert "note: mode: commits are answered before any other server has them" in changed.stderr
    cluster.wait_until(lambda status: status["mode"] == "async" and status["whole"], 20)
    cluster.kill_manager()
    cluster.start_manager()
    status = cluster.wait_whole()
    assert (status["mode"], status["acks"]) == ("async", 0)
    assert settings_of(cluster)["ack_patience"] == (2.0, "store")
    assert holdfast(cluster, "config", "unset", "mode", "ack_patience").returncode == 0
    cluster.wait_until(lambda status: status["mode"] == "strong" and status["whole"], 20)
    assert settings_of(cluster)["ack_patience"] == (1.0, "default")


def test_all_is_changed_or_nothing(cluster: Sandbox) -> None:
    before = cluster.manager.settings(CLUSTER)
    refused = holdfast(cluster, "config", "set", "ack_patience", "3s", "members.m9.zone", "a")
    assert refused.returncode == 1
    assert "there is no member m9; there are m1, m2, m3" in refused.stderr
    with pytest.raises(BadInput, match=r"^durability|^members\.m1\.zone"):
        cluster.manager.change_settings(CLUSTER, {"durability": "zones", "ack_patience": 3})
    assert cluster.manager.settings(CLUSTER) == before


def test_what_this_server_cannot_do_is_refused(cluster: Sandbox, flavor: Flavor) -> None:
    if flavor is Flavor.MARIADB:
        with pytest.raises(BadInput, match="ack_count: MariaDB can wait for one"):
            cluster.manager.change_settings(CLUSTER, {"ack_count": 2})
        return
    cluster.manager.change_settings(CLUSTER, {"ack_count": 2})
    cluster.wait_until(lambda status: status["acks"] == 2 and status["whole"], 20)
    cluster.manager.change_settings(CLUSTER, {}, ["ack_count"])
    cluster.wait_until(lambda status: status["acks"] == 1 and status["whole"], 20)


def test_a_voter_is_removed_under_load_and_added_again(cluster: Sandbox, run: int) -> None:
    leaving = replicas(cluster.status())[-1]
    member = cluster.spec.member(leaving)
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        cluster.remove_member(leaving)
        status = cluster.wait_whole()
        assert leaving not in {each["name"] for each in status["members"]}
        writers.wait_for(50)
        cluster.kill_manager()  # the store keeps the members
        cluster.start_manager()
        assert len(cluster.wait_whole()["members"]) == 2
        writers.wait_for(50)
        cluster.manager.add_member(CLUSTER, leaving, f"http://127.0.0.1:{member.agent_port}")
        status = cluster.wait_until(
            lambda status: (
                status["whole"]
                and len(status["members"]) == 3
                and member_of(status, leaving)["role"] == "voter"
            ),
            40,
        )
        writers.wait_for(50)
        writers.check()


def test_a_stranger_is_refused_with_all_that_stands_against_it(cluster: Sandbox) -> None:
    taken = f"http://127.0.0.1:{cluster.spec.members[1].agent_port}"
    refused = holdfast(cluster, "member", "add", "m4", "--agent", taken)
    assert refused.returncode == 1
    for reason in ("is that of m2", "m2 has that agent already", "server_id is 2, as that of m2"):
        assert reason in refused.stderr
    nobody = holdfast(cluster, "member", "add", "m4", "--agent", "http://127.0.0.1:9")
    assert nobody.returncode == 3
    again = holdfast(cluster, "member", "add", "m2", "--agent", taken)
    assert (again.returncode, "m2 is a member already" in again.stderr) == (1, True)


def test_every_server_is_restarted_one_after_another_and_nothing_is_lost(
    cluster: Sandbox, run: int
) -> None:
    before = {each["name"]: each["incarnation"] for each in cluster.status()["members"]}
    primary = cluster.primary()
    asked = holdfast(cluster, "restart", "--all")
    assert (asked.returncode, f"while {primary}, the primary, restarts" in asked.stderr) == (
        1,
        True,
    )
    with writing(cluster, run) as writers:
        writers.wait_for(50)
        done = holdfast(cluster, "restart", "--all", "--yes", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["done"] == "all 3 members were restarted"
        writers.wait_for(20)
        writers.check()
    status = cluster.status()
    assert status["primary"] == primary
    assert not set(before.values()) & {each["incarnation"] for each in status["members"]}
    order = [line.split()[-1] for line in done.stderr.splitlines() if "restarting" in line]
    assert order[-1] == primary


def test_a_cluster_begins_with_the_settings_of_its_file(clusters: Clusters, flavor: Flavor) -> None:
    cluster = clusters.whole(flavor, 3, WITH_A_LEARNER)
    roles = {each["name"]: each["role"] for each in cluster.status()["members"]}
    assert roles == {"m1": "primary", "m2": "voter", "m3": "standby"}
    assert settings_of(cluster)["ack_patience"] == (0.7, "file")


def test_the_primary_and_the_last_voter_are_not_removed(clusters: Clusters, flavor: Flavor) -> None:
    cluster = clusters.whole(flavor, 3, WITH_A_LEARNER)
    with pytest.raises(Refused, match="m1 cannot be removed: it is the primary"):
        cluster.manager.remove_member(CLUSTER, "m1")
    with pytest.raises(Refused, match="it is the last voter beside m1"):
        cluster.manager.remove_member(CLUSTER, "m2")
    assert member_of(cluster.wait_whole(), "m2")["role"] == "voter"


def test_a_new_member_is_brought_in_under_load(
    clusters: Clusters, flavor: Flavor, run: int
) -> None:
    cluster = clusters.whole(flavor, 3, WITH_A_LEARNER)
    with writing(cluster, run) as writers:
        writers.wait_for(100)
        session, before = through_haproxy(cluster)
        name = cluster.add_member()
        cluster.wait_until(
            lambda status: (
                status["whole"]
                and len(status["members"]) == 4
                and member_of(status, name)["role"] == "voter"
            ),
            40,
        )
        writers.wait_for(50)
        found = writers.check()
    assert [member.name for member in found.members] == ["m1", "m2", "m3", "m4"]
    with session, session.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        assert cursor.fetchone() == before, "HAProxy has a new file, and its clients stay connected"


def through_haproxy(cluster: Sandbox) -> tuple[Any, Any]:
    """A client's session, and its number."""
    place = cluster.endpoint()
    assert place is not None
    app = cluster.accounts.app
    session = SafeLogin(
        asks_for_key=True, host=place[0], port=place[1], user=app.user, password=app.password
    )
    with session.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        return session, cursor.fetchone()
