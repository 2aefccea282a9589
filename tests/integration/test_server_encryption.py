"""Replication over TLS on real servers: which server may follow which, by which certificate, and that all procedures
work."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pymysql
import pytest

from holdfast.core.check.encryption import check_encryption
from holdfast.core.gtid import Flavor
from holdfast.core.view import Receiver
from holdfast.errors import HoldfastError, Unreachable
from holdfast.server.authentication import authentication_string
from holdfast.server.base import Account, Deadline, Source
from holdfast.server.connection import encryption
from holdfast.server.data.clone import Recipient
from holdfast.server.inspect.adopting import Adopter, reached
from holdfast.server.inspect.facts import ServerPlace, collect
from holdfast.tls import Files, authority
from tests.integration.servers import ADMIN, BareServer, bare_servers, replication, wait_until

BOTH = {"bind_address": "127.0.0.1,127.0.0.2"}
"""The second is not in the servers' certificates."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="holdfast-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def files(folder: Path) -> Files:
    authority.make_ca(folder)
    authority.issue(folder, "db", ["127.0.0.1"])
    return Files(folder / "ca.pem", folder / "db.pem", folder / "db.key")


@pytest.fixture(scope="module")
def servers(flavor: Flavor, files: Files) -> Iterator[list[BareServer]]:
    with bare_servers(flavor, 3, {**encryption.option_file(files), **BOTH}) as made:
        primary = made[0]
        primary.adapter.prepare_primary(0, soon())
        primary.adapter.open(soon())
        for server in made:
            account = replication(server.number)
            adopter = Adopter(flavor, primary.socket, ADMIN, encrypted=True)
            string = authentication_string(flavor, account.password)
            adopter.ensure_account(account.user, string, soon())
            adopter.close()
        yield made


def soon() -> Deadline:
    return Deadline(10)


def encrypted(source: Source, files: Files) -> Source:
    return replace(source, account=replace(source.account, tls=files))


def receiver(server: BareServer) -> Receiver:
    return server.adapter.observe(soon()).replication.receiver


def rows(server: BareServer, table: str) -> int:
    try:
        return int(server.value(f"SELECT COUNT(*) FROM app.{table}"))
    except pymysql.err.ProgrammingError:
        return -1


def cipher(server: BareServer, user: str) -> list[str]:
    """TLS ciphers of the sessions of ``user``, where the server can tell."""
    if server.flavor is Flavor.MARIADB:
        return []
    return [
        str(row["cipher"])
        for row in server.sql(
            "SELECT s.VARIABLE_VALUE AS cipher FROM performance_schema.threads t "
            "JOIN performance_schema.status_by_thread s USING (THREAD_ID) "
            f"WHERE t.PROCESSLIST_USER = '{user}' AND s.VARIABLE_NAME = 'Ssl_cipher'"
        )
    ]


def test_a_member_follows_with_its_certificate_and_not_without(
    servers: list[BareServer], files: Files
) -> None:
    primary, replica, _ = servers
    bare = primary.source(replica)
    replica.adapter.follow(bare, False, soon())
    time.sleep(0.3)
    assert receiver(replica) is not Receiver.ON, "it is let in with its password alone"
    source = encrypted(bare, files)
    replica.adapter.follow(source, True, soon())
    wait_until(lambda: receiver(replica) is Receiver.ON, 5, "the receiver is connected")
    primary.adapter.set_acks(1, soon())
    primary.adapter.wait_for_ackers(1, soon())
    primary.sql("CREATE TABLE app.t (id INT PRIMARY KEY)", "INSERT INTO app.t VALUES (1)")
    wait_until(lambda: rows(replica, "t") == 1, 5, "the row is there")
    assert all(cipher(primary, source.account.user))
    # asking again changes nothing
    replica.adapter.follow(source, True, soon())
    primary.sql("INSERT INTO app.t VALUES (2)")
    assert receiver(replica) is Receiver.ON


def test_another_members_server_is_not_followed_if_another_ca_signed_it(
    servers: list[BareServer], files: Files, tmp_path: Path
) -> None:
    primary, _, replica = servers
    authority.make_ca(tmp_path)
    authority.issue(tmp_path, "db", ["127.0.0.1"])
    theirs = Files(tmp_path / "ca.pem", tmp_path / "db.pem", tmp_path / "db.key")
    replica.adapter.follow(encrypted(primary.source(replica), theirs), False, soon())
    time.sleep(0.5)
    assert receiver(replica) is not Receiver.ON
    # the right files: it is repointed there
    replica.adapter.follow(encrypted(primary.source(replica), files), False, soon())
    wait_until(lambda: receiver(replica) is Receiver.ON, 5, "the receiver is connected")
    primary.sql("CREATE TABLE app.u (id INT PRIMARY KEY)")
    wait_until(lambda: rows(replica, "u") == 0, 5, "the table is there")


def test_the_name_in_a_sources_certificate_is_checked(
    servers: list[BareServer], files: Files
) -> None:
    primary, _, replica = servers
    source = encrypted(primary.source(replica), files)
    replica.adapter.follow(replace(source, host="127.0.0.2"), False, soon())
    time.sleep(0.5)
    assert receiver(replica) is not Receiver.ON
    replica.adapter.follow(source, False, soon())
    wait_until(lambda: receiver(replica) is Receiver.ON, 5, "the receiver is connected")


