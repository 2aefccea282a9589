"""Status says that the cluster takes writes only while a client's commit succeeds."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from holdfast.sandbox.local.cluster import Sandbox
from tests.integration.cluster import admin, replicas
from tests.integration.test_config import holdfast

SECONDS = 20.0


@contextmanager
def frozen(cluster: Sandbox) -> Iterator[str]:
    """Both replicas' servers answer nothing; yields the primary's name."""
    status = cluster.wait_whole()
    names = replicas(status)
    for name in names:
        os.kill(cluster.server(name).pid, signal.SIGSTOP)
    try:
        yield str(status["primary"])
    finally:
        for name in names:
            os.kill(cluster.server(name).pid, signal.SIGCONT)


@pytest.mark.parametrize("busy", [False, True])
def test_with_both_replicas_frozen_it_does_not_whether_anybody_writes_or_not(
    cluster: Sandbox, busy: bool
) -> None:
    admin(
        cluster,
        str(cluster.wait_whole()["primary"]),
        "CREATE TABLE IF NOT EXISTS app.waits (n INT AUTO_INCREMENT PRIMARY KEY)",
    )

    def blocked(status: dict[str, Any]) -> bool:
        return not status["writable"] and not status["whole"]

    with frozen(cluster) as primary:
        begun = time.monotonic()
        insert = (cluster, primary, "INSERT INTO app.waits VALUES ()")
        client = threading.Thread(target=admin, args=insert)
        if busy:
            client.start()
        status = cluster.wait_until(blocked, SECONDS)
        assert time.monotonic() - begun < 6
        said = f"commits on {primary} are blocked: "
        assert status["reason"].startswith(said)
        told = holdfast(cluster, "status")
        assert told.returncode == 4
        assert f"does not take writes; {said}" in told.stdout
    if busy:
        client.join(SECONDS)
    cluster.wait_until(lambda status: bool(status["writable"]), SECONDS)
    cluster.wait_whole()
    assert holdfast(cluster, "status").returncode == 0
