"""What a replica has received and not applied: read from the files of a killed server, and lost by an operator's
act."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pymysql
import pytest

from holdfast.agent.commands.inventory import take_inventory
from holdfast.agent.disk.term import TermFile
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.promise.receipts import Receipts
from holdfast.config.schema import ServerConfig
from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.core.view import Receiver
from holdfast.errors import Refused
from holdfast.server.base import Deadline
from tests.integration.servers import BareServer, bare_servers, proxy, wait_until

HALF = 300_000
"""Bytes of a transaction that is never received to its end."""


@pytest.fixture
def pair(flavor: Flavor) -> Iterator[list[BareServer]]:
    """A primary that waits for no replica, and a replica whose applier is stopped after the first rows."""
    with bare_servers(flavor, 2) as servers:
        primary, replica = servers
        replica.adapter.follow(primary.source(replica), True, soon())
        primary.adapter.prepare_primary(0, soon())
        primary.adapter.open(soon())
        primary.sql("CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT)")
        wait_until(lambda: received(replica) == applied(primary), 5, "the first rows are received")
        replica.adapter.drain(soon())
        replica.adapter.hold_applier(soon())
        yield servers


def soon() -> Deadline:
    return Deadline(10)


def applied(server: BareServer) -> GtidSet:
    return parse(server.flavor, server.adapter.observe(soon()).applied)


def received(server: BareServer) -> GtidSet:
    return parse(server.flavor, server.adapter.observe(soon()).received)


def inventory(server: BareServer, state_dir: Path) -> GtidSet:
    own = ServerConfig.model_validate(
        {
            "flavor": server.flavor.value,
            "command": list(server.tree.command),
            "option_file": server.option_file,
            "datadir": server.datadir,
            "socket": server.socket,
            "binlog_index": server.datadir / "binlog.index",
            "admin": {"user": "holdfast", "password_file": server.option_file},
        }
    )
    return take_inventory(own, state_dir, soon())


def write(server: BareServer, *statements: str) -> None:
    for statement in statements or ("INSERT INTO app.t (v) VALUES ('x')",):
        server.sql(statement)


def test_the_files_of_one_that_was_killed_tell_all_that_it_has_received(
    pair: list[BareServer], flavor: Flavor, tmp_path: Path
) -> None:
    primary, replica = pair
    write(
        primary,
        "INSERT INTO app.t (v) VALUES ('a'), ('b'), (REPEAT('c', 200000))",
        "CREATE TABLE app.u LIKE app.t",
        "INSERT INTO app.u SELECT * FROM app.t",
        "UPDATE app.t SET v = CONCAT(v, 'd')",
        "TRUNCATE app.u",
        "CREATE USER somebody@localhost",
    )
    wait_until(lambda: received(replica) == applied(primary), 5, "all is received")
    before = received(replica)
    replica.sql("FLUSH LOCAL RELAY LOGS")
    write(primary, "DELETE FROM app.t WHERE id = 1", "ANALYZE TABLE app.t", "DROP TABLE app.u")
    primary.sql(
        "XA START 'a'", "INSERT INTO app.t (v) VALUES ('xa')", "XA END 'a'", "XA PREPARE 'a'"
    )
    primary.sql("XA COMMIT 'a'")
    wait_until(lambda: received(replica) == applied(primary), 5, "all is received")
    assert received(replica).contains(before)
    assert applied(replica) != received(replica)
    with proxy(primary) as through:
        if flavor is Flavor.MYSQL:
            # everything is fetched anew, up to within a transaction
            replica.adapter.stop_receiver(soon())
            replica.sql(f"CHANGE REPLICATION SOURCE TO SOURCE_PORT = {through.port}")
            through.stop_after(HALF)
            replica.sql("START REPLICA IO_THREAD")
            write(primary, f"INSERT INTO app.t (v) VALUES (REPEAT('h', {4 * HALF}))")
            assert through.stopped.wait(20)
            replica.adapter.stop_receiver(soon())
        seen = received(replica)
        if flavor is Flavor.MYSQL:
            replica.sql("SET GLOBAL super_read_only = 0")
        replica.sql("CREATE DATABASE of_its_own")
        own = received(replica)
        replica.kill()
    # except what it wrote itself: it may have been a primary whose commits were never acknowledged
    assert not seen.contains(own)
    assert inventory(replica, tmp_path) == seen
    if flavor is Flavor.MARIADB:  # an incomplete transaction is not part of it
        last = max(replica.datadir.glob("relay.0*"))
        with last.open("r+b") as file:
            file.truncate(last.stat().st_size - 40)
        torn = inventory(replica, tmp_path)
        assert torn != seen
        assert seen.contains(torn)


def agent(server: BareServer, killed: list[str], folder: Path) -> Receipts:
    server_run = cast("ServerRun", SimpleNamespace(kill=killed.append))
    return Receipts(
        server.adapter,
        server_run,
        folder,
        lambda why, _: killed.append(why),
        lambda _: False,
        TermFile(folder),
    )


def test_a_hand_can_make_less_of_what_a_running_server_has_received(
    pair: list[BareServer], flavor: Flavor, tmp_path: Path
) -> None:
    """Its source is frozen, so that nothing arrives again; an agent sees that what was received is gone."""
    primary, replica = pair
    write(primary)
    write(primary)
    wait_until(lambda: received(replica) == applied(primary), 5, "all is received")
    before = received(replica)
    killed: list[str] = []
    receipts = agent(replica, killed, tmp_path)
    receipts.seen(replica.adapter.observe(soon()), "a run")
    primary.freeze()
    try:
        if flavor is Flavor.MYSQL:  # it keeps its relay log at a restart
            replica.sql("STOP REPLICA", "START REPLICA IO_THREAD")
            assert received(replica) == before
            receipts.seen(replica.adapter.observe(soon()), "a run")
            (tmp_path / "receiver").unlink()
            again = agent(replica, killed, tmp_path)
            again.seen(replica.adapter.observe(soon()), "a run")
            replica.sql("STOP REPLICA", "RESET BINARY LOGS AND GTIDS")
            assert received(replica) == before  # that alone would not show it
            with pytest.raises(Refused, match="was reset by hand"):
                again.seen(replica.adapter.observe(soon()), "a run")
            replica.sql("RESET REPLICA")
        else:
            replica.sql("STOP SLAVE", "START SLAVE")
        assert before != received(replica)
        assert before.contains(received(replica))
        told = "was reset by hand" if flavor is Flavor.MYSQL else "it has lost"
        with pytest.raises(Refused, match=told):
            receipts.seen(replica.adapter.observe(soon()), "a run")
        # a reset makes it unfit, too
        assert len(killed) == (4 if flavor is Flavor.MYSQL else 1)
    finally:
        primary.thaw()


def test_an_agent_that_was_away_sees_that_a_hand_restarted_the_receiver(
    pair: list[BareServer], flavor: Flavor, tmp_path: Path
) -> None:
    primary, replica = pair
    killed: list[str] = []

    def looks() -> None:
        agent(replica, killed, tmp_path).seen(replica.adapter.observe(soon()), "a run")

    looks()
    primary.kill()
    wait_until(
        lambda: replica.adapter.observe(soon()).replication.receiver is Receiver.CONNECTING,
        5,
        "the source is missed",
    )
    for _ in range(3):  # it tries again each second, in the same thread
        time.sleep(0.7)
        looks()
    applier = ("STOP REPLICA SQL_THREAD", "START REPLICA SQL_THREAD")
    replica.sql(*applier)  # nothing is dropped while the receiver runs
    looks()
    assert killed == []
    replica.sql("STOP REPLICA", "START REPLICA")
    with pytest.raises(Refused, match="while its agent was away"):
        looks()
    assert len(killed) == 1


def test_what_is_left_out_is_seen_at_the_next_look_however_it_was_said(
    pair: list[BareServer], flavor: Flavor, tmp_path: Path
) -> None:
    primary, replica = pair
    values = {
        "do_db": "x",
        "ignore_db": "x",
        "do_table": "x.t",
        "ignore_table": "x.t",
        "wild_do_table": "x%.t",
        "wild_ignore_table": "x%.t",
        "rewrite_db": "x->y",
    }

    def refused(name: str) -> None:
        killed: list[str] = []
        with pytest.raises(Refused, match=f"replicate_{name}="):
            agent(replica, killed, tmp_path).seen(replica.adapter.observe(soon()), "a run")
        assert len(killed) == 2  # it is not fit any more, and it is killed

    for name, value in values.items():
        replica.sql("STOP REPLICA SQL_THREAD")
        if flavor is Flavor.MARIADB:
            replica.sql(f"SET GLOBAL replicate_{name} = '{value}'")
        else:
            rule = {"do_db": "x", "ignore_db": "x", "rewrite_db": "(x, y)"}.get(name, value)
            rule = f"'{rule}'" if name.startswith("wild") else rule
            replica.sql(f"CHANGE REPLICATION FILTER REPLICATE_{name.upper()} = ({rule})")
        replica.sql("START REPLICA SQL_THREAD")
        refused(name)
        replica.sql("STOP REPLICA SQL_THREAD")
        if flavor is Flavor.MARIADB:
            replica.sql(f"SET GLOBAL replicate_{name} = ''")
        else:
            replica.sql(f"CHANGE REPLICATION FILTER REPLICATE_{name.upper()} = ()")
        assert not replica.adapter.observe(soon()).replication.filters
    if flavor is Flavor.MYSQL:
        with pytest.raises(pymysql.err.OperationalError, match="cannot be performed"):
            replica.sql("STOP REPLICA", "CHANGE REPLICATION SOURCE TO IGNORE_SERVER_IDS = (9)")
        return
    for name in ("ignore_server_ids", "ignore_domain_ids", "do_domain_ids"):
        replica.sql("STOP SLAVE", f"CHANGE MASTER TO {name} = (9)", "START SLAVE")
        refused(name)
        replica.sql("STOP SLAVE")
        replica.adapter.follow(primary.source(replica), True, soon())
        assert not replica.adapter.observe(soon()).replication.filters
