"""The clients, a separate process on the lab's host ``client``: ``python -m tests.chaos.clients ORDERS``.

They act as applications do: they stay with the server that last took their writes, or that was not read-only when they
connected, until the connection fails. Nothing informs them of failovers. They write every answer that they get to a
file, one operation a line.

The process ends when its standard input ends, and prints figures as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

import pymysql

from holdfast.server.connection.login import PyMySQL
from tests.chaos.history import Change, Entry, Glance, Outcome, Read, Verb, Window, Write, line

ERRORS = (pymysql.err.MySQLError, OSError)
REFUSALS = frozenset({1205, 1213, 1290, 1792, 1836, 3032})
"""With these errors the server did nothing: lock wait, deadlock, read_only, read-only transaction, super_read_only or
read-only mode, offline mode."""
CONNECT_SECONDS = 1.0
SEARCH_SECONDS = 0.02
WINDOW = 30
COUNTERS = 3
TABLES = (
    """\
CREATE TABLE {} (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, writer INT NOT NULL, n BIGINT NOT NULL, KEY (writer, n)
) ENGINE=InnoDB""",
    """\
CREATE TABLE {}_registers (
  k INT NOT NULL, half INT NOT NULL, version BIGINT NOT NULL, PRIMARY KEY (k, half)
) ENGINE=InnoDB""",
    "CREATE TABLE {}_counters (k INT NOT NULL PRIMARY KEY, v BIGINT NOT NULL) ENGINE=InnoDB",
    "INSERT INTO {}_counters VALUES " + ", ".join(f"({key}, 0)" for key in range(COUNTERS)),
)
"""Rows that are written once: no key prevents a second copy, the checker looks for that. Registers: each writer's own
is two rows with the same content. Counters are shared by all writers."""


class Habit(StrEnum):
    """How a client reads: soon again on one connection; rarely, and patiently; on a new connection each time."""

    EAGER = "eager"
    PATIENT = "patient"
    FRESH = "fresh"


PAUSES = {Habit.EAGER: (0.01, 0.15), Habit.PATIENT: (0.2, 2.5), Habit.FRESH: (0.1, 1.0)}
PATIENCE = {Habit.EAGER: 8.0, Habit.PATIENT: 20.0, Habit.FRESH: 10.0}
"""Seconds. A client that waits long for a server that hangs gets its answer when that wakes up: it must not be
stale."""


@dataclass(frozen=True, slots=True)
class Orders:
    """:ivar servers: name, address, port
    :ivar pause: seconds between the writes of one writer, at most
    :ivar readers: how many of each habit
    """

    servers: tuple[tuple[str, str, int], ...]
    user: str
    password: str
    table: str
    out: str
    seed: int = 0
    writers: int = 6
    pause: float = 0.06
    readers: int = 5

    def write(self, path: Path) -> None:
        """Only its owner may read it: it holds the password."""
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def of(cls, path: Path) -> Orders:
        found = json.loads(path.read_text())
        servers = tuple((name, host, port) for name, host, port in found.pop("servers"))
        return cls(servers=servers, **found)


class Clients:
    """:ivar heads: the last row of each writer that was acknowledged to it"""

    def __init__(self, orders: Orders, out: TextIO) -> None:
        self.orders = orders
        self.stopped = threading.Event()
        self.heads = dict.fromkeys(range(1, orders.writers + 1), 0)
        self.errors: Counter[str] = Counter()
        self._out = out
        self._lock = threading.Lock()
        jobs: list[Callable[[], None]] = [_Writer(self, name).run for name in self.heads]
        number = 0
        for habit in Habit:
            for _ in range(orders.readers):
                number += 1
                jobs.append(_Reader(self, number, habit).run)
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]

    def run(self, until: TextIO) -> None:
        for thread in self._threads:
            thread.start()
        until.read()
        self.stopped.set()
        for thread in (
            self._threads
        ):  # clients that wait for a server that hangs have had time since the last heal
            thread.join(max(PATIENCE.values()) + 5)

    def note(self, entry: Entry) -> None:
        text = line(entry) + "\n"
        with self._lock:
            self._out.write(text)

    def failed(self, what: str, error: Exception) -> int:
        """Count the error, and return its number."""
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        with self._lock:
            self.errors[f"{what} {code}"] += 1
        return code


class _Client:
    """A client with one connection at a time, to the server that it takes for the primary."""

    def __init__(self, clients: Clients, name: str, patience: float) -> None:
        self._clients = clients
        self._orders = clients.orders
        self._random = random.Random(f"{clients.orders.seed} {name}")
        self._patience = patience
        self._name = name
        self._server = ""
        self._connection: PyMySQL | None = None

    def run(self) -> None:
        while not self._clients.stopped.is_set():
            if self._connection is None and not self._find():
                self._clients.stopped.wait(SEARCH_SECONDS * self._random.uniform(0.5, 2))
                continue
            self._live()
        self._drop()

    def _live(self) -> None:
        """Do one operation, and pause."""
        raise NotImplementedError

    def _find(self, connect_seconds: float = CONNECT_SECONDS, asks: bool = True) -> bool:
        """Try one server, at random; returns whether the client takes it for the primary now.

        :param asks: whether to ask it once if it is read-only
        """
        name, host, port = self._random.choice(self._orders.servers)
        try:
            self._connection = PyMySQL(
                host=host,
                port=port,
                user=self._orders.user,
                password=self._orders.password,
                autocommit=True,
                connect_timeout=connect_seconds,
                read_timeout=self._patience,
                write_timeout=self._patience,
                ssl_disabled=True,
            )
            if asks and self._ask("SELECT @@global.read_only")[0][0]:
                self._drop()
                return False
        except ERRORS as error:
            self._clients.failed("connect", error)
            self._drop()
            return False
        self._server = name
        return True

    def _glance(self, reader: int) -> None:
        """Read the registers, or the counters. As with :meth:`_read`, an error ends the connection."""
        table = self._orders.table
        of_registers = self._random.random() < 0.6
        text = f"SELECT k, half, version FROM {table}_registers"
        begin = time.monotonic()
        try:
            rows = self._ask(text if of_registers else f"SELECT k, v FROM {table}_counters")
        except ERRORS as error:
            self._clients.failed("read", error)
            self._drop()
            return
        end = time.monotonic()
        if of_registers:
            said = {(key, half): version for key, half, version in rows}
            found = {key: (said.get((key, 0)), said.get((key, 1))) for key, _ in said}
            self._clients.note(Glance(reader, begin, end, self._server, registers=found))
        else:
            self._clients.note(Glance(reader, begin, end, self._server, counters=dict(rows)))

    def _ask(self, text: str) -> list[tuple[Any, ...]]:
        assert self._connection is not None
        with self._connection.cursor() as cursor:
            cursor.execute(text)
            return list(cursor.fetchall())

    def _drop(self) -> None:
        """Close without the protocol's farewell, which would wait for a server that hangs."""
        if self._connection is not None:
            self._connection._force_close()
            self._connection = None

    def _pause(self, least: float, most: float) -> None:
        self._clients.stopped.wait(self._random.uniform(least, most))

    def _read(self, reader: int, own: int = 0) -> None:
        """Read some writers' last rows, or the head of each. An error ends the connection, and nothing is recorded.

        :param own: read this writer's
        """
        heads = self._clients.heads
        table = self._orders.table
        if not own and self._random.random() < 0.3:
            text = f"SELECT writer, MAX(n) FROM {table} GROUP BY writer"
            lows: list[tuple[int, int]] = []
        else:
            writers = [own] if own else self._random.sample(sorted(heads), min(2, len(heads)))
            lows = [(writer, max(0, heads[writer] - WINDOW)) for writer in writers]
            text = " UNION ALL ".join(
                f"(SELECT writer, n FROM {table} WHERE writer = {writer} AND n > {low})"
                for writer, low in lows
            )
        begin = time.monotonic()
        try:
            rows = self._ask(text)
        except ERRORS as error:
            self._clients.failed("read", error)
            self._drop()
            return
        end = time.monotonic()
        windows = tuple(
            Window(writer, low, tuple(sorted(n for name, n in rows if name == writer)))
            for writer, low in lows
        )
        found = None if lows else dict(rows)
        self._clients.note(Read(reader, begin, end, self._server, windows, found))


