"""A real primary dies with transactions that no voter acknowledged: save them, cut them, start it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pymysql.cursors
import pytest

from holdfast.binlog.events.gtid_event import Gtid
from holdfast.binlog.pending.cut import STEPS, cut
from holdfast.binlog.pending.save import save
from holdfast.binlog.pending.tail import Clean, Pending, Unsafe, inspect
from holdfast.core.gtid import Flavor, parse
from holdfast.sandbox.servers import template, trees

DEADLINE = 15.0
SEMI_SYNC = {
    "mariadb": (
        "SET GLOBAL rpl_semi_sync_master_wait_point='AFTER_SYNC'",
        "SET GLOBAL rpl_semi_sync_master_wait_no_slave=1",
        "SET GLOBAL rpl_semi_sync_master_timeout=18446744073709551615",
        "SET GLOBAL rpl_semi_sync_master_enabled=1",
    ),
    "mysql": (
        "SET GLOBAL rpl_semi_sync_source_wait_point='AFTER_SYNC'",
        "SET GLOBAL rpl_semi_sync_source_wait_no_replica=1",
        "SET GLOBAL rpl_semi_sync_source_timeout=4294967295",
        "SET GLOBAL rpl_semi_sync_source_enabled=1",
    ),
}
OPTIONS = {
    "mariadb": ("--innodb-log-file-size=4M",),
    "mysql": (
        "--plugin-load-add=rpl_semi_sync_source=semisync_source.so",
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--innodb-redo-log-capacity=32M",
    ),
}


Make = Callable[..., "Server"]


class Server:
    """One server in a folder of its own, reached through a socket."""

    def __init__(self, flavor: trees.Flavor, folder: Path, *options: str) -> None:
        self.flavor = flavor
        self.folder = folder
        self.options = options
        self.tree = trees.find(flavor)
        self.datadir = folder / "data"
        self.index = self.datadir / "binlog.index"
        self.process: subprocess.Popen[bytes] | None = None
        self.waiting: list[threading.Thread] = []
        template.copy_template(template.make_template(self.tree, []), self.datadir)

    def start(self) -> None:
        command = [
            *self.tree.command,
            "--no-defaults",
            *self.tree.arguments,
            f"--datadir={self.datadir}",
            f"--tmpdir={self.folder}",
            f"--socket={self.folder}/sock",
            f"--log-error={self.folder}/error.log",
            f"--pid-file={self.folder}/pid",
            "--skip-networking",
            "--server-id=7",
            "--log-bin=binlog",
            "--binlog-format=ROW",
            "--sync-binlog=1",
            "--innodb-flush-log-at-trx-commit=1",
            "--innodb-buffer-pool-size=32M",
            *OPTIONS[self.flavor],
            *self.options,
        ]
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT
            )
        until(self._listens, "the server listens")
        self.sql("SELECT 1")  # a MariaDB that only listens may miss a SIGTERM

    def connect(self) -> pymysql.Connection[Any]:
        return pymysql.connect(
            unix_socket=f"{self.folder}/sock", user="root", autocommit=True, read_timeout=60
        )

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = list(cursor.fetchall())
        return rows

    def require_acks(self) -> None:
        self.sql(*SEMI_SYNC[self.flavor])

    def leave_waiting(self, *statements: str) -> None:
        """Begin statements that will hang until the server dies, each on its own connection."""
        wires = [self.connect() for _ in statements]
        # a session that exists already: while CREATE USER waits, MySQL lets no client log in
        with contextlib.closing(self.connect()) as watch, watch.cursor() as cursor:
            for wire, statement in zip(wires, statements, strict=True):
                thread = threading.Thread(target=_wait_for_ever, args=(wire, statement))
                thread.start()
                self.waiting.append(thread)
                until(lambda: _running(cursor) >= len(self.waiting), "the statement runs")

    def crash(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        for thread in self.waiting:
            thread.join(DEADLINE)
        self.waiting.clear()

    def shut_down(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(DEADLINE)

    def executed(self) -> str:
        variable = "gtid_binlog_state" if self.flavor == "mariadb" else "gtid_executed"
        return str(self.sql(f"SELECT @@GLOBAL.{variable}")[0][0]).replace("\n", "")

    def names(self) -> list[str]:
        return [str(row[0]) for row in self.sql("SELECT name FROM test.t ORDER BY id")]

    def binlogs(self) -> list[Path]:
        return sorted(self.datadir.glob("binlog.0*"))

    def decode(self, file: Path) -> str:
        done = subprocess.run(
            [*self.tree.tool("mysqlbinlog"), "--no-defaults", "-vv", str(file)],
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert b"WARNING" not in done.stderr, done.stderr
        return done.stdout.decode(errors="replace")

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "error.log").read_text()[-3000:]
        # PyMySQL leaves the socket of a failed connection open
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(f"{self.folder}/sock") == 0


def _running(cursor: pymysql.cursors.Cursor) -> int:
    """How many statements besides this one the server is executing."""
    cursor.execute(
        "SELECT COUNT(*) - 1 FROM information_schema.processlist WHERE command = 'Query'"
    )
    return int(cursor.fetchall()[0][0])


def _wait_for_ever(wire: pymysql.Connection[Any], statement: str) -> None:
    with contextlib.suppress(pymysql.err.Error), contextlib.closing(wire):
        wire.cursor().execute(statement)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE} s: {what}"
        time.sleep(0.05)


def until_rotated(server: Server, files: int) -> None:
    until(lambda: len(server.binlogs()) == files, "it rotated")


def known(flavor: trees.Flavor, text: str) -> Callable[[Gtid], bool]:
    """The new primary's view: it has what the crashed one had at this point."""
    gtids = parse(Flavor(flavor), text)
    return lambda gtid: gtids.has(gtid.stream, gtid.sequence)


