"""The processes of a host: finds them, and stops or kills all of them at once.

A process belongs to the host whose network it is in. To be frozen at one moment, those of a host are in a cgroup of the
freezer as well, which children inherit; on a machine without that (cgroups v1) each gets SIGSTOP in turn.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.errors import DeadlinePassed
from holdfast.sandbox.lab.links.network import Network
from holdfast.sandbox.lab.plan import LabPlan
from holdfast.server.process.process import pids

FREEZER = Path("/sys/fs/cgroup/freezer")
FREEZE_SECONDS = 2.0
KILL_SECONDS = 10.0

_ENTER = 'echo $$ >"$0" && exec "$@"'


class Cells:
    def __init__(self, plan: LabPlan, network: Network, freezer: Path = FREEZER) -> None:
        self._plan = plan
        self._network = network
        self._root = freezer / plan.cell_root if (freezer / "cgroup.procs").exists() else None

    def make(self) -> None:
        if self._root is not None:
            for host in self._plan.hosts:
                (self._root / host).mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Remove the cgroups that exist. Processes must have ended."""
        if self._root is not None and self._root.is_dir():
            for cell in [each for each in self._root.iterdir() if each.is_dir()]:
                _remove(cell)
            _remove(self._root)

    def command(self, host: str, argv: Sequence[str]) -> list[str]:
        enter = ["nsenter", f"--net={self._network.path(host)}", "--"]
        cell = self._cell(host)
        if cell is not None:
            enter += ["sh", "-c", _ENTER, str(cell / "cgroup.procs")]
        return [*enter, *argv]

    def pids(self, host: str = "") -> list[int]:
        """The host's processes that have not ended; without a host, those beside the bridge."""
        try:
            wanted = self._network.path(host).stat()
        except FileNotFoundError:
            return []
        return [pid for pid in pids() if _is_in(pid, wanted)]

    def frozen(self, host: str) -> bool:
        cell = self._cell(host)
        if cell is not None:
            with suppress(OSError):
                return (cell / "freezer.state").read_text().strip() != "THAWED"
            return False
        pids = self.pids(host)
        return bool(pids) and all(_stands(pid) for pid in pids)

    def freeze(self, host: str) -> None:
        """Returns once all processes stand still, except those that hang in the kernel: they stop when they leave
        it."""
        cell = self._cell(host)
        end = time.monotonic() + FREEZE_SECONDS
        if cell is None:
            self._stop_each(host, end)
            return
        state = cell / "freezer.state"
        state.write_text("FROZEN")
        while state.read_text().strip() != "FROZEN" and time.monotonic() < end:
            time.sleep(0.001)

    def _stop_each(self, host: str, end: float) -> None:
        stopped: set[int] = set()
        while time.monotonic() < end:
            pids = self._signal(host, signal.SIGSTOP)
            # new ones were forked by a process that had not stopped yet
            if pids <= stopped:
                return
            stopped = {pid for pid in pids if _stands(pid)}
            time.sleep(0.001)

    def thaw(self, host: str) -> None:
        cell = self._cell(host)
        if cell is None:
            self._signal(host, signal.SIGCONT)
        else:
            with suppress(FileNotFoundError):
                (cell / "freezer.state").write_text("THAWED")

    def kill(self, host: str, seconds: float = KILL_SECONDS) -> None:
        """SIGKILL to all of the host's processes; returns when they have ended. This thaws a frozen host.

        :raises DeadlinePassed: one hangs in the kernel, most likely on a disk that is stalled
        """
        with self._still(host):
            fds = _opened(self.pids(host))
            try:
                for fd in fds.values():
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                self.thaw(host)
                _wait_all(fds, seconds)
            finally:
                for fd in fds.values():
                    os.close(fd)
        if self.pids(host):  # another was just being started
            self.kill(host, seconds)

    @contextmanager
    def _still(self, host: str) -> Iterator[None]:
        """None of the processes runs, so that none sees another die."""
        if self._cell(host) is not None and self.pids(host):
            self.freeze(host)
        try:
            yield
        finally:
            self.thaw(host)

    def _signal(self, host: str, number: signal.Signals) -> set[int]:
        """Send the signal; returns the processes that got it."""
        pids = set(self.pids(host))
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def _cell(self, host: str) -> Path | None:
        """The host's cgroup; None also for what is beside the bridge."""
        if self._root is None or not host or not (self._root / host).is_dir():
            return None
        return self._root / host


def _opened(pids: Sequence[int]) -> dict[int, int]:
    fds = {}
    for pid in pids:
        with suppress(ProcessLookupError):
            fds[pid] = os.pidfd_open(pid)
    return fds


def _wait_all(fds: dict[int, int], seconds: float) -> None:
    """:raises DeadlinePassed: names those that are still there"""
    end = time.monotonic() + seconds
    left = []
    for pid, fd in fds.items():
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            left.append(str(pid))
    if left:
        raise DeadlinePassed(f"killing processes {', '.join(left)}", seconds)


def _remove(cell: Path) -> None:
    """Remove the cgroup. One whose last process has just left can be busy still."""
    for _ in range(200):
        try:
            cell.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return
    cell.rmdir()


def _is_in(pid: int, namespace: os.stat_result) -> bool:
    try:
        found = os.stat(f"/proc/{pid}/ns/net")
    except OSError:  # the process has ended
        return False
    return (found.st_dev, found.st_ino) == (namespace.st_dev, namespace.st_ino)


def _stands(pid: int) -> bool:
    """Whether each of the process's threads was stopped, or has ended."""
    with suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
        return all(_state(Path(each.path) / "stat") in ("T", "") for each in threads)
    return True


def _state(stat: Path) -> str:
    try:
        return stat.read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""
