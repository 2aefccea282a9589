"""The index file that names a server's binlogs, oldest first, one per line."""

from __future__ import annotations

import os
import re
from pathlib import Path

from holdfast.binlog.files.durable import sync_folder
from holdfast.errors import Refused

_NUMBERED = re.compile(r"(?P<base>.+)\.(?P<number>\d+)")


def read_index(index: Path, whole: bool = False) -> tuple[Path, ...]:
    """The binlogs that the index names, oldest first.

    Older ones may have been removed by hand, to free space: both servers start without them, as if they had been
    purged. The same holds here: only the files before the newest one that are there without a gap count.

    A relative entry is relative to the server's working directory, which is not known here; a server keeps its binlogs
    beside their index unless it is configured otherwise, so the entry's name is looked for there too.

    :param whole: a missing file may have held what no other member has, as in a relay log
    :raises Refused: there is no index, or the newest file that it names is missing, or, with ``whole``, any
    """
    try:
        lines = index.read_bytes().splitlines()
    except FileNotFoundError as error:
        raise Refused(f"{index} does not exist: name the index of the server's binlogs") from error
    found: list[Path] = []
    for line in reversed([each for each in lines if each]):
        try:
            found.insert(0, _resolve(index, os.fsdecode(line)))
        except Refused:
            if whole or not found:
                raise
            break
    return tuple(found)


def write_index(index: Path, keep: Path) -> None:
    """Drop the lines after the one that names ``keep``, in one step; owner and mode stay.

    :raises Refused: no line names ``keep``; nothing was done
    """
    lines = index.read_bytes().splitlines(keepends=True)
    names = [os.fsdecode(Path(os.fsdecode(line.rstrip(b"\r\n"))).name) for line in lines]
    if keep.name not in names:
        raise Refused(f"{index} does not name {keep.name}; it was left as it is")
    count = names.index(keep.name) + 1
    if count == len(lines):
        return
    before = index.stat()
    replacement = index.with_name(index.name + ".holdfast")
    replacement.unlink(missing_ok=True)
    with replacement.open("xb") as file:
        os.fchmod(file.fileno(), before.st_mode & 0o7777)
        os.fchown(file.fileno(), before.st_uid, before.st_gid)
        file.writelines(lines[:count])
        file.flush()
        os.fsync(file.fileno())
    replacement.replace(index)
    sync_folder(index.parent)


def files_behind(path: Path) -> tuple[Path, ...]:
    """The binlogs on disk with a higher number than ``path``, highest first."""
    numbers = {}
    mine = _NUMBERED.fullmatch(path.name)
    if mine is None:
        raise Refused(f"{path.name} is not named like a binlog (base.000001)")
    for other in path.parent.iterdir():
        match = _NUMBERED.fullmatch(other.name)
        if match and match["base"] == mine["base"] and int(match["number"]) > int(mine["number"]):
            numbers[int(match["number"])] = other
    return tuple(numbers[number] for number in sorted(numbers, reverse=True))


def _resolve(index: Path, entry: str) -> Path:
    path = index.parent / entry
    if path.is_file():
        return path
    beside = index.parent / Path(entry).name
    if not Path(entry).is_absolute() and beside.is_file():
        return beside
    raise Refused(f"{index} names {entry}, which does not exist: restore it, or clone this server")
