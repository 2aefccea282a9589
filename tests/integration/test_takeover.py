"""A primary that freezes, and what operators decide themselves: pause, resume, failover."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from holdfast.agent.lease.second_keeper import keepers
from holdfast.errors import BadInput, Refused
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from tests.integration.cluster import events, replicas, wait_failed_over, writing
from tests.integration.test_config import holdfast


def test_a_frozen_server_is_killed_and_replaced(cluster: Sandbox, run: int) -> None:
    with writing(cluster, run) as writers:
        old = cluster.stop("primary")
        begun = time.monotonic()
        new = wait_failed_over(cluster, old)
        writers.wait_for(50)
        took = time.monotonic() - begun
        cluster.wait_whole(60)
        writers.check()
    assert new != old
    assert took < 10, "it was a person's patience that replaced it"
    said = " ".join(events(cluster))
    assert f"the server of {old}, the primary, has not answered its agent for" in said


def test_where_agent_and_keeper_process_hang_its_voters_show_that_nobody_keeps_the_lease(
    cluster: Sandbox, run: int
) -> None:
    old = str(cluster.wait_whole()["primary"])
    ((keeper, fd),) = keepers(str(cluster.spec.member(old).state_dir))
    os.close(fd)
    agent = int(Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()[1])
    with writing(cluster, run) as writers:
        try:
            os.kill(agent, signal.SIGSTOP)
            told = "its keeper process keeps its lease"
            cluster.wait_until(lambda status: told in status["reason"], 15, told)
            os.kill(keeper, signal.SIGSTOP)
            told = "no process kills its server when the lease ends: start the agent again"
            seen = cluster.wait_until(lambda status: told in status["reason"], 15, told)
            assert seen["primary"] == old
            kept = {each["name"]: each["protections"] for each in seen["members"]}
            assert kept.pop(old) == []
            assert all({"agent", "keeper"} <= set(each) for each in kept.values())
            writers.wait_for(50)
        finally:
            os.kill(keeper, signal.SIGCONT)
            os.kill(agent, signal.SIGCONT)
        assert wait_failed_over(cluster, old) != old, "its lease was over for long"
        cluster.wait_whole(60)
        writers.check()


def test_while_it_is_paused_nobody_is_promoted_but_by_hand(cluster: Sandbox, run: int) -> None:
    status = cluster.wait_whole()
    old, wanted = str(status["primary"]), replicas(status)[-1]
    paused = holdfast(cluster, "pause", "--reason", "disks are exchanged", "--for", "10m")
    assert paused.returncode == 0, paused.stderr
    assert "(disks are exchanged): no automatic failover" in holdfast(cluster, "status").stdout
    with writing(cluster, run) as writers:
        cluster.kill_server(old)
        time.sleep(2)
        seen = cluster.status()
        assert seen["primary"] == old
        assert not seen["writable"]
        assert "(disks are exchanged): no automatic failover" in seen["reason"]
        done = holdfast(cluster, "failover", "--to", wanted)
        assert done.returncode == 0, done.stderr
        assert f"{wanted} is primary and takes writes" in done.stdout
        writers.wait_for(50)
        assert "resumed" in holdfast(cluster, "resume").stdout
        cluster.wait_whole(60)
        writers.check()


def test_a_pause_ends_by_itself(cluster: Sandbox) -> None:
    cluster.wait_whole()
    cluster.manager.pause(CLUSTER, "for a moment", 0.5)
    cluster.wait_until(lambda status: status["whole"] and not status["paused"], 10)
    assert any("the pause is over (for a moment)" in text for text in events(cluster))


def test_a_failover_of_a_primary_that_is_well_is_refused(cluster: Sandbox) -> None:
    status = cluster.wait_whole()
    refused = holdfast(cluster, "failover")
    assert refused.returncode == 1
    assert "a failover needs a lost primary" in refused.stderr
    with pytest.raises(BadInput, match=r"must be the cluster's name"):
        cluster.manager.fail_over(CLUSTER, accept_loss="yes")
    with pytest.raises(Refused, match=r"no member 'm9'"):
        cluster.manager.fail_over(CLUSTER, to="m9")
    with pytest.raises(Refused, match=r"is not paused"):
        cluster.manager.resume(CLUSTER)
    assert cluster.status()["primary"] == status["primary"]
