"""``holdfast verify`` on a whole cluster: a member that differs is found, named, kept from taking over, and cloned."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from tests.integration.cluster import (
    by_hand,
    events,
    member_of,
    replicas,
    wait_failed_over,
    writing,
)
from tests.integration.test_config import holdfast


def verified(cluster: Sandbox, *options: str) -> tuple[int, dict[str, Any]]:
    done = holdfast(cluster, "verify", "--json", *options)
    return done.returncode, json.loads(done.stdout)


def kept(
    cluster: Sandbox,
    member: str,
    like: Mapping[str, Any],
    since: float = 0.0,
    seconds: float = 10.0,
) -> dict[str, Any]:
    """The newest matching verification of a member in the history, once it is there."""
    found: list[dict[str, Any]] = []

    def there(_: object) -> bool:
        found[:] = [
            each
            for each in cluster.manager.history(CLUSTER, 200)
            if (told := each.get("verification"))
            and told["member"] == member
            and told | like == told
            and told["began"] >= since
        ]
        return bool(found)

    cluster.wait_until(there, seconds, f"a verification of {member} in the history: {like}")
    entry = cluster.manager.history_entry(CLUSTER, found[0]["number"])
    return dict(entry["verification"])


def test_a_member_that_differs_is_found_under_load_and_cloned(cluster: Sandbox, run: int) -> None:
    primary = str(cluster.status()["primary"])
    good, odd = replicas(cluster.status())
    with writing(cluster, run) as writers:
        with cluster.connect(primary) as at, at.cursor() as cursor:
            cursor.execute("CREATE TABLE app.checked (id int PRIMARY KEY, v int)")
            cursor.execute("INSERT INTO app.checked VALUES (1, 1), (2, 2)")
        status, found = verified(cluster)
        assert status == 0, found
        assert found[good]["results"]["app.checked"]["rows"] == 2
        assert found[odd]["ended"]
        mistyped = holdfast(cluster, "verify", odd, "--table", "app.chekced")
        assert mistyped.returncode == 1
        assert "failed (there is no table app.chekced)" in mistyped.stdout
        assert cluster.wait_whole()["reason"]  # the member is as well as before
        by_hand(cluster, odd, "SET sql_log_bin = 0", "UPDATE app.checked SET v = 9 WHERE id = 2")
        status, found = verified(cluster, odd, "--table", "app.checked", "--max-load", "1000")
        assert status == 1
        assert found[odd]["results"]["app.checked"]["ranges"] == ["somewhere in the whole table"]
        told = cluster.wait_until(lambda s: not s["whole"], 10, "the difference to be told")
        assert f"{odd}: it differs from {primary} in app.checked" in told["reason"]
        shown = member_of(told, odd)
        assert shown["differs"] == [
            {"table": "app.checked", "ranges": "somewhere in the whole table"}
        ]
        assert (shown["verified"]["different"], shown["verified"]["primary"]) == (1, primary)
        assert f"against {primary}: differs in app.checked" in holdfast(cluster, "status").stdout
        entry = kept(cluster, odd, {"different": 1, "equal": 0, "ordered": True, "repair": False})
        assert entry["tables"] == [
            {
                "table": "app.checked",
                "rows": 2,
                "ranges": "somewhere in the whole table",
                "skipped": "",
            }
        ]
        assert entry["ended"] > entry["began"]
        entry = kept(cluster, good, {"different": 0, "halted": ""})
        assert {"app.checked"} <= {each["table"] for each in entry["tables"]}
        assert any(
            f"{odd} differs from {primary} in app.checked" in text for text in events(cluster)
        )
        refused = holdfast(cluster, "switchover", "--to", odd)
        assert refused.returncode == 1
        assert "differs" in refused.stderr
        # the other one takes over
        assert wait_failed_over(cluster, cluster.kill_server("primary")) == good
        cluster.wait_until(lambda s: member_of(s, primary)["role"] == "voter", 60, "it is back")
        status, found = verified(cluster, odd, "--repair")
        assert found[odd]["began"] == 0.0, "its data is new"
        entry = kept(cluster, odd, {"different": 1, "repair": True})
        assert entry["tables"][0]["table"] == "app.checked"
        assert entry["equal"]
        cluster.wait_whole()
        assert verified(cluster, odd)[0] == 0
        kept(cluster, odd, {"different": 0, "repair": False, "halted": ""})
        writers.check()


def test_what_is_interrupted_goes_on_by_itself_and_the_schedule_begins_one(
    cluster: Sandbox, run: int
) -> None:
    one, other = replicas(cluster.status())
    with writing(cluster, run) as writers:
        wanted = {"anew": True, "rate": 1}
        cluster.manager.verify_member(CLUSTER, one, wanted)
        cluster.wait_until(
            lambda s: bool(member_of(s, one)["progress"]), 20, "the verification to be under way"
        )
        assert f"{one} is being verified" in holdfast(cluster, "verify", other).stderr
        began = cluster.manager.verification(CLUSTER, one)["began"]
        cluster.kill_agent(one)
        cluster.wait_until(lambda s: member_of(s, one)["state"] == "unknown", 20, "it is missed")
        cluster.start_agent(one)
        cluster.wait_until(
            lambda s: "verifying" in str(member_of(s, one)["progress"]), 30, "it goes on"
        )
        stopped = holdfast(cluster, "verify", one, "--stop")
        assert stopped.returncode == 0, stopped.stderr
        entry = kept(cluster, one, {"began": began, "halted": "ended by an operator"})
        assert entry["interrupted"] >= 1
        assert (entry["ordered"], entry["failed"]) == (True, False)
        found = [each.get("verification") for each in cluster.manager.history(CLUSTER, 200)]
        assert sum(1 for each in found if each and each["began"] == began) == 1, "one entry of each"

        begun = time.time()
        cluster.manager.change_settings(CLUSTER, {"verify_every": "5s"})
        for member in (one, other):
            scheduled = kept(cluster, member, {"ordered": False, "halted": ""}, begun, 60)
            assert scheduled["equal"]
        writers.check()
