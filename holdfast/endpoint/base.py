"""What the manager needs of something that shows clients where to go."""

from __future__ import annotations

from typing import Protocol

from holdfast.core.answers.routing import Directions


class Endpoint(Protocol):
    """Shows directions; each adapter is told of the latest ones only, one call at a time."""

    name: str

    async def show(self, directions: Directions) -> None:
        """Bring it to these directions, whatever it showed before. Idempotent; returns once new connections follow them
        and the sessions to a server that takes writes no longer were ended.

        :raises HoldfastError: by consequence; it is asked again, with whatever holds then
        """

    async def close(self) -> None:
        """Leave it as it shows now."""
