"""The history beside a SQLite store: a file of its own, so that the record never waits for its lock or its syncs."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.errors import Conflict, OutcomeUnknown, Refused
from holdfast.store.base import ENTRIES_KEPT, StoredEntry

SCHEMA = """
create table if not exists history (
    cluster text not null,
    number integer not null,
    version integer not null,
    body text not null,
    primary key (cluster, number)
)
"""


class Entries:
    """The file is opened when it is first needed: a manager can lead without a history.

    A write survives the end of the process at once, and the end of the host some seconds later (synchronous=NORMAL).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._one = threading.Lock()
        self._closed = False

    def newest(self, cluster: str, most: int) -> tuple[StoredEntry, ...]:
        query = "select number, body, version from history where cluster = ? order by number desc limit ?"
        with self._opened(cluster) as db:
            return tuple(StoredEntry(*row) for row in db.execute(query, (cluster, most)))

    def entry(self, cluster: str, number: int) -> StoredEntry | None:
        query = "select number, body, version from history where cluster = ? and number = ?"
        with self._opened(cluster) as db:
            row = db.execute(query, (cluster, number)).fetchone()
        return StoredEntry(*row) if row else None

    def write(self, cluster: str, number: int, body: str, expected: int) -> int:
        version = expected + 1
        with self._opened(cluster, writes=True) as db:
            if expected:
                cursor = db.execute(
                    "update history set version = ?, body = ? where cluster = ? and number = ? and version = ?",
                    (version, body, cluster, number, expected),
                )
            else:
                cursor = db.execute(
                    "insert into history (cluster, number, version, body) values (?, ?, ?, ?) "
                    "on conflict do nothing",
                    (cluster, number, version, body),
                )
            if cursor.rowcount != 1:
                raise Conflict(cluster, expected, f"entry {number} of the history")
            if not expected:
                db.execute(
                    "delete from history where cluster = ? and number <= ?",
                    (cluster, number - ENTRIES_KEPT),
                )
        return version

    def close(self) -> None:
        with self._one:
            self._closed = True
            if self._db is not None:
                self._db.close()

    @contextmanager
    def _opened(self, cluster: str, writes: bool = False) -> Iterator[sqlite3.Connection]:
        with self._one:
            try:
                db = self._db or self._open()
                with db:
                    yield db
            except sqlite3.Error as error:
                text = f"store: the history of {cluster} in {self._path}: {error}"
                raise OutcomeUnknown(text) if writes else Refused(text) from None

    def _open(self) -> sqlite3.Connection:
        if self._closed:
            raise Refused("store: it is closed: this manager is ending")
        db = sqlite3.connect(self._path, timeout=2, check_same_thread=False)
        try:
            db.execute("pragma journal_mode=wal")
            db.execute("pragma synchronous=normal")
            db.execute(SCHEMA)
        except sqlite3.Error:
            db.close()
            raise
        self._db = db
        return db
