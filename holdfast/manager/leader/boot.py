"""Which run of the kernel this manager's monotonic clock belongs to: all managers in that run share the clock."""

from __future__ import annotations

import functools
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def kernel_boot() -> str:
    """An id that changes with every start of the host."""
    return _BOOT_ID.read_text().strip()
