"""What would delay a freeze is named: by connection, user, host, age and statement."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from holdfast.core.gtid import Flavor
from holdfast.core.observed.blockers import Blocker, Holds
from holdfast.server.base import Deadline
from tests.integration.servers import CLIENT, BareServer, bare_servers, wait_until
from tests.integration.test_server_freezing import Background, execute

AGE = 0.5


@pytest.fixture(scope="module")
def servers(flavor: Flavor) -> Iterator[list[BareServer]]:
    with bare_servers(flavor, 2) as made:
        primary, replica = made
        replica.adapter.follow(primary.source(replica), True, Deadline(10))
        primary.adapter.prepare_primary(0, Deadline(5))
        primary.adapter.prove(1, 1, Deadline(5))
        primary.adapter.open(Deadline(5))
        primary.sql("CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY, n INT)")
        primary.sql("INSERT INTO app.t (n) VALUES (0), (0), (0)")
        primary.sql("SET GLOBAL time_zone = '+07:00'")  # ages must not depend on it
        primary.adapter.close()
        yield made


@pytest.fixture
def primary(servers: list[BareServer]) -> BareServer:
    return servers[0]


def found(server: BareServer, seconds: float = AGE) -> list[Blocker]:
    return list(server.adapter.blockers(seconds, Deadline(5)))


def test_nothing_of_ours_of_replication_or_of_the_server_itself(primary: BareServer) -> None:
    primary.sql("SET GLOBAL event_scheduler = ON")
    primary.adapter.ping(Deadline(5))
    with closing(primary.connect(CLIENT)) as reader:
        execute(reader, "BEGIN")
        execute(reader, "SELECT * FROM app.t")
        time.sleep(0.2)
        assert found(primary, 0.0) == []


def test_an_open_transaction_with_changes_or_row_locks(primary: BareServer) -> None:
    with closing(primary.connect(CLIENT)) as changing, closing(primary.connect()) as locking:
        execute(changing, "BEGIN")
        execute(changing, "UPDATE app.t\n   SET n = 7 WHERE id = 1 /* " + "x" * 100 + " */")
        time.sleep(1.1)
        execute(locking, "BEGIN")
        execute(locking, "SELECT * FROM app.t WHERE id = 2 FOR UPDATE")
        time.sleep(1.1)
        first, second = found(primary)
        assert (first.session, second.session) == (changing.thread_id(), locking.thread_id())
        assert (first.holds, second.holds) == (Holds.TRANSACTION, Holds.TRANSACTION)
        assert (first.user, second.user) == ("app", "holdfast")
        assert first.host == "localhost"
        assert 1 <= first.seconds < 60
        assert found(primary, 60.0) == []
        # the other server forgets an idle session's last statement
        if primary.flavor is Flavor.MYSQL:
            assert first.statement.startswith("UPDATE app.t SET n = 7 WHERE id = 1 /* xxx")
            assert len(first.statement) == 80


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE app.t SET n = n + SLEEP(15) WHERE id = 3",
        "SELECT SLEEP(15) FROM app.t WHERE id = 1 FOR UPDATE",
        "CREATE TABLE app.c AS SELECT SLEEP(15) AS n",
    ],
)
def test_a_statement_that_writes_or_locks(statement: str, primary: BareServer) -> None:
    running = Background(primary, statement)
    wait_until(lambda: found(primary) != [], 15, "it is named")
    (blocker,) = found(primary)
    assert blocker.session == running.session
    assert blocker.holds is Holds.STATEMENT
    assert blocker.statement == statement
    assert blocker.seconds >= AGE
    primary.adapter.end_sessions([blocker.session], Deadline(5))
    assert running.ended() != 0
    wait_until(lambda: found(primary) == [], 15, "it is gone")


def test_a_statement_that_only_reads_is_none(primary: BareServer) -> None:
    running = Background(primary, "SELECT SLEEP(15) FROM app.t LIMIT 1")
    time.sleep(AGE + 0.2)
    assert found(primary) == []
    primary.adapter.end_sessions([running.session], Deadline(5))
    running.ended()


@pytest.mark.parametrize(
    "statement",
    ["LOCK TABLES app.t WRITE", "LOCK TABLES app.t READ", "FLUSH TABLES WITH READ LOCK"],
)
def test_locks_of_tables(statement: str, primary: BareServer) -> None:
    with closing(primary.connect()) as holder:
        execute(holder, statement)
        named = found(primary)
        if primary.flavor is Flavor.MARIADB:
            assert named == []  # not without the plugin metadata_lock_info
        else:
            (blocker,) = named
            assert (blocker.session, blocker.holds) == (holder.thread_id(), Holds.LOCK)
            assert blocker.statement == statement


def test_replication_is_not_ended_by_its_number(servers: list[BareServer]) -> None:
    primary, replica = servers
    dumps = [r["Id"] for r in primary.sql("SHOW PROCESSLIST") if "Binlog Dump" in r["Command"]]
    assert len(dumps) == 1
    primary.adapter.end_sessions([*dumps, 999_999], Deadline(5))
    time.sleep(0.2)
    assert [
        r["Id"] for r in primary.sql("SHOW PROCESSLIST") if "Binlog Dump" in r["Command"]
    ] == dumps
    assert replica.adapter.observe(Deadline(5)).replication.error == ""
