"""Switchovers on real servers: what stands against one, what interrupts one, and what clients see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
import pytest

from holdfast.core.gtid import Flavor
from holdfast.errors import Refused
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.sandbox.waiting import Status
from tests.integration.cluster import Clusters, admin, events, replicas, writing
from tests.integration.test_config import holdfast

OPEN_SECONDS = 40.0


def wait_switched(cluster: Sandbox, to: str) -> None:
    def over(status: Status) -> bool:
        return bool(status["under_way"] != "switchover" or status["primary"] == to)

    cluster.wait_until(over, OPEN_SECONDS, to)
    assert cluster.status()["primary"] == to, "; ".join(events(cluster)[-25:])
    cluster.wait_until(lambda s: bool(s["writable"]), OPEN_SECONDS, to)


def switch(cluster: Sandbox, to: str = "") -> str:
    """Order it, and wait until the new primary takes writes."""
    new = str(cluster.manager.switch_over(CLUSTER, to, wait=True)["to"])
    wait_switched(cluster, new)
    return new


def against(cluster: Sandbox, to: str = "", **more: Any) -> str:
    """All that stands against it, in one line."""
    return "; ".join(cluster.manager.switch_over(CLUSTER, to, dry_run=True, **more)["against"])


@contextmanager
def session(cluster: Sandbox, member: str) -> Iterator[pymysql.cursors.Cursor]:
    """A client's, which may be ended meanwhile."""
    connection = cluster.connect(member)
    try:
        yield connection.cursor()
    finally:
        with suppress(pymysql.err.Error):
            connection.close()


def test_idle_the_command_says_who_is_primary(cluster: Sandbox) -> None:
    status = cluster.wait_whole()
    old, incarnations = str(status["primary"]), {m["name"]: m for m in status["members"]}
    outlook = holdfast(cluster, "switchover", "--dry-run")
    assert outlook.returncode == 0, outlook.stderr
    assert cluster.status()["primary"] == old
    done = holdfast(cluster, "switchover")
    assert done.returncode == 0, done.stderr
    new = str(cluster.status()["primary"])
    assert f"{new} is primary and takes writes" in done.stdout
    assert new != old
    status = cluster.wait_whole()
    was = next(m for m in status["members"] if m["name"] == old)
    assert was["incarnation"] == incarnations[old]["incarnation"], "it went on as it ran"
    assert was["role"] == "voter"


def test_to_and_fro_under_load_nothing_is_lost_and_a_writer_sees_one_error(
    cluster: Sandbox, run: int
) -> None:
    with writing(cluster, run, rate=400) as writers:
        for _ in range(20):
            to = replicas(cluster.wait_whole())[0]
            before = {j.writer: sum(j.errors.values()) for j in writers.workload.report().journals}
            assert switch(cluster, to) == to
            writers.wait_for(20)
            for journal in writers.workload.report().journals:
                if not journal.searches:
                    assert sum(journal.errors.values()) - before[journal.writer] <= 1
        writers.check()


def test_what_stands_against_it_is_said_at_once(cluster: Sandbox) -> None:
    status = cluster.wait_whole()
    primary, (one, other) = str(status["primary"]), replicas(status)
    assert against(cluster, primary) == f"{primary} is the primary already"
    with pytest.raises(Refused, match="there is no member m9"):
        cluster.manager.switch_over(CLUSTER, "m9")
    with session(cluster, primary) as client:
        client.execute("SET autocommit = 0")
        client.execute("INSERT INTO app.held VALUES (1)")
        cluster.manager.change_settings(CLUSTER, {f"members.{one}.priority": 0}, [])
        time.sleep(2.1)  # MariaDB reports whole seconds
        found = against(cluster, one, old=1.0)
        assert f"{one}: its priority is 0" in found
        assert "has had a transaction open on " in found
    cluster.manager.change_settings(CLUSTER, {}, [f"members.{one}.priority"])
    refused = holdfast(cluster, "switchover", "--to", primary)
    assert refused.returncode == 1
    assert "is the primary already" in refused.stderr
    assert other


def test_a_candidate_whose_settings_are_wrong_is_refused_or_passed_over(cluster: Sandbox) -> None:
    old, (one, other) = cluster.primary(), replicas(cluster.status())
    admin(cluster, one, "SET GLOBAL binlog_row_image = MINIMAL")
    try:
        outlook = holdfast(cluster, "switchover", "--to", one, "--dry-run")
        assert outlook.returncode == 1
        assert f"{one}: binlog_row_image is MINIMAL now" in outlook.stderr
        assert "SET GLOBAL binlog_row_image = FULL" in outlook.stderr
        with pytest.raises(Refused, match=f"{one}: binlog_row_image is MINIMAL now"):
            cluster.manager.switch_over(CLUSTER, one, wait=True)
        assert cluster.manager.switch_over(CLUSTER, dry_run=True)["to"] == other
        assert cluster.primary() == old
    finally:
        admin(cluster, one, "SET GLOBAL binlog_row_image = FULL")
    switch(cluster, one)


