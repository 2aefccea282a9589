"""What the manager needs of a component that directs clients."""

from __future__ import annotations

from typing import Protocol

from holdfast.core.answers.routing import Directions


class Endpoint(Protocol):
    """Applies directions; each adapter gets only the latest ones, one call at a time."""

    name: str

    async def show(self, directions: Directions) -> None:
        """Apply these directions, whatever was applied before. Idempotent. Returns once new connections follow them,
        and the sessions to a server that no longer takes writes were ended.

        :raises HoldfastError: by consequence; the manager calls again, with the directions of that moment
        """

    async def close(self) -> None:
        """Leave it as it is now."""
