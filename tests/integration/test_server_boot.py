"""What an agent forces at a start overrides option files, persisted variables and init files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pymysql
import pytest

from holdfast.core.check import variables
from holdfast.core.check.facts import Boot
from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError
from holdfast.server.base import Booted, Deadline
from holdfast.server.process import boot
from holdfast.server.process.forced import command_line
from holdfast.server.process.process import ServerProcess
from tests.integration.ports import free_ports
from tests.integration.servers import BUSY, CLIENT, BareServer

HOSTILE = {
    Flavor.MARIADB: "read_only = OFF\nevent_scheduler = ON\nrpl_semi_sync_master_enabled = ON\n"
    "rpl_semi_sync_slave_enabled = ON\ninit_rpl_role = SLAVE\nskip_slave_start = OFF\nlog_slave_updates = OFF\n"
    "gtid_strict_mode = OFF\nslave_exec_mode = IDEMPOTENT\nskip_grant_tables\nsync_binlog = 0\n"
    "binlog_format = STATEMENT\nmax_user_connections = 7\n",
    Flavor.MYSQL: "skip_grant_tables\ninnodb_flush_log_at_trx_commit = 0\nreplica_skip_errors = 1062\n"
    "binlog_row_image = MINIMAL\n",
}
PERSISTED = (
    *("super_read_only = OFF", "read_only = OFF", "event_scheduler = ON"),
    *("rpl_semi_sync_source_enabled = ON", "rpl_semi_sync_replica_enabled = ON"),
    *("replica_exec_mode = 'IDEMPOTENT'", "sync_binlog = 0", "offline_mode = OFF"),
    *("max_connections = 77", "sql_mode = 'ANSI_QUOTES,NO_ZERO_DATE'"),
)
AT_BOOT = ("skip_replica_start = OFF", "relay_log_recovery = ON", "log_replica_updates = OFF")
CLOSED = {
    Flavor.MARIADB: "@@read_only = 1 AND @@gtid_strict_mode = 1 AND @@log_slave_updates = 1 AND @@sync_binlog = 1 "
    "AND @@rpl_semi_sync_master_enabled = 0 AND @@rpl_semi_sync_slave_enabled = 0 AND @@event_scheduler = 'OFF' "
    "AND @@slave_exec_mode = 'STRICT' AND @@global.binlog_format = 'ROW'",
    Flavor.MYSQL: "@@super_read_only = 1 AND @@skip_replica_start = 1 AND @@relay_log_recovery = 0 AND "
    "@@log_replica_updates = 1 AND @@rpl_semi_sync_source_enabled = 0 AND @@rpl_semi_sync_replica_enabled = 0 AND "
    "@@event_scheduler = 'OFF' AND @@sync_binlog = 1 AND @@innodb_flush_log_at_trx_commit = 1 AND "
    "@@replica_exec_mode = 'STRICT' AND @@replica_skip_errors = 'OFF' AND @@global.binlog_row_image = 'FULL'",
}
REFUSED = {Flavor.MARIADB: 1203, Flavor.MYSQL: 3032}


class Started:
    """A server as its agent starts it, or without what an agent forces."""

    def __init__(self, server: BareServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        own = dict(word.removeprefix("--").split("=", 1) for word in server.tree.arguments)
        self.say("".join(f"{name} = {value}\n" for name, value in own.items()))

    def say(self, lines: str) -> None:
        with self.server.option_file.open("a") as file:
            file.write(lines)

    @contextmanager
    def started(self, forcing: bool, command: Sequence[str] = ()) -> Iterator[Booted]:
        server = self.server
        own = (server.option_file, server.datadir)
        process = ServerProcess(
            tuple(command) or server.tree.command,
            *own,
            self.folder / "out",
            options=lambda: command_line(server.flavor, *own) if forcing else (),
        )
        running = process.start()
        try:
            end = time.monotonic() + 20 * BUSY
            while True:
                try:
                    server.adapter.ping(Deadline(1))
                    break
                except HoldfastError:
                    assert running.alive, server.error_log.read_text()[-2000:]
                    assert time.monotonic() < end
                    time.sleep(0.01)
            yield server.adapter.booted(self.files(), Deadline(3))
        finally:
            running.kill_and_wait(10)
            server.adapter.close()

    def files(self) -> Boot:
        server = self.server
        return boot.read(server.option_file, server.flavor, "", server.datadir)

    def client(self) -> int:
        """Logs in over the network; returns 0, or the server's error."""
        try:
            login = pymysql.connect(
                host="127.0.0.1",
                port=self.server.port,
                user=CLIENT.user,
                password=CLIENT.password,
                connect_timeout=5,
            )
        except pymysql.err.MySQLError as error:
            return int(error.args[0])
        with closing(login), login.cursor() as cursor:
            cursor.execute("SELECT 1")
        return 0


