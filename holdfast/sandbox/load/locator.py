"""Finds the server that takes writes, for all writers together.

One thread for each member keeps a connection to it. While the server is unknown each thread inserts a row every few
milliseconds: a read-only server refuses at once, and the first one that acknowledges is it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pymysql

from holdfast.sandbox.load.journal import Journal
from holdfast.server.base import Account
from holdfast.server.connection.login import SafeLogin

PROBE_SECONDS = 0.005
IDLE_SECONDS = 0.25
ANSWER_SECONDS = 1.0
"""After this long without an answer the outcome of a write counts as unknown."""

READ_ONLY_ERRORS = frozenset({1290, 1792, 1836, 3032})
"""The server refused; the connection is still good."""


@dataclass(frozen=True, slots=True)
class WriteTarget:
    """Where a member's server takes connections."""

    name: str
    host: str
    port: int


def connect(target: WriteTarget, account: Account) -> SafeLogin:
    """A client's connection, with the deadlines of a client that does not want to wait."""
    return SafeLogin(
        asks_for_key=True,  # no other process listens there
        host=target.host,
        port=target.port,
        user=account.user,
        password=account.password,
        autocommit=True,
        connect_timeout=1,
        read_timeout=ANSWER_SECONDS,
        write_timeout=ANSWER_SECONDS,
    )


def insert(run: int, writer: int, number: int) -> str:
    """The one write of this workload; no row is ever written twice."""
    return f"INSERT INTO app.writes VALUES ({run}, {writer}, {number}, NOW(6))"


def error_code(error: Exception) -> int:
    """The server's or client library's number, or 0 where the connection itself broke."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


class Locator:
    """Gives writers the server to write to.

    :ivar journals: its own inserts, which count like any other client's
    :ivar on_found: called with the server and the time of its first acknowledgement (Unix seconds)
    """

    def __init__(
        self,
        targets: tuple[WriteTarget, ...],
        account: Account,
        run: int,
        first_writer: int,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._account = account
        self._pause = probe_seconds
        self._run = run
        self.on_found: Callable[[WriteTarget, float], None] = lambda target, at: None
        self._changed = threading.Condition()
        self._found: WriteTarget | None = None
        self._generation = 0
        self._searching = threading.Event()
        self._stopped = threading.Event()
        self.journals = [
            Journal(first_writer + index, searches=True) for index in range(len(targets))
        ]
        self._threads = [  # daemons: after an interrupt of the main thread they must not continue
            threading.Thread(
                target=self._probe, args=pair, name=f"probe-{pair[0].name}", daemon=True
            )
            for pair in zip(targets, self.journals, strict=True)
        ]

    def start(self) -> None:
        self._searching.set()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns once every probe has ended, at most a second later."""
        self._stopped.set()
        self._searching.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def where(self) -> tuple[WriteTarget, int] | None:
        """The server to write to and the number of this answer; waits for one. None after `stop`."""
        with self._changed:
            while self._found is None and not self._stopped.is_set():
                self._changed.wait()
            return (self._found, self._generation) if self._found else None

    def failed(self, generation: int) -> None:
        """The server of this answer does not take writes any more."""
        with self._changed:
            if generation == self._generation and self._found is not None:
                self._found = None
                self._searching.set()

    def _is_it(self, target: WriteTarget, at: float) -> None:
        with self._changed:
            if self._found is not None:
                return
            self._found = target
            self._generation += 1
            self._searching.clear()
            self._changed.notify_all()
        self.on_found(target, at)

    def _probe(self, target: WriteTarget, journal: Journal) -> None:
        connection: SafeLogin | None = None
        number = 0
        while not self._stopped.is_set():
            searching = self._searching.is_set()
            try:
                if connection is None:
                    connection = connect(target, self._account)
                if searching:
                    number += 1
                    connection.query(insert(self._run, journal.writer, number))
                    at = time.time()
                    journal.acknowledge(number, at)
                    self._is_it(target, at)
            except (pymysql.err.MySQLError, OSError) as error:
                code = error_code(error)
                if connection is not None:
                    journal.fail(number, code)
                    if code not in READ_ONLY_ERRORS:
                        _drop(connection)
                        connection = None
            if self._searching.is_set():
                time.sleep(self._pause)
            else:
                self._searching.wait(IDLE_SECONDS)
        if connection is not None:
            _drop(connection)


def _drop(connection: SafeLogin) -> None:
    """Close without the protocol's farewell, which would wait for a server that hangs."""
    connection._force_close()
