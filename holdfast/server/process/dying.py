"""Whether a process that was killed runs no more, although the kernel has not removed it.

A thread that waits for a disk that does not answer (state D) is not ended by SIGKILL until the disk has answered. But
it runs none of its own code any more: on its way out of the kernel the signal comes first. So such a server answers no
client, and commits nothing more. Its files, its locks and its ports are still taken, and only the kernel still accepts
new connections.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

EXITING = 0x4
"""PF_EXITING of the kernel: the thread is exiting; see proc(5), ``/proc/PID/stat``, flags."""
_KILL = 1 << (signal.SIGKILL - 1)
_WAITS, _OVER = "D", frozenset("ZX")


def is_dying(pid: int) -> bool:
    """Whether every thread is over, exiting, or waits in the kernel with SIGKILL pending.

    The caller makes sure that the pid still belongs to the process. A thread that was killed cannot make another, so
    none is missed. False if this cannot be known.
    """
    tasks = Path(f"/proc/{pid}/task")
    try:
        return all(_is_over(tasks / each) for each in os.listdir(tasks))
    except OSError:
        return False


def _is_over(task: Path) -> bool:
    try:
        fields = (task / "stat").read_text(errors="replace").rpartition(")")[2].split()
        state, flags = fields[0], int(fields[6])
        if state in _OVER or flags & EXITING:
            return True
        return state == _WAITS and bool(_pending(task) & _KILL)
    except FileNotFoundError:
        return True  # it has ended meanwhile
    except ProcessLookupError:
        return True


def _pending(task: Path) -> int:
    """The thread's own pending signals: the kernel puts SIGKILL there for each thread."""
    for line in (task / "status").read_text(errors="replace").splitlines():
        if line.startswith("SigPnd:"):
            return int(line.split()[1], 16)
    return 0
