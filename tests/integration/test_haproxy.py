"""Applications through HAProxy: pools and prepared statements across a change of primary, and the agents' checks.

HAProxy 2.6 stands before MariaDB, 3.0 before MySQL.
"""

from __future__ import annotations

import os
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import mysql.connector
import pymysql
import pytest
import sqlalchemy
from mysql.connector.abstracts import MySQLConnectionAbstract
from sqlalchemy.pool import QueuePool

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.haproxy import HAPROXY
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.sandbox.servers import trees
from tests.integration.cluster import explain, member_of, replicas, wait_failed_over

PATIENCE = 15
"""Longer than HAProxy lets a client wait."""
INSERT = "INSERT INTO app.through (who) VALUES ({})"
POOL = 3


@pytest.fixture(autouse=True)
def later_haproxy(
    cluster: Sandbox, flavor: Flavor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PATH, where a sandbox looks first."""
    if flavor is Flavor.MARIADB:
        return
    program = tmp_path / "haproxy"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(trees.companion("haproxy3"))} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    cluster._kill_daemon(HAPROXY)
    cluster._start_daemon(HAPROXY)
    end = time.monotonic() + 10
    while not serves(cluster):
        assert time.monotonic() < end
        time.sleep(0.05)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(cluster.spec.haproxy_socket))
        client.sendall(b"show info\n")
        assert b"\nVersion: 3." in b"\n" + b"".join(iter(lambda: client.recv(65536), b""))


def serves(sandbox: Sandbox) -> bool:
    account, found = sandbox.accounts.app, sandbox.endpoint()
    assert found is not None
    try:
        pymysql.connect(
            host=found[0], port=found[1], user=account.user, password=account.password
        ).close()
    except (pymysql.err.MySQLError, OSError):
        return False
    return True


def killed(sandbox: Sandbox) -> str:
    return wait_failed_over(sandbox, sandbox.kill_server())


def switched(sandbox: Sandbox) -> str:
    status = sandbox.wait_whole()
    candidate = replicas(status)[0]
    sandbox.manager.switch_over(CLUSTER, candidate)
    sandbox.wait_until(lambda s: s["writable"] and s["primary"] == candidate, 20, "a switchover")
    return candidate


@dataclass
class Application:
    """Connections through HAProxy, made before the change of primary, and rows that were acknowledged."""

    sandbox: Sandbox
    acknowledged: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        account = self.sandbox.accounts.app
        found = self.sandbox.endpoint()
        assert found is not None, "scripts/get-servers haproxy"
        host, port = found
        self.where: dict[str, Any] = {
            "host": host,
            "port": port,
            "user": account.user,
            "password": account.password,
        }
        url = sqlalchemy.URL.create(
            "mysql+pymysql",
            account.user,
            account.password,
            host,
            port,
            query={"connect_timeout": str(PATIENCE)},
        )
        self.engine = sqlalchemy.create_engine(
            url, poolclass=QueuePool, pool_size=POOL, pool_pre_ping=True
        )
        self.plain = self.connect()
        prepared = mysql.connector.connect(
            **self.where,
            use_pure=True,
            autocommit=True,
            charset="utf8mb4",
            collation="utf8mb4_general_ci",
            connection_timeout=PATIENCE,
        )
        assert isinstance(prepared, MySQLConnectionAbstract)
        self.prepared = prepared
        with self.plain.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS app.through (n INT AUTO_INCREMENT PRIMARY KEY, who VARCHAR(60))"
            )
            cursor.execute("DELETE FROM app.through")

    def connect(self) -> pymysql.Connection[Any]:
        return pymysql.connect(**self.where, autocommit=True, connect_timeout=PATIENCE)

    def write_plain(self, who: str) -> None:
        with self.plain.cursor() as cursor:
            cursor.execute(INSERT.format("%s"), (who,))
        self.acknowledged.append(who)

    def write_prepared(self, who: str) -> None:
        with self.prepared.cursor(prepared=True) as cursor:
            cursor.execute(INSERT.format("?"), (who,))
        self.acknowledged.append(who)

    def write_pooled(self, who: str) -> None:
        """By every connection of the pool, at the same time."""
        connections = [self.engine.connect() for _ in range(POOL)]
        for number, connection in enumerate(connections):
            with connection, connection.begin():
                connection.execute(
                    sqlalchemy.text(INSERT.format(":who")), {"who": f"{who} {number}"}
                )
            self.acknowledged.append(f"{who} {number}")

    def port(self) -> int:
        with self.plain.cursor() as cursor:
            cursor.execute("SELECT @@port")
            return int(cursor.fetchone()[0])

    def rows(self) -> list[str]:
        with self.plain.cursor() as cursor:
            cursor.execute("SELECT who FROM app.through ORDER BY n")
            return [str(row[0]) for row in cursor.fetchall()]

    def close(self) -> None:
        self.engine.dispose()
        for each in (self.plain, self.prepared):
            with suppress(Exception):  # it may have ended
                each.close()


class Comers:
    """Clients that connect all the time, and are refused or not.

    :ivar refused: the most refusals in a row for each: a client that is connecting when the primary dies is cut off
        once
    :ivar longest: seconds that one waited
    """

    def __init__(self, application: Application, count: int = 4) -> None:
        self._application = application
        self._stop = threading.Event()
        self.refused: list[str] = []
        self.longest = 0.0
        self.served = 0
        self._threads = [threading.Thread(target=self._come) for _ in range(count)]

    def __enter__(self) -> Comers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _come(self) -> None:
        in_a_row: list[str] = []
        while not self._stop.wait(0.02):
            began = time.monotonic()
            try:
                self._application.connect().close()
            except (pymysql.err.MySQLError, OSError) as error:
                in_a_row.append(f"{time.monotonic() - began:.3f} s: {error}")
                self.refused = max(self.refused, in_a_row, key=len)
                continue
            in_a_row = []
            self.longest = max(self.longest, time.monotonic() - began)
            self.served += 1


@contextmanager
def application(sandbox: Sandbox) -> Iterator[Application]:
    made = Application(sandbox)
    try:
        yield made
    finally:
        made.close()


def checks(sandbox: Sandbox, path: str) -> set[str]:
    """The members whose agents say yes."""
    return {
        member.name
        for member in sandbox.spec.members
        if httpx.get(f"http://{member.host}:{member.checks_port}{path}").status_code == 200
    }


@pytest.mark.parametrize("change", [killed, switched])
def test_pools_and_prepared_statements_go_on_after_a_change_of_primary(
    cluster: Sandbox, change: Callable[[Sandbox], str]
) -> None:
    old = cluster.primary()
    with application(cluster) as app:
        app.write_plain("plain before")
        app.write_prepared("prepared before")
        app.write_pooled("pooled before")
        assert app.port() == cluster.spec.member(old).port

        with Comers(app) as comers:
            new = change(cluster)
            served = comers.served
            end = time.monotonic() + 20
            while comers.served < served + 8:
                assert time.monotonic() < end, explain(cluster)
                time.sleep(0.01)

        app.write_pooled("pooled after")
        with pytest.raises(pymysql.err.OperationalError):
            app.write_plain("never")
        app.plain = app.connect()
        app.write_plain("plain after")
        with pytest.raises(mysql.connector.Error):
            app.write_prepared("never")
        app.prepared.reconnect()
        app.write_prepared("prepared after")

        assert app.port() == cluster.spec.member(new).port
        assert app.rows() == app.acknowledged
        assert len(comers.refused) <= 1, comers.refused
        assert comers.longest < 9
    cluster.wait_whole()
    assert checks(cluster, "/primary") == {new}
    assert checks(cluster, "/replica?max_lag=10s") == set(replicas(cluster.status()))
    assert len(checks(cluster, "/voter")) == 3
    assert len(checks(cluster, "/readiness")) == 3


def test_with_no_manager_checks_lead_to_the_primary(cluster: Sandbox) -> None:
    primary = cluster.primary()
    cluster.kill_manager()
    try:
        cluster._kill_daemon(HAPROXY)
        cluster._start_daemon(HAPROXY)
        end = time.monotonic() + 10
        while True:
            try:
                with application(cluster) as app:
                    assert app.port() == cluster.spec.member(primary).port
                    return
            except pymysql.err.OperationalError:
                assert time.monotonic() < end
                time.sleep(0.05)
    finally:
        cluster.start_manager()
        cluster.wait_whole()


def test_readers_are_led_to_replicas(cluster: Sandbox) -> None:
    status = cluster.wait_whole()
    found = cluster.endpoint("read")
    assert found is not None
    account = cluster.accounts.app
    ports = set()
    for _ in range(4):
        with (
            pymysql.connect(
                host=found[0], port=found[1], user=account.user, password=account.password
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT @@port")
            ((port,),) = cursor.fetchall()
            ports.add(port)
    assert ports <= {cluster.spec.member(name).port for name in replicas(status)}
    assert member_of(status, str(status["primary"]))["role"] == "primary"
