"""What the writers' sessions wait for on a server, read every few milliseconds."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import closing

import pymysql

from holdfast.core.gtid import Flavor
from holdfast.sandbox.local.cluster import Sandbox

EVERY_SECONDS = 0.01

TABLE = {
    Flavor.MARIADB: "information_schema.processlist",
    Flavor.MYSQL: "performance_schema.processlist",
}


class States:
    """Reads from ``start`` to ``stop``. It costs the server a little: not for figures that are published."""

    def __init__(self, sandbox: Sandbox, member: str) -> None:
        self._sandbox = sandbox
        self._member = member
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, name="states", daemon=True)
        self._looks: list[tuple[float, Counter[str]]] = []
        self.error = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def within(self, begin: float, end: float) -> dict[str, float]:
        """How many sessions were in each state, on average over that time (Unix seconds)."""
        looks = [states for at, states in self._looks if begin <= at <= end]
        if not looks:
            return {}
        total = sum(looks, Counter())
        return {state: round(count / len(looks), 1) for state, count in total.most_common()}

    def _look(self) -> None:
        accounts, flavor = self._sandbox.accounts, self._sandbox.spec.flavor
        question = (
            f"SELECT STATE, COUNT(*) FROM {TABLE[flavor]} WHERE USER = '{accounts.app.user}' "
            "AND COMMAND = 'Query' GROUP BY STATE"
        )
        try:
            with (
                closing(self._sandbox.connect(self._member, accounts.admin)) as connection,
                connection.cursor() as cursor,
            ):
                while not self._stopped.wait(EVERY_SECONDS):
                    cursor.execute(question)
                    found = Counter({str(state): int(n) for state, n in cursor.fetchall()})
                    self._looks.append((time.time(), found))
        except (pymysql.err.MySQLError, OSError) as error:
            self.error = str(error)
