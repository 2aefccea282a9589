"""A sandbox is a whole cluster in a folder, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest

from holdfast.agent.disk.datadir import SCRATCH
from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput, Refused, Unreachable
from holdfast.sandbox.load.crash import Load, crash_primary
from holdfast.sandbox.local.accounts import SCHEMA
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import is_free
from tests.integration.cluster import Clusters, explain, replicas, writing
from tests.integration.ports import free_base_port

MEMBER_KEYS = {
    "name", "host", "port", "role", "state", "received", "applied", "lag_seconds", "incarnation",
    "reason", "votes", "stage", "bytes_behind", "eta_seconds", "progress", "zone", "priority",
    "protections", "prepared", "unacknowledged", "let_through", "verified", "differs", "concerns",
    "age_seconds", "standby", "failed", "told", "failed_told",
}  # fmt: skip


def holdfast(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **environment},
        check=False,
    )


def test_the_cluster_is_whole_and_says_so(cluster: Sandbox) -> None:
    status = cluster.status()
    assert status["whole"]
    assert status["writable"]
    assert (status["mode"], status["acks"]) == ("strong", 1)
    assert sorted(each["role"] for each in status["members"]) == ["primary", "voter", "voter"]
    assert all(set(each) == MEMBER_KEYS for each in status["members"])


def test_app_writes_on_the_primary_alone(cluster: Sandbox) -> None:
    status = cluster.status()
    with cluster.connect(status["primary"], database=SCHEMA) as connection:
        connection.query("CREATE TABLE IF NOT EXISTS greetings (text VARCHAR(40) PRIMARY KEY)")
        connection.query("REPLACE INTO greetings VALUES ('hello')")
    for name in replicas(status):
        with (
            cluster.connect(name, database=SCHEMA) as connection,
            pytest.raises(pymysql.err.MySQLError) as refused,
        ):
            connection.query("REPLACE INTO greetings VALUES ('hello')")
        assert refused.value.args[0] in (1290, 1836)


def test_nobody_gets_in_without_a_password(cluster: Sandbox) -> None:
    for where in ({"unix_socket": str(cluster.spec.members[0].socket)}, {"host": "127.0.0.1"}):
        options: dict[str, Any] = {**where, "port": cluster.spec.members[0].port}
        for user in ("root", "app", "holdfast", "repl_m1", ""):
            with pytest.raises(pymysql.err.OperationalError):
                pymysql.connect(user=user, password="", **options)


def test_a_running_sandbox_is_not_started_twice(cluster: Sandbox) -> None:
    with pytest.raises(Refused, match="is running"):
        cluster.up()
    with pytest.raises(BadInput, match="--members"):
        Sandbox.create(cluster.spec.dir, cluster.spec.flavor, 5, cluster.spec.base_port)


def test_a_taken_port_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    base = free_base_port()
    sandbox = Sandbox.create(tmp_path / "cluster", Flavor.MARIADB, 3, base)
    with (
        closing(socket.create_server(("127.0.0.1", base + 12))),
        pytest.raises(Refused, match=f"port {base + 12}, for m2's server"),
    ):
        sandbox.up()
    assert sandbox.running() == []
    sandbox.down(remove=True)
    assert not sandbox.spec.dir.exists()


def test_the_primary_is_killed_under_load_and_nothing_is_lost(cluster: Sandbox, run: int) -> None:
    crash = crash_primary(cluster, Load(writers=4, before_seconds=0.5), run)
    assert crash.good, explain(cluster)
    assert crash.outage is not None
    assert crash.report.acknowledged > 50
    assert {"detected", "promise", "promote"} <= set(crash.step_times())


def test_the_manager_comes_back_in_a_new_term(cluster: Sandbox) -> None:
    term = cluster.status()["term"]
    cluster.kill_manager()
    with pytest.raises(Unreachable, match=r"the manager of .* has ended: .* start manager --dir"):
        cluster.status()
    cluster.start("manager")
    assert cluster.wait_whole()["term"] == term + 1


def test_a_stopped_sandbox_goes_on_with_its_data(
    clusters: Clusters, cluster: Sandbox, run: int
) -> None:
    with writing(cluster, run) as writers:
        writers.wait_for(20)
        writers.check()
    rows = writers.stop().acknowledged
    cluster.remove_member(next(m.name for m in cluster.members() if m.name != cluster.primary()))
    left = {member.name for member in cluster.members()}
    datadir = cluster.spec.members[0].datadir
    nap = (sys.executable, "-c", "import time; time.sleep(60)", f"--datadir={datadir / SCRATCH}")
    with subprocess.Popen(nap) as scratch:  # as an agent that is killed amid a clone leaves it
        cluster.down()
        assert scratch.wait(5) == -signal.SIGKILL
    assert cluster.running() == []
    with pytest.raises(Unreachable, match=r"is stopped: holdfast sandbox up --dir"):
        cluster.status()
    with pytest.raises(Unreachable, match="is stopped"):
        cluster.add_member()
    assert (cluster.running(), cluster.spec.further) == ([], 0)
    with pytest.raises(Refused, match="not running"):
        cluster.kill_agent("m1")
    reopened = Sandbox.open(cluster.spec.dir)
    try:
        reopened.up()
        running = {name.removeprefix("agent of ") for name in reopened.running() if "agent" in name}
        assert running == left, "one that was removed is not started with the rest"
        with (
            reopened.connect(reopened.primary()) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT COUNT(*) FROM app.writes WHERE run = %s", (run,))
            (count,) = cursor.fetchone() or (0,)
        assert count >= rows
    finally:
        reopened.down(remove=True)
        clusters.remove()
    assert not cluster.spec.dir.exists()
    assert not cluster.spec.sockets.exists()


def interrupted(folder: str, base: str) -> None:
    """Ctrl-C during the start leaves nothing."""
    command = ("sandbox", "up", "--dir", folder, "--base-port", base)
    up = subprocess.Popen(
        [sys.executable, "-m", "holdfast.cli.main", *command], stderr=subprocess.PIPE, text=True
    )
    assert up.stderr is not None
    for line in up.stderr:
        if "starting agents" in line:
            break
    up.send_signal(signal.SIGINT)
    assert up.wait(60) == 130, up.stderr.read()
    up.stderr.close()
    assert not Path(folder).exists()
    assert all(is_free(port) for port in range(int(base), int(base) + 24))


def test_the_command_line_from_up_to_down(tmp_path: Path) -> None:
    """With one server: the tests above run on what the command line makes of the other."""
    folder = str(tmp_path / "cluster")
    base = str(free_base_port())
    interrupted(folder, base)
    try:
        up = holdfast(
            "sandbox",
            "up",
            "--server",
            Flavor.MARIADB.value,
            "--dir",
            folder,
            "--base-port",
            base,
            "--json",
        )
        assert up.returncode == 0, up.stderr
        made = json.loads(up.stdout)
        assert set(made) == {
            *(
                "dir",
                "haproxy",
                "manager_url",
                "token_file",
                "members",
                "user",
                "password",
                "client",
            )
        }
        who = ["-h", "127.0.0.1", "-P", str(made["members"][0]["port"])]
        who += ["-u", made["user"], f"-p{made['password']}", "-N", "-e", "SELECT 'it is me'", "app"]
        client = subprocess.run([*made["client"], *who], capture_output=True, text=True, check=True)
        assert client.stdout.strip() == "it is me"
        assert set(made["haproxy"]) == {"write", "read"}
        token = ("--token-file", f"{folder}/token")
        status = holdfast("status", "--manager", made["manager_url"], *token, "--json")
        assert status.returncode == 0, status.stderr
        assert json.loads(status.stdout)["primary"] == "m1"
        table = holdfast("status", *token, HOLDFAST_MANAGER=made["manager_url"])
        assert [line.split()[:3] for line in table.stdout.splitlines()[2:5]] == [
            [each["name"], f"127.0.0.1:{each['port']}", role]
            for each, role in zip(made["members"], ("primary", "voter", "voter"), strict=True)
        ]
        stranger = holdfast("status", "--manager", made["manager_url"])
        assert (stranger.returncode, "--token-file" in stranger.stderr) == (1, True)
        killed = holdfast("sandbox", "kill", "m3", "--dir", folder, "--json")
        assert json.loads(killed.stdout)["member"] == "m3"
        again = holdfast("sandbox", "up", "--dir", folder)
        assert (again.returncode, "is running" in again.stderr) == (1, True)
    finally:
        down = holdfast("sandbox", "down", "--dir", folder, "--remove")
    assert down.returncode == 0, down.stderr
    assert not Path(folder).exists()
