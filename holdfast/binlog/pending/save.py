"""Saves a pending tail in a file of its own, so that an operator can read what was undone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from holdfast.binlog.events.reader import HEADER, IN_USE, MAGIC, Binlog, open_binlog
from holdfast.binlog.files.durable import sync_folder
from holdfast.binlog.pending.errant import Errant
from holdfast.binlog.pending.tail import Pending
from holdfast.errors import Refused

_COPY_BYTES = 1024 * 1024
_FLAGS_OFFSET = HEADER.size - 2


def save(tail: Pending, target: Path) -> None:
    """Write the tail's whole transactions as one binlog that the servers' tools can read.

    Each source file's format description precedes what came from that file. A torn end is left out: no tool could read
    past it, and its transaction was never written completely. The file appears under its name only when it is complete
    and on disk; an existing one is never replaced.

    :raises Refused: ``target`` exists; nothing was done
    """
    if target.exists():
        raise Refused(f"{target} exists already: name another file for the pending transactions")
    part = target.with_name(f".{target.name}.part")
    _write(((piece.file, [(piece.start, piece.end)]) for piece in tail.pieces), part)
    try:
        os.link(part, target)  # unlike a rename, this does not replace a file made meanwhile
    except FileExistsError as error:
        raise Refused(
            f"{target} was created by another process meanwhile: name another file"
        ) from error
    finally:
        part.unlink()
    sync_folder(target.parent)


def save_errant(errant: Errant, target: Path) -> None:
    """Write only the transactions that the primary lacks, as one binlog; on disk when this returns.

    :raises Refused: the binlogs have changed meanwhile
    """
    _write(((stretch.file, stretch.errant()) for stretch in errant.stretches), target)
    sync_folder(target.parent)


def _write(pieces: Iterable[tuple[Path, Iterable[tuple[int, int]]]], target: Path) -> None:
    """:param pieces: files, and for each the begin and end of what is to be copied"""
    target.unlink(missing_ok=True)
    with target.open("xb") as output:
        os.fchmod(output.fileno(), 0o600)
        output.write(MAGIC)
        for file, parts in pieces:
            with open_binlog(file) as log:
                output.write(format_description(log))
                for start, end in parts:
                    _copy(log, start, end, output)
        output.flush()
        os.fsync(output.fileno())


def format_description(log: Binlog) -> bytes:
    """The file's own format description, no longer marked as in use (its checksum leaves that mark out)."""
    event = log.format.event
    raw = bytearray(log.read_at(event.offset, event.size))
    raw[_FLAGS_OFFSET] &= ~IN_USE & 0xFF
    return bytes(raw)


def _copy(log: Binlog, start: int, end: int, output: BinaryIO) -> None:
    while start < end:
        piece = log.read_at(start, min(_COPY_BYTES, end - start))
        if not piece:
            raise Refused(f"{log.path} has shrunk to {start} bytes: inspect the binlogs again")
        output.write(piece)
        start += len(piece)
