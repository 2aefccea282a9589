"""A killed process that cannot end: distinguished from a live one by what the kernel says of its threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.server.process.dying import is_dying

WRITER = """
import os, sys, threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
print("ready", flush=True)
sys.stdin.readline()
print("writes", flush=True)
os.write(fd, b"x")
time.sleep(60)
"""


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=30)


@contextmanager
def stalled_disk() -> Iterator[tuple[Path, list[str]]]:
    """:returns: its folder, and how to make it stall"""
    with tempfile.TemporaryDirectory(prefix="hf") as folder:
        image, disk = Path(folder) / "image", Path(folder) / "disk"
        disk.mkdir()
        with image.open("wb") as file:
            file.truncate(16 << 20)
        run("mkfs.ext4", "-q", str(image))
        run("mount", "-o", "loop", str(image), str(disk))
        try:
            yield disk, ["fsfreeze", "--freeze", str(disk)]
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", str(disk)], capture_output=True)
            end = time.monotonic() + 5
            while subprocess.run(["umount", str(disk)], capture_output=True).returncode:
                assert time.monotonic() < end
                time.sleep(0.05)


def test_who_waits_for_a_disk_lives_until_it_is_killed() -> None:
    with (
        stalled_disk() as (disk, stall),
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(disk / "file")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "ready\n"
            run(*stall)
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "writes\n"
            until(lambda: state(process.pid) == "D")
            assert not is_dying(process.pid), "its other thread runs, and nobody has killed it"
            process.send_signal(signal.SIGKILL)
            until(lambda: is_dying(process.pid))
            assert process.poll() is None, "it has not ended"
        finally:
            subprocess.run(["fsfreeze", "--unfreeze", str(disk)], capture_output=True)
            process.kill()
        assert process.wait(5) == -signal.SIGKILL


def test_neither_who_lives_nor_who_was_stopped_is_dying() -> None:
    assert not is_dying(os.getpid())
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            until(lambda: state(process.pid) == "T")
            assert not is_dying(process.pid)
        finally:
            process.kill()


def test_a_process_that_is_gone_is_not_dying() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert not is_dying(process.pid)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until(reached: object) -> None:
    assert callable(reached)
    end = time.monotonic() + 5
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.005)
