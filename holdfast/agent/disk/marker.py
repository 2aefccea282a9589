"""A file whose existence is the information that it keeps, across the ends of agent and server."""

from __future__ import annotations

from pathlib import Path

from holdfast.agent.disk.term import remove_durably, replace_durably
from holdfast.errors import Refused


class Marker:
    """A file whose existence is the information that it keeps, across the ends of agent and server.

    ``recovering`` exists from a start in place until the server is up. Crash recovery commits the pending tail first
    and marks the binlog afterwards: if the server is killed in between, the binlog alone looks as if nothing had been
    committed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> None:
        """Create the file; on disk when this returns. :raises Refused: when it cannot be written"""
        if self.marked():
            return
        try:
            replace_durably(self._path, "")
        except OSError as error:
            raise Refused(f"cannot write {self._path}: {error.strerror}") from error

    def clear(self) -> None:
        """Remove the file for good before this returns: a loss of power must not bring it back."""
        remove_durably(self._path)

    def marked(self) -> bool:
        return self._path.exists()
