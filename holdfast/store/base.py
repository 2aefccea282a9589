"""What a manager needs of a store."""

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
    :ivar written: the highest version that is known to have been written, as far as the store can tell: where it is
        above ``version``, the store was put back
    """

    record: Record | None
    version: int
    written: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class StoredSettings:
    """What people changed at run time: settings, and who is a member.

    :ivar document: can be written as JSON; {} while nothing was changed
    :ivar version: 0 while nothing was ever changed
    """

    document: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """Of the history; see ``core/history/entry.py``.

    :ivar body: may be that of a later version, which cannot be read
    """

    number: int
    body: str
    version: int


ENTRIES_KEPT = 200
"""Of the history of each cluster."""


@dataclass(frozen=True, slots=True)
class LeadershipCandidate:
    """A manager, as the others see it.

    :ivar url: where people and other managers reach its API
    :ivar host: on which it runs, written as members' hosts are
    """

    name: str
    url: str = ""
    host: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.url})" if self.url else self.name


class Leadership(Protocol):
    """One manager leads one cluster, from now until it is over; both moments are of ``time.monotonic()``."""

    @property
    def until(self) -> float:
        """Up to here this manager may decide and grant. It moves on while the store confirms the leadership, and is in
        the past, for good, once it is over."""

    @property
    def alone_from(self) -> float:
        """From here on no earlier leading manager believes to lead: what it granted last, it granted before."""


class Deposed(Conflict):
    """This manager does not lead the cluster any more; nothing was written."""

    def __init__(self, cluster: str, expected: int) -> None:
        super().__init__(cluster, expected)
        self.args = (f"this manager does not lead {cluster} any more: nothing was written",)


def unreadable(what: str, error: Exception, otherwise: str) -> Refused:
    """:param what: that is stored, and where
    :param otherwise: what an operator can do where it is not of a later version
    """
    if isinstance(error, NewerFormat):
        return Refused(f"store: {what} cannot be read: {error}")
    return Refused(f"store: {what} cannot be read ({error!r}); {otherwise}")


class Store(Protocol):
    """Records and settings by cluster, each replaced by compare-and-set; and one manager that leads a cluster.

    Everything may block, for a few seconds at most: call it in a thread.
    """

    def load(self, cluster: str) -> Stored:
        """:raises Refused: when what is stored cannot be read
        :raises Unreachable: the store does not answer
        """

    def replace(self, cluster: str, record: Record, expected: int) -> int:
        """Write ``record`` durably if the stored version is ``expected``; the new version.

        :raises Conflict: when it is not, or (where the store can tell) this manager does not lead; nothing was written
        :raises OutcomeUnknown: it may have been written: load before going on
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
        """As :meth:`replace`, for one entry, whether this manager leads or not. 0 is expected of one that is new: then
        all but the ENTRIES_KEPT up to it go. A write of the record never waits for one of these."""

    def lead(
        self, cluster: str, who: LeadershipCandidate, lost: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[Leadership | None]:
        """Try to become the one manager that leads; None when another does. Held until left, lost or killed; whoever
        leaves it hands it on at once.

        :param lost: called, in any thread, when it is over before it was left
        :raises HoldfastError: by consequence, on entering; leaving never fails
        """

    def leader(self, cluster: str) -> LeadershipCandidate | None:
        """Who leads now.

        :raises HoldfastError: by consequence
        """

    def candidates(self, cluster: str) -> tuple[LeadershipCandidate, ...]:
        """Who lives and would lead, or does: those that tried within the last seconds, where the store can tell.

        :raises HoldfastError: by consequence
        """

    def watch(self, cluster: str, changed: Callable[[], None]) -> AbstractContextManager[None]:
        """Have ``changed`` called, in any thread, when the record, the settings or who leads may have changed. It is a
        hint: not every store gives it, nor always."""

    def close(self) -> None:
        """Nothing is held any more; what is under way in other threads may fail."""
