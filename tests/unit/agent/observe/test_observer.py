"""How often an agent looks at its server: often while something is about to change, else seldom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from holdfast.agent.observe.observer import (
    DOWN_EVERY_SECONDS,
    EVERY_SECONDS,
    STARTING_EVERY_SECONDS,
    ServerObserver,
)
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import Flavor
from holdfast.core.observed.applying import Applying
from holdfast.core.view import MemberState, Receiver, Replication, ServerStatus
from holdfast.server.base import Server
from tests.unit.agent_world import MemoryServer

LEAST, MOST = EVERY_SECONDS


@pytest.mark.parametrize(
    ("server", "replication", "pause"),
    [
        (ServerStatus.UP, Replication(), MOST),
        (ServerStatus.UP, Replication("a:1", Receiver.ON), MOST),
        (ServerStatus.UP, Replication("a:1", Receiver.OFF), MOST),
        (ServerStatus.UP, Replication("a:1", Receiver.CONNECTING), LEAST),
        (ServerStatus.STARTING, Replication("a:1", Receiver.CONNECTING), STARTING_EVERY_SECONDS),
        (ServerStatus.DOWN, Replication(), DOWN_EVERY_SECONDS),
    ],
)
def test_a_receiver_that_connects_is_looked_at_often(
    tmp_path: Path, server: ServerStatus, replication: Replication, pause: float
) -> None:
    """A switchover waits until the voters that it has chained below the candidate are seen to be connected."""
    state = MemberState("m1", Flavor.MARIADB, server=server, replication=replication)
    observer = ServerObserver(
        cast(Server, None), cast(ServerRun, None), PublishedState(state), tmp_path / "binlog.index"
    )
    assert observer._pause() == pause


@pytest.mark.parametrize(("stalled", "told"), [(9.0, False), (11.0, True)])
def test_an_applier_that_is_held_up_is_told_beside_a_member_that_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stalled: float, told: bool
) -> None:
    assert bool(concerns(tmp_path, monkeypatch, Applying(stalled=stalled))) is told


@pytest.mark.parametrize("writable", [True, False])
def test_of_a_primary_whose_binlog_files_were_removed_an_operator_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    """A replica shows it by itself, where status says why it cannot take over."""
    found = concerns(tmp_path, monkeypatch, Applying(removed=True), writable)
    assert any("holdfast switchover" in each for each in found) is writable


def concerns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, applying: Applying, writable: bool = False
) -> tuple[str, ...]:
    server = MemoryServer()
    server.now = replace(server.now, writable=writable)
    running = SimpleNamespace(incarnation="a", alive=True)
    published = PublishedState(
        MemberState("m1", Flavor.MARIADB, server=ServerStatus.UP, incarnation="a")
    )
    run = cast(ServerRun, SimpleNamespace(current=lambda: running))
    observer = ServerObserver(cast(Server, server), run, published, folder / "binlog.index")
    monkeypatch.setattr(observer._appliers, "seen", lambda *_, **__: applying)
    observer.look()
    return published.state.concerns
