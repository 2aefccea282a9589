"""Records in a table which events an open primary has disabled: the successor of a dead primary cannot know otherwise
(``server/primary/events.py``). Checked every few seconds; something is written only when the list has changed."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.agent.runtime.published_state import PublishedState
from holdfast.errors import HoldfastError
from holdfast.server.base import Deadline

SECONDS = 3.0
"""How long a check, or a write, may take: then it is tried again the next time."""


class DisabledEvents:
    """:param write_down: as ``server.primary.events.write_down``, in a separate session"""

    def __init__(self, published: PublishedState, write_down: Callable[[Deadline], None]) -> None:
        self._published = published
        self._write_down = write_down

    def step(self) -> None:
        state = self._published.state
        opened = state.up and state.writable and not state.replication.source
        # a row that waits would only wait with the others, or hold up what is under way
        if not opened or state.busy or state.silent_seconds or state.semi_sync.waiting:
            return
        try:
            self._write_down(Deadline(SECONDS, clock=self._published.clock))
        except HoldfastError:
            return  # other parts report that the server does not answer, or takes no writes
