"""How often an agent looks at its server: often while something is about to change, seldom else."""

from __future__ import annotations

from pathlib import Path
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
from holdfast.core.view import MemberState, Receiver, Replication, ServerStatus
from holdfast.server.base import Server

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
