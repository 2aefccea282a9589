"""The history on real servers: it can be read, also after managers were killed, also in the middle of an entry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.history.entry import Entry, Outcome, Sort, What, from_json
from holdfast.errors import HoldfastError, Refused
from holdfast.manager.listeners.archive import Archive
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.store.sqlite import SqliteStore
from tests.integration.cluster import explain, replicas, wait_failed_over, writing

SECONDS = 30.0


def newest(sandbox: Sandbox) -> dict[str, Any]:
    """The head of the last entry, {} while there is none or no manager answers."""
    try:
        found = sandbox.manager.history(CLUSTER, 1)
    except HoldfastError:
        return {}
    return found[0] if found else {}


def entry(sandbox: Sandbox, number: int, reached: Callable[[Entry], bool]) -> Entry:
    """That entry, once ``reached`` holds."""
    end = time.monotonic() + SECONDS
    while True:
        found = from_json(json.dumps(sandbox.manager.history_entry(CLUSTER, number)))
        if reached(found):
            return found
        assert time.monotonic() < end, f"{found}; {explain(sandbox)}"
        time.sleep(0.05)


def last_number(sandbox: Sandbox) -> int:
    return int(newest(sandbox).get("number", 0))


def wait_for(sandbox: Sandbox, number: int) -> None:
    end = time.monotonic() + SECONDS
    while last_number(sandbox) < number:
        assert time.monotonic() < end, explain(sandbox)
        time.sleep(0.02)


def wait_stored(sandbox: Sandbox, wanted: Entry) -> None:
    """What the manager shows is in the store too."""
    end = time.monotonic() + SECONDS
    with closing(SqliteStore(sandbox.spec.store)) as store:
        archive = Archive(store, CLUSTER)
        while (stored := archive.get(wanted.number)) is None or stored[0] != wanted:
            assert time.monotonic() < end, explain(sandbox)
            time.sleep(0.05)


def call(sandbox: Sandbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = ["--manager", sandbox.spec.manager_url, "--token-file", str(sandbox.spec.token_file)]
    return subprocess.run(
        [sys.executable, "-m", "holdfast.cli.main", "history", *where, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_failover_is_read_back_after_the_manager_was_killed(cluster: Sandbox, run: int) -> None:
    number = last_number(cluster) + 1
    with writing(cluster, run) as writers:
        writers.wait_for(100)
        killed = cluster.kill_server("primary")
        primary = wait_failed_over(cluster, killed)
        writers.wait_for(100)
    cluster.wait_whole(30)
    wait_for(cluster, number)
    found = entry(cluster, number, lambda e: not e.live)
    wait_stored(cluster, found)
    cluster.kill_manager()
    cluster.start_manager()
    cluster.wait_whole(30)
    again = entry(cluster, number, lambda _: True)
    assert again == found
    assert (again.what, again.outcome) == (What.FAILOVER, Outcome.DONE)
    assert (again.old, again.new, again.ordered) == (killed, primary, "")
    assert "is gone" in again.cause
    assert again.outage_ms
    assert again.returned.verdict in ("clean", "cut", "committed")
    assert bool(again.returned.saved) == (again.returned.verdict != "clean")
    for path in again.returned.saved:
        assert Path(path).exists()
    assert again.positions.old, "as its agent had seen it last"
    assert again.positions.new
    done = {(m.member, m.text): m for m in again.moments if m.sort is Sort.COMMAND}
    assert done[primary, "promote"].steps
    assert {each.name for each in again.candidates} == {"m1", "m2", "m3"} - {killed}
    listed = call(cluster)
    assert listed.returncode == 0, listed.stderr
    assert f"{killed} -> {primary}" in listed.stdout
    shown = call(cluster, "show", str(number))
    assert shown.returncode == 0, shown.stderr
    assert f"What became of {killed}:" in shown.stdout
    assert json.loads(call(cluster, "show", str(number), "--json").stdout)["number"] == number


def test_an_entry_that_is_not_there_is_refused_and_says_where_to_look(cluster: Sandbox) -> None:
    with pytest.raises(Refused, match=r"has no entry 999 .*see holdfast history"):
        cluster.manager.history_entry(CLUSTER, 999)
    result = call(cluster, "show", "999")
    assert result.returncode == 1
    assert "has no entry 999" in result.stderr


def test_a_manager_that_was_killed_in_the_middle_is_followed_in_the_same_entry(
    cluster: Sandbox,
) -> None:
    number = last_number(cluster) + 1
    status = cluster.wait_whole()
    primary, slow = str(status["primary"]), replicas(status)[0]
    agent = cluster._crew._daemons[slow].pid
    os.kill(agent, signal.SIGSTOP)  # its promise is awaited: that is the middle
    try:
        cluster.kill_server(primary)
        wait_for(cluster, number)
        assert newest(cluster)["outcome"] == Outcome.UNDER_WAY, explain(cluster)
        cluster.kill_manager()
    finally:
        os.kill(agent, signal.SIGCONT)
    cluster.start_manager()
    new = wait_failed_over(cluster, primary)
    cluster.wait_whole(30)
    found = entry(cluster, number, lambda e: not e.live)
    assert last_number(cluster) == number
    assert (found.outcome, found.old, found.new) == (Outcome.DONE, primary, new)
    assert found.before
    assert found.after
    texts = [each.text for each in found.moments]
    assert any("continues it at the step elect" in each for each in texts), texts
    assert "is gone" in texts[0]
