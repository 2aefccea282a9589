"""A disk for each member: ext4 in a file, through a loop device. It can be full, and it can stall.

It is mounted at the member's folder: data, binary logs, temporary files, the server's log and the agent's state are on
it, so that a full disk is full for all of them. The agent's own log is not on it, just as a service manager's journal
would not be.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from holdfast.errors import DeadlinePassed, Refused
from holdfast.sandbox.lab.plan import LabPlan
from holdfast.sandbox.lab.tools import attempt, run

IMAGE_BYTES = 8 << 30
"""A sparse file."""
FILLER = ".filler"
BUSY_SECONDS = 20.0
"""How long a copy to a new disk can continue after its maker was killed."""
_LEAST_BYTES = 4096


class Disks:
    def __init__(self, plan: LabPlan) -> None:
        self._plan = plan

    def make(self, host: str) -> None:
        """Make the host's disk unless there is one, and mount it.

        :raises Refused: the machine cannot
        """
        image, folder = self._plan.image(host), self.folder(host)
        image.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not image.exists():
            new = image.with_suffix(".new")
            with new.open("wb") as file:
                file.truncate(IMAGE_BYTES)
            # tables that are zero already in a new file need no writing, now or later
            options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1"
            run(["mkfs.ext4", "-q", "-m", "0", "-E", options, str(new)])
            new.rename(image)
        if not self.mounted(host):
            # the loop device is removed with the mount
            run(["mount", "-o", "loop,noatime", str(image), str(folder)])
            folder.chmod(0o700)
            # direct I/O, where available: synced data is not cached and written a second time
            device = run(["losetup", "--noheadings", "--output=NAME", f"--associated={image}"])
            attempt(["losetup", "--direct-io=on", device.strip()])

    def folder(self, host: str) -> Path:
        return self._plan.member(host).folder

    def mounted(self, host: str) -> bool:
        return os.path.ismount(self.folder(host))

    def remove(self, host: str) -> None:
        """Unmount it; this must succeed. The host's processes must have ended.

        :raises Refused: another process still uses it
        """
        end = time.monotonic() + BUSY_SECONDS
        while self.mounted(host):
            done = attempt(["umount", str(self.folder(host))])
            if done.returncode and time.monotonic() > end:
                raise Refused(f"the disk of {host} cannot be unmounted: {done.stderr.strip()}")
            if done.returncode:
                time.sleep(0.05)

    # -- faults -----------------------------------------------------------------------------------

    def fill(self, host: str) -> None:
        """Leave no free space, however much others write meanwhile."""
        folder = self._mounted(host)
        with (folder / FILLER).open("ab") as file:
            step = IMAGE_BYTES
            while step >= _LEAST_BYTES:
                end = file.seek(0, os.SEEK_END)
                try:
                    os.posix_fallocate(file.fileno(), end, step)
                except OSError:  # ENOSPC: the file may be longer now nevertheless
                    step //= 2

    def full(self, host: str) -> bool:
        return (self.folder(host) / FILLER).exists()

    def free(self, host: str) -> None:
        with suppress(FileNotFoundError):
            (self._mounted(host) / FILLER).unlink()

    def stall(self, host: str) -> None:
        """:raises Refused: it stalls already"""
        run(["fsfreeze", "--freeze", str(self._mounted(host))])

    def go(self, host: str) -> None:
        """Does nothing where the disk does not stall."""
        if self.mounted(host):
            with suppress(DeadlinePassed):
                attempt(["fsfreeze", "--unfreeze", str(self.folder(host))])

    def flush(self, host: str) -> None:
        """Everything that was written to it is on the device when this returns."""
        run(["sync", "--file-system", str(self._mounted(host))])

    # -- a power cut ------------------------------------------------------------------------------

    def keep_flushed(self, host: str) -> None:
        """Copy what the device has of the disk now: all that was flushed, and what the kernel wrote by itself.

        The host's processes must stand still; if the kernel writes meanwhile, the copy is made anew.

        :raises Refused: the disk stalls, or is not there
        """
        image = self._plan.image(host)
        end = time.monotonic() + BUSY_SECONDS
        device = self._device(self._mounted(host))
        while True:
            before = _written(device)
            run(["cp", "--sparse=always", str(image), str(image.with_suffix(".flushed"))])
            if _written(device) == before:
                return
            if time.monotonic() > end:
                raise Refused(f"the disk of {host} is written to all the time")

    def lose_unflushed(self, host: str) -> None:
        """Replace the disk by the copy. The host's processes must have ended."""
        self.remove(host)
        self._plan.image(host).with_suffix(".flushed").replace(self._plan.image(host))

    def _device(self, folder: Path) -> Path:
        """The kernel's counters of the device that is mounted there."""
        number = folder.stat().st_dev
        return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat")

    def _mounted(self, host: str) -> Path:
        if not self.mounted(host):
            raise Refused(f"the disk of {host} is not there: the lab is down")
        return self.folder(host)


def _written(device: Path) -> tuple[str, str]:
    """How many writes were completed, and how many requests are under way."""
    counts = device.read_text().split()
    return counts[4], counts[8]
