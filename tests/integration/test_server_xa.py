"""XA transactions and tables without transactions, when a primary dies: what servers do, and what is repaired."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pymysql
import pytest

import holdfast.binlog.pending.doubts
from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.rewind.settling import Settling
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.binlog.pending.doubts import Doubts, XaEnd, doubts
from holdfast.core.gtid import Flavor
from holdfast.core.observed.xid import sql_form
from holdfast.core.view import MemberState, ServerStatus
from holdfast.errors import Refused
from holdfast.server.base import Deadline
from holdfast.server.data.xa import PreparedTransactions
from tests.integration.servers import (
    ADMIN,
    BareServer,
    Proxy,
    bare_servers,
    proxy,
    wait_until,
)

SECONDS = 20.0


@pytest.fixture
def two(flavor: Flavor) -> Iterator[tuple[BareServer, BareServer, Proxy]]:
    """A primary, a replica that acknowledges through the proxy, and the tables app.t and app.m."""
    with bare_servers(flavor, 2) as (first, second), proxy(first) as between:
        first.adapter.prepare_primary(0, Deadline(SECONDS))
        first.adapter.open(Deadline(SECONDS))
        first.sql(
            "CREATE TABLE app.t (n INT PRIMARY KEY) ENGINE=InnoDB",
            "CREATE TABLE app.m (n INT) ENGINE=MyISAM",
        )
        second.adapter.follow(first.source(second, between.port), True, Deadline(SECONDS))
        first.adapter.set_acks(1, Deadline(SECONDS))
        first.adapter.wait_for_ackers(1, Deadline(SECONDS))
        first.sql("INSERT INTO app.t VALUES (1)")
        applied = first.adapter.observe(Deadline(SECONDS)).applied
        wait_until(
            lambda: second.adapter.observe(Deadline(SECONDS)).applied == applied,
            SECONDS,
            "the replica has applied both tables",
        )
        yield first, second, between


def name(xid: str) -> str:
    return sql_form(1, xid.encode(), b"")


def prepare(xid: str, n: int) -> tuple[str, ...]:
    row = f"INSERT INTO app.t VALUES ({n})"
    return f"XA START '{xid}'", row, f"XA END '{xid}'", f"XA PREPARE '{xid}'"


def prepared(server: BareServer) -> frozenset[str]:
    return PreparedTransactions(server.flavor, server.socket, ADMIN).now(Deadline(SECONDS))


def rows(server: BareServer, table: str = "t") -> list[int]:
    return [int(row["n"]) for row in server.sql(f"SELECT n FROM app.{table} ORDER BY n")]


def in_background(server: BareServer, *statements: str) -> None:
    def run() -> None:
        with suppress(pymysql.Error):
            server.sql(*statements)

    threading.Thread(target=run, daemon=True).start()


def received(server: BareServer) -> str:
    return server.adapter.observe(Deadline(SECONDS)).received


def settled(server: BareServer) -> str:
    """What the server has received, once all of that is applied: changes with the next transaction, and with nothing
    else."""
    server.adapter.drain(Deadline(SECONDS))
    return received(server)


def take_over(second: BareServer) -> None:
    second.adapter.stop_receiver(Deadline(SECONDS))
    second.adapter.drain(Deadline(SECONDS))
    second.adapter.prepare_primary(0, Deadline(SECONDS))
    second.adapter.open(Deadline(SECONDS))


def return_to(first: BareServer, second: BareServer, settling: Settling) -> None:
    """As the agent does: recorded while it is down, settled before it follows."""
    settling.doubt(Deadline(SECONDS))
    first.adapter.close()
    first.start()
    settling.settle(Deadline(SECONDS), lambda step: None)
    first.adapter.follow(second.source(first), False, Deadline(SECONDS))
    second.sql("INSERT INTO app.t VALUES (1000)")
    wait_until(lambda: 1000 in rows(first), SECONDS, "it applies what the other wrote since")


def settling_of(
    server: BareServer, folder: Path, was_open: bool = False
) -> tuple[Settling, PublishedState]:
    state = MemberState("m1", server.flavor, server=ServerStatus.UP, incarnation="run 2")
    published = PublishedState(state)
    listed = PreparedTransactions(server.flavor, server.socket, ADMIN)
    index = server.datadir / "binlog.index"
    return Settling(
        published, Fitness(folder, published), listed, index, lambda: was_open
    ), published


def test_a_prepared_transaction_is_ended_on_the_replica_that_took_over(
    two: tuple[BareServer, BareServer, Proxy], tmp_path: Path
) -> None:
    first, second, _ = two
    first.sql(*prepare("a", 10))
    wait_until(lambda: prepared(second) == {name("a")}, SECONDS, "it is prepared on the replica")
    first.kill()
    take_over(second)
    assert prepared(second) == {name("a")}
    second.sql("XA COMMIT 'a'")
    assert rows(second) == [1, 10]
    settling, published = settling_of(first, tmp_path)
    return_to(first, second, settling)
    assert (rows(first), prepared(first)) == (rows(second), frozenset())
    assert (published.state.unfit, published.state.suspects) == ("", ())


@pytest.mark.parametrize("ended", ["COMMIT", "ROLLBACK"])
def test_one_that_was_ended_while_its_primary_died_is_ended_there_too(
    two: tuple[BareServer, BareServer, Proxy], tmp_path: Path, ended: str
) -> None:
    """Logged, acknowledged, and not carried out: MySQL's recovery carries it out. MariaDB's leaves it prepared."""
    first, second, between = two
    first.sql(*prepare("b", 20))
    between.keep()
    before = settled(second)
    in_background(first, f"XA {ended} 'b'")
    wait_until(lambda: received(second) != before, SECONDS, "the replica has received its end")
    first.kill()
    take_over(second)
    here = [1, 20] if ended == "COMMIT" else [1]
    assert (rows(second), prepared(second)) == (here, frozenset())
    settling, published = settling_of(first, tmp_path)
    first.adapter.close()
    first.start()
    if first.flavor is Flavor.MARIADB:
        assert (rows(first), prepared(first)) == ([1], frozenset({name("b")})), (
            "equal GTIDs, other rows"
        )
    else:
        assert (rows(first), prepared(first)) == (here, frozenset())
    first.kill()
    return_to(first, second, settling)
    assert (rows(first), prepared(first)) == (rows(second), frozenset())
    assert published.state.unfit == ""


def test_one_that_was_being_prepared_when_its_primary_died_may_be_lost_there(
    two: tuple[BareServer, BareServer, Proxy], tmp_path: Path
) -> None:
    first, second, between = two
    between.keep()
    before = settled(second)
    in_background(first, *prepare("c", 30))
    wait_until(lambda: received(second) != before, SECONDS, "the replica has received it")
    first.kill()
    take_over(second)
    assert prepared(second) == {name("c")}
    settling, published = settling_of(first, tmp_path)
    if first.flavor is Flavor.MYSQL:
        return_to(first, second, settling)
        assert prepared(first) == {name("c")}
        return
    assert doubts(first.datadir / "binlog.index").xa == {name("c"): XaEnd.PREPARED}
    with pytest.raises(Refused, match="has lost prepared XA transactions"):
        return_to(first, second, settling)
    assert prepared(first) == frozenset()
    assert "has lost prepared XA transactions" in published.state.unfit, "so it is cloned"


def test_tables_that_know_no_transactions_are_compared_after_a_crash(
    two: tuple[BareServer, BareServer, Proxy], tmp_path: Path
) -> None:
    first, second, between = two
    between.keep()
    before = settled(second)
    in_background(first, "INSERT INTO app.m VALUES (5)")
    wait_until(lambda: received(second) != before, SECONDS, "the replica has received it")
    first.kill()
    take_over(second)
    assert rows(second, "m") == [5]
    settling, published = settling_of(first, tmp_path)
    return_to(first, second, settling)
    assert published.state.suspects == ("app.m",)
    if first.flavor is Flavor.MYSQL:
        assert rows(first, "m") == [], "it has the GTID, and not the row"
    assert Fitness(tmp_path, PublishedState(published.state)).suspects == ("app.m",), (
        "it is on disk"
    )
    first.adapter.part(Deadline(SECONDS))
    assert first.process is not None
    first.process.terminate()
    first.process.wait(60)
    assert doubts(first.datadir / "binlog.index") == Doubts(), "nothing was under way"


def test_half_a_statement_that_no_binlog_tells_of_has_its_table_compared(
    two: tuple[BareServer, BareServer, Proxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged when it has ended, and changes its rows one by one."""
    monkeypatch.setattr(
        holdfast.binlog.pending.doubts, "IN_FLIGHT", 1
    )  # its table was changed long ago
    first, second, _ = two
    first.sql("INSERT INTO app.m VALUES " + ", ".join(f"({n})" for n in range(100)))
    first.sql("CREATE TABLE app.`a table` (n INT) ENGINE=MyISAM", "INSERT INTO app.t VALUES (2)")
    in_background(first, "UPDATE app.m SET n = n + 1000 + SLEEP(0.02)")
    time.sleep(1)
    first.kill()
    take_over(second)
    settling, published = settling_of(first, tmp_path, was_open=True)
    assert not doubts(first.datadir / "binlog.index").tables
    settling.doubt(Deadline(SECONDS))
    assert Fitness(tmp_path, PublishedState(published.state)).unlogged, "it is on disk"
    return_to(first, second, settling)
    assert 0 < sum(n >= 1000 for n in rows(first, "m")) < 100
    assert rows(second, "m") == list(range(100))
    assert published.state.suspects == ("`app`.`a table`", "app.m")
    assert not Fitness(tmp_path, PublishedState(published.state)).unlogged


def test_of_a_replica_that_crashed_only_what_its_binlog_tells_of_is_compared(
    two: tuple[BareServer, BareServer, Proxy], tmp_path: Path
) -> None:
    first, second, _ = two
    second.kill()
    settling, published = settling_of(second, tmp_path)
    settling.doubt(Deadline(SECONDS))
    assert not Fitness(tmp_path, PublishedState(published.state)).unlogged
    second.adapter.close()
    second.start()
    settling.settle(Deadline(SECONDS), lambda step: None)
    assert published.state.suspects == ()
    assert rows(second, "m") == rows(first, "m")
