"""Progress: a position in a binlog, or work that takes time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """A position in the primary's binlog: number of the file, and offset in it."""

    file: int = 0
    offset: int = 0

    def behind(self, head: Position, file_size: int) -> int:
        """Bytes up to ``head``, at most: files in between count as full."""
        return max(0, (head.file - self.file) * file_size + head.offset - self.offset)


@dataclass(frozen=True, slots=True)
class Progress:
    """Work that takes time.

    :ivar what: in words, such as "cloning from m2"
    :ivar total: bytes in all; 0 while that is not known
    :ivar rate: bytes per second lately
    """

    what: str
    done: int = 0
    total: int = 0
    rate: float = 0.0
