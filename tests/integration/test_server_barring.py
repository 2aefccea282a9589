"""A member that must not acknowledge any more is barred, whatever the member, the primary and the clients do
meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pymysql
import pytest

from holdfast.config.load import secret
from holdfast.core.gtid import Flavor, parse
from holdfast.core.view import Receiver
from holdfast.errors import DeadlinePassed, Refused
from holdfast.server.authentication import Login, authentication_string
from holdfast.server.base import Account, Deadline
from holdfast.server.connection.sql import Connection
from holdfast.server.inspect.adopting import Adopter
from holdfast.server.replication import barring
from holdfast.server.replication.logins import let_in, own_login
from tests.integration.servers import (
    ADMIN,
    CLIENT,
    BareServer,
    bare_servers,
    proxy,
    replication,
    wait_until,
)


@pytest.fixture(params=list(Flavor), scope="module")
def servers(request: pytest.FixtureRequest) -> Iterator[list[BareServer]]:
    with bare_servers(request.param, 3) as servers:
        yield servers


@pytest.fixture
def trio(servers: list[BareServer]) -> Iterator[list[BareServer]]:
    """A primary that waits for one of two replicas."""
    primary, *replicas = servers
    primary.adapter.prepare_primary(1, soon())
    for replica in replicas:
        replica.adapter.follow(primary.source(replica), True, soon())
    primary.adapter.wait_for_ackers(2, soon())
    primary.adapter.prove(1, 1, soon())
    primary.adapter.open(soon())
    primary.sql("CREATE TABLE IF NOT EXISTS app.t (id INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT)")
    yield servers
    for replica in replicas:
        replica.thaw()
        primary.adapter.unbar(user_of(replica), soon())


def soon() -> Deadline:
    return Deadline(8)


def user_of(server: BareServer) -> str:
    return replication(server.number).user


def timed_bar(primary: BareServer, replica: BareServer, what: str) -> float:
    begun = time.monotonic()
    primary.adapter.bar(user_of(replica), Deadline(2))
    seconds = time.monotonic() - begun
    print(f"{primary.flavor} bar, {what}: {1000 * seconds:.1f} ms")
    return seconds


def connections(primary: BareServer, replica: BareServer) -> int:
    """Without those that are only ending."""
    sessions = {Flavor.MARIADB: "information_schema", Flavor.MYSQL: "performance_schema"}
    return int(
        primary.value(
            f"SELECT COUNT(*) FROM {sessions[primary.flavor]}.processlist "
            f"WHERE user = '{user_of(replica)}' AND IFNULL(state, '') <> '{barring.MYSQL.mute}'"
        )
    )


def told_barred(primary: BareServer) -> tuple[str, ...]:
    return primary.adapter.observe(soon()).barred


@contextmanager
def writers(primary: BareServer, count: int, size: int = 200) -> Iterator[list[int]]:
    """Clients that write without a pause; how often each got an answer."""
    answered = [0] * count
    ended = threading.Event()

    def write(number: int) -> None:
        with suppress(pymysql.err.MySQLError), primary.connect(CLIENT) as mine:
            while not ended.is_set():
                mine.cursor().execute("INSERT INTO app.t (v) VALUES (REPEAT('x', %s))", (size,))
                answered[number] += 1

    threads = [threading.Thread(target=write, args=(each,)) for each in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        ended.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def waiting(primary: BareServer) -> int:
    return primary.adapter.observe(soon()).semi_sync.waiting


def test_one_that_is_barred_acknowledges_nothing_and_the_other_still_does(
    trio: list[BareServer],
) -> None:
    primary, one, other = trio
    assert timed_bar(primary, one, "idle") < 1
    assert told_barred(primary) == (user_of(one),)
    assert connections(primary, one) == 0
    primary.adapter.prove(1, 2, soon())
    timed_bar(primary, other, "idle")
    with pytest.raises(DeadlinePassed):
        primary.adapter.prove(1, 3, Deadline(0.5))
    primary.adapter.unbar(user_of(other), soon())
    other.adapter.follow(primary.source(other), True, soon())
    primary.adapter.prove(1, 4, soon())
    assert told_barred(primary) == (user_of(one),)


def test_barring_is_not_written_to_the_binlog(trio: list[BareServer]) -> None:
    primary, one, other = trio
    before = primary.adapter.observe(soon()).applied
    primary.adapter.bar(user_of(one), soon())
    primary.adapter.bar(user_of(one), soon())
    primary.adapter.unbar(user_of(one), soon())
    primary.adapter.unbar(user_of(one), soon())
    assert primary.adapter.observe(soon()).applied == before
    assert told_barred(other) == ()


def test_barring_does_not_wait_for_commits_that_wait(trio: list[BareServer]) -> None:
    primary, *replicas = trio
    for replica in replicas:
        replica.freeze()
    with writers(primary, 4) as answered:
        wait_until(lambda: waiting(primary) > 0, 5, "commits wait")
        time.sleep(0.2)
        before = list(answered)
        for replica in replicas:
            assert timed_bar(primary, replica, "commits wait, replica frozen") < 1
            assert connections(primary, replica) == 0
        assert answered == before
        for replica in replicas:
            replica.thaw()
        time.sleep(0.3)
        assert answered == before
        assert waiting(primary) > 0
        primary.adapter.unbar(user_of(replicas[0]), soon())
        replicas[0].adapter.follow(primary.source(replicas[0]), True, soon())
        wait_until(lambda: sum(answered) > sum(before), 5, "commits go on")


def test_an_acknowledgement_that_arrives_later_does_not_count(trio: list[BareServer]) -> None:
    primary, one, other = trio
    primary.adapter.bar(user_of(other), soon())
    with proxy(primary) as between:
        one.adapter.follow(primary.source(one, between.port), True, soon())
        primary.adapter.prove(1, 2, soon())
        between.keep()
        with writers(primary, 2) as answered:
            assert between.kept.wait(5)
            time.sleep(0.1)
            before = list(answered)
            timed_bar(primary, one, "its acknowledgement is on its way")
            between.release()
            time.sleep(1.5)
            assert answered == before
            assert waiting(primary) > 0
            primary.adapter.unbar(user_of(one), soon())
            one.adapter.follow(primary.source(one, between.port), True, soon())
            wait_until(lambda: sum(answered) > sum(before), 5, "commits go on")


def test_a_frozen_replica_whose_socket_is_full_is_barred(trio: list[BareServer]) -> None:
    primary, one, _ = trio
    one.freeze()
    for _ in range(12):
        primary.sql("INSERT INTO app.t (v) VALUES (REPEAT('x', 2000000))", account=CLIENT)
    with writers(primary, 2):
        assert timed_bar(primary, one, "its socket is full, under load") < 1.5
        assert connections(primary, one) == 0


def wait_answered(answered: list[int], count: int) -> None:
    wait_until(lambda: sum(answered) > count, 10, "writes flow")


def test_barring_under_load(trio: list[BareServer]) -> None:
    primary, one, _ = trio
    with writers(primary, 6) as answered:
        wait_answered(answered, 50)
        for _ in range(3):
            assert timed_bar(primary, one, "under load") < 1.5
            wait_answered(answered, sum(answered) + 10)
            primary.adapter.unbar(user_of(one), soon())
            begun = time.monotonic()
            one.adapter.follow(primary.source(one), True, soon())
            wait_until(
                lambda: one.adapter.observe(soon()).replication.receiver is Receiver.ON,
                5,
                "it is back",
            )
            print(f"back in {1000 * (time.monotonic() - begun):.1f} ms")


def test_who_is_logging_in_meanwhile_does_not_slip_through(trio: list[BareServer]) -> None:
    primary, one, _ = trio
    account = replication(one.number)
    ended = threading.Event()
    let_in: list[float] = []

    def knock() -> None:
        while not ended.is_set():
            with (
                suppress(pymysql.err.MySQLError),
                pymysql.connect(
                    host="127.0.0.1",
                    port=primary.port,
                    user=account.user,
                    password=account.password,
                ) as mine,
            ):
                let_in.append(time.monotonic())
                with suppress(pymysql.err.MySQLError):
                    mine.cursor().execute("SELECT SLEEP(5)")

    threads = [threading.Thread(target=knock) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(let_in) > 6, 10, "some are in")
        primary.adapter.bar(account.user, Deadline(2))
        assert connections(primary, one) == 0
        time.sleep(0.3)
        assert connections(primary, one) == 0
    finally:
        ended.set()
        for thread in threads:
            thread.join(10)


def test_what_cannot_be_barred(trio: list[BareServer]) -> None:
    primary = trio[0]
    with pytest.raises(Refused, match="the agent's own"):
        primary.adapter.bar(ADMIN.user, soon())
    with pytest.raises(Refused, match="no account nobody"):
        primary.adapter.unbar("nobody", soon())
    assert told_barred(primary) == ()


def test_a_missing_account_is_barred_and_mending_opens_none(trio: list[BareServer]) -> None:
    """Its sessions continue when an account is dropped: an eviction must end them, and must keep it out."""
    primary, one, other = trio
    account = replication(one.number)
    login = Login(authentication_string(primary.flavor, account.password))
    primary.sql("SET sql_log_bin = 0", f"DROP USER '{account.user}'@'%'")
    before = primary.adapter.observe(soon())
    assert connections(primary, one)
    primary.adapter.bar(account.user, soon())
    assert connections(primary, one) == 0
    assert told_barred(primary) == (account.user,)

    primary.adapter.mend_account(account.user, login, soon())
    assert told_barred(primary) == (account.user,)
    with pytest.raises(pymysql.err.MySQLError, match="locked"):
        log_in(primary, account)
    primary.sql("SET sql_log_bin = 0", f"DROP USER '{account.user}'@'%'")
    primary.adapter.mend_account(account.user, login, soon())
    assert told_barred(primary) == (account.user,)
    primary.adapter.unbar(account.user, soon())
    log_in(primary, account)

    primary.sql(
        "SET sql_log_bin = 0",
        f"ALTER USER '{account.user}'@'%' IDENTIFIED BY 'wrong'",
        f"REVOKE REPLICATION SLAVE ON *.* FROM '{account.user}'@'%'",
    )
    source = primary.source(one)
    assert "1045" in let_in(primary.flavor, source, 2.0)
    primary.adapter.bar(account.user, soon())  # known to exist, though it may not replicate
    assert told_barred(primary) == (account.user,)
    primary.adapter.unbar(account.user, soon())
    for replica in (one, other):
        replica.freeze()
    with writers(primary, 2):  # commits wait: it is repaired nevertheless
        wait_until(lambda: waiting(primary) > 0, 5, "commits wait")
        primary.adapter.mend_account(account.user, login, Deadline(2))
        for replica in (one, other):
            replica.thaw()
    after = primary.adapter.observe(soon())
    assert account.user in (after.replicators or ())
    assert let_in(primary.flavor, source, 2.0) == ""
    issued = parse(primary.flavor, after.applied).subtract(parse(primary.flavor, before.applied))
    rows = primary.value("SELECT COUNT(*) FROM app.t")
    assert issued.count() <= rows + 10, "accounts are not in the binlog"


def log_in(server: BareServer, account: Account) -> None:
    pymysql.connect(
        host="127.0.0.1", port=server.port, user=account.user, password=account.password
    ).close()


def test_an_account_that_is_made_through_the_binlog_stays_locked_where_it_is(
    trio: list[BareServer],
) -> None:
    """On the primary: replicas that lack it get it open."""
    primary, one, other = trio
    account = replication(one.number)
    primary.sql("SET sql_log_bin = 0", f"DROP USER '{account.user}'@'%'")
    if other.flavor is Flavor.MYSQL:
        other.sql("SET GLOBAL super_read_only = 0")
    other.sql("SET sql_log_bin = 0", f"DROP USER '{account.user}'@'%'")
    primary.adapter.bar(account.user, soon())
    adopter = Adopter(primary.flavor, primary.socket, ADMIN)
    adopter.mend_logged(
        account.user, authentication_string(primary.flavor, account.password), soon()
    )
    adopter.close()
    other.adapter.drain(soon(), primary.adapter.observe(soon()).applied)
    assert told_barred(primary) == (account.user,)
    log_in(other, account)
    primary.adapter.unbar(account.user, soon())
    log_in(primary, account)


def test_an_administrator_s_password_is_read_again_from_its_file(
    servers: list[BareServer], tmp_path: Path
) -> None:
    server = servers[0]
    name = "'second'@'localhost'"
    server.sql("SET sql_log_bin = 0", f"CREATE USER {name} IDENTIFIED BY 'first'")
    path = tmp_path / "password"
    path.write_text("first\n")
    connection = Connection(
        server.socket, Account("second", "first", read=partial(secret, path, "pw"))
    )
    assert own_login(connection, soon()) == ""
    server.sql("SET sql_log_bin = 0", f"ALTER USER {name} IDENTIFIED BY 'second'")
    assert "1045" in own_login(connection, soon())
    path.write_text("second\n")
    assert own_login(connection, soon()) == ""
    server.sql("SET sql_log_bin = 0", f"DROP USER {name}")


def test_who_is_barred_is_told_again_after_a_restart(
    trio: list[BareServer],
) -> None:
    primary, one, _ = trio
    primary.adapter.bar(user_of(one), soon())
    primary.restart()
    assert told_barred(primary) == (user_of(one),)
    primary.adapter.unbar(user_of(one), soon())
    assert told_barred(primary) == ()