@pytest.fixture(autouse=True)
def held(cluster: Sandbox) -> None:
    cluster.wait_whole()
    admin(
        cluster,
        cluster.primary(),
        "CREATE TABLE IF NOT EXISTS app.held (id INT) ENGINE=InnoDB",
        "DELETE FROM app.held",
    )


def test_a_candidate_that_is_far_behind_is_refused_or_waited_for(
    cluster: Sandbox, run: int
) -> None:
    to = replicas(cluster.wait_whole())[0]
    with writing(cluster, run) as writers:
        connection = cluster.connect(to, cluster.accounts.admin)
        with connection, connection.cursor() as client:
            client.execute("FLUSH TABLES WITH READ LOCK")
            end = time.monotonic() + 30
            while "its applier is" not in (said := against(cluster, to)):
                assert time.monotonic() < end, said
                time.sleep(0.1)
            with pytest.raises(Refused, match=f"{to}: its applier is .* behind"):
                cluster.manager.switch_over(CLUSTER, to)
            waiting = threading.Thread(
                target=cluster.manager.switch_over,
                args=(CLUSTER, to),
                kwargs={"wait": True, "seconds": 30.0},
            )
            waiting.start()
            client.execute("UNLOCK TABLES")
            waiting.join()
        wait_switched(cluster, to)
        writers.wait_for(20)
        writers.check()


def test_a_long_transaction_is_named_waited_for_or_ended(cluster: Sandbox) -> None:
    old, to = cluster.primary(), replicas(cluster.status())[0]
    with session(cluster, old) as client:
        client.execute("BEGIN")
        client.execute("INSERT INTO app.held VALUES (7)")
        time.sleep(2.1)  # MariaDB reports whole seconds
        found = against(cluster, to, old=1.0)
        assert "has had a transaction open on " in found
        assert f"({cluster.accounts.app.user}@" in found
        with pytest.raises(Refused, match="has had a transaction open on "):
            cluster.manager.switch_over(CLUSTER, to, old=1.0)
        assert cluster.primary() == old
        client.execute("SELECT 1")  # nothing has happened to it
        with pytest.raises(Refused, match=r"not begun within 0\.5 s, and nothing was touched"):
            cluster.manager.switch_over(CLUSTER, to, old=1.0, wait=True, seconds=0.5)
        cluster.manager.switch_over(CLUSTER, to, old=1.0, wait=True, kill_after=0.3)
        wait_switched(cluster, to)
        with pytest.raises(pymysql.err.Error):
            client.execute("SELECT 1")
    assert admin(cluster, to, "SELECT COUNT(*) FROM app.held") == [(0,)]


def test_a_locked_table_stops_it_before_or_as_writes_are_stopped(
    cluster: Sandbox, flavor: Flavor, run: int
) -> None:
    """Without a plugin MariaDB does not show which session has locked tables."""
    old, to = cluster.primary(), replicas(cluster.status())[0]
    with writing(cluster, run) as writers, session(cluster, old) as client:
        client.execute("LOCK TABLES app.held WRITE")
        refused = holdfast(cluster, "switchover", "--to", to)
        assert refused.returncode == 1
        if flavor is Flavor.MYSQL:
            assert " has held a lock " in refused.stderr
        else:
            assert f"the switchover to {to} is undone" in refused.stderr
        assert cluster.primary() == old
        writers.wait_for(20)
        client.execute("UNLOCK TABLES")
        switch(cluster, to)
        writers.wait_for(20)
        writers.check()


def test_a_writer_who_may_write_on_read_only_servers_is_stopped_too(
    cluster: Sandbox, run: int
) -> None:
    """Its rows are either on the new primary, or were not acknowledged to it."""
    to = replicas(cluster.status())[0]
    old = cluster.primary()
    told: list[int] = []
    stop = threading.Event()

    def write() -> None:
        """While it is the primary; a replica would take its writes as well."""
        number = 0
        with suppress(pymysql.err.Error, OSError):
            connection = cluster.connect(old, cluster.accounts.admin)
            with connection, connection.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute("SELECT @@global.read_only")
                    if cursor.fetchall() != ((0,),):
                        return
                    number += 1
                    cursor.execute("INSERT INTO app.held VALUES (%s)", (number,))
                    connection.commit()
                    told.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        end = time.monotonic() + 10
        while len(told) < 20 and time.monotonic() < end:
            time.sleep(0.01)
        switch(cluster, to)
    finally:
        stop.set()
        writer.join()
    cluster.wait_whole()
    rows = {row[0] for row in admin(cluster, to, "SELECT id FROM app.held")}
    assert len(told) >= 20
    assert set(told) <= rows


def manager_dies(cluster: Sandbox, old: str, to: str) -> None:
    cluster.kill_manager()
    cluster.start_manager()


