"""What a manager needs of a store."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from holdfast.core.record import Record


@dataclass(frozen=True, slots=True)
class Stored:
    """:ivar version: of the record; 0 while there is none"""

    record: Record | None
    version: int


@dataclass(frozen=True, slots=True)
class StoredSettings:
    """What people changed at run time: settings, and who is a member.

    :ivar document: can be written as JSON; {} while nothing was changed
    :ivar version: 0 while nothing was ever changed
    """

    document: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0


class Store(Protocol):
    """Records and settings by cluster, each replaced by compare-and-set; and a lock, so that one manager leads a
    cluster."""

    def load(self, cluster: str) -> Stored:
        """:raises Refused: when what is stored cannot be read"""

    def replace(self, cluster: str, record: Record, expected: int) -> int:
        """Write ``record`` durably if the stored version is ``expected``; the new version.

        :raises Conflict: when it is not; nothing was written
        :raises OutcomeUnknown: it may have been written: load before going on
        """

    def settings(self, cluster: str) -> StoredSettings:
        """:raises Refused: when what is stored cannot be read"""

    def replace_settings(self, cluster: str, document: Mapping[str, Any], expected: int) -> int:
        """As :meth:`replace`, for the settings."""

    def lead(self, cluster: str) -> AbstractContextManager[bool]:
        """Try to become the one manager that leads; False when another does. Held until left or killed."""
