"""Ends helper processes of an agent that was killed: nothing else would."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def end_leftover(argument: str) -> None:
    """Kill the processes that have this word on their command line; it must name a place that only this agent uses."""
    wanted = os.fsencode(argument)
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(int(entry.name))
            try:  # the command line is read once no other process can get that number
                if wanted in Path(entry.path, "cmdline").read_bytes().split(b"\0"):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)