def candidate_dies(cluster: Sandbox, old: str, to: str) -> None:
    cluster.kill_server(to)


def primary_dies(cluster: Sandbox, old: str, to: str) -> None:
    cluster.kill_server(old)


STEPS = {
    "chain": "will take over from",
    "freeze": "takes no more writes",
    "named": "as ordered",
}


@pytest.mark.parametrize("step", list(STEPS))
@pytest.mark.parametrize(
    "disaster", [manager_dies, candidate_dies, primary_dies], ids=lambda each: each.__name__
)
def test_whoever_dies_at_any_step_it_ends_with_one_primary_and_nothing_lost(
    cluster: Sandbox, run: int, step: str, disaster: Callable[[Sandbox, str, str], None]
) -> None:
    status = cluster.wait_whole()
    old, to = str(status["primary"]), replicas(status)[0]
    since = max(int(each["id"]) for each in cluster.manager.events(CLUSTER, 0, 0))
    with writing(cluster, run, rate=400) as writers:
        cluster.manager.switch_over(CLUSTER, to)
        _wait_said(cluster, STEPS[step], since)
        disaster(cluster, old, to)
        begun = time.monotonic()
        writers.wait_for(50)
        took = time.monotonic() - begun
        cluster.wait_whole(60)
        writers.check()
    assert took < 20, f"for {took:.1f} s nobody took writes; {events(cluster)[-20:]}"


def _wait_said(cluster: Sandbox, text: str, since: int) -> None:
    """Wait until the manager has reported an event with this text since then."""
    end = time.monotonic() + 20
    while True:
        for each in cluster.manager.events(CLUSTER, since, 1.0):
            since = int(each["id"])
            if text in each["text"]:
                return
        assert time.monotonic() < end, f"it never said: {text}; {events(cluster)[-20:]}"


def test_events_run_on_the_primary_and_there_only(cluster: Sandbox, flavor: Flavor) -> None:
    old, to = cluster.primary(), replicas(cluster.status())[0]
    admin(
        cluster,
        old,
        "CREATE EVENT IF NOT EXISTS app.tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO app.held VALUES (1)",
        "CREATE EVENT IF NOT EXISTS app.off ON SCHEDULE EVERY 1 SECOND DISABLE DO INSERT INTO app.held VALUES (2)",
    )
    try:
        switch(cluster, to)
        cluster.wait_whole()
        _wait_events(cluster, to)
        rows = admin(cluster, to, "SELECT COUNT(*) FROM app.held WHERE id = 1")
        end = time.monotonic() + 10
        while admin(cluster, to, "SELECT COUNT(*) FROM app.held WHERE id = 1") == rows:
            assert time.monotonic() < end, "it does not run on the new primary"
            time.sleep(0.1)
        assert admin(cluster, to, "SELECT COUNT(*) FROM app.held WHERE id = 2") == [(0,)]
        for member in replicas(cluster.wait_whole()):
            assert admin(cluster, member, "SELECT @@event_scheduler") == [("OFF",)]
    finally:
        admin(cluster, cluster.primary(), "DROP EVENT app.tick", "DROP EVENT app.off")


def _wait_events(cluster: Sandbox, member: str) -> None:
    end = time.monotonic() + 10
    wanted = [("off", "DISABLED"), ("tick", "ENABLED")]
    query = "SELECT EVENT_NAME, STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'app' ORDER BY 1"
    while (found := admin(cluster, member, query)) != wanted:
        assert time.monotonic() < end, found
        time.sleep(0.05)


def test_one_that_is_planned_begins_at_its_time_whoever_leads_then(cluster: Sandbox) -> None:
    old, to = cluster.primary(), replicas(cluster.wait_whole())[0]
    planned = holdfast(cluster, "switchover", "--to", to, "--at", "+1h")
    assert planned.returncode == 0, planned.stderr
    assert f"switchover to {to} planned for" in holdfast(cluster, "status").stdout
    assert "planned no longer" in holdfast(cluster, "switchover", "--cancel").stdout
    assert (
        "no switchover waits, is under way, or is planned"
        in holdfast(cluster, "switchover", "--cancel").stderr
    )
    assert "must be in the future" in holdfast(cluster, "switchover", "--at", "2020-01-01").stderr
    assert holdfast(cluster, "switchover", "--to", to, "--at", "+2s").returncode == 0
    cluster.kill_manager()
    cluster.start_manager()
    cluster.wait_until(lambda s: s["primary"] == to and bool(s["writable"]), OPEN_SECONDS, to)
    assert old != to
    assert cluster.wait_whole()["planned"] is None


def test_two_members_change_places(clusters: Clusters, flavor: Flavor, run: int) -> None:
    cluster = clusters.whole(flavor, members=2)
    status: Status = cluster.wait_whole()
    with writing(cluster, run) as writers:
        to = replicas(status)[0]
        assert switch(cluster) == to
        writers.wait_for(20)
        writers.check()
