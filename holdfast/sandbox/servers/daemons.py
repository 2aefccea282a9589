"""The agents, the manager and HAProxy of a sandbox as processes: starts them, and ends no others."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import DeadlinePassed, Refused
from holdfast.server.process.process import kernel_boot_id

TERM_SECONDS = 5.0
KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process that was started, identified so that no other one is ever taken for it.

    :ivar started: clock ticks from the kernel's start to the process's
    :ivar boot: which run of the kernel
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, saved: dict[str, Any]) -> Daemon:
        return cls(int(saved["pid"]), int(saved["started"]), str(saved["boot"]))

    @property
    def alive(self) -> bool:
        return self.boot == kernel_boot_id() and _started(self.pid) == self.started

    def end(self, seconds: float = TERM_SECONDS) -> None:
        """SIGTERM, and SIGKILL if it is still there after ``seconds``; 0 for SIGKILL at once.

        :raises DeadlinePassed: it hangs in the kernel
        """
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.alive:  # checked with the pidfd at hand: its process cannot change now
                return
            if seconds:
                signal.pidfd_send_signal(fd, signal.SIGTERM)
            if not (seconds and ended(fd, seconds)):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                if not ended(fd, KILL_SECONDS):
                    raise DeadlinePassed(f"killing process {self.pid}", KILL_SECONDS)
        except ProcessLookupError:
            return
        finally:
            os.close(fd)


class Spawner:
    """Starts daemons, and reaps those that were this process's children."""

    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, kind: str, config: Path, log: Path) -> Daemon:
        """Run ``holdfast KIND --config CONFIG``."""
        argv = [sys.executable, "-m", "holdfast.cli.main", kind, "--config", str(config)]
        return self.run(f"holdfast {kind}", argv, config.parent, log)

    def run(self, what: str, argv: list[str], folder: Path, log: Path) -> Daemon:
        """Run it in a session of its own, its output appended to the log."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )
        self._children[child.pid] = child
        started = _started(child.pid)
        if started is None:
            raise Refused(f"{what} ended at once\n{tail(log)}")
        return Daemon(child.pid, started, kernel_boot_id())

    def bury(self) -> None:
        """Reap children that have ended."""
        for pid, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[pid]


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log, indented; each cut to a readable length."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return f"    ({log} cannot be read)"
    return "\n".join("    " + line[:300] for line in text.splitlines()[-lines:])


def ended(fd: int, seconds: float) -> bool:
    """Whether the process of this pidfd has ended, at the latest after ``seconds``."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _started(pid: int) -> int | None:
    """When the process was started, or None if there is none, or only one to be reaped."""
    for _ in range(50):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]
        except OSError:
            return None
        words = fields.split()
        if len(words) > 19:
            return None if words[0] in "ZX" else int(words[19])
        time.sleep(0.001)
    return None
