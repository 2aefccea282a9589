"""MariaDB's own backup tools: where they are, and how they are called."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from holdfast.errors import Refused
from holdfast.server.base import Account
from holdfast.server.process.option_copy import copy_options

NAMES = ("mariadb-backup", "mariabackup")
UNPACKER = "mbstream"
BINLOG_INFO = ("mariadb_backup_binlog_info", "xtrabackup_binlog_info")
"""The file of a backup that says up to which position in the binlog it goes; the first since MariaDB 11.1."""
GROUP = "mariabackup"
LOG_COPY_MS = 10
PIPE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BackupTools:
    """The command line of each of the two programs, without options."""

    backup: tuple[str, ...]
    unpack: tuple[str, ...]

    def making(self, option_file: Path, target: Path) -> list[str]:
        """Back up to standard output. ``target``: a folder for what the tool writes meanwhile."""
        return [
            *self.backup,
            f"--defaults-file={option_file}",
            "--backup",
            "--stream=mbstream",
            f"--target-dir={target}",
            f"--tmpdir={target}",
            # while commits are blocked it waits for this thread, whose pause is one second by default
            f"--log-copy-interval={LOG_COPY_MS}",
        ]

    def unpacking(self, folder: Path) -> list[str]:
        return [*self.unpack, "-x", "-C", str(folder)]

    def preparing(self, folder: Path, memory_bytes: int) -> list[str]:
        """Bring a copy that was made of a running server to one moment."""
        return [
            *self.backup,
            "--no-defaults",
            "--prepare",
            f"--use-memory={memory_bytes}",
            f"--target-dir={folder}",
        ]


def find_tools(server_command: tuple[str, ...], named: tuple[str, ...] = ()) -> BackupTools:
    """The tools beside the server's binary, run by the same loader; then those in PATH.

    :param named: argv of ``mariadb-backup``, when the configuration gives it
    :raises Refused: there are none
    """
    if named:
        beside = Path(named[-1]).parent / UNPACKER
        unpack = str(beside) if beside.is_file() else UNPACKER
        return BackupTools(named, (*named[:-1], unpack))
    *loader, binary = server_command
    base = Path(binary).parent
    for folder in (base, base.parent / "bin"):
        for name in NAMES:
            if (folder / name).is_file() and (folder / UNPACKER).is_file():
                return BackupTools((*loader, str(folder / name)), (*loader, str(folder / UNPACKER)))
    for name in NAMES:
        found, unpacker = shutil.which(name), shutil.which(UNPACKER)
        if found and unpacker:
            return BackupTools((found,), (unpacker,))
    raise Refused(
        f"there is no {NAMES[0]} beside {binary} or in PATH: install the package mariadb-backup, "
        "or name it as server.backup_command"
    )


def option_copy_for_backup(option_file: Path, socket: Path, admin: Account, target: Path) -> None:
    """An option file for the tool with what it needs to know of the server, so that the password is in no command line.

    (Its working folder is the data directory: called with the server's own option file it would be mistaken for the
    server.)
    """
    login = {"socket": str(socket), "user": admin.user, "password": admin.fresh().password}
    copy_options(option_file, target, group=GROUP, more=login)


def widen(pipe: IO[bytes]) -> None:
    """Let a pipe hold more bytes than the usual 64 kB, if that is allowed."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def binlog_place(folder: Path) -> tuple[str, int]:
    """Name of the binlog, and offset in it, up to which a backup goes.

    :raises Refused: the backup does not say
    """
    for name in BINLOG_INFO:
        try:
            file, offset, *_ = (folder / name).read_text().split()
            return os.path.basename(file), int(offset)
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise Refused(f"the backup's {name} cannot be read: {error}") from error
    raise Refused("the backup does not say up to which place in the binlog it goes")
