"""A primary takes no more writes, and another takes over from it while both run; or the primary continues."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import pymysql
import pytest
from pymysql.constants import ER

from holdfast.core.gtid import Flavor, parse
from holdfast.core.view import Receiver
from holdfast.errors import DeadlinePassed, HoldfastError, OutcomeUnknown, Refused
from holdfast.server.base import Account, Deadline
from holdfast.server.connection.login import PyMySQL
from holdfast.server.connection.session_settings import SIDE_SETTINGS
from holdfast.server.connection.sql import Connection
from tests.integration.servers import ADMIN, CLIENT, BareServer, bare_servers, wait_until

LOST = {2006, 2013, 2055, 1927}


@pytest.fixture(scope="module")
def servers(flavor: Flavor) -> Iterator[list[BareServer]]:
    with bare_servers(flavor, 2) as made:
        primary, replica = made
        replica.adapter.follow(primary.source(replica), True, Deadline(10))
        promote(primary)
        primary.sql("CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY, n INT)")
        primary.sql("INSERT INTO app.t (n) VALUES (0), (0), (0)")
        yield made


@pytest.fixture
def pair(servers: list[BareServer]) -> Iterator[list[BareServer]]:
    """A primary that waits for its replica."""
    primary, replica = servers
    yield servers
    replica.thaw()
    for each in servers:
        each.adapter.close()
    if primary.value("SELECT COUNT(*) FROM app.t WHERE n < 0"):
        raise AssertionError("something was written that must not be")
    replica.adapter.follow(primary.source(replica), True, Deadline(10))
    promote(primary)


def promote(server: BareServer) -> None:
    adapter, deadline = server.adapter, Deadline(10)
    adapter.prepare_primary(1, deadline)
    adapter.wait_for_ackers(1, deadline)
    adapter.prove(1, 1, deadline)
    adapter.open(deadline)


def freeze(server: BareServer, seconds: float = 3.0) -> dict[str, float]:
    """Milliseconds of each step."""
    took: dict[str, float] = {}
    last = [time.monotonic()]

    def done(what: str) -> None:
        now = time.monotonic()
        took[what] = round((now - last[0]) * 1000, 1)
        last[0] = now

    server.adapter.freeze(Deadline(seconds), done, lambda _: None)
    return took


def applied(server: BareServer) -> str:
    return server.adapter.observe(Deadline(5)).applied


def execute(client: PyMySQL, sql: str) -> list[dict[str, Any]]:
    with client.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


class Background:
    """A statement in a separate session.

    :ivar error: how it failed; 0 when it did not
    """

    def __init__(self, server: BareServer, sql: str, account: Account = ADMIN) -> None:
        self._client = server.connect(account)
        self.session = self._client.thread_id()
        self.error = -1
        self._sql = sql
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        text = "information_schema" if server.flavor is Flavor.MARIADB else "performance_schema"
        look = f"SELECT ID FROM {text}.processlist WHERE ID = {self.session} AND INFO = %s"
        with closing(server.connect()) as eyes, eyes.cursor() as cursor:
            wait_until(
                lambda: bool(cursor.execute(look, (sql,))) or self.error >= 0, 10, f"{sql} runs"
            )

    def _run(self) -> None:
        try:
            execute(self._client, self._sql)
            self.error = 0
        except pymysql.err.Error as error:
            self.error = int(error.args[0])

    def ended(self) -> int:
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._client.close()
        return self.error


class Writers:
    """Clients that write until their connection is lost; then they end.

    :ivar answered: commits that were acknowledged to them; :ivar errors: the other answers
    """

    def __init__(self, server: BareServer, count: int = 4) -> None:
        self.answered: set[int] = set()
        self.errors: list[int] = []
        clients = [server.connect(CLIENT) for _ in range(count)]
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in clients]
        for each in self._threads:
            each.start()

    def _run(self, client: PyMySQL) -> None:
        with closing(client), client.cursor() as cursor:
            while True:
                try:
                    cursor.execute("INSERT INTO app.t (n) VALUES (1)")
                except pymysql.err.Error as error:
                    self.errors.append(int(error.args[0]))
                    if error.args[0] in LOST:
                        return
                else:
                    self.answered.add(int(cursor.lastrowid))

    def wait_for(self, more: int) -> None:
        wanted = len(self.answered) + more
        wait_until(lambda: len(self.answered) >= wanted, 20, f"{more} writes")

    def ended(self) -> None:
        for each in self._threads:
            each.join(20)
            assert not each.is_alive()


def test_nobody_can_write_on_a_frozen_server_and_it_opens_again(pair: list[BareServer]) -> None:
    primary, _ = pair
    print(primary.flavor, "idle", freeze(primary))
    before = applied(primary)
    with pytest.raises(pymysql.err.OperationalError) as refused:
        primary.sql("INSERT INTO app.t (n) VALUES (-1)", account=CLIENT)
    assert refused.value.args[0] == ER.OPTION_PREVENTS_STATEMENT
    patience = "SET SESSION lock_wait_timeout = 1"
    with pytest.raises(pymysql.err.OperationalError):
        primary.sql(patience, "INSERT INTO app.t (n) VALUES (-1)")
    assert applied(primary) == before
    assert not primary.adapter.observe(Deadline(5)).writable
    promote(primary)
    primary.sql("INSERT INTO app.t (n) VALUES (1)", account=CLIENT)


def test_writers_lose_their_connection_once_and_nothing_that_they_were_told(
    pair: list[BareServer],
) -> None:
    primary, replica = pair
    load = Writers(primary)
    load.wait_for(50)
    print(primary.flavor, "4 writers", freeze(primary))
    last = applied(primary)
    load.ended()
    assert len(load.errors) == 4
    assert set(load.errors) <= LOST
    assert applied(primary) == last
    replica.adapter.drain(Deadline(10), last)
    rows = {int(row["id"]) for row in replica.sql("SELECT id FROM app.t")}
    assert load.answered <= rows


def test_a_freeze_asked_for_again_is_one(pair: list[BareServer]) -> None:
    primary, _ = pair
    freeze(primary)
    again = freeze(primary)
    assert list(again) == ["sessions ended"]
    promote(primary)
    primary.sql("INSERT INTO app.t (n) VALUES (1)")
    assert "locked" in freeze(primary)


def test_whoever_may_write_on_a_read_only_server_waits_and_is_cut_before_it_follows(
    pair: list[BareServer],
) -> None:
    primary, replica = pair
    freeze(primary)
    late = Background(primary, "INSERT INTO app.t (n) VALUES (-2)")
    hand_over(primary, replica)
    assert late.ended() in LOST | {ER.OPTION_PREVENTS_STATEMENT}
    primary.adapter.drain(Deadline(10), applied(replica))
    assert applied(primary) == applied(replica)
    give_back(primary, replica)


def hand_over(old: BareServer, new: BareServer) -> None:
    """As a switchover does it; ``old`` is frozen."""
    deadline = Deadline(10)
    new.adapter.drain(deadline, applied(old))
    new.adapter.prepare_primary(0, deadline, following=True)
    new.adapter.open(deadline, following=True)
    new.adapter.prove(2, 2, deadline, following=True)
    with ThreadPoolExecutor(1) as other:  # as their agents do
        left = other.submit(new.adapter.leave, deadline)
        old.adapter.follow(new.source(old), True, deadline)
        left.result()
    new.adapter.wait_for_ackers(1, deadline)
    new.adapter.set_acks(1, deadline)


def give_back(primary: BareServer, replica: BareServer) -> None:
    freeze(replica)
    hand_over(replica, primary)


def test_back_and_forth_under_load_each_server_as_it_runs(pair: list[BareServer]) -> None:
    primary, replica = pair
    old, new = primary, replica
    answered: set[int] = set()
    for _ in range(4):
        load = Writers(old, 2)
        load.wait_for(10)
        freeze(old)
        load.ended()
        answered |= load.answered
        hand_over(old, new)
        new.sql("INSERT INTO app.t (n) VALUES (1)")
        found = new.adapter.observe(Deadline(5))
        assert found.writable
        assert found.replication.source == ""
        assert not found.semi_sync.replica
        old, new = new, old
    assert old is primary
    replica.adapter.drain(Deadline(10), applied(primary))
    for each in pair:
        assert answered <= {int(row["id"]) for row in each.sql("SELECT id FROM app.t")}
    found = replica.adapter.observe(Deadline(5))
    assert found.replication.receiver is Receiver.ON
    assert found.replication.error == ""
    assert found.semi_sync.replica


HARMLESS = {
    "an open transaction": ["BEGIN", "UPDATE app.t SET n = -3 WHERE id = 1"],
    "a table locked to be read": ["LOCK TABLES app.t READ"],
    "a handler": ["HANDLER app.t OPEN"],
}


@pytest.mark.parametrize("what", HARMLESS)
def test_who_holds_nothing_that_writes_does_not_hold_it_up(
    what: str, pair: list[BareServer]
) -> None:
    primary, _ = pair
    with closing(primary.connect()) as idle:
        for each in HARMLESS[what]:
            execute(idle, each)
        print(primary.flavor, what, freeze(primary))
        with pytest.raises(pymysql.err.Error) as lost:
            execute(idle, "COMMIT")
        assert lost.value.args[0] in LOST


def test_a_long_read_does_not_hold_it_up_and_is_cut(pair: list[BareServer]) -> None:
    primary, _ = pair
    reading = Background(primary, "SELECT SLEEP(15) FROM app.t LIMIT 1")
    time.sleep(0.1)
    begun = time.monotonic()
    print(primary.flavor, "a long SELECT", freeze(primary))
    reading.ended()
    assert time.monotonic() - begun < 10


HOLDING = {
    "update": "UPDATE app.t SET n = n + SLEEP(8) WHERE id = 1",
    "locking read": "SELECT SLEEP(8) FROM app.t WHERE id = 1 FOR UPDATE",
    "ddl": "CREATE TABLE app.copy AS SELECT SLEEP(8) AS n",
}


@pytest.mark.parametrize("what", HOLDING)
def test_a_long_statement_holds_it_up_is_named_and_writes_go_on(
    what: str, pair: list[BareServer]
) -> None:
    primary, _ = pair
    long = Background(primary, HOLDING[what])
    session = long.session
    begun = time.monotonic()
    with pytest.raises(Refused, match=f"held up by connection {session} ") as refused:
        freeze(primary, 0.5)
    assert time.monotonic() - begun < 4
    assert HOLDING[what] in str(refused.value)
    assert " has run a statement for " in str(refused.value)
    writes_go_on(primary)
    primary.adapter.end_sessions([session], Deadline(5))
    assert long.ended() != 0
    writes_go_on(primary)


def test_tables_locked_to_be_written_hold_it_up_and_writes_go_on(pair: list[BareServer]) -> None:
    primary, _ = pair
    with closing(primary.connect()) as holder:
        execute(holder, "LOCK TABLES app.t WRITE")
        with pytest.raises(Refused) as refused:
            freeze(primary, 0.5)
        if primary.flavor is Flavor.MYSQL:
            assert f"connection {holder.thread_id()} " in str(refused.value)
            assert " has held a lock for " in str(refused.value)
        else:
            assert "metadata_lock_info" in str(refused.value)
        execute(holder, "INSERT INTO app.t (n) VALUES (1)")
        execute(holder, "UNLOCK TABLES")
    writes_go_on(primary)


def test_a_commit_that_nobody_acknowledges_holds_it_up(pair: list[BareServer]) -> None:
    primary, replica = pair
    replica.freeze()
    waiting = Background(primary, "INSERT INTO app.t (n) VALUES (1)", CLIENT)
    wait_until(
        lambda: primary.adapter.observe(Deadline(5)).semi_sync.waiting == 1, 10, "a commit waits"
    )
    with pytest.raises(Refused, match=r"INSERT INTO app\.t"):
        freeze(primary, 0.5)
    found = primary.adapter.observe(Deadline(5))
    assert found.writable
    assert found.semi_sync.waiting == 1
    replica.thaw()
    replica.adapter.follow(primary.source(replica), True, Deadline(10))
    assert waiting.ended() == 0
    writes_go_on(primary)


def writes_go_on(server: BareServer) -> None:
    """Now, and at the time at which what was given up would have happened."""
    for _ in range(3):
        with closing(server.connect(CLIENT)) as client:
            execute(client, "SET SESSION lock_wait_timeout = 3")
            execute(client, "INSERT INTO app.t (n) VALUES (1)")
        time.sleep(0.2)


def test_called_off_writes_go_on(pair: list[BareServer]) -> None:
    primary, _ = pair
    with closing(primary.connect()) as holder:
        execute(holder, "LOCK TABLES app.t WRITE")
        end = time.monotonic() + 0.3
        called_off = Deadline(5, lambda: time.monotonic() > end)
        with pytest.raises(Refused, match="called off"):
            primary.adapter.freeze(called_off, lambda _: None, lambda _: None)
        execute(holder, "UNLOCK TABLES")
    writes_go_on(primary)


def test_an_agent_that_dies_leaves_it_read_only_and_another_goes_on(
    pair: list[BareServer],
) -> None:
    primary, replica = pair
    freeze(primary)
    primary.adapter.close()  # and with it the lock
    assert not primary.adapter.observe(Deadline(5)).writable
    took = freeze(primary)
    assert "read-only" in took
    assert not primary.adapter.observe(Deadline(5)).writable
    primary.adapter.close()
    hand_over(primary, replica)
    give_back(primary, replica)


def test_an_agent_that_dies_while_it_waits_leaves_nothing_behind(pair: list[BareServer]) -> None:
    primary, _ = pair
    with closing(primary.connect()) as holder:
        execute(holder, "LOCK TABLES app.t WRITE")
        dying = Connection(primary.socket, ADMIN, SIDE_SETTINGS)
        dying.look("SELECT 1", Deadline(5))
        statement = "FLUSH TABLES WITH READ LOCK"
        with suppress(DeadlinePassed):
            dying.run(statement, Deadline(0.1))  # as a killed agent leaves it
        execute(holder, "UNLOCK TABLES")
    writes_go_on(primary)


def test_hundreds_of_sessions_are_ended(pair: list[BareServer]) -> None:
    primary, _ = pair
    idle = [primary.connect(CLIENT) for _ in range(200)]
    begun = time.monotonic()
    took = freeze(primary)
    print(primary.flavor, "200 sessions", took)
    assert took["sessions ended"] < 1000
    left = len(idle)
    while left:
        assert time.monotonic() - begun < 20, f"{left} are left"
        left = sum(not _ended(each) for each in idle)
        time.sleep(0.02)
    print(primary.flavor, f"all are gone after {(time.monotonic() - begun) * 1000:.0f} ms")
    assert primary.adapter.observe(Deadline(5)).replication.source == ""
    dumps = [r for r in primary.sql("SHOW PROCESSLIST") if "Binlog Dump" in r["Command"]]
    assert len(dumps) == 1


def _ended(client: PyMySQL) -> bool:
    import select

    poll = select.poll()
    poll.register(client._sock, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))


def test_a_candidate_waits_for_what_it_has_not_received_yet(pair: list[BareServer]) -> None:
    primary, replica = pair
    replica.adapter.hold_applier(Deadline(5))
    primary.sql("INSERT INTO app.t (n) VALUES (1)")
    last = applied(primary)
    with pytest.raises(Refused, match="applier is not running"):
        replica.adapter.drain(Deadline(5), last)
    replica.adapter.follow(primary.source(replica), True, Deadline(5))
    replica.adapter.drain(Deadline(5), last)
    wanted = parse(primary.flavor, last)
    assert parse(primary.flavor, applied(replica)).covers(wanted)
    primary.adapter.set_acks(0, Deadline(5))
    replica.adapter.stop_receiver(Deadline(5))
    primary.sql("INSERT INTO app.t (n) VALUES (1)")
    with pytest.raises(Refused, match="receiver is stopped"):
        replica.adapter.drain(Deadline(5), applied(primary))


Step = Callable[[BareServer], None]
TAKE_OVER: dict[str, Step] = {
    "prepared": lambda new: new.adapter.prepare_primary(0, Deadline(5), following=True),
    "opened": lambda new: new.adapter.open(Deadline(5), following=True),
    "proved": lambda new: _prove(new),
    "left": lambda new: new.adapter.leave(Deadline(5)),
}


def _prove(new: BareServer) -> None:
    new.adapter.prove(3, 3, Deadline(5), following=True)


@pytest.mark.parametrize("after", TAKE_OVER)
def test_a_promotion_that_was_interrupted_is_gone_through_again(
    after: str, pair: list[BareServer]
) -> None:
    primary, replica = pair
    freeze(primary)
    replica.adapter.drain(Deadline(5), applied(primary))
    for name, step in TAKE_OVER.items():
        step(replica)
        if name == after:
            break
    replica.adapter.close()  # another agent
    hand_over(primary, replica)
    found = replica.adapter.observe(Deadline(5))
    assert found.writable
    assert found.replication.source == ""
    give_back(primary, replica)


def test_who_follows_for_another_reason_is_not_opened(pair: list[BareServer]) -> None:
    _, replica = pair
    for refused in (
        lambda: replica.adapter.open(Deadline(5)),
        lambda: replica.adapter.prove(9, 9, Deadline(5)),
    ):
        with pytest.raises(Refused, match="follows another"):
            refused()
    assert not replica.adapter.observe(Deadline(5)).writable


def test_a_server_that_is_gone_is_not_said_to_be_frozen(flavor: Flavor) -> None:
    with bare_servers(flavor, 1) as (server,):
        server.adapter.prepare_primary(0, Deadline(5))
        server.adapter.open(Deadline(5))
        freeze(server)
        server.kill()
        with pytest.raises(HoldfastError) as error:
            freeze(server)
        assert not isinstance(error.value, OutcomeUnknown) or str(error.value)
        server.start()
        server.adapter.prepare_primary(0, Deadline(5))
        server.adapter.open(Deadline(5))
        server.sql("CREATE TABLE app.t (n INT)")
