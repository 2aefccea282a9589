"""How much room is left on the file systems that a server and its agent write to.

A look is one ``statvfs`` for each of them, a few microseconds; in a separate thread, as it may not return. Where next
to nothing is left the agent tests a write as the server would make it, with the same user, quotas and reserved blocks:
it allocates blocks for a small file. A server whose disk is full does not say what it waits for, so the cause must be
found here.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from holdfast.agent.runtime.published_state import PublishedState
from holdfast.config.schema import ServerConfig
from holdfast.core.check.facts import Boot
from holdfast.log import say
from holdfast.server.process import boot

EVERY_SECONDS = 0.25
READ_AGAIN = 40
"""The option file is read again after so many looks."""
LOW_SHARE, LOW_BYTES = 0.05, 4 << 30
"""Less than this share, and less than so many bytes, is a warning."""
TRIED_BYTES = 16 << 20
"""With less than this the agent tests whether anything can be written."""
LEAST_BYTES, ENOUGH_BYTES = 64 << 10, 4 << 20
"""The size of a test write, and the size needed before a full file system counts as having room again."""
TRIAL = ".holdfast-room"
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Folders:
    """:ivar commits: where a commit must be able to write
    :ivar others: the server's temporary files, the agent's own"""

    commits: tuple[Path, ...]
    others: tuple[Path, ...] = ()


def folders(files: Boot, datadir: Path, index: Path, state_dir: Path) -> Folders:
    """:param files: what the server boots with"""

    def named(option: str) -> Path | None:
        value = files.options.get(option, "")
        return datadir / value.split(":")[0] if value else None

    relay = named("relay_log")
    commits = [
        datadir,
        index.parent,
        named("innodb_log_group_home_dir"),
        named("innodb_data_home_dir"),
    ]
    commits += [named("innodb_undo_directory"), relay.parent if relay else None]
    others = [named("tmpdir"), state_dir]
    return Folders(_each(commits), _each(others))


def room_of(
    own: ServerConfig, state_dir: Path, published: PublishedState, on_room: Callable[[], None]
) -> Room:
    def where() -> Folders:
        files = boot.read(own.option_file, own.flavor, "", own.datadir)
        return folders(files, own.datadir, own.binlog_index, state_dir)

    made = Room(where, published)
    made.on_room = on_room
    return made


class Room:
    """Publishes which file systems are full or nearly full.

    :param where: called now and then: an option file may be changed
    :ivar on_room: called when a full file system has room again
    """

    def __init__(self, where: Callable[[], Folders], published: PublishedState) -> None:
        self.on_room: Callable[[], None] = lambda: None
        self._where = where
        self._published = published
        self._full: set[int] = set()
        self._folders = Folders(())
        self._looks = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="room", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """A file system that does not answer is left alone."""
        self._stopped.set()

    def look(self) -> None:
        if self._looks % READ_AGAIN == 0:
            self._folders = self._where()
        self._looks += 1
        where = self._folders
        full, low = "", []
        seen: set[int] = set()
        for folder in (*where.commits, *where.others):
            try:
                device, found = folder.stat().st_dev, os.statvfs(folder)
            except OSError:
                continue
            if device in seen:
                continue
            seen.add(device)
            free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
            if free < TRIED_BYTES and self._is_full(device, folder):
                low.append(f"no space is left in {folder}")
                if folder in where.commits and not full:
                    full = low[-1]
            elif free < min(LOW_BYTES, total * LOW_SHARE):
                low.append(
                    f"less than {LOW_SHARE:.0%} is free in {folder}: make room, a full disk stops all commits"
                )
        self._full &= seen
        self._tell(full, low)

    def _is_full(self, device: int, folder: Path) -> bool:
        if can_take(folder, ENOUGH_BYTES if device in self._full else LEAST_BYTES):
            self._full.discard(device)
            return False
        self._full.add(device)
        return True

    def _tell(self, full: str, low: list[str]) -> None:
        before = self._published.state.full
        if full != before:
            say(logger, full or "there is room again", logging.ERROR if full else logging.INFO)
            self._published.change(full=full)
        self._published.concern("room", "; ".join(low))
        if before and not full:
            self.on_room()

    def _run(self) -> None:
        while not self._published.clock.wait(self._stopped, EVERY_SECONDS):
            try:
                self.look()
            except Exception:  # the loop must not end: without it room is not observed
                logger.exception("looking for room failed")


def can_take(folder: Path, size: int) -> bool:
    """Whether this user can write so many bytes there. True where that cannot be determined."""
    path = folder / TRIAL
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return error.errno not in NO_ROOM
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        return error.errno not in NO_ROOM
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            path.unlink()
    return True


def _each(found: Iterable[Path | None]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(each for each in found if each is not None))
