"""Runs executables of the user's, with limits on their time and on the output that is kept."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.core.calls import Ran

HEAD_BYTES = 4 * 1024
TAIL_BYTES = 12 * 1024
"""How much of the output is kept: its beginning and its end."""

AT_ONCE = 64 * 1024
PLENTY_BYTES = 1024 * 1024
LAST_READS = 16
KILL_SECONDS = 1.0
BACKSTOP_SECONDS = 5.0
"""A hook whose manager was killed lives no longer than its time plus this."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CANNOT_EXECUTE, NOT_FOUND = 126, 127
SECRET = re.compile(r"PASS|PWD|SECRET|TOKEN|KEY|CREDENTIAL", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hook:
    """:ivar name: as it is configured; :ivar argv: what is run, before the arguments of a call
    :ivar further: its environment, in addition to the few variables that all hooks get
    """

    name: str
    argv: tuple[str, ...]
    seconds: float
    further: Mapping[str, str] = field(default_factory=dict, repr=False)


def surroundings(further: Mapping[str, str]) -> dict[str, str]:
    """A complete environment: nothing of the manager's own is passed on."""
    user = pwd.getpwuid(os.getuid())
    plain = {"PATH": PATH, "HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}
    return {**plain, "LANG": "C.UTF-8", **further}


class Execution:
    """One run of a hook. :meth:`run` blocks, so it needs a separate thread; :meth:`kill` may be called from another."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def run(self, command: str, arguments: Sequence[str], event: bytes) -> Ran:
        """:param event: its standard input"""
        begun = time.monotonic()
        kept = _Kept()
        try:
            code, trouble = self._run(arguments, event, begun + self._hook.seconds, kept)
        except OSError as error:
            self.kill()
            code, trouble = None, f"it could not be followed, and was killed: {error.strerror}"
        took = time.monotonic() - begun
        return Ran(
            self._hook.name, command, code, round(took, 3), self._masked(kept.text()), trouble
        )

    def kill(self) -> None:
        """End the hook if it runs: nothing waits for it any more."""
        with self._lock:
            self._killed = True
            self._kill()

    def _run(
        self, arguments: Sequence[str], event: bytes, end: float, kept: _Kept
    ) -> tuple[int | None, str]:
        try:
            process = self._start(arguments, event)
        except OSError as error:
            return None, f"it cannot be run: {error.strerror}"
        assert process.stdout is not None
        with process.stdout:
            in_time = _follow(process.pid, process.stdout.fileno(), end, kept)
            if not in_time:
                with self._lock:
                    self._kill()
                _follow(process.pid, process.stdout.fileno(), time.monotonic() + KILL_SECONDS, kept)
            with self._lock:  # from now on its number may be another's
                code = process.poll()
        if self._killed:
            return None, "it was ended, as its result is no longer needed"
        if not in_time:
            seconds = self._hook.seconds
            return (
                None,
                f"it had not ended within {seconds:g} s, and was killed with all it started",
            )
        assert code is not None
        if code < 0:
            return None, f"it died of {_signal(-code)}"
        if code in (CANNOT_EXECUTE, NOT_FOUND):
            return (
                code,
                f"exit {code}: {self._hook.argv[0]}, or what runs it, is not there or not executable",
            )
        return code, ""

    def _start(self, arguments: Sequence[str], event: bytes) -> subprocess.Popen[bytes]:
        # another program (``timeout``) executes the hook: if the hook's file is on storage that hangs, that program
        # hangs, not this process with all its threads (which wait for an exec); and if this process is killed, the hook
        # still ends in time
        backstop = f"{self._hook.seconds + BACKSTOP_SECONDS:g}"
        argv = ["/usr/bin/timeout", "-s", "KILL", backstop, *self._hook.argv, *arguments]
        stdin = os.memfd_create("event")
        try:
            os.write(stdin, event)
            os.lseek(stdin, 0, os.SEEK_SET)
            with self._lock:
                self._process = subprocess.Popen(
                    argv,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=surroundings(self._hook.further),
                    cwd="/",
                    start_new_session=True,
                )
                if self._killed:
                    self._kill()
                return self._process
        finally:
            os.close(stdin)

    def _kill(self) -> None:
        """Call it with the lock held: meanwhile the process is not reaped, so its number stays its own."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _masked(self, text: str) -> str:
        """The text without the secrets of the hook's environment, which a script that traces itself would print."""
        for name, value in self._hook.further.items():
            if SECRET.search(name) and value:
                text = text.replace(value, "***")
        return text


class _Kept:
    """The beginning and the end of the output."""

    def __init__(self) -> None:
        self.total = 0
        self._head = bytearray()
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = HEAD_BYTES - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room > 0 else data
        del self._tail[:-TAIL_BYTES]

    def text(self) -> str:
        left_out = self.total - len(self._head) - len(self._tail)
        between = f"\n… {left_out} bytes left out …\n".encode() if left_out else b""
        text = (self._head + between + self._tail).decode(errors="replace")
        return "".join(each if each.isprintable() or each in "\n\t" else "?" for each in text)


def _follow(pid: int, output: int, end: float, kept: _Kept) -> bool:
    """Read until the process has ended, whatever it has left in the background; returns False when its time is over."""
    os.set_blocking(output, False)
    watched = os.pidfd_open(pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(watched, selectors.EVENT_READ)
            selector.register(output, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0:
                ready = {key.fd for key, _ in selector.select(left)}
                if output in ready and not _read(output, kept):
                    selector.unregister(output)
                if watched in ready:
                    for _ in range(LAST_READS):  # background processes may print without end
                        _read(output, kept)
                    return True
                if kept.total > PLENTY_BYTES:
                    time.sleep(0.001)  # pause: reading all of this must not occupy the manager
            return False
    finally:
        os.close(watched)


def _read(output: int, kept: _Kept) -> bool:
    """Whether there was output."""
    try:
        data = os.read(output, AT_ONCE)
    except BlockingIOError:
        return False
    kept.add(data)
    return bool(data)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
