"""Which run of a server its binlogs belong to, found from the files alone.

Each start of a server begins a new binlog file. A rotation closes the file before it, while the server runs; a shutdown
ends it in another way, and a crash leaves it as it is. So files that are linked by rotations belong to one run, no
matter what started the server, and whether its agent saw that.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from holdfast.binlog.events.reader import CHECKSUM_BYTES, HEADER, ROTATE, Binlog, open_binlog
from holdfast.binlog.files.index import read_index
from holdfast.errors import Refused

_POSITION_BYTES = 8


@dataclass(frozen=True, slots=True)
class Began:
    """The last binlog file at some moment of a run.

    :ivar created: when that file began, according to the file: seconds since 1970 by the server's clock. Compared only
        with itself, because names are used again after a RESET
    """

    file: str
    created: int


def began(index: Path) -> Began | None:
    """The last file now; None if there is none, or if it cannot be read. Works also while the server runs."""
    try:
        files = read_index(index)
        if not files:
            return None
        with open_binlog(files[-1]) as log:
            return Began(files[-1].name, log.format.event.timestamp)
    except (OSError, Refused):
        return None


def started_since(index: Path, since: Began) -> str:
    """Why it is not certain that these binlogs end with the run of ``since``; "" if it is certain.

    It is certain if the file still exists, and each file from it on, except for the last, ends in the rotation to the
    next.
    """
    try:
        files = read_index(index)
        names = [file.name for file in files]
        if since.file not in names:
            return f"{since.file}, which it wrote then, is gone"
        files = files[names.index(since.file) :]
        with open_binlog(files[0]) as log:
            if log.format.event.timestamp != since.created:
                return f"{since.file} is another file than the one that it wrote then"
        for file, successor in pairwise(files):
            with open_binlog(file) as log:
                if not _rotates_to(log, successor.name):
                    return f"its server was started again behind {file.name}"
    except (OSError, Refused) as error:
        return str(error)
    return ""


def _rotates_to(log: Binlog, name: str) -> bool:
    """Whether the file's last event is the rotation to ``name``: searched from the end, because the file may be
    large."""
    raw = name.encode()
    trailer = CHECKSUM_BYTES if log.format.checksum else 0
    length = HEADER.size + _POSITION_BYTES + len(raw) + trailer
    begin = log.size - length
    if begin <= log.format.event.offset:
        return False
    event = log.read_at(begin, length)
    _, kind, _, size, _, _ = HEADER.unpack(event[: HEADER.size])
    body = event[HEADER.size + _POSITION_BYTES :][: len(raw)]
    return (kind, size) == (ROTATE, length) and body == raw
