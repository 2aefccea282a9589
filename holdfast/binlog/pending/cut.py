"""Cuts a pending tail from the binlogs, before the server is started for the first time again.

The order is chosen so that a crash at any point leaves files from which :func:`cut`, or a new inspection followed by a
cut, comes to the same end:

1. *Mark* the file to cut as in use: so the server carries out crash recovery for it.
2. *Index*: drop the later files' names, by one rename. From here on the file to cut is the last.
3. *Remove* the later files, highest number first; files that are left over are found by their number. Removed with them
   is MariaDB's lookup file of the cut one (``.idx``, 11.4), which would point past its end, and the GTID state of an
   older clean shutdown, if there is one (``.state``).
4. *Truncate*. Before this step an inspection still sees the tail; after it nothing is left to do.

The caller must save the tail first, prevent every start of the server meanwhile, and on MySQL delete ``auto.cnf``
before the start, so that a cut GTID is never issued again with another content (on MariaDB the new primary's own row of
its term moves the sequence past them).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from holdfast.binlog.events.reader import IN_USE, IN_USE_OFFSET
from holdfast.binlog.files.durable import sync_folder
from holdfast.binlog.files.index import files_behind, write_index
from holdfast.binlog.pending.tail import Pending
from holdfast.errors import Refused

Step = Callable[[Pending], None]


def cut(tail: Pending) -> None:
    """Remove the tail. Interrupted anywhere, it can be repeated, with the same tail or a new one.

    If the tail is already gone, nothing is done: the files may belong to a running server by now.

    :raises Refused: the files are not those that were inspected; nothing was done
    """
    size = tail.start.file.stat().st_size
    if size < tail.start.offset:
        raise Refused(f"{tail.start.file} is shorter than it was: inspect the binlogs again")
    if size > tail.start.offset:
        for step in STEPS:
            step(tail)


def _mark_in_use(tail: Pending) -> None:
    with tail.start.file.open("r+b", buffering=0) as file:
        file.seek(IN_USE_OFFSET)
        flags = file.read(1)[0]
        file.seek(IN_USE_OFFSET)
        file.write(bytes([flags | IN_USE]))
        os.fsync(file.fileno())


def _shorten_index(tail: Pending) -> None:
    write_index(tail.index, keep=tail.start.file)


def _remove_later_files(tail: Pending) -> None:
    last = tail.start.file
    for file in files_behind(last):
        _lookup_file(file).unlink(missing_ok=True)
        file.unlink(missing_ok=True)
    _lookup_file(last).unlink(missing_ok=True)
    last.with_name(last.stem + ".state").unlink(missing_ok=True)
    sync_folder(last.parent)


def _truncate(tail: Pending) -> None:
    with tail.start.file.open("r+b", buffering=0) as file:
        file.truncate(tail.start.offset)
        os.fsync(file.fileno())


def _lookup_file(file: Path) -> Path:
    return file.with_name(file.name + ".idx")


STEPS: tuple[Step, ...] = (_mark_in_use, _shorten_index, _remove_later_files, _truncate)
