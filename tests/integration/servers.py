"""Bare database servers on loopback for tests: made from a template, killed by handle."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from pymysql.cursors import DictCursor

from holdfast.core.gtid import Flavor
from holdfast.errors import DeadlinePassed, Unreachable
from holdfast.sandbox.servers import template, trees
from holdfast.sandbox.servers.frugal import frugal
from holdfast.server.assembly import local_server
from holdfast.server.base import Account, Deadline, Source
from holdfast.server.connection.login import PyMySQL
from holdfast.server.process import optionfile
from tests.integration.ports import free_ports

ADMIN = Account("holdfast", "adm'in %s")
"""With characters that must survive quoting."""
CLIENT = Account("app", "app")
MEMBERS = 4
BOOT_SECONDS = 20.0
BUSY = 4
"""A step may take so many times longer on a machine that other work keeps busy."""


class BareServer:
    """One server process with its adapter; only the test decides what it does."""

    def __init__(
        self,
        flavor: Flavor,
        number: int,
        folder: Path,
        port: int,
        extra: Mapping[str, optionfile.Value] | None = None,
    ) -> None:
        self.flavor = flavor
        self.number = number
        self.port = port
        self.datadir = folder / "data"
        self.socket = folder / "sock"
        self.error_log = folder / "error.log"
        self.tree = trees.find(flavor.value)
        self.adapter = local_server(flavor, self.socket, ADMIN)
        self.process: subprocess.Popen[bytes] | None = None
        self.option_file = folder / "my.cnf"
        self._output = folder / "server.out"
        template.copy_template(template.make_template(self.tree, statements()), self.datadir)
        tmpdir = folder / "tmp"
        tmpdir.mkdir()
        self.option_file.write_text(
            optionfile.ServerOptions(
                flavor=flavor,
                datadir=self.datadir,
                tmpdir=tmpdir,
                socket=self.socket,
                port=port,
                server_id=number + 1,
                error_log=self.error_log,
                buffer_pool_mb=64,
                extra=frugal(flavor) | dict(extra or {}),
            ).render()
        )

    def start(self) -> None:
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *self.tree.command,
                    f"--defaults-file={self.option_file}",
                    *self.tree.arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._answers, BOOT_SECONDS, f"server {self.number} answers")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            log = self.error_log if self.error_log.exists() else self._output
            raise AssertionError(f"server {self.number} ended: {log.read_text()[-2000:]}")
        try:
            self.adapter.ping(Deadline(1))
        except (Unreachable, DeadlinePassed):
            return False
        return True

    def kill(self) -> None:
        """SIGKILL; a frozen server dies as well."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.adapter.close()
        self.start()

    def source(self, follower: BareServer, port: int | None = None) -> Source:
        """This server as ``follower`` replicates from it, perhaps through another port."""
        return Source("127.0.0.1", port or self.port, replication(follower.number))

    def connect(self, account: Account = ADMIN) -> PyMySQL:
        return PyMySQL(
            unix_socket=str(self.socket),
            user=account.user,
            password=account.password,
            autocommit=True,
            cursorclass=DictCursor,
            read_timeout=20,
        )

    def sql(self, *statements: str, account: Account = ADMIN) -> list[dict[str, Any]]:
        """Run statements in one session; returns the rows of the last."""
        rows: list[dict[str, Any]] = []
        with closing(self.connect(account)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = list(cursor.fetchall())
        return rows

    def value(self, sql: str) -> Any:
        return next(iter(self.sql(sql)[0].values()))


class Proxy:
    """Forwards replication to a server; can stop within a transaction, like a host that dies, and hold for a while what
    the replica sends.

    :ivar stopped: set once the budget of bytes from the server is used up
    :ivar kept: set once something that the replica sent is held
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[socket.socket] = []
        self._budget: int | None = None
        self._ended = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        self.stopped = threading.Event()
        self.kept = threading.Event()
        self._passes = threading.Event()
        self._passes.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop_after(self, count: int) -> None:
        self._budget = count

    def keep(self) -> None:
        """Hold everything that the replica sends, until :meth:`release`."""
        self._passes.clear()

    def release(self) -> None:
        self._passes.set()

    def close(self) -> None:
        """The peers see the end of the connection at once."""
        self._ended.set()
        self._passes.set()
        for each in (self._listener, *self._pairs):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:  # the server was killed
                client.close()
                return
            self._pairs += [client, server]
            threading.Thread(target=self._carry, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, True), daemon=True).start()

    def _carry(self, origin: socket.socket, to: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := origin.recv(65536):
                if counted and self._budget is not None:
                    data = data[: self._budget]
                    self._budget -= len(data)
                if not counted and not self._passes.is_set():
                    self.kept.set()
                    self._passes.wait()
                to.sendall(data)
                if counted and self._budget == 0:
                    self.stopped.set()
                    self._ended.wait()
                    return
            to.shutdown(socket.SHUT_RDWR)


@contextmanager
def bare_servers(
    flavor: Flavor,
    count: int,
    extra: Mapping[str, optionfile.Value] | None = None,
    prepare: Callable[[BareServer], None] = lambda _: None,
) -> Iterator[list[BareServer]]:
    """Servers that were just booted: read-only, without a source, without any transaction.

    :param prepare: called with each before it is started
    """
    folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
    servers: list[BareServer] = []
    with free_ports(count) as ports:
        try:
            servers += [
                BareServer(flavor, number, folder / str(number), ports[number], extra)
                for number in range(count)
            ]
            for server in servers:
                prepare(server)
            with ThreadPoolExecutor() as pool:
                list(pool.map(BareServer.start, servers))
            yield servers
        finally:
            for server in servers:
                server.kill()
                server.adapter.close()
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def proxy(target: BareServer) -> Iterator[Proxy]:
    made = Proxy(target.port)
    try:
        yield made
    finally:
        made.close()


def replication(number: int) -> Account:
    """The account of the server with this number, on all others."""
    return Account(f"repl{number}", f"re'pl %s {number}")


def statements() -> list[str]:
    """Statements of a template: the administrator, a client, an account for each server."""
    everything = "ALL PRIVILEGES ON *.*"
    users = [(ADMIN, "localhost", everything), (CLIENT, "%", "ALL PRIVILEGES ON app.*")]
    users += [(replication(n), "%", "REPLICATION SLAVE ON *.*") for n in range(MEMBERS)]
    made = ["CREATE DATABASE app"]
    for account, host, rights in users:
        name = f"'{account.user}'@'{host}'"
        password = account.password.replace("'", "''")
        made.append(f"CREATE USER {name} IDENTIFIED BY '{password}'")
        made.append(f"GRANT {rights} TO {name}{' WITH GRANT OPTION' * (rights == everything)}")
    return made


def wait_until(reached: Callable[[], bool], seconds: float, what: str) -> None:
    """:param seconds: enough for a machine that does nothing else; what must be quick is measured"""
    end = time.monotonic() + BUSY * seconds
    while not reached():
        assert time.monotonic() < end, f"not within {BUSY * seconds} s: {what}"
        time.sleep(0.005)