FILTERS = {
    "binlog_do_db": "app",
    "binlog_ignore_db": "holdfast",
    "replicate_do_db": "app",
    "replicate_wild_ignore_table": "x%.t",
    "replicate_rewrite_db": "x->y",
}


@pytest.fixture(scope="module")
def hostile(flavor: Flavor) -> Iterator[Started]:
    """Everything that is forced is set otherwise, in the option file or by SET PERSIST."""
    with tempfile.TemporaryDirectory(prefix="holdfast-boot-") as name, free_ports(1) as ports:
        folder = Path(name)
        made = Started(BareServer(flavor, 0, folder / "0", ports[0]), folder)
        if flavor is Flavor.MYSQL:
            with made.started(forcing=False):
                made.server.sql(
                    *(f"SET PERSIST {each}" for each in PERSISTED),
                    *(f"SET PERSIST_ONLY {each}" for each in AT_BOOT),
                )
        init = folder / "init.sql"
        init.write_text("SET GLOBAL read_only = 0;\nCREATE DATABASE made_by_init_file;\n")
        made.say(f"init_file = {init}\n{HOSTILE[flavor]}")
        yield made


def test_what_is_forced_holds_and_clients_wait_until_it_was_seen(
    hostile: Started, flavor: Flavor
) -> None:
    server = hostile.server
    kept = (server.datadir / variables.PERSISTED) if flavor is Flavor.MYSQL else server.option_file
    before = kept.read_bytes()
    with hostile.started(forcing=True) as booted:
        assert booted == Booted(shut=True)
        assert server.value(f"SELECT {CLOSED[flavor]} AS closed") == 1
        databases = [row["Database"] for row in server.sql("SHOW DATABASES")]
        assert "app" in databases
        assert "made_by_init_file" not in databases
        assert hostile.client() == REFUSED[flavor]
        server.adapter.let_clients_in(hostile.files(), Deadline(3))
        assert hostile.client() == 0
        # what is not forced is in force as it was
        if flavor is Flavor.MYSQL:
            assert server.value("SELECT @@global.max_connections") == 77
            assert server.value("SELECT @@global.sql_mode") == "ANSI_QUOTES,NO_ZERO_DATE"
        else:
            assert server.value("SELECT @@global.max_user_connections") == 7
        # an agent that comes back finds that its predecessor has looked already
        assert not server.adapter.booted(hostile.files(), Deadline(3)).shut
        # where events are the operator's business, a server whose role is set has them as the files say
        server.adapter.leave_events(Deadline(3))
        assert server.value("SELECT @@global.event_scheduler") == "ON"
        server.sql("SET GLOBAL event_scheduler = OFF")
        server.adapter.leave_events(Deadline(3))
        assert server.value("SELECT @@global.event_scheduler") == "OFF"
    assert kept.read_bytes() == before


def test_one_that_opens_all_the_same_is_seen_with_where_it_comes_from(
    hostile: Started, flavor: Flavor
) -> None:
    server = hostile.server
    wrapper = hostile.folder / "wrapper"
    more = "--super-read-only=OFF --read-only=OFF" if flavor is Flavor.MYSQL else "--read-only=OFF"
    command = " ".join(f"'{word}'" for word in server.tree.command)
    wrapper.write_text(f'#!/bin/sh\nexec {command} "$@" {more}\n')
    wrapper.chmod(0o755)
    with hostile.started(forcing=True, command=(str(wrapper),)) as booted:
        assert booted.shut
        wrong = dict(each.split(" = ", 1) for each in booted.wrong)
        assert wrong["read_only"].startswith("OFF (from its command line")
        assert hostile.client() == REFUSED[flavor]
    # as a service manager would start it: the file is named
    (hostile.folder / "init.sql").write_text("")
    with hostile.started(forcing=False) as booted:
        assert not booted.shut
        wrong = dict(each.split(" = ", 1) for each in booted.wrong)
        file = (
            server.datadir / variables.PERSISTED if flavor is Flavor.MYSQL else server.option_file
        )
        assert wrong["read_only"] == f"OFF (from {file})"


def test_what_would_be_left_out_is_seen_with_the_file_that_says_so(hostile: Started) -> None:
    """No option of a command line overrides it."""
    file = hostile.server.option_file
    before = file.read_text()
    hostile.say("".join(f"{name} = {value}\n" for name, value in FILTERS.items()))
    try:
        with hostile.started(forcing=True) as booted:
            wrong = dict(each.split(" = ", 1) for each in booted.wrong)
            assert wrong.keys() == FILTERS.keys()
            assert wrong["binlog_ignore_db"] == f"holdfast (from {file})"
            assert all(each.endswith(f"(from {file})") for each in wrong.values())
    finally:
        file.write_text(before)
