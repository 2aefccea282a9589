"""The end of the server's own binlog, read from the file system: no statement, nothing that can hang in the server."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.binlog.files.index import read_index
from holdfast.core.observed.progress import Position
from holdfast.errors import Refused


class BinlogEnd:
    """Caches which file is the last one for as long as the index stays the same.

    :ivar last: the last file at the last look; None when there was none
    """

    def __init__(self, index: Path) -> None:
        self._index = index
        self._read: tuple[int, int] | None = None
        self.last: Path | None = None

    def look(self) -> Position:
        """Number and size of the last file; zeros when there is none."""
        try:
            stat = os.stat(self._index)
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp != self._read:
                files = read_index(self._index)
                self.last = files[-1] if files else None
                self._read = stamp
            if self.last is None:
                return Position()
            number = self.last.name.rpartition(".")[2]
            return Position(int(number), os.stat(self.last).st_size)
        except (OSError, Refused, ValueError):
            self._read = None
            return Position()
