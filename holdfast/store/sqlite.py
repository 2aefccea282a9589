"""A SQLite file: the store for managers on one host."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.record import Record, from_json, to_json
from holdfast.errors import Conflict, Fatal, OutcomeUnknown, Refused
from holdfast.store.base import (
    Leadership,
    LeadershipCandidate,
    Stored,
    StoredEntry,
    StoredSettings,
    unreadable,
)
from holdfast.store.entries import Entries

SCHEMA = [
    f"""
create table if not exists {table} (
    cluster text primary key,
    version integer not null,
    body text not null
) without rowid
"""
    for table in ("record", "settings")
]
logger = logging.getLogger(__name__)

PROBED_SECONDS = 0.05
"""Longer than a process holds the lock which only checks whether it is held."""


@dataclass(frozen=True, slots=True)
class _WhileLocked:
    """The kernel keeps the lock for as long as the process lives."""

    until: float = math.inf
    alone_from: float = -math.inf


class SqliteStore:
    """Safe against a crash at any point: a write is on disk (synchronous=FULL) before it returns.

    :raises Fatal: the file cannot be opened or created
    """

    def __init__(self, path: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path = path
        self._clock = clock
        # closing a connection while another thread uses it crashes the process
        self._one = threading.Lock()
        try:
            self._db = sqlite3.connect(
                path, timeout=2, isolation_level=None, check_same_thread=False
            )
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=full")
            for statement in SCHEMA:
                self._db.execute(statement)
        except sqlite3.Error as error:
            raise Fatal(f"store: cannot use {path}: {error}") from None
        self._entries = Entries(path.with_name(f"{path.name}.history"))

    def __str__(self) -> str:
        return str(self._path)

    def load(self, cluster: str) -> Stored:
        body, version = self._read("record", cluster)
        try:
            record = from_json(body) if version else None
            return Stored(record, version, self._watermark(cluster))
        except (ValueError, KeyError, TypeError) as error:
            raise self._unreadable("record", cluster, error) from None

    def replace(self, cluster: str, record: Record, expected: int) -> int:
        version = self._write("record", cluster, to_json(record), expected)
        self._raise_watermark(cluster, version)
        return version

    def _watermark(self, cluster: str) -> int:
        """The highest version that was written, from a file beside the store: an operator who puts the store back from
        a backup may leave that file as it is. Without it, or if it says less, nothing is known."""
        try:
            return int(self._mark_path(cluster).read_text())
        except (OSError, ValueError):
            return 0

    def _raise_watermark(self, cluster: str, version: int) -> None:
        """Not synced: the record is on disk before, and a mark that is too low is ignored."""
        path = self._mark_path(cluster)
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_text(f"{version}\n")
            part.replace(path)
        except OSError as error:
            logger.warning("cannot write %s: %s", path, error.strerror)

    def _mark_path(self, cluster: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{cluster}.written")

    def settings(self, cluster: str) -> StoredSettings:
        body, version = self._read("settings", cluster)
        try:
            document = json.loads(body) if version else {}
        except ValueError as error:
            raise self._unreadable("settings", cluster, error) from None
        if not isinstance(document, dict):
            raise self._unreadable("settings", cluster, TypeError(type(document).__name__))
        return StoredSettings(document, version)

    def replace_settings(self, cluster: str, document: Mapping[str, Any], expected: int) -> int:
        return self._write("settings", cluster, json.dumps(document, sort_keys=True), expected)

    def entries(self, cluster: str, most: int) -> tuple[StoredEntry, ...]:
        return self._entries.newest(cluster, most)

    def entry(self, cluster: str, number: int) -> StoredEntry | None:
        return self._entries.entry(cluster, number)

    def write_entry(self, cluster: str, number: int, body: str, expected: int) -> int:
        return self._entries.write(cluster, number, body, expected)

    def _read(self, table: str, cluster: str) -> tuple[str, int]:
        """What is stored, and its version; 0 while there is nothing."""
        try:
            with self._one:
                row = self._db.execute(
                    f"select body, version from {table} where cluster = ?", (cluster,)
                ).fetchone()
        except sqlite3.Error as error:
            raise Refused(f"store: cannot read the {table} of {cluster}: {error}") from None
        return row or ("", 0)

    def _write(self, table: str, cluster: str, body: str, expected: int) -> int:
        version = expected + 1
        try:
            if expected:
                statement = (
                    f"update {table} set version = ?, body = ? where cluster = ? and version = ?"
                )
                given: tuple[object, ...] = (version, body, cluster, expected)
            else:
                statement = (
                    f"insert into {table} (version, body, cluster) values (?, ?, ?) "
                    "on conflict do nothing"
                )
                given = (version, body, cluster)
            with self._one:
                changed = self._db.execute(statement, given).rowcount
        except sqlite3.Error as error:
            raise OutcomeUnknown(f"store: writing the {table} of {cluster}: {error}") from None
        if changed != 1:
            raise Conflict(cluster, expected, table)
        return version

    def _unreadable(self, table: str, cluster: str, error: Exception) -> Refused:
        what = f"the {table} of {cluster} in {self._path}"
        return unreadable(what, error, "restore the file from a copy")

    @contextmanager
    def lead(
        self, cluster: str, who: LeadershipCandidate, lost: Callable[[], None] = lambda: None
    ) -> Iterator[Leadership | None]:
        """A lock on a file beside the store; the kernel releases it when the process ends."""
        with closing(_LockFile(self._lock_path(cluster), self._clock)) as lock:
            if not lock.acquire():
                yield None
                return
            lock.write(json.dumps(asdict(who)))
            yield _WhileLocked()

    def leader(self, cluster: str) -> LeadershipCandidate | None:
        path = self._lock_path(cluster)
        if not path.exists():
            return None
        with closing(_LockFile(path, self._clock)) as lock:
            text = lock.holder()
        if text is None:
            return None
        try:
            return LeadershipCandidate(**json.loads(text))
        except (ValueError, TypeError):  # it has the lock, and has not written its name yet
            return LeadershipCandidate("another process on this host")

    def candidates(self, cluster: str) -> tuple[LeadershipCandidate, ...]:
        leads = self.leader(cluster)
        return (leads,) if leads else ()

    @contextmanager
    def watch(self, cluster: str, changed: Callable[[], None]) -> Iterator[None]:
        yield

    def _lock_path(self, cluster: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{cluster}.lock")

    def close(self) -> None:
        """Calls under way in other threads have ended; later ones are refused."""
        self._entries.close()
        with self._one:
            self._db.close()


class _LockFile:
    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Fatal(f"store: cannot make {path}: {error.strerror}") from None

    def acquire(self) -> bool:
        """Take the lock, also if another process checks at that very moment whether it is held."""
        end = self._clock.monotonic() + PROBED_SECONDS
        while not self._locked(fcntl.LOCK_EX):
            if not self._locked(fcntl.LOCK_SH) or self._clock.monotonic() > end:
                return False
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self._clock.sleep(PROBED_SECONDS / 20)
        return True

    def holder(self) -> str | None:
        """What its holder wrote; None if no process holds it."""
        if self._locked(fcntl.LOCK_SH):
            return None
        return os.pread(self._fd, 4096, 0).decode(errors="replace")

    def write(self, text: str) -> None:
        os.pwrite(self._fd, text.encode(), 0)
        os.ftruncate(self._fd, len(text.encode()))

    def _locked(self, kind: int) -> bool:
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._fd)
