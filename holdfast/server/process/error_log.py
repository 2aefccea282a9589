"""What MariaDB's error log says about replicas' sessions: which server each belongs to, and whether it acknowledges.

No SQL statement distinguishes a semi-sync replica's session from another (``performance_schema`` is off by default
there, and cannot be switched on). But the server writes a line for each, with the session's number, whatever
``log_warnings`` is:

    … 9 [Note] Start semi-sync binlog_dump to slave (server_id: 2), pos(./binlog.000001, 4)

It does so also while its source side is off, and for a session that does not register. The log is what the server has
open as its standard error, wherever that is: a file of its own, or its agent's. If it is no file, nothing is known.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import BinaryIO

MOST_BYTES = 32 * 1024 * 1024
"""At most this much of a log that already exists is read."""
BLOCK = 1024 * 1024
LONGEST_LINE = 4096

_BEGIN = re.compile(rb"\[Note\] Starting MariaDB .* as process \d+")
_SEMI_SYNC = re.compile(
    rb" (\d+) \[Note\] Start semi-sync binlog_dump to slave \(server_id: (\d+)\)"
)
_ANY = re.compile(rb" (\d+) \[Note\] Start binlog_dump to slave_server\((\d+)\)")


@dataclass(frozen=True, slots=True)
class ErrorLogLine:
    """:ivar server: its ``server_id``"""

    server: str
    semi_sync: bool


class ErrorLog:
    """Continues to read where it stopped.

    :ivar told: what is known, by the session's number
    :ivar whole: all lines of this run of the server were read, so a session without one does not acknowledge
    """

    def __init__(self) -> None:
        self.told: dict[int, ErrorLogLine] = {}
        self.whole = False
        self._pid = 0
        self._file: BinaryIO | None = None
        self._at = 0
        self._rest = b""

    def read_on(self, pid: int) -> bool:
        """Read what is new; whether there was something.

        :param pid: of the server
        """
        if pid != self._pid:
            self.close()
            self._pid = pid
        try:
            return self._read_on()
        except OSError:
            self._forget()
            return False

    def close(self) -> None:
        self._forget()
        self._pid = 0

    def _forget(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._at, self._rest = None, 0, b""
        self.told, self.whole = {}, False

    def _read_on(self) -> bool:
        path = f"/proc/{self._pid}/fd/2"
        now = os.stat(path)
        if not stat.S_ISREG(now.st_mode):
            self._forget()
            return False
        news = False
        if self._file is not None:
            mine = os.fstat(self._file.fileno())
            news = self._read(self._file)
            if not os.path.samestat(mine, now):  # FLUSH ERROR LOGS after it was renamed
                self._file.close()
                self._file, self._at, self._rest = None, 0, b""
        if self._file is None:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115
            self._at = max(0, os.fstat(self._file.fileno()).st_size - MOST_BYTES)
        return self._read(self._file) or news

    def _read(self, file: BinaryIO) -> bool:
        size = os.fstat(file.fileno()).st_size
        if size < self._at:  # it was cut off: its former content is not known
            self._at, self._rest, self.whole = 0, b"", False
        before = self._at
        while self._at < size:
            file.seek(self._at)
            block = file.read(min(BLOCK, size - self._at))
            if not block:
                break
            self._at += len(block)
            *lines, self._rest = (self._rest + block).split(b"\n")
            self._rest = self._rest[-LONGEST_LINE:]
            for line in lines:
                self._take(line)
        return self._at != before

    def _take(self, line: bytes) -> None:
        if b"binlog_dump" not in line:
            if b"as process" in line and _BEGIN.search(line):
                self.told, self.whole = {}, True
            return
        if found := _SEMI_SYNC.search(line):
            self.told[int(found[1])] = ErrorLogLine(found[2].decode(), semi_sync=True)
        elif found := _ANY.search(line):
            # the first of the two lines, written only if log_warnings is above 1
            self.told[int(found[1])] = ErrorLogLine(found[2].decode(), semi_sync=False)
