"""The database server's process: start it, find a running one, notice its end, kill it.

The server outlives the agent: it is started in a session of its own, and a restarted agent finds it by its command
line. A server that was started in another way is recognised by the data directory that it works in. Files that name a
pid are never trusted: the number may belong to another process by now.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import DeadlinePassed, Refused
from holdfast.server.process.dying import is_dying
from holdfast.server.process.last_words import errors, last_words, size

_FLAG = b"--defaults-file="
_SERVERS = frozenset({b"mysqld", b"mariadbd"})
"""Names of a server's program; a loader may precede it."""
_PROGRAM_WORDS = 8
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NOT_INHERITED = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC")
"""Variables by which a service manager addresses only the agent."""


def kernel_boot_id() -> str:
    """Names this run of the kernel: a new name after every start of the host."""
    return _BOOT_ID.read_text().strip()


@dataclass(frozen=True, slots=True)
class ProcessEnding:
    """How a process ended.

    :ivar status: its exit status, or minus the signal that killed it; None if it was not our child
    """

    status: int | None

    @property
    def clean(self) -> bool:
        return self.status == 0

    def __str__(self) -> str:
        match self.status:
            case None:
                return "it was not started by this agent, so nothing is known of how it ended"
            case status if status < 0:
                return f"killed by signal {-status} ({signal.strsignal(-status)})"
            case status:
                return f"exit status {status}"