def test_an_agent_logs_in_as_its_receiver_would(servers: list[BareServer], files: Files) -> None:
    primary, replica, _ = servers
    source = encrypted(primary.source(replica), files)
    assert reached(primary.flavor, source, 3)[0] == 1
    elsewhere = replace(source, host="127.0.0.2")
    with pytest.raises(Unreachable, match="certificate"):
        reached(primary.flavor, elsewhere, 3)


def test_commits_that_waited_are_released_by_tls_too(
    servers: list[BareServer], files: Files
) -> None:
    """The agent acknowledges once more what a learner has received: see acknowledge.py."""
    primary, replica, other = servers
    primary.adapter.set_acks(0, soon())
    other.adapter.stop_receiver(soon())
    source = encrypted(primary.source(replica), files)
    replica.adapter.follow(source, False, soon())
    primary.adapter.set_acks(1, soon())
    with primary.connect() as connection, connection.cursor() as cursor:
        thread = connection.thread_id()
        import threading

        done = threading.Event()

        def write() -> None:
            with suppress(pymysql.err.MySQLError):
                cursor.execute("INSERT INTO app.t VALUES (77)")
                done.set()

        writer = threading.Thread(target=write)
        writer.start()
        wait_until(lambda: waits(primary), 5, "the commit waits")
        replica.adapter.follow(source, True, soon())
        assert done.wait(5), f"commit of session {thread} waits still"
        writer.join()


def waits(primary: BareServer) -> bool:
    side = "master" if primary.flavor is Flavor.MARIADB else "source"
    row = primary.sql(f"SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_{side}_wait_sessions'")[0]
    return int(row["Value"]) > 0


def test_stopping_and_repointing_are_as_quick_as_without_tls(
    servers: list[BareServer], files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    primary, replica, _ = servers
    source = encrypted(primary.source(replica), files)
    took = []
    for _ in range(3):
        replica.adapter.follow(source, True, soon())
        wait_until(lambda: receiver(replica) is Receiver.ON, 5, "the receiver is connected")
        begun = time.monotonic()
        replica.adapter.stop_receiver(soon())
        took.append((time.monotonic() - begun) * 1000)
    with capsys.disabled():
        print(f"\n{primary.flavor}: receivers stopped in {[round(each) for each in took]} ms")
    assert min(took) < 400
    replica.adapter.follow(source, True, soon())


def test_a_member_is_barred_by_tls_as_well(servers: list[BareServer], files: Files) -> None:
    primary, replica, _ = servers
    source = encrypted(primary.source(replica), files)
    replica.adapter.follow(source, True, soon())
    wait_until(lambda: receiver(replica) is Receiver.ON, 5, "the receiver is connected")
    primary.adapter.bar(source.account.user, soon())
    wait_until(lambda: receiver(replica) is not Receiver.ON, 5, "its connection is ended")
    primary.adapter.unbar(source.account.user, soon())
    replica.adapter.follow(source, True, soon())
    wait_until(lambda: receiver(replica) is Receiver.ON, 5, "it is let in again")


def test_files_that_the_agent_cannot_read_are_named(
    servers: list[BareServer], files: Files
) -> None:
    primary, replica, _ = servers
    lost = replace(files, key=Path("/nowhere/db.key"))
    with pytest.raises(HoldfastError, match=r"/nowhere/db\.key"):
        reached(primary.flavor, encrypted(primary.source(replica), lost), 3)
    assert "re'pl" not in repr(Account("x", "re'pl", files))


def test_accounts_that_need_no_certificate_are_found(
    servers: list[BareServer], files: Files, flavor: Flavor
) -> None:
    primary, replica, _ = servers
    replica.adapter.follow(encrypted(primary.source(replica), files), True, soon())
    # the accounts were altered on the primary
    replica.adapter.drain(soon(), primary.adapter.observe(soon()).applied)
    place = ServerPlace(
        *("m1", flavor, replica.option_file, replica.datadir, replica.socket),
        *(replica.datadir / "binlog.index", ADMIN, replication(1).user, "10.0.0.1:1"),
        api=files,
        tls=files,
    )
    facts = collect(place, None)
    assert facts.problem == ""
    # the account of a server that is not here is as the template has it
    assert facts.lenient == {replication(3).user}
    assert facts.variables["ssl_cert"] == str(files.cert)
    assert [up.tls for up in facts.upstreams] == [True]
    assert set(facts.certificates) == {str(files.cert), str(files.ca)}
    assert min(facts.certificates.values()) > 800
    (found,) = check_encryption(facts)
    assert "repl3 may replicate without a certificate" in found.text


@pytest.mark.parametrize("flavor", [Flavor.MYSQL], indirect=True, ids=["mysql"])
def test_a_copy_by_mysqls_clone_goes_by_tls(servers: list[BareServer], files: Files) -> None:
    primary, _, recipient = servers
    account = replication(recipient.number)
    recipient.sql("SET GLOBAL super_read_only = 0")
    copy = recipient.datadir.with_name("copy")
    with closing(Recipient(primary.flavor, recipient.socket, ADMIN)) as cloning:
        source = Source("127.0.0.1", primary.port, replace(account, tls=files))
        cloning.clone(source, copy, Deadline(60))
        cloning.whole(soon())
    assert (copy / "mysql.ibd").stat().st_size
