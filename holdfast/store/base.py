"""What a manager needs from a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast.core.record import NewerFormat, Record
from holdfast.errors import Conflict, Refused


@dataclass(frozen=True, slots=True)
class Stored:
    """:ivar version: of the record; 0 while there is none
    :ivar written: the highest version that is known to have been written, as far as the store knows: if it is above
        ``version``, the store was put back from a backup
    """

    record: Record | None
    version: int
    written: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class StoredSettings:
    """What operators changed at run time: settings and members.

    :ivar document: can be written as JSON; {} while nothing was changed
    :ivar version: 0 while nothing was ever changed
    """

    document: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry of the history; see ``core/history/entry.py``.

    :ivar body: may be of a later version, which cannot be read
    """

    number: int
    body: str
    version: int


ENTRIES_KEPT = 200
"""Entries of the history of each cluster."""


@dataclass(frozen=True, slots=True)
class LeadershipCandidate:
    """A manager, as other managers see it.

    :ivar url: where operators and other managers reach its API
    :ivar host: the host on which it runs, in the form of members' hosts
    """

    name: str
    url: str = ""
    host: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.url})" if self.url else self.name


class Leadership(Protocol):
    """One manager leads one cluster, from now until it is over; both moments are on the monotonic clock."""

    @property
    def until(self) -> float:
        """Until this moment the manager may decide and grant leases. It moves forward while the store confirms the
        leadership, and is in the past, for good, once the leadership is over."""

    @property
    def alone_from(self) -> float:
        """From this moment on no earlier leading manager believes that it leads: the last leases that it granted are
        from before."""


class Deposed(Conflict):
    """This manager no longer leads the cluster; nothing was written."""

    def __init__(self, cluster: str, expected: int) -> None:
        super().__init__(cluster, expected)
        self.args = (f"this manager does not lead {cluster} any more: nothing was written",)


def unreadable(what: str, error: Exception, otherwise: str) -> Refused:
    """:param what: is stored, and where
    :param otherwise: what an operator can do if it is not of a later version
    """
    if isinstance(error, NewerFormat):
        return Refused(f"store: {what} cannot be read: {error}")
    return Refused(f"store: {what} cannot be read ({error!r}); {otherwise}")


class Store(Protocol):
    """Records and settings by cluster, each replaced by compare-and-set; and one manager that leads a cluster.

    Everything may block, for a few seconds at most: call it in a thread.
    """

    def load(self, cluster: str) -> Stored:
        """:raises Refused: what is stored cannot be read
        :raises Unreachable: the store does not answer
        """

    def replace(self, cluster: str, record: Record, expected: int) -> int:
        """Write ``record`` durably if the stored version is ``expected``; returns the new version.

        :raises Conflict: it is another version, or (if the store can check that) this manager does not lead; nothing
            was written
        :raises OutcomeUnknown: it may have been written: load before continuing
        :raises Unreachable: the store does not answer; nothing was written
        """

    def settings(self, cluster: str) -> StoredSettings:
        """As :meth:`load`."""

    def replace_settings(self, cluster: str, document: Mapping[str, Any], expected: int) -> int:
        """As :meth:`replace`, for the settings; whether this manager leads or not."""

    def entries(self, cluster: str, most: int) -> tuple[StoredEntry, ...]:
        """The newest entries of the history, the newest first; empty while there is none.

        :raises HoldfastError: by consequence
        """

    def entry(self, cluster: str, number: int) -> StoredEntry | None:
        """As :meth:`entries`."""

    def write_entry(self, cluster: str, number: int, body: str, expected: int) -> int:
        """As :meth:`replace`, for one entry, whether this manager leads or not. For a new entry 0 is expected: then all
        entries but the newest ENTRIES_KEPT are removed. A write of the record never waits for one of an entry."""

    def lead(
        self, cluster: str, who: LeadershipCandidate, lost: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[Leadership | None]:
        """Try to become the one manager that leads; None if another does. The leadership is held until it is left, is
        lost, or the process is killed; leaving it hands it on at once.

        :param lost: called, in any thread, if the leadership is over before it was left
        :raises HoldfastError: by consequence, on entering; leaving never fails
        """

    def leader(self, cluster: str) -> LeadershipCandidate | None:
        """The manager that leads now.

        :raises HoldfastError: by consequence
        """

    def candidates(self, cluster: str) -> tuple[LeadershipCandidate, ...]:
        """The managers that live and lead or would lead: those that tried within the last seconds, if the store knows
        that.

        :raises HoldfastError: by consequence
        """

    def watch(self, cluster: str, changed: Callable[[], None]) -> AbstractContextManager[None]:
        """Have ``changed`` called, in any thread, when the record, the settings or the leading manager may have
        changed. This is a hint: not every store gives it, nor always."""

    def close(self) -> None:
        """Release everything; calls under way in other threads may fail."""
