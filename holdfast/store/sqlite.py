"""A SQLite file: the store for managers on one host."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from holdfast.core.record import Record, from_json, to_json
from holdfast.errors import Conflict, Fatal, OutcomeUnknown, Refused
from holdfast.store.base import Stored

SCHEMA = """
create table if not exists record (
    cluster text primary key,
    version integer not null,
    body text not null
) without rowid
"""


class SqliteStore:
    """Safe against a crash at any point: a write is on disk (synchronous=FULL) before it returns.

    :raises Fatal: when the file cannot be opened or made
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(
                path, timeout=2, isolation_level=None, check_same_thread=False
            )
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            self._db.execute(SCHEMA)
        except sqlite3.Error as error:
            raise Fatal(f"store: cannot use {path}: {error}") from None

    def load(self, cluster: str) -> Stored:
        try:
            row = self._db.execute(
                "select version, body from record where cluster = ?", (cluster,)
            ).fetchone()
        except sqlite3.Error as error:
            raise Refused(f"store: cannot read the record of {cluster}: {error}") from None
        if row is None:
            return Stored(None, 0)
        version, body = row
        try:
            return Stored(from_json(body), version)
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(
                f"store: the record of {cluster} in {self._path} is not readable ({error!r}); "
                "restore the file from a copy"
            ) from None

    def replace(self, cluster: str, record: Record, expected: int) -> int:
        version = expected + 1
        body = to_json(record)
        try:
            if expected:
                statement = (
                    "update record set version = ?, body = ? where cluster = ? and version = ?"
                )
                cursor = self._db.execute(statement, (version, body, cluster, expected))
            else:
                statement = "insert into record (version, body, cluster) values (?, ?, ?) on conflict do nothing"
                cursor = self._db.execute(statement, (version, body, cluster))
        except sqlite3.Error as error:
            raise OutcomeUnknown(f"store: writing the record of {cluster}: {error}") from None
        if cursor.rowcount != 1:
            raise Conflict(cluster, expected)
        return version

    @contextmanager
    def lead(self, cluster: str) -> Iterator[bool]:
        """A lock on a file beside the store; the kernel lets go of it when the process ends."""
        with closing(_LockFile(self._path.with_name(f"{self._path.name}.{cluster}.lock"))) as lock:
            yield lock.acquire()

    def close(self) -> None:
        self._db.close()


class _LockFile:
    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Fatal(f"store: cannot make {path}: {error.strerror}") from None

    def acquire(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._fd)
