"""How commits wait is changed on running primaries, and no commit that should wait is released."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pymysql
import pytest

from holdfast.core.gtid import Flavor
from holdfast.core.settings import WaitPoint
from holdfast.core.view import SemiSync
from holdfast.errors import DeadlinePassed, Refused
from holdfast.server.base import Deadline
from tests.integration.servers import CLIENT, BareServer, bare_servers, wait_until


@pytest.fixture(params=list(Flavor), scope="module")
def servers(request: pytest.FixtureRequest) -> Iterator[list[BareServer]]:
    with bare_servers(request.param, 2) as servers:
        yield servers


@pytest.fixture
def pair(servers: list[BareServer]) -> list[BareServer]:
    """A primary that waits for its replica without a time limit."""
    primary, replica = servers
    replica.adapter.follow(primary.source(replica), True, soon())
    primary.adapter.prepare_primary(1, soon())
    primary.adapter.wait_for_ackers(1, soon())
    primary.adapter.prove(1, 1, soon())
    primary.adapter.open(soon())
    primary.sql("CREATE TABLE IF NOT EXISTS app.t (id INT AUTO_INCREMENT PRIMARY KEY, v TEXT)")
    return servers


def soon() -> Deadline:
    return Deadline(8)


def waits(primary: BareServer) -> SemiSync:
    return primary.adapter.observe(soon()).semi_sync


def status(primary: BareServer, name: str) -> int:
    side = primary.adapter.dialect.names.prefix
    return int(primary.sql(f"SHOW GLOBAL STATUS LIKE '{side}_{name}'")[0]["Value"])


def write(primary: BareServer) -> float:
    begun = time.monotonic()
    primary.sql("INSERT INTO app.t (v) VALUES ('x')", account=CLIENT)
    return time.monotonic() - begun


def stop(replica: BareServer) -> None:
    replica.adapter.stop_receiver(soon())


def resume(primary: BareServer, replica: BareServer) -> None:
    replica.adapter.follow(primary.source(replica), True, soon())
    wait_until(lambda: waits(primary).clients == 1, 5, "the replica is connected")


class Writers:
    """Clients that write one row after another."""

    def __init__(self, primary: BareServer, count: int) -> None:
        self.answered = 0
        self._primary = primary
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._write) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _write(self) -> None:
        with suppress(pymysql.err.MySQLError), self._primary.connect(CLIENT) as mine:
            while not self._ended.is_set():
                mine.cursor().execute("INSERT INTO app.t (v) VALUES ('x')")
                self.answered += 1

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


@contextmanager
def writers(primary: BareServer, count: int) -> Iterator[Writers]:
    made = Writers(primary, count)
    try:
        yield made
    finally:
        made.end()


def test_all_that_waiting_depends_on_is_set_and_told(pair: list[BareServer]) -> None:
    primary, _ = pair
    side = primary.adapter.dialect.names.prefix
    without = primary.adapter.dialect.names.without_replicas
    for seconds, point in (
        (2.5, WaitPoint.AFTER_COMMIT),
        (0.0, WaitPoint.AFTER_SYNC),
        (0.25, WaitPoint.AFTER_SYNC),
        (0.0, WaitPoint.AFTER_COMMIT),
    ):
        primary.sql(f"SET GLOBAL {without} = 1")
        primary.adapter.set_acks(1, soon(), seconds, point)
        seen = waits(primary)
        assert (seen.acks, seen.timeout_seconds, seen.wait_point) == (1, seconds, point)
        assert not seen.degraded
    primary.adapter.set_acks(0, soon())
    assert waits(primary) == SemiSync()
    # as a server may have been started that Holdfast did not set up
    primary.sql(
        f"SET GLOBAL {without} = 0",
        f"SET GLOBAL {side}_timeout = 10000",
        f"SET GLOBAL {side}_wait_point = 'AFTER_COMMIT'",
    )
    primary.adapter.set_acks(1, soon())
    assert primary.value(f"SELECT @@global.{without}") == 1
    assert (waits(primary).timeout_seconds, waits(primary).wait_point) == (0, WaitPoint.AFTER_SYNC)


def test_a_time_out_degrades_and_the_next_acknowledged_commit_ends_that(
    pair: list[BareServer],
) -> None:
    primary, replica = pair
    primary.adapter.set_acks(1, soon(), 1.0)
    stop(replica)
    assert 0.9 < write(primary) < 5
    assert waits(primary).degraded
    assert write(primary) < 0.9
    resume(primary, replica)
    time.sleep(0.5)
    print(f"{primary.flavor}: idle, with the replica back: degraded {waits(primary).degraded}")
    write(primary)
    wait_until(lambda: not waits(primary).degraded, 3, "commits wait again")
    stop(replica)
    assert 0.9 < write(primary) < 5


def test_under_load_the_waiting_returns_by_itself(pair: list[BareServer]) -> None:
    primary, replica = pair
    primary.adapter.set_acks(1, soon(), 0.3)
    with writers(primary, 4) as load:
        stop(replica)
        wait_until(lambda: waits(primary).degraded, 5, "it degraded")
        before = load.answered
        wait_until(lambda: load.answered > before + 20, 5, "commits do not wait")
        begun = time.monotonic()
        resume(primary, replica)
        wait_until(lambda: not waits(primary).degraded, 8, "commits wait again")
        print(f"{primary.flavor}: returned in {1000 * (time.monotonic() - begun):.0f} ms")


def test_raised_to_endless_while_degraded_it_waits_again_once_proved(
    pair: list[BareServer],
) -> None:
    primary, replica = pair
    primary.adapter.set_acks(1, soon(), 0.3)
    stop(replica)
    write(primary)
    primary.adapter.set_acks(1, soon())
    assert waits(primary).degraded
    assert primary.adapter.prove(1, 2, soon(), insist=False).degraded
    with pytest.raises(DeadlinePassed):
        primary.adapter.prove(1, 2, Deadline(0.5))
    resume(primary, replica)
    begun = time.monotonic()
    under = primary.adapter.prove(1, 3, soon())
    print(f"{primary.flavor}: proved in {1000 * (time.monotonic() - begun):.0f} ms")
    assert (under.timeout_seconds, under.degraded) == (0, False)
    assert not waits(primary).degraded
    stop(replica)
    with pytest.raises(DeadlinePassed):
        primary.adapter.prove(1, 4, Deadline(1))
    resume(primary, replica)


def test_raised_to_endless_under_load_while_degraded(pair: list[BareServer]) -> None:
    primary, replica = pair
    primary.adapter.set_acks(1, soon(), 0.3)
    with writers(primary, 4) as load:
        stop(replica)
        wait_until(lambda: waits(primary).degraded, 5, "it degraded")
        primary.adapter.set_acks(1, soon())
        before = load.answered
        wait_until(lambda: load.answered > before + 20, 5, "commits do not wait yet")
        resume(primary, replica)
        primary.adapter.prove(1, 2, soon())
        stop(replica)
        wait_until(lambda: waits(primary).waiting > 0, 5, "commits wait")
        before = load.answered
        time.sleep(1)
        assert load.answered == before
        resume(primary, replica)


def test_a_time_out_that_strikes_after_it_was_raised_is_not_taken_for_an_acknowledgement(
    pair: list[BareServer],
) -> None:
    """The commit that waited already keeps its time-out, and it releases all others."""
    primary, replica = pair
    primary.adapter.set_acks(1, soon(), 1.5)
    stop(replica)
    early = threading.Thread(target=write, args=(primary,))
    early.start()
    wait_until(lambda: waits(primary).waiting == 1, 3, "a commit waits with a time-out")
    primary.adapter.set_acks(1, soon())
    with pytest.raises(DeadlinePassed):
        primary.adapter.prove(1, 2, Deadline(3))
    early.join()
    assert waits(primary).degraded
    resume(primary, replica)
    assert not primary.adapter.prove(1, 3, soon()).degraded


def test_no_commit_slips_through_while_the_wait_point_changes(pair: list[BareServer]) -> None:
    """If changed without blocking commits, some waited at neither point (seen on both servers, 1 of 50)."""
    primary, _ = pair
    before = status(primary, "yes_tx")
    took: list[float] = []
    with writers(primary, 1) as load:
        for _ in range(60):
            primary.sql(
                "FLUSH TABLES WITH READ LOCK",  # else one waits at both, and is counted twice
                f"SET GLOBAL {primary.adapter.dialect.names.prefix}_wait_point = AFTER_COMMIT",
            )
            begun = time.monotonic()
            primary.adapter.set_acks(1, soon())
            took.append(time.monotonic() - begun)
    print(f"{primary.flavor}: wait point changed in {1000 * sorted(took)[30]:.1f} ms")
    assert load.answered > 50
    assert status(primary, "yes_tx") - before == load.answered


def test_the_wait_point_is_not_changed_while_commits_wait(pair: list[BareServer]) -> None:
    primary, replica = pair
    primary.adapter.set_acks(1, soon(), 0.0, WaitPoint.AFTER_COMMIT)
    stop(replica)
    with writers(primary, 2) as load:
        wait_until(lambda: waits(primary).waiting > 0, 5, "commits wait")
        before = load.answered
        with pytest.raises(Refused, match="ask again"):
            primary.adapter.set_acks(1, soon())
        assert waits(primary).wait_point is WaitPoint.AFTER_COMMIT
        assert load.answered == before
        resume(primary, replica)
        wait_until(lambda: load.answered > before + 5, 5, "commits go on")
        primary.adapter.set_acks(1, soon())
    assert waits(primary).wait_point is WaitPoint.AFTER_SYNC


def test_a_time_out_releases_what_waited_without_end(pair: list[BareServer]) -> None:
    """Set alone it would not: a commit keeps the time-out with which it began to wait."""
    primary, replica = pair
    stop(replica)
    with writers(primary, 3) as load:
        wait_until(lambda: waits(primary).waiting > 0, 5, "commits wait")
        before = load.answered
        primary.adapter.set_acks(1, soon(), 0.3)
        wait_until(lambda: load.answered > before + 3, 5, "let through")
        primary.adapter.set_acks(1, soon())
        resume(primary, replica)
