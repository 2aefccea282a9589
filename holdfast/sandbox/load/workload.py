"""Writers that act as an honest client does, and remember what they were told.

Every row has a unique key and is sent once. A write that ended in an error is *unknown*: it is neither counted as done
nor sent again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pymysql

from holdfast.sandbox.load.journal import Journal, WriteReport
from holdfast.sandbox.load.locator import (
    PROBE_SECONDS,
    Locator,
    WriteTarget,
    connect,
    error_code,
    insert,
)
from holdfast.sandbox.load.target import Written
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.server.base import Account
from holdfast.server.connection.login import SafeLogin

TABLE = """\
CREATE TABLE IF NOT EXISTS app.writes (
  run INT NOT NULL, writer INT NOT NULL, n BIGINT NOT NULL, at DATETIME(6) NOT NULL,
  PRIMARY KEY (run, writer, n)
) ENGINE=InnoDB"""

THROUGH = 1_000_000
"""Added to the number of a run that goes through HAProxy, at the same time as one that does not."""


class Workload:
    """Writers against a cluster, one connection and one thread each.

    :ivar rate: writes a second, of all together; None for as many as there can be
    """

    def __init__(
        self,
        targets: tuple[WriteTarget, ...],
        account: Account,
        writers: int = 8,
        rate: float | None = None,
        run: int = 1,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self.rate = rate
        self.run = run
        self._account = account
        self._stopped = threading.Event()
        self._locator = Locator(targets, account, run, writers + 1, probe_seconds)
        self._journals = [Journal(number) for number in range(1, writers + 1)]
        self._threads = [
            threading.Thread(
                target=self._write, args=(journal,), name=f"writer-{journal.writer}", daemon=True
            )
            for journal in self._journals
        ]

    @classmethod
    def on(
        cls,
        cluster: Written,
        writers: int = 8,
        rate: float | None = None,
        run: int = 1,
        probe_seconds: float = PROBE_SECONDS,
    ) -> Workload:
        """A workload on a cluster that is whole; makes its table.

        :param probe_seconds: between two attempts to find a server that takes writes
        """
        _make_table(cluster)
        targets = tuple(WriteTarget(each.name, each.host, each.port) for each in cluster.members())
        return cls(targets, cluster.accounts.app, writers, rate, run, probe_seconds)

    @classmethod
    def through(
        cls, sandbox: Sandbox, writers: int = 2, rate: float | None = None, run: int = 1
    ) -> Workload | None:
        """The same through HAProxy, if the sandbox runs it."""
        endpoint = sandbox.endpoint()
        if endpoint is None:
            return None
        _make_table(sandbox)
        targets = (WriteTarget("HAProxy", *endpoint),)
        return cls(targets, sandbox.accounts.app, writers, rate, THROUGH + run)

    def on_found(self, listener: Callable[[WriteTarget, float], None]) -> None:
        """Call ``listener`` whenever a server to write to was found: which, and when."""
        self._locator.on_found = listener

    def start(self) -> None:
        self._locator.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> WriteReport:
        """End all writers; a write that is under way gets a second to finish."""
        self._stopped.set()
        self._locator.stop()
        for thread in self._threads:
            thread.join()
        return self.report()

    def report(self) -> WriteReport:
        """What was written so far; may be called while the writers run."""
        return WriteReport(self.run, (*self._journals, *self._locator.journals))

    def acknowledged(self) -> int:
        return self.report().acknowledged

    def _write(self, journal: Journal) -> None:
        while not self._stopped.is_set():
            answer = self._locator.where()
            if answer is None:
                return
            target, generation = answer
            try:
                connection = connect(target, self._account)
            except (pymysql.err.MySQLError, OSError):
                self._locator.failed(generation)
                continue
            try:
                self._write_on(connection, journal)
            except (pymysql.err.MySQLError, OSError):
                self._locator.failed(generation)
            finally:
                connection._force_close()

    def _write_on(self, connection: SafeLogin, journal: Journal) -> None:
        """Write until the first error, which is raised, or the end."""
        step = len(self._journals) / self.rate if self.rate else 0.0
        due = time.monotonic() + step * journal.writer / len(self._journals)
        while not self._stopped.is_set():
            if step:
                time.sleep(max(0.0, due - time.monotonic()))
                due = max(due + step, time.monotonic())
            number = len(journal.numbers) + len(journal.unknown) + 1
            try:
                connection.query(insert(self.run, journal.writer, number))
            except (pymysql.err.MySQLError, OSError) as error:
                journal.fail(number, error_code(error))
                raise
            journal.acknowledge(number, time.time())


def _make_table(cluster: Written) -> None:
    with cluster.connect(cluster.primary()) as connection:
        connection.query(TABLE)