class Running:
    """One run of the server, held by a pidfd: so no other process is ever mistaken for it.

    :ivar incarnation: names this run; the same for every agent that finds it
    :ivar child: started by this very agent
    :ivar fd: the pidfd; readable once the process has ended
    """

    def __init__(self, pid: int, fd: int, incarnation: str, child: bool) -> None:
        self.pid = pid
        self.fd = fd
        self.incarnation = incarnation
        self.child = child
        self._reaping = threading.Lock()
        self._status: int | None = None
        weakref.finalize(self, os.close, fd)

    @property
    def alive(self) -> bool:
        return not self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after ``seconds`` at the latest; a zombie has ended."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def kill(self) -> None:
        """Send SIGKILL; does not wait."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM: an orderly shutdown; does not wait."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, signal.SIGTERM)

    @property
    def dying(self) -> bool:
        """Whether it runs no more code, and still exists; see ``dying.py``."""
        return is_dying(self.pid) and self.alive  # so the pid was its own until now

    def kill_and_wait(self, seconds: float) -> ProcessEnding:
        """SIGKILL it and wait until its sockets and file locks are gone.

        :raises DeadlinePassed: it hangs in the kernel, most likely on a disk that does not answer
        """
        self.kill()
        if not self.wait(seconds):
            raise DeadlinePassed(f"killing the server (pid {self.pid})", seconds)
        return self.ending()

    def ending(self) -> ProcessEnding:
        """How it ended, for a process that has ended; reaps it if it was our child."""
        with self._reaping:
            if self.child and self._status is None:
                try:
                    found = os.waitid(os.P_PIDFD, self.fd, os.WEXITED | os.WNOHANG)
                except ChildProcessError:
                    found = None
                if found is not None:
                    exited = found.si_code == os.CLD_EXITED
                    self._status = found.si_status if exited else -found.si_status
            return ProcessEnding(self._status)


class ServerProcess:
    """Starts and finds the server of one option file.

    :ivar output: what the server writes before it has opened its own log
    :ivar socket: the server's
    :param options: what is forced at each start, after the option file
    :param error_log: where the server writes its log, according to its option file at a start
    """

    def __init__(
        self,
        command: tuple[str, ...],
        option_file: Path,
        datadir: Path,
        output: Path,
        boot_id: Callable[[], str] = kernel_boot_id,
        socket: Path | None = None,
        options: Callable[[], Sequence[str]] = lambda: (),
        error_log: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self.command = command
        self.option_file = option_file.absolute()
        self.datadir = datadir
        self.output = output
        self.socket = socket
        self._options = options
        self._error_log = error_log
        self._log: Path | None = None
        self._log_from = 0
        self._boot_id = boot_id

    def find(self) -> Running | None:
        """The server that runs with our option file or on our data directory, no matter what started it.

        :raises Refused: there are several
        """
        found = list(self._matches())
        # a wrapper that waits for the server (mysqld_safe) has the same option
        parents = {_parent(each.pid) for each in found}
        found = [each for each in found if each.pid not in parents]
        if len(found) > 1:
            pids = ", ".join(str(each.pid) for each in found)
            raise Refused(
                f"processes {pids} all run with {self.option_file} or in {self.datadir}: "
                "stop all of them but one"
            )
        return found[0] if found else None

    def start(self) -> Running:
        """Start the server and return as soon as its program has been loaded.

        A lock on the option file admits one starter at a time, so a second one finds the first one's server.

        :raises Refused: one already runs, or the program cannot be run
        """
        with self.held():
            running = self.find()
            if running is not None:
                raise Refused(f"the server is running already, as pid {running.pid}")
            if self.socket is not None:
                _forget_lock_of_the_dead(self.socket)
            return self._spawn()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it no other process starts the server, not even another agent."""
        with self.option_file.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def last_words(self, errors_only: bool = False) -> str:
        """The last words of the server that was started last about why it ended, or "".

        :param errors_only: not its last line, if that is no error
        """
        return last_words(self.output, self._log, self._log_from, errors_only)

    def errors(self) -> tuple[str, ...]:
        """All errors that it wrote, the oldest first."""
        return errors(self.output, self._log, self._log_from)

    def _spawn(self) -> Running:
        self._log = self._error_log()
        self._log_from = size(self._log)
        argv = (*self.command, f"{_FLAG.decode()}{self.option_file}", *self._options())
        kept = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
        append = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        try:
            pid = os.posix_spawnp(
                argv[0],
                argv,
                kept,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(self.output), append, stat.S_IRUSR | stat.S_IWUSR),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM),
            )
        except OSError as error:
            raise Refused(f"cannot run {argv[0]}: {error.strerror}") from None
        # as our child it stays in the table of processes until we reap it: its pid cannot be another's
        running = Running(pid, os.pidfd_open(pid), self._incarnation(pid), child=True)
        # the kernel lets us continue before the new program's command line can be read: the next starter needs it
        while not _command_line(pid) and running.alive:
            time.sleep(0.0005)
        return running

    def _matches(self) -> Iterator[Running]:
        for pid in pids():
            if not self._is_ours(pid):
                continue
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                incarnation = self._incarnation(pid)
                again = self._is_ours(pid)
            except OSError:
                os.close(fd)
                continue
            running = Running(pid, fd, incarnation, child=_parent(pid) == os.getpid())
            # still alive after everything was read: so what was read belongs to this process
            if again and running.alive:
                yield running

    def _is_ours(self, pid: int) -> bool:
        """Whether the process has our option file and is the server, not a client that was given the same file."""
        try:
            line = _command_line(pid)
            if not line or _stat(pid)[0] in "ZX":
                return False
            words = line.rstrip(b"\0").split(b"\0")
            if self._has_our_option_file(pid, words):
                return True
            return self._holds_our_data(pid, words)
        except OSError:
            return False

    def _has_our_option_file(self, pid: int, words: list[bytes]) -> bool:
        try:
            at = next(i for i, word in enumerate(words) if word.startswith(_FLAG))
            if Path(os.fsdecode(words[at][len(_FLAG) :])).resolve() != self.option_file.resolve():
                return False
            command = [os.fsencode(word) for word in self.command]
            if words[max(0, at - len(command)) : at] == command:
                return True
            # started in another way, by hand or through a wrapper: a server works in its data directory
            return Path(f"/proc/{pid}/cwd").resolve() == self.datadir.resolve()
        except (OSError, StopIteration):
            return False

    def _holds_our_data(self, pid: int, words: list[bytes]) -> bool:
        """Whether the process is a server, of any command line, that has our data directory's files open.

        InnoDB's lock admits one server at a time, so that one is ours to find, and to kill.
        """
        if _SERVERS.isdisjoint(word.rpartition(b"/")[2] for word in words[:_PROGRAM_WORDS]):
            return False
        datadir = os.path.realpath(self.datadir)
        if os.readlink(f"/proc/{pid}/cwd") != datadir:
            return False
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return any(_link(entry.path).startswith(datadir + "/") for entry in entries)

    def _incarnation(self, pid: int) -> str:
        return f"{self._boot_id()[:8]}-{pid}-{_stat(pid)[19]}"


def pids() -> Iterator[int]:
    """The pids of all processes that run here."""
    with os.scandir("/proc") as entries:
        yield from (int(entry.name) for entry in entries if entry.name.isdecimal())


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:  # it was closed meanwhile
        return ""


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _stat(pid: int) -> list[str]:
    """``/proc/PID/stat`` from the state on: state 0, parent 1, start time 19."""
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return text.rpartition(")")[2].split()


def _forget_lock_of_the_dead(socket: Path) -> None:
    """MySQL takes the pid in its socket's lock file for a living server as long as the process table has it: also a
    killed one that is not reaped yet, as when the agent that was its parent has died."""
    lock = socket.with_name(f"{socket.name}.lock")
    try:
        if _stat(int(lock.read_text()))[0] == "Z":  # a zombie
            lock.unlink()
    except (OSError, ValueError):
        return  # no lock, or the server itself sees that its holder is gone


def _parent(pid: int) -> int:
    try:
        return int(_stat(pid)[1])
    except OSError:
        return 0