class _Reader(_Client):
    def __init__(self, clients: Clients, number: int, habit: Habit) -> None:
        super().__init__(clients, f"reader {number}", PATIENCE[habit])
        self._number = number
        self._habit = habit

    def _live(self) -> None:
        if self._random.random() < 0.3:
            self._glance(self._number)
        else:
            self._read(self._number)
        if self._habit is Habit.FRESH:
            self._drop()
        self._pause(*PAUSES[self._habit])

    def _find(self, connect_seconds: float = CONNECT_SECONDS, asks: bool = True) -> bool:
        patient = self._habit is Habit.FRESH
        return super()._find(self._patience if patient else connect_seconds, asks)


class _Writer(_Client):
    """Writes, and reads its own writes. One in three tries to write without asking whether the server takes it."""

    def __init__(self, clients: Clients, name: int) -> None:
        super().__init__(clients, f"writer {name}", (1.0, 3.0, 10.0)[name % 3])
        self._writer = name
        self._asks = name % 3 != 0
        self._trusted: object = None  # the connection on which a write succeeded
        self._next = 1
        self._version = 0

    def _find(self, connect_seconds: float = CONNECT_SECONDS, asks: bool = True) -> bool:
        return super()._find(connect_seconds, self._asks)

    def _live(self) -> None:
        dice = self._random.random()
        if self._trusted is self._connection and dice < 0.12:
            self._read(1000 + self._writer, own=self._writer)
        elif dice < 0.58:
            self._write(1, in_one=True)
        elif dice < 0.74:
            self._write(self._random.randint(1, 5), in_one=False)
        elif dice < 0.9:
            self._change_register()
        else:
            self._add()
        self._pause(0.0, self._orders.pause)

    def _write(self, count: int, in_one: bool) -> None:
        """Write new rows: one statement that is a transaction, or several."""
        first, last = self._next, self._next + count - 1
        self._next = last + 1
        inserts = [
            f"INSERT INTO {self._orders.table} (writer, n) VALUES ({self._writer}, {number})"
            for number in range(first, last + 1)
        ]
        begin, end, server, outcome, connection = self._transaction(inserts, in_one)
        self._clients.note(
            Write(self._writer, first, last, begin, end, server, outcome, connection)
        )
        if outcome is Outcome.OK:
            self._clients.heads[self._writer] = last
            self._trusted = self._connection

    def _change_register(self) -> None:
        self._version += 1
        verb = Verb.DELETE if self._random.random() < 0.2 else Verb.SET
        table, key = f"{self._orders.table}_registers", self._writer
        if verb is Verb.DELETE:
            statements = [
                f"DELETE FROM {table} WHERE k = {key} AND half = {half}" for half in (0, 1)
            ]
        else:
            statements = [
                f"INSERT INTO {table} VALUES ({key}, {half}, {self._version}) "
                f"ON DUPLICATE KEY UPDATE version = {self._version}"
                for half in (0, 1)
            ]
        told = self._transaction(statements, in_one=False)
        self._clients.note(Change(self._writer, verb, key, self._version, *told))

    def _add(self) -> None:
        key = self._random.randrange(COUNTERS)
        statement = f"UPDATE {self._orders.table}_counters SET v = v + 1 WHERE k = {key}"
        told = self._transaction([statement], in_one=self._random.random() < 0.7)
        self._clients.note(Change(self._writer, Verb.ADD, key, 0, *told))

    def _transaction(
        self, statements: list[str], in_one: bool
    ) -> tuple[float, float, str, Outcome, int]:
        """Returns when it began and ended, on which server, its outcome, and on which connection.

        :param in_one: the one statement is the transaction; else one in ten is rolled back
        """
        assert self._connection is not None
        undone = not in_one and self._random.random() < 0.1
        asked = statements if in_one else ["BEGIN", *statements, "ROLLBACK" if undone else "COMMIT"]
        outcome = Outcome.REFUSED if undone else Outcome.OK
        connection = self._connection.thread_id()
        *preparing, deciding = asked
        begin = time.monotonic()
        try:
            for statement in preparing:
                self._ask(statement)
        except ERRORS as error:
            # COMMIT was never sent: the connection's end undoes the rest
            outcome = self._refused("write", error, sure=True)
        else:
            try:
                self._ask(deciding)
            except ERRORS as error:
                outcome = self._refused("commit", error, sure=undone)
        return begin, time.monotonic(), self._server, outcome, connection

    def _refused(self, what: str, error: Exception, sure: bool) -> Outcome:
        """The outcome of a failed write; ends the connection."""
        code = self._clients.failed(what, error)
        self._drop()
        return Outcome.REFUSED if sure or code in REFUSALS else Outcome.UNKNOWN


def main(argv: Sequence[str]) -> int:
    path = Path(argv[0])
    orders = Orders.of(path)
    path.unlink()
    with Path(orders.out).open("w") as out:
        clients = Clients(orders, out)
        clients.run(sys.stdin)
        out.flush()
    print(json.dumps({"errors": dict(sorted(clients.errors.items()))}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
