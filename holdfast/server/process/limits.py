"""How many files a process may open, and how many a process that this one starts."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_NAME = "Max open files"
_CAP_SYS_RESOURCE = 24


def of_server(pid: int) -> int:
    """How many files a running server may open; 0 if that cannot be known."""
    try:
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except OSError:
        return 0
    soft = next(
        (line.removeprefix(_NAME).split()[0] for line in lines if line.startswith(_NAME)), ""
    )
    return int(soft) if soft.isdigit() else 0


def inherited() -> int:
    """How many files a server may open that this process starts, at most: servers raise the limit as far as they
    may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or _may_raise():
        return int(Path("/proc/sys/fs/nr_open").read_text())
    return hard


def _may_raise() -> bool:
    """Whether this process may exceed its own limit."""
    if os.geteuid():
        return False
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return False
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_SYS_RESOURCE & 1)
