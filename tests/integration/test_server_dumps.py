"""Sessions that acknowledge to a primary are known, whatever server they come from, and are ended in time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pymysql
import pytest

from holdfast.core.gtid import Flavor
from holdfast.core.observed.dumps import Acks, Dump
from holdfast.core.rules.ackers import strangers
from holdfast.server.base import Deadline
from holdfast.server.replication.dumps import DumpSessions
from tests.integration.replica_client import ReplicaClient
from tests.integration.servers import (
    ADMIN,
    CLIENT,
    BareServer,
    bare_servers,
    replication,
    wait_until,
)

LOOKS = 200
CLIENTS = 100


@pytest.fixture(params=list(Flavor), scope="module")
def servers(request: pytest.FixtureRequest) -> Iterator[list[BareServer]]:
    """A primary that waits for one acknowledgement, a voter, a reader that does not acknowledge, and a stranger."""
    # MariaDB's log says no more than this
    extra = {"log_warnings": 0} if request.param is Flavor.MARIADB else {}
    with bare_servers(request.param, 4, extra) as servers:
        primary, voter, reader, stranger = servers
        # chained below it before it waits for any replica
        stranger.adapter.follow(primary.source(stranger), True, soon())
        wait_until(lambda: connected(primary, stranger), 5, "the stranger is connected")
        primary.adapter.prepare_primary(1, soon())
        voter.adapter.follow(primary.source(voter), True, soon())
        reader.adapter.follow(primary.source(reader), False, soon())
        primary.adapter.wait_for_ackers(2, soon())
        primary.adapter.prove(1, 1, soon())
        primary.adapter.open(soon())
        primary.sql("CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")
        wait_until(lambda: connected(primary, reader), 5, "the reader is connected")
        yield servers


@pytest.fixture
def eyes(servers: list[BareServer]) -> Iterator[DumpSessions]:
    primary = servers[0]
    made = DumpSessions(primary.flavor, primary.socket, ADMIN)
    yield made
    made.close()


def soon() -> Deadline:
    return Deadline(8)


def user_of(server: BareServer) -> str:
    return replication(server.number).user


def connected(primary: BareServer, replica: BareServer) -> bool:
    found = "SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%' AND user = "
    return bool(primary.value(f"{found}'{user_of(replica)}'"))


def identity(server: BareServer) -> str:
    return str(
        server.value("SELECT @@server_uuid")
        if server.flavor is Flavor.MYSQL
        else server.value("SELECT @@server_id")
    )


def seen(eyes: DumpSessions, *replicas: BareServer) -> dict[str, Dump]:
    """Once all of these are there."""
    found: dict[str, Dump] = {}

    def all_there() -> bool:
        found.clear()
        found.update({dump.account: dump for dump in eyes.look(soon()).dumps})
        return {user_of(each) for each in replicas} <= set(found)

    wait_until(all_there, 5, "all are seen")
    return found


def bare_dump(primary: BareServer, account: BareServer, server_id: int) -> ReplicaClient:
    """A client that speaks the protocol, acknowledges, and registers nowhere."""
    who, place = replication(account.number), ("binlog.000001", 4)
    made = ReplicaClient(
        primary.flavor, primary.port, who, place, semi_sync=True, server_id=server_id
    )
    wait_until(lambda: made.events > 0, 5, "it receives something")
    return made


def test_each_session_shows_whose_it_is_and_whether_it_acknowledges(
    servers: list[BareServer], eyes: DumpSessions
) -> None:
    _, voter, reader, stranger = servers
    found = seen(eyes, voter, reader, stranger)
    assert {account: dump.acks for account, dump in found.items()} == {
        user_of(voter): Acks.YES,
        user_of(reader): Acks.NO,
        user_of(stranger): Acks.YES,
    }
    for each in (voter, stranger):
        assert found[user_of(each)].server == identity(each)
    # another process that looks for the first time, as a restarted agent does
    again = DumpSessions(eyes._flavor, servers[0].socket, ADMIN)
    assert {dump.account: dump for dump in again.look(soon()).dumps} == found
    again.close()


def test_one_that_registers_nowhere_is_seen_too(
    servers: list[BareServer], eyes: DumpSessions
) -> None:
    primary, voter, *_ = servers
    before = {dump.session for dump in eyes.look(soon()).dumps}
    with bare_dump(primary, voter, 77):
        new = [d for d in eyes.look(soon()).dumps if d.session not in before]
        assert [(d.account, d.acks) for d in new] == [(user_of(voter), Acks.YES)]
        assert new[0].server in ("77", "")  # MySQL: it has not registered
        eyes.end((new[0].session,), soon())
        assert {d.session for d in eyes.look(soon()).dumps} == before


def test_what_a_look_costs(servers: list[BareServer], eyes: DumpSessions) -> None:
    primary = servers[0]
    clients = [primary.connect(CLIENT) for _ in range(CLIENTS)]
    for fresh in (True, False):
        took = []
        for _ in range(LOOKS):
            begun = time.perf_counter()
            eyes.look(soon(), fresh)
            took.append(1000 * (time.perf_counter() - begun))
        took.sort()
        print(f"{primary.flavor}, fresh {fresh}: median {took[LOOKS // 2]:.3f} ms of a look")
        assert took[LOOKS // 2] < 5
    for each in clients:
        each.close()


def test_a_log_that_is_rotated_or_gone_hides_nobody(
    servers: list[BareServer], eyes: DumpSessions
) -> None:
    primary, voter, reader, stranger = servers
    if primary.flavor is Flavor.MYSQL:
        return
    assert eyes.look(soon()).dumps
    primary.error_log.rename(primary.error_log.with_suffix(".1"))
    primary.sql("SET sql_log_bin = 0", "FLUSH ERROR LOGS")
    with bare_dump(primary, voter, 78):
        found = {d.server: d.acks for d in eyes.look(soon()).dumps}
        assert found["78"] is Acks.YES
        assert found[identity(stranger)] is Acks.YES
    # a process that looks for the first time now finds the beginning of the log gone: then the count shows it
    late = DumpSessions(primary.flavor, primary.socket, ADMIN)
    look = late.look(soon())
    begun = time.perf_counter()
    for _ in range(LOOKS):
        late.look(soon(), fresh=False)
    print(
        f"{primary.flavor}, no log: {1000 * (time.perf_counter() - begun) / LOOKS:.3f} ms of a look"
    )
    late.close()
    acks = {dump.account: dump.acks for dump in look.dumps}
    assert acks[user_of(reader)] is Acks.UNKNOWN
    members = {user_of(voter)}
    assert {d.account for d in strangers(look.dumps, look.clients, members)} == {
        user_of(reader),
        user_of(stranger),
    }
    members.add(user_of(stranger))
    assert not strangers(look.dumps, look.clients, members)


def test_a_stranger_is_ended_and_shut_out_and_a_reader_goes_on(
    servers: list[BareServer], eyes: DumpSessions
) -> None:
    primary, voter, reader, stranger = servers
    before = seen(eyes, voter, reader, stranger)
    applied = eyes.applied(soon())
    begun = time.monotonic()
    assert eyes.shut_out(user_of(stranger), soon())
    eyes.end((before[user_of(stranger)].session,), soon())
    print(f"{primary.flavor}: ended after {1000 * (time.monotonic() - begun):.1f} ms")
    assert eyes.applied(soon()) == applied, "nothing of it is in the binlog"
    voter.freeze()
    try:
        with pytest.raises(pymysql.err.MySQLError):
            pymysql.connect(
                host="127.0.0.1",
                port=primary.port,
                user=user_of(stranger),
                password=replication(stranger.number).password,
            )
        with primary.connect(CLIENT) as client:
            client._read_timeout = 1.0
            with pytest.raises(pymysql.err.OperationalError):
                client.cursor().execute("INSERT INTO app.t (v) VALUES (1)")
        assert primary.adapter.observe(soon()).semi_sync.waiting == 1, "nobody acknowledged it"
        now = {dump.account: dump for dump in eyes.look(soon()).dumps}
        assert now[user_of(reader)] == before[user_of(reader)], "its session was not touched"
    finally:
        voter.thaw()
    wait_until(lambda: reader.value("SELECT COUNT(*) FROM app.t") == 1, 5, "the reader has the row")


def test_an_account_that_others_use_too_is_not_locked(
    servers: list[BareServer], eyes: DumpSessions
) -> None:
    primary = servers[0]
    assert not eyes.shut_out(ADMIN.user, soon())
    with primary.connect(CLIENT):
        assert not eyes.shut_out(CLIENT.user, soon())
    assert not eyes.shut_out("nobody", soon())
