"""Runs a daemon of the lab with what is a host's own and no namespace gives it: a wall clock, and the boot's id.

    python -m holdfast.sandbox.lab.daemon FOLDER agent|manager --config FILE

``FOLDER/clock`` holds by how many seconds this host's wall clock is ahead of the machine's, ``FOLDER/boot_id`` what
the kernel would say of a host that was started anew. Both are read each time, so that a clock can be stepped while
the daemon runs. What OpenSSL asks the machine (whether a certificate has ended) stays the machine's.
"""

from __future__ import annotations

import runpy
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from holdfast.server.process import process

_real_time = time.time


def set_clock(folder: Path, ahead_seconds: float) -> None:
    """Step the wall clock of that host."""
    _replace(folder / "clock", f"{ahead_seconds:g}\n")


def boot_anew(folder: Path) -> None:
    """The host's next daemon finds another boot id."""
    _replace(folder / "boot_id", f"{uuid.uuid4()}\n")


def ahead(folder: Path) -> float:
    """By how many seconds its wall clock is ahead."""
    try:
        return float((folder / "clock").read_text())
    except FileNotFoundError:
        return 0.0


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def main(argv: Sequence[str]) -> None:
    folder = Path(argv[0])
    time.time = lambda: _real_time() + ahead(folder)
    if (folder / "boot_id").exists():
        process._BOOT_ID = folder / "boot_id"
    sys.argv = ["holdfast", *argv[1:]]
    runpy.run_module("holdfast.cli.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
