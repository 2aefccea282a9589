"""Modes on real servers: changed under load, and what a failover does in each."""

from __future__ import annotations

from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.sandbox.waiting import Status
from tests.integration.cluster import (
    assert_identical,
    by_hand,
    events,
    member_of,
    replicas,
    take_away,
    wait_failed_over,
    writing,
)


def set_to(cluster: Sandbox, **settings: object) -> Status:
    """Change settings, and wait until they are in force."""
    cluster.manager.change_settings(CLUSTER, settings)
    mode = settings.get("mode")
    return cluster.wait_until(
        lambda s: s["whole"] and (mode is None or s["mode"] == mode), 30, f"{settings}"
    )


def test_all_changes_of_mode_under_load(cluster: Sandbox, run: int) -> None:
    """And a crash of the primary after each change back: strong's promise holds from when status says strong."""
    with writing(cluster, run) as writers:
        for weaker in ("async", "semi-sync"):
            status = set_to(cluster, mode=weaker, semi_sync_timeout="2s")
            assert (status["acks"] == 0) == (weaker == "async")
            writers.wait_for(50)
            assert set_to(cluster, mode="strong")["acks"] == 1
            wait_failed_over(cluster, cluster.kill_server("primary"))
            writers.wait_for(50)
            cluster.wait_whole(60)
        set_to(cluster, mode="semi-sync")
        set_to(cluster, mode="async")
        set_to(cluster, mode="semi-sync")
        set_to(cluster, mode="strong", wait_point="after_commit")
        writers.wait_for(50)
        set_to(cluster, wait_point="after_sync")
        writers.check()


def test_semi_sync_degrades_and_returns_and_each_is_told(cluster: Sandbox, run: int) -> None:
    """With its voters gone, commits wait for the time-out, and then no more."""
    others = replicas(set_to(cluster, mode="semi-sync", semi_sync_timeout="500ms"))
    with writing(cluster, run) as writers:
        for name in others:
            take_away(cluster, name)
        cluster.wait_until(lambda s: s["degraded"], 20, "the time-out to strike")
        writers.wait_for(100)
        for name in others:
            cluster.start_agent(name)
        cluster.wait_until(lambda s: s["whole"] and not s["degraded"], 60)
        told = [text for text in events(cluster) if text.startswith("commits on")]
        assert any("do not wait" in text for text in told)
        assert "wait for acknowledgements again" in told[-1]
        writers.check()
    set_to(cluster, mode="strong")


def test_in_mode_async_a_dead_primary_comes_back_in_place(cluster: Sandbox, run: int) -> None:
    primary = set_to(cluster, mode="async")["primary"]
    with writing(cluster, run) as writers:
        before = member_of(cluster.status(), primary)["incarnation"]
        cluster.kill_server("primary")
        status = cluster.wait_until(
            lambda s: s["whole"] and member_of(s, primary)["incarnation"] != before, 60
        )
        assert status["primary"] == primary
        assert any("allow_loss true would let it take over" in text for text in events(cluster))
        writers.check()
    set_to(cluster, mode="strong")


def test_where_loss_is_allowed_it_is_said_and_what_was_lost_is_saved(cluster: Sandbox) -> None:
    """The replicas have received nothing of the primary's last rows when it dies."""
    status = set_to(cluster, mode="async", allow_loss="true")
    old, others = str(status["primary"]), replicas(status)
    with cluster.connect(old, database="app") as connection:
        connection.query("CREATE TABLE IF NOT EXISTS lost (n INT PRIMARY KEY)")
        connection.query("REPLACE INTO lost VALUES (1)")
        cluster.wait_whole()
        cluster.manager.pause(CLUSTER, "receivers are stopped by hand")
        for name in others:
            by_hand(cluster, name, "STOP REPLICA IO_THREAD")
        connection.query("REPLACE INTO lost VALUES (2), (3)")
    cluster.kill_server(old)
    cluster.manager.resume(CLUSTER)
    wait_failed_over(cluster, old)
    said = [text for text in events(cluster) if "takes over" in text]
    assert "in its last moments may be missing" in said[-1]
    cluster.wait_whole(60)
    assert_identical(cluster)
    folder = cluster.spec.member(old).folder / "agent"
    texts = sorted(folder.rglob("*.txt"), key=lambda path: path.stat().st_mtime)
    assert "app.lost" in texts[-1].read_text()
    set_to(cluster, mode="strong", allow_loss="false")
