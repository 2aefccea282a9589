"""A primary that its agent cannot observe keeps its clients, and status shows the server's own error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.waiting import Status
from holdfast.server.connection.login import SafeLogin
from tests.integration.cluster import BUSY, member_of, wait_failed_over
from tests.integration.test_config import holdfast

SECONDS = 15.0
EXPIRED = {Flavor.MARIADB: "error 1820: ", Flavor.MYSQL: "error 1862: "}
OTHER = "another-1-Password"


def restart_agent(cluster: Sandbox, name: str) -> None:
    """In order, as for an upgrade: it has just begun, and its keeper process with it."""
    cluster._crew.end(name, gently=True)
    cluster.start_agent(name)


def write(cluster: Sandbox, name: str) -> None:
    """A client's commit; through HAProxy where there is one."""
    host, port = cluster.endpoint("write") or ("127.0.0.1", cluster.spec.member(name).port)
    app = cluster.accounts.app
    login = SafeLogin(
        asks_for_key=True,
        host=host,
        port=port,
        user=app.user,
        password=app.password,
        autocommit=True,
        connect_timeout=5,
        read_timeout=10,
    )
    with login as client, client.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS app.seen (n INT AUTO_INCREMENT PRIMARY KEY)")
        cursor.execute("INSERT INTO app.seen VALUES ()")
        cursor.execute("SELECT @@port")
        assert cursor.fetchone() == (cluster.spec.member(name).port,)


def keeps_its_clients(cluster: Sandbox, status: Status, name: str, said: str) -> None:
    assert (status["primary"], status["writable"], status["whole"]) == (name, True, False)
    assert said in status["reason"]
    assert "starting" not in status["reason"]
    assert member_of(status, name)["role"] == "primary"
    write(cluster, name)
    told = holdfast(cluster, "status")
    assert told.returncode == 0
    others = tuple(f"{each.name}: " for each in cluster.members() if each.name != name)
    lines = [each for each in told.stdout.splitlines() if said in each]
    assert len([each for each in lines if not each.startswith(others)]) == 1, told.stdout


@contextmanager
def another_password(cluster: Sandbox, hand: Any) -> Iterator[None]:
    """The agents' account has another password, and their files have it at the end only."""
    user = "'holdfast'@'localhost'"
    usual = cluster.accounts.admin.password
    files = [each.folder / "admin.password" for each in cluster.members()]

    def change(password: str) -> None:
        with hand.cursor() as cursor:
            cursor.execute(f"ALTER USER {user} IDENTIFIED BY '{password}'")

    change(OTHER)
    try:
        yield
        for each in files:
            each.write_text(OTHER + "\n")
        cluster.wait_whole(SECONDS)
    finally:
        change(usual)
        for each in files:
            each.write_text(usual + "\n")


def test_a_primary_that_its_agent_cannot_look_into_keeps_its_clients(cluster: Sandbox) -> None:
    flavor = cluster.spec.flavor
    name = str(cluster.wait_whole()["primary"])
    socket = cluster.spec.member(name).socket

    def dark(status: Status) -> bool:
        return bool(member_of(status, name)["state"] == "not observed")

    cluster.kill_agent(name)
    gone = cluster.wait_until(
        lambda s: member_of(s, name)["state"] == "unknown", SECONDS, "its agent is missed"
    )
    keeps_its_clients(cluster, gone, name, f"the agent of {name}, the primary, does not answer")
    time.sleep(0.5)
    assert float(member_of(cluster.status(), name)["age_seconds"]) >= 0.5
    cluster.start_agent(name)
    cluster.wait_whole(SECONDS)

    with cluster.connect(name, cluster.accounts.admin) as hand:
        with hand.cursor() as cursor:
            cursor.execute("ALTER USER 'holdfast'@'localhost' PASSWORD EXPIRE")
        restart_agent(cluster, name)
        expired = cluster.wait_until(
            lambda s: dark(s) and EXPIRED[flavor] in s["reason"], SECONDS, "the expired password"
        )
        keeps_its_clients(cluster, expired, name, EXPIRED[flavor])
        with another_password(cluster, hand):
            refused = cluster.wait_until(
                lambda s: dark(s) and "error 1045: " in s["reason"], SECONDS, "another one, too"
            )
            keeps_its_clients(cluster, refused, name, "error 1045: ")
            if port := cluster.spec.member(name).checks_port:
                assert httpx.get(f"http://127.0.0.1:{port}/primary").status_code == 200
    cluster.wait_whole(SECONDS)

    socket.unlink()
    restart_agent(cluster, name)
    cluster.wait_whole(SECONDS)  # by the loopback address
    write(cluster, name)
    cluster.kill_server(name)
    wait_failed_over(cluster, name)
    cluster.wait_whole()
    assert socket.exists()


def test_a_primary_that_shuts_down_is_not_shown_as_open(cluster: Sandbox) -> None:
    name = str(cluster.wait_whole()["primary"])
    begun = time.monotonic()
    cluster.server(name).terminate()
    shown_open = 0.0
    while (status := cluster.status())["primary"] == name:
        now = time.monotonic() - begun
        assert now < 20, status["reason"]
        if status["writable"]:
            shown_open = now
    assert shown_open < 1.5
    assert time.monotonic() - begun < 4 * BUSY  # was 5 s where a server takes long to end
    wait_failed_over(cluster, name)
    cluster.wait_whole()
