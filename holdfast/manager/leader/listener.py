"""Interfaces: listeners are informed of the leading manager's looks and decisions; a caller calls hooks on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from holdfast.core.calls import Called, Phase
from holdfast.core.cluster import Cluster
from holdfast.core.record import Record
from holdfast.core.view import View


class Listener(Protocol):
    """Nothing here may block, or take long: it is called between a decision and its steps."""

    def looked(self, cluster: Cluster, record: Record | None, view: View) -> None:
        """Called with every look, up to hundreds of times a second."""

    def saved(
        self, cluster: Cluster, before: Record | None, record: Record, why: str, view: View
    ) -> None:
        """The record was replaced, perhaps by an operator's order; ``before`` is None for the first one."""

    async def close(self) -> None:
        """This manager ends; what is under way may be given up."""


class Caller(Protocol):
    """Calls the hooks of a cluster, and knows their results.

    :ivar hooked: whether there are any
    :ivar called: by phase, the last call; a manager that has just begun to lead has called none
    """

    @property
    def hooked(self) -> bool: ...

    @property
    def called(self) -> Mapping[Phase, Called]: ...

    def call(self, phase: Phase, cluster: Cluster, record: Record, view: View) -> None:
        """Begin the call, unless it was begun in the record's term already; where it has failed, it is begun again
        after a pause. Never blocks; when it has ended, the manager looks again."""

    def stop(self) -> None:
        """This manager leads no more: running hooks are ended."""


class NoHooks:
    """A cluster without hooks."""

    hooked = False
    called: Mapping[Phase, Called] = {}

    def call(self, phase: Phase, cluster: Cluster, record: Record, view: View) -> None:
        """There is nothing to call."""

    def stop(self) -> None:
        """Nothing runs."""
