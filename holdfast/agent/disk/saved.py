"""Saves what a member has and the primary lacks in two files: one for the servers' tools, one for people."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.agent.disk.term import make_folder
from holdfast.binlog.files.durable import sync_folder
from holdfast.binlog.pending import save
from holdfast.binlog.pending.errant import Check, Errant
from holdfast.binlog.undo import describe

_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Saved:
    """:ivar binlog: the events; :ivar text: what they did, row by row"""

    binlog: Path
    text: Path


def save_errant(
    errant: Errant,
    folder: Path,
    now: float,
    heading: Sequence[str],
    columns: describe.Lookup,
    check: Check = lambda: None,
) -> Saved:
    """Both files are complete and on disk when this returns. What was saved before is not saved again.

    :param now: seconds since 1970, for the names of the files
    :raises Refused: the binlogs have changed meanwhile
    """
    make_folder(folder)
    part = folder / ".errant.binlog.part"
    save.save_errant(errant, part)
    digest = _digest(part)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    before = sorted(folder.glob(f"*-errant-{digest}.binlog"))
    binlog = before[0] if before else folder / f"{stamp}-errant-{digest}.binlog"
    part.replace(binlog)
    sync_folder(folder)
    text = binlog.with_suffix(".txt")
    if not text.exists():
        read_it = f"The events are in {binlog.name}; docs/rewind.md says how they can be carried out again."
        describe.describe(errant, text, (*heading, read_it), columns, check)
    return Saved(binlog, text)


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            found.update(piece)
    return found.hexdigest()[:12]
