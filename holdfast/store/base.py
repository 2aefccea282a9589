"""What a manager needs of a store."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from holdfast.core.record import Record


@dataclass(frozen=True, slots=True)
class Stored:
    """:ivar version: of the record; 0 while there is none"""

    record: Record | None
    version: int


class Store(Protocol):
    """Records by cluster, replaced by compare-and-set; and a lock, so that one manager leads a cluster."""

    def load(self, cluster: str) -> Stored:
        """:raises Refused: when what is stored cannot be read"""

    def replace(self, cluster: str, record: Record, expected: int) -> int:
        """Write ``record`` durably if the stored version is ``expected``; the new version.

        :raises Conflict: when it is not; nothing was written
        :raises OutcomeUnknown: it may have been written: load before going on
        """

    def lead(self, cluster: str) -> AbstractContextManager[bool]:
        """Try to become the one manager that leads; False when another does. Held until left or killed."""