def wait_until_logged(server: Server, has: Callable[[Gtid], bool], count: int) -> None:
    """Wait until the binlog has that many transactions that ``has`` does not know."""

    def logged() -> bool:
        tail = inspect(server.index, has)
        return isinstance(tail, Pending | Unsafe) and (
            tail.summary is not None and tail.summary.transactions >= count
        )

    until(logged, f"{count} transactions are in the binlog")


@pytest.fixture(params=["mariadb", "mysql"])
def flavor(request: pytest.FixtureRequest) -> trees.Flavor:
    chosen: trees.Flavor = request.param
    return chosen


@pytest.fixture
def new_server() -> Iterator[Make]:
    """Makes a running server with a table and two acknowledged rows; the last one is killed."""
    made: list[Server] = []

    def make(flavor: trees.Flavor, *options: str) -> Server:
        server = Server(flavor, Path(tempfile.mkdtemp(prefix="hfb-", dir="/tmp")), *options)
        made.append(server)
        server.start()
        server.sql(
            "CREATE DATABASE IF NOT EXISTS test",
            "CREATE TABLE test.t (id INT AUTO_INCREMENT PRIMARY KEY, name TEXT) ENGINE=InnoDB",
            "INSERT INTO test.t (name) VALUES ('kept 1')",
            "INSERT INTO test.t (name) VALUES ('kept 2')",
        )
        return server

    yield make
    for server in made:
        if server.process is not None and server.process.poll() is None:
            server.crash()
        shutil.rmtree(server.folder)


def insert(name: str) -> str:
    return f"INSERT INTO test.t (name) VALUES ('{name}')"


def crash_with_pending(server: Server, *statements: str) -> tuple[str, Callable[[Gtid], bool]]:
    """Let the statements wait for an ack and kill the server; returns what was executed before."""
    before = server.executed()
    has = known(server.flavor, before)
    server.require_acks()
    for number, statement in enumerate(statements, 1):
        server.leave_waiting(statement)
        wait_until_logged(server, has, min(number, 2))
    server.crash()
    return before, has


def assert_as_before(server: Server, executed: str) -> None:
    assert server.names() == ["kept 1", "kept 2"]
    assert server.executed() == executed


def pending(server: Server, has: Callable[[Gtid], bool]) -> Pending:
    tail = inspect(server.index, has)
    assert isinstance(tail, Pending), tail
    return tail


def test_a_pending_row_is_saved_cut_and_gone_after_the_start(
    flavor: trees.Flavor, new_server: Make
) -> None:
    server = new_server(flavor)
    before, has = crash_with_pending(server, insert("pending 1"))

    tail = pending(server, has)
    assert tail.summary.transactions == 1
    saved = server.folder / "saved.binlog"
    save(tail, saved)
    cut(tail)
    assert inspect(server.index, has) == Clean()
    server.start()

    assert_as_before(server, before)
    assert server.decode(saved).count("### INSERT INTO") == 1
    assert not list(server.datadir.glob("binlog.state"))


