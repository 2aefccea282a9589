"""etcd: the store for several managers on several hosts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.record import Record, from_json, to_json
from holdfast.errors import Conflict, OutcomeUnknown, Refused, Unreachable
from holdfast.store.base import (
    ENTRIES_KEPT,
    Deposed,
    Leadership,
    LeadershipCandidate,
    Stored,
    StoredEntry,
    StoredSettings,
    unreadable,
)
from holdfast.store.gateway import Etcd, Gateway
from holdfast.store.session import EtcdSession, Keys
from holdfast.store.watching import Watcher
from holdfast.store.wording import (
    Body,
    KeyValue,
    after,
    created_at,
    get,
    get_last,
    kvs,
    put,
    ranged,
    remove_below,
    txn,
    version_is,
)

WRITE_SECONDS = 3.0
ENTRIES_AT_ONCE = 20
"""Entries of the history in one answer: some hundred kB."""
ENTRY_DIGITS = 10
"""The keys of entries sort in the order of their numbers."""


class EtcdStore:
    """etcd is not contacted before it is needed: a manager starts also while etcd is down.

    :raises BadInput: a certificate cannot be read
    """

    def __init__(self, etcd: Etcd, clock: Clock = SYSTEM_CLOCK) -> None:
        self._etcd = etcd
        self._clock = clock
        self._keys = Keys(etcd.prefix)
        self._gateway = Gateway(etcd, clock)
        self._session = EtcdSession(self._gateway, self._keys)
        self._watcher = Watcher(self._gateway, etcd.prefix, self._told)
        self._listeners: list[tuple[str, Callable[[], None]]] = []
        self._listening = threading.Lock()

    def __str__(self) -> str:
        return repr(self._etcd)

    def load(self, cluster: str) -> Stored:
        found = self._read(cluster, "record")
        try:
            return Stored(from_json(found.value), found.version) if found else Stored(None, 0)
        except (ValueError, KeyError, TypeError) as error:
            raise self._unreadable(cluster, "record", error) from None

    def replace(self, cluster: str, record: Record, expected: int) -> int:
        """Only the manager that leads may do this; etcd itself checks that, in the same transaction."""
        held = self._session.held(cluster)
        if held is None or self._clock.monotonic() >= held.until:
            raise Deposed(cluster, expected)
        leads = created_at(held.key, held.created)
        return self._write(cluster, "record", to_json(record), expected, leads)

    def settings(self, cluster: str) -> StoredSettings:
        found = self._read(cluster, "settings")
        try:
            document = json.loads(found.value) if found else {}
        except ValueError as error:
            raise self._unreadable(cluster, "settings", error) from None
        if not isinstance(document, dict):
            raise self._unreadable(cluster, "settings", TypeError(type(document).__name__))
        return StoredSettings(document, found.version if found else 0)

    def replace_settings(self, cluster: str, document: Mapping[str, Any], expected: int) -> int:
        return self._write(cluster, "settings", json.dumps(document, sort_keys=True), expected)

    def entries(self, cluster: str, most: int) -> tuple[StoredEntry, ...]:
        prefix = self._keys.of(cluster, "history/")
        found: list[KeyValue] = []
        end = after(prefix)
        while len(found) < most:
            wanted = min(ENTRIES_AT_ONCE, most - len(found))
            page = kvs(self._gateway.ask("kv/range", get_last(prefix, end, wanted)))
            found += page
            if len(page) < wanted:
                break
            end = page[-1].key
        return tuple(
            StoredEntry(int(name), each.value, each.version)
            for each in found
            if (name := each.key.removeprefix(prefix)).isdecimal()
        )

    def entry(self, cluster: str, number: int) -> StoredEntry | None:
        found = self._read(cluster, _entry(number))
        return StoredEntry(number, found.value, found.version) if found else None

    def write_entry(self, cluster: str, number: int, body: str, expected: int) -> int:
        prefix = self._keys.of(cluster, "history/")
        oldest = self._keys.of(cluster, _entry(max(0, number - ENTRIES_KEPT) + 1))
        trim = [] if expected else [remove_below(prefix, oldest)]
        return self._write(cluster, _entry(number), body, expected, further=trim)

    @contextmanager
    def lead(
        self, cluster: str, who: LeadershipCandidate, lost: Callable[[], None] = lambda: None
    ) -> Iterator[Leadership | None]:
        held = self._session.campaign(cluster, who, lost)
        try:
            yield held
        finally:
            if held:
                self._session.leave(held)

    def leader(self, cluster: str) -> LeadershipCandidate | None:
        found = self._read(cluster, "leader")
        return self._candidate(found) if found else None

    def candidates(self, cluster: str) -> tuple[LeadershipCandidate, ...]:
        return tuple(self._candidate(each) for each in self._session.candidates(cluster))

    @contextmanager
    def watch(self, cluster: str, changed: Callable[[], None]) -> Iterator[None]:
        entry = (cluster, changed)
        with self._listening:
            self._listeners.append(entry)
        self._watcher.start()
        try:
            yield
        finally:
            with self._listening:
                self._listeners.remove(entry)

    def close(self) -> None:
        self._watcher.close()
        self._session.close()
        self._gateway.close()

    def _told(self, key: str) -> None:
        """Something has changed: this key, or "" for any."""
        cluster = self._keys.cluster(key) if key else ""
        if key.startswith(self._keys.of(cluster, "history/")):
            return
        if not key or key == self._keys.of(cluster, "leader"):
            self._session.wake()
        with self._listening:
            listeners = list(self._listeners)
        for name, changed in listeners:
            if not key or name == cluster:
                changed()

    def _read(self, cluster: str, what: str) -> KeyValue | None:
        found = kvs(self._gateway.ask("kv/range", get(self._keys.of(cluster, what))))
        return found[0] if found else None

    def _write(
        self,
        cluster: str,
        what: str,
        body: str,
        expected: int,
        leads: Body | None = None,
        further: Sequence[Body] = (),
    ) -> int:
        """Write once. If the answer is lost, the result is looked up, and the write is sent again: compare-and-set
        carries it out only once.

        :param leads: a condition that holds while this manager leads
        :param further: operations in the same transaction
        """
        key = self._keys.of(cluster, what)
        compare = [version_is(key, expected), *([leads] if leads else [])]
        then = [{"request_put": put(key, body)}, *further]
        request = txn(compare, then, [{"request_range": get(key)}])
        end = self._clock.monotonic() + WRITE_SECONDS
        lost = ""
        while True:
            try:
                reply = self._gateway.ask("kv/txn", request, repeatable=False, end=end)
                if reply.get("succeeded"):
                    return expected + 1
                found = ranged(reply, 0)
                again = False
            except OutcomeUnknown as error:
                lost = str(error)
                found = self._now(key, cluster, what, lost, end)
                again = True
            except Unreachable as error:
                if not lost:
                    raise
                raise _unknown(cluster, what, str(error)) from None
            version = found[0].version if found else 0
            if lost and version == expected + 1 and found[0].value == body:
                return version
            if version != expected:
                raise Conflict(cluster, expected, what)
            if not again:
                raise Deposed(cluster, expected)

    def _now(self, key: str, cluster: str, what: str, lost: str, end: float) -> list[KeyValue]:
        try:
            return kvs(self._gateway.ask("kv/range", get(key), end=end))
        except Unreachable:
            raise _unknown(cluster, what, lost) from None

    def _candidate(self, found: KeyValue) -> LeadershipCandidate:
        try:
            return LeadershipCandidate(**json.loads(found.value))
        except (ValueError, TypeError):  # another program's, or a later version's
            return LeadershipCandidate(found.key.rpartition("/")[2])

    def _unreadable(self, cluster: str, what: str, error: Exception) -> Refused:
        earlier = "put back an earlier value of it (etcdctl get --rev, etcdctl put), while no manager runs"
        return unreadable(f"{self._keys.of(cluster, what)} in etcd", error, earlier)


def _unknown(cluster: str, what: str, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"store: writing the {what} of {cluster}: {why}")


def _entry(number: int) -> str:
    return f"history/{number:0{ENTRY_DIGITS}}"
