"""Writes entries of the history to the store, and reads them. Everything here blocks: call it in a thread."""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.core.history.build import same
from holdfast.core.history.entry import Entry, from_json, to_json
from holdfast.core.history.verified import Verified, merged
from holdfast.errors import Conflict, Refused
from holdfast.store.base import Store, StoredEntry

TRIES = 5
RECENT = 3
"""The newest entries, among which is what another manager has written at the same time."""
VERIFIED_AMONG = 40
"""The newest entries, among which is what was written of the same verification, and of the one before it."""


@dataclass(frozen=True, slots=True)
class Put:
    """Where an entry is.

    :ivar before: what another manager wrote of the same event before it was lost; then nothing was written yet
    """

    number: int
    version: int
    before: Entry | None = None


class Archive:
    """The stored history of one cluster."""

    def __init__(self, store: Store, cluster: str) -> None:
        self._store = store
        self._cluster = cluster

    def newest(self, most: int) -> list[tuple[StoredEntry, Entry | str]]:
        """The newest first; an unreadable entry is replaced by the reason.

        :raises HoldfastError: by consequence
        """
        return [(each, _read(each)) for each in self._store.entries(self._cluster, most)]

    def get(self, number: int) -> tuple[Entry, int] | None:
        """An entry, and its version.

        :raises Refused: it cannot be read; or by consequence
        """
        stored = self._store.entry(self._cluster, number)
        if stored is None:
            return None
        found = _read(stored)
        if isinstance(found, str):
            raise Refused(
                f"entry {number} of the history of {self._cluster} {found}; a manager and a command line of the "
                "version that wrote it can show it"
            )
        return found, stored.version

    def put(self, entry: Entry, version: int, taken_over: bool = False) -> Put:
        """Write the entry.

        :param version: 0 when it was never known to be stored: it gets the next number
        :param taken_over: it was under way, or over, when this manager began to lead
        :raises Conflict: another manager writes it now
        :raises HoldfastError: by consequence; to be tried again
        """
        if entry.verification is not None and not version:
            return self._put_verified(entry, entry.verification, taken_over)
        for _ in range(TRIES):
            if not version:
                placed = self._placed(entry, taken_over)
                if placed.before is not None:
                    return placed
                entry, version = replace(entry, number=placed.number), placed.version
            try:
                body = to_json(entry)
                written = self._store.write_entry(self._cluster, entry.number, body, version)
                return Put(entry.number, written)
            except Conflict:
                stored = self._store.entry(self._cluster, entry.number)
                if version == 0:
                    continue
                if stored is None or stored.version == version or not _is_ours(stored, entry):
                    raise
                version = stored.version  # this manager has written it, and the answer was lost
        raise Conflict(self._cluster, version, f"entry {entry.number} of the history")

    def _put_verified(self, entry: Entry, found: Verified, late: bool) -> Put:
        """Write a verification: it has one entry, whichever manager writes it, and when; see ``verified.merged``.

        :returns: number 0 where it is so old that it was reported long ago, or is not worth it
        """
        for _ in range(TRIES):
            newest = self._store.entries(self._cluster, VERIFIED_AMONG)
            readable = [(each, read) for each in newest if isinstance(read := _read(each), Entry)]
            number, version, told = (newest[0].number + 1 if newest else 1), 0, found
            for stored, each in readable:
                kept = each.verification
                if kept is None or kept.member != found.member:
                    continue
                if (both := merged(kept, found)) is kept:
                    return Put(stored.number, stored.version)
                if both is not None:
                    number, version, told = stored.number, stored.version, both
                break
            else:
                oldest = min((each.begun for _, each in readable), default=0.0)
                if late and len(newest) == VERIFIED_AMONG and found.ended < oldest:
                    return Put(0, 0)
            body = to_json(replace(entry, number=number, verification=told))
            try:
                return Put(number, self._store.write_entry(self._cluster, number, body, version))
            except Conflict:
                continue
        raise Conflict(self._cluster, version, f"entry {number} of the history")

    def _placed(self, entry: Entry, taken_over: bool) -> Put:
        """Where to write a new entry; with version 0, unless it was written before without an answer.

        A manager that leads no more may write at the same time. Of one transition there is one entry nevertheless, as
        only one of them gets the next number, and the other looks again.
        """
        newest = self._store.entries(self._cluster, RECENT)
        for each in newest:
            found = _read(each)
            if isinstance(found, str):
                continue
            if _is_ours(each, entry):
                return Put(each.number, each.version)
            if taken_over and same(found, entry):
                return Put(each.number, each.version, found)
            if same(entry, found) and found.term > entry.term:
                raise Conflict(self._cluster, 0, f"entry {each.number} of the history")
        return Put(newest[0].number + 1 if newest else 1, 0)


def _read(stored: StoredEntry) -> Entry | str:
    try:
        return replace(from_json(stored.body), number=stored.number)
    except (ValueError, RecursionError) as error:
        return f"cannot be read: {error}"


def _is_ours(stored: StoredEntry, entry: Entry) -> bool:
    """Whether the manager that writes ``entry`` now wrote that one, too."""
    found = _read(stored)
    return isinstance(found, Entry) and (
        (found.what, found.begun, found.term, found.old, found.managers)
        == (entry.what, entry.begun, entry.term, entry.old, entry.managers)
    )
