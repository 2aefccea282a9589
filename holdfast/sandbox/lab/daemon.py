"""Runs a daemon of the lab with the host's own wall clock and boot id, which no namespace gives it.

    python -m holdfast.sandbox.lab.daemon FOLDER agent|manager --config FILE

``FOLDER/clock`` holds by how many seconds this host's wall clock is ahead of the machine's, ``FOLDER/boot_id`` the boot
id that the kernel of a rebooted host would have. Both are read each time, so that a clock can be stepped while the
daemon runs. OpenSSL reads the machine's clock (to see whether a certificate has ended).
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
    """Give the host another boot id, which its next daemon finds."""
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
