"""Commits of an open primary begin to wait when everything has been sent to its replicas, or after a moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from holdfast.core.gtid import Flavor
from holdfast.server.base import Deadline
from holdfast.server.replication import sending
from tests.integration.servers import CLIENT, BareServer, bare_servers
from tests.unit.hand_clock import PacedClock

UNSENT_MB = 48
"""More than the sockets between two servers hold."""


@pytest.fixture(params=list(Flavor), scope="module")
def servers(request: pytest.FixtureRequest) -> Iterator[list[BareServer]]:
    with bare_servers(request.param, 2) as servers:
        yield servers


@pytest.fixture
def pair(servers: list[BareServer]) -> list[BareServer]:
    """A primary that serves alone, and a replica that acknowledges although no commit waits for it."""
    primary, replica = servers
    primary.adapter.prepare_primary(0, soon())
    primary.adapter.open(soon())
    primary.sql(
        "CREATE TABLE IF NOT EXISTS app.big (id INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT)"
    )
    replica.adapter.follow(primary.source(replica), True, soon())
    soon().wait_until("the replica is at the head", lambda: all_sent(primary))
    return servers


def soon() -> Deadline:
    return Deadline(15)


def all_sent(primary: BareServer) -> bool:
    found = sending.dumps(primary.adapter.sessions.side, primary.adapter.dialect.catalog, soon())
    return bool(found) and all(found.values())


def write_much(primary: BareServer) -> None:
    insert = f"INSERT INTO app.big (v) VALUES (REPEAT('x', {2**20}))"
    primary.sql(*[insert] * UNSENT_MB, account=CLIENT)


def test_a_replica_that_lacks_much_is_waited_for_before_commits_wait_for_it(
    pair: list[BareServer],
) -> None:
    primary, replica = pair
    slow = Deadline(15, clock=PacedClock(1 / 30))  # half a second lasts 15
    replica.freeze()
    try:
        write_much(primary)
        assert not all_sent(primary)
        setting = threading.Thread(target=primary.adapter.set_acks, args=(1, slow), daemon=True)
        setting.start()
        primary.sql("INSERT INTO app.big (v) VALUES ('not held up')", account=CLIENT)
        assert not primary.adapter.observe(soon()).semi_sync.source
        assert not all_sent(primary)
    finally:
        replica.thaw()
    setting.join(15)
    assert not setting.is_alive()
    assert primary.adapter.observe(soon()).semi_sync.source
    primary.sql("INSERT INTO app.big (v) VALUES ('acknowledged')", account=CLIENT)


def test_a_replica_that_is_sent_nothing_does_not_keep_commits_from_waiting_for_long(
    pair: list[BareServer],
) -> None:
    primary, replica = pair
    replica.freeze()
    try:
        write_much(primary)
        primary.adapter.set_acks(1, soon())
        assert not all_sent(primary)
        assert primary.adapter.observe(soon()).semi_sync.source
    finally:
        replica.thaw()
    primary.sql("INSERT INTO app.big (v) VALUES ('acknowledged')", account=CLIENT)


def test_without_replicas_nothing_is_waited_for(pair: list[BareServer]) -> None:
    primary, replica = pair
    replica.adapter.stop_receiver(soon())
    primary.sql("INSERT INTO app.big (v) VALUES ('its thread ends at the next event')")
    soon().wait_until(
        "the dump thread has ended",
        lambda: (
            not sending.dumps(
                primary.adapter.sessions.side, primary.adapter.dialect.catalog, soon()
            )
        ),
    )
    # 12 s in all, and 15 would be waited for a replica
    primary.adapter.set_acks(1, Deadline(0.4, clock=PacedClock(1 / 30)))
    assert primary.adapter.observe(soon()).semi_sync.source
    primary.adapter.set_acks(0, soon())