def test_all_groups_that_were_waiting_are_gone(flavor: trees.Flavor, new_server: Make) -> None:
    server = new_server(flavor)
    before, has = crash_with_pending(server, *(insert(f"pending {n}") for n in range(6)))

    tail = pending(server, has)
    assert tail.summary.transactions >= 2
    saved = server.folder / "saved.binlog"
    save(tail, saved)
    cut(tail)
    server.start()

    assert_as_before(server, before)
    assert server.decode(saved).count("### INSERT INTO") == tail.summary.transactions
    assert inspect(server.index, has) == Clean()


@pytest.mark.parametrize("done", range(len(STEPS)))
def test_a_mariadb_tail_over_several_files_is_cut_though_interrupted(
    new_server: Make, done: int
) -> None:
    server = new_server("mariadb", "--max-binlog-size=4096")
    large = "INSERT INTO test.t (name) VALUES (REPEAT('pending', 900))"
    before = server.executed()
    has = known("mariadb", before)
    server.require_acks()
    for files in (2, 3):
        server.leave_waiting(large)
        until_rotated(server, files)
    wait_until_logged(server, has, 2)
    server.crash()

    tail = pending(server, has)
    assert tail.start.file.name == "binlog.000001"
    saved = server.folder / "saved.binlog"
    save(tail, saved)
    for step in STEPS[:done]:
        step(tail)
    cut(pending(server, has))
    assert server.binlogs() == [tail.start.file]
    server.start()

    assert_as_before(server, before)
    assert server.decode(saved).count("### INSERT INTO") == 2


def test_mysql_does_not_rotate_while_transactions_wait(new_server: Make) -> None:
    server = new_server("mysql", "--max-binlog-size=4096")
    large = "INSERT INTO test.t (name) VALUES (REPEAT('pending', 900))"
    before, has = crash_with_pending(server, large, large)
    assert len(server.binlogs()) == 1
    cut(pending(server, has))
    server.start()
    assert_as_before(server, before)


def test_a_torn_end_is_cut_with_the_rest(flavor: trees.Flavor, new_server: Make) -> None:
    server = new_server(flavor)
    before, has = crash_with_pending(server, insert("pending 1"), insert("pending 2"))
    last = server.binlogs()[-1]
    os.truncate(last, last.stat().st_size - 20)

    tail = pending(server, has)
    assert tail.summary.torn
    saved = server.folder / "saved.binlog"
    save(tail, saved)
    cut(tail)
    server.start()

    assert_as_before(server, before)
    assert server.decode(saved).count("### INSERT INTO") == tail.summary.transactions == 1


DEFINITIONS = {
    "CREATE TABLE test.n (a INT)": "DROP TABLE test.n",
    "CREATE TABLE test.n SELECT * FROM test.t": "DROP TABLE test.n",
    "ALTER TABLE test.t ADD extra INT": "ALTER TABLE test.t DROP extra",
    "DROP TABLE test.other": "CREATE TABLE test.other (a INT)",
    "TRUNCATE TABLE test.other": "INSERT INTO test.other VALUES (1)",
    "CREATE USER someone": "DROP USER someone",
}
"""The statement that undoes each."""


def test_atomic_data_definitions_are_cut_on_mysql(new_server: Make) -> None:
    """One after another on one server, which comes back from each crash."""
    server = new_server("mysql")
    server.sql("CREATE TABLE test.other (a INT)")
    for statement, undo in DEFINITIONS.items():
        before, has = crash_with_pending(server, statement)
        cut(pending(server, has))
        server.start()
        assert_as_before(server, before)
        server.sql(statement, undo)  # it would fail if a trace of it remained


def test_tagged_transactions_are_known_by_their_names(new_server: Make) -> None:
    server = new_server("mysql")
    server.sql("SET gtid_next='AUTOMATIC:deploy'", insert("kept 3"))
    before = server.executed()
    assert ":deploy:1" in before
    has = known("mysql", before)
    server.require_acks()
    server.leave_waiting("DELETE FROM test.t WHERE name = 'kept 3'")
    wait_until_logged(server, has, 1)
    server.crash()
    cut(pending(server, has))
    server.start()
    assert server.executed() == before
    assert server.names() == ["kept 1", "kept 2", "kept 3"]
