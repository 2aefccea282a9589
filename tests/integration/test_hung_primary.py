"""A primary that answers nothing, and that no member can replace: it is restarted in place, by itself."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import pymysql

from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER

CLIENT_SECONDS = 120


def wait_stopped(pid: int) -> None:
    """Not all threads stop the moment that the signal is sent: one might acknowledge still."""
    states = [""]
    while set(states) != {"T"}:
        time.sleep(0.01)
        stats = Path(f"/proc/{pid}/task").glob("*/stat")
        states = [stat.read_text().rpartition(")")[2].split()[0] for stat in stats]


def test_an_account_that_is_made_while_no_voter_answers_does_not_keep_the_voters_out_for_good(
    cluster: Sandbox,
) -> None:
    """MySQL lets no client log in while ``CREATE USER`` waits for an acknowledgement, and MariaDB lets none read or
    change accounts. Voters that were restarted meanwhile could not come back, and commits waited without end."""
    primary = cluster.primary()
    admin = cluster.accounts.admin
    others = [m.name for m in cluster.spec.members if m.name != primary]
    cluster.manager.change_settings(CLUSTER, {"write_patience": "1s"}, [])
    before = cluster.manager.events(CLUSTER, 0, 0)[-1]["id"]
    session = cluster.connect(primary, admin, read_timeout=CLIENT_SECONDS)
    told: list[str] = []

    def makes_an_account() -> None:
        try:
            session.cursor().execute("CREATE USER 'late'@'%' IDENTIFIED BY 'Xx1-xxxx-xxxx'")
            told.append("OK")
        except pymysql.Error as error:
            told.append(repr(error))

    for name in others:
        cluster.stop(name)
        wait_stopped(cluster.server(name).pid)
    made = threading.Thread(target=makes_an_account, daemon=True)
    made.start()
    made.join(0.5)
    silent = f"{primary}, the primary, has not answered"
    cluster.wait_until(lambda status: silent in status["reason"], 30, "silence")
    assert not told
    for name in others:
        cluster.kill_server(name)
    cluster.wait_until(lambda status: not status["whole"], 30, "their end to be noticed")
    cluster.wait_whole()
    made.join(CLIENT_SECONDS)
    assert told != ["OK"], "nobody is told that it is made before a voter has it"
    texts = [str(event["text"]) for event in cluster.manager.events(CLUSTER, before, 0)]
    assert any(f"{primary} is killed and will be restarted in place" in text for text in texts), (
        texts
    )
    assert cluster.primary() == primary
    with closing(cluster.connect(primary, admin)) as again:
        again.cursor().execute("DROP USER IF EXISTS late")
    cluster.wait_whole()
