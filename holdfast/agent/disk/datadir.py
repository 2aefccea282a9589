"""A data directory as files: its size, its content, and its replacement by another."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.binlog.files.durable import sync_folder
from holdfast.binlog.files.index import read_index
from holdfast.core.gtid import Flavor
from holdfast.errors import Refused

INCOMING = ".holdfast-incoming"
"""The folder that a copy is written to. It is within the data directory: on the same file system, and where the agent
may write."""
SCRATCH = "#holdfast-scratch"
"""The data directory of the MySQL server that fetches the copy: InnoDB does not look for its files in hidden folders.
"""
_OURS = frozenset({INCOMING, SCRATCH})

_SYSTEM = frozenset({"mysql", "sys", "performance_schema", "information_schema", "holdfast"})
_KEPT = frozenset({"lost+found"})
_NO_DATA = frozenset({"db.opt"})
_SYSTEM_TABLESPACE_BYTES = 12 * 1024 * 1024
_SPARE_BYTES = 64 * 1024 * 1024


def is_empty(datadir: Path) -> bool:
    """Whether no server has ever used it: it holds nothing but files of the agent, of the file system, or logs."""
    try:
        return not any(_is_data(name) for name in os.listdir(datadir))
    except FileNotFoundError:
        return True


def is_server_s(datadir: Path) -> bool:
    """Whether it looks like a database server's data directory."""
    return (datadir / "mysql").is_dir() or (datadir / "ibdata1").is_file()


def user_data(datadir: Path, flavor: Flavor) -> str:
    """The name of a file in it that a user may have created, or ""; empty schemas do not count."""
    for entry in sorted(os.scandir(datadir), key=lambda each: each.name):
        if not _is_data(entry.name):
            continue
        if entry.is_dir(follow_symlinks=True):
            if entry.name in _SYSTEM or entry.name.startswith("#"):
                continue
            if any(name not in _NO_DATA for name in os.listdir(entry.path)):
                return entry.name
        elif entry.name == "ibdata1":
            # MariaDB keeps more than tables in it
            if flavor is Flavor.MYSQL and entry.stat().st_size > _SYSTEM_TABLESPACE_BYTES:
                return entry.name
        elif entry.name.endswith(".ibd") and entry.name != "mysql.ibd":
            return entry.name
    return ""


def mark_of(datadir: Path, flavor: Flavor) -> str:
    """A text that differs for the data of another cluster; "" where nothing identifies the data.

    MariaDB gives each table that is created an id of its own, in its ``.frm``; MySQL each data directory, in
    ``auto.cnf``. A server flushes those files or writes them once, so a loss of power leaves them.
    """
    name = "holdfast/proof.frm" if flavor is Flavor.MARIADB else "auto.cnf"
    try:
        return hashlib.sha256((datadir / name).read_bytes()).hexdigest()
    except OSError:
        return ""


def has_proof(datadir: Path) -> bool:
    """Whether it has the table that each of a cluster's members has."""
    return any((datadir / "holdfast").glob("proof.*"))


def size(datadir: Path, but: Callable[[str], bool] = lambda name: False) -> int:
    """The bytes in its files, without the top-level entries for which ``but`` holds."""
    total = 0
    for folder, folders, files in os.walk(datadir):
        if folder == str(datadir):
            folders[:] = [name for name in folders if name not in _OURS]
            files = [name for name in files if not but(name)]
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total


def make_room(datadir: Path, index: Path, wanted: int) -> bool:
    """Make sure that ``wanted`` more bytes fit; where they only fit without the old data, remove that.

    :returns: whether the old data was removed, before any new data has arrived
    :raises Refused: they do not fit; nothing was removed
    """
    wanted += wanted // 20 + _SPARE_BYTES
    found = os.statvfs(datadir)
    free = found.f_bavail * found.f_frsize
    if free >= wanted:
        return False
    old = sum(size(path) if path.is_dir() else path.lstat().st_size for path in _old(datadir))
    if free + old < wanted:
        raise Refused(
            f"the copy needs {_mb(wanted)} and the file system of {datadir} has {_mb(free)} free "
            f"({_mb(free + old)} without the old data): make room"
        )
    remove_old(datadir, index)
    return bool(old)


def remove_old(datadir: Path, index: Path) -> None:
    """Remove what a server left there, and its binlogs wherever they are."""
    if index.parent.resolve() != datadir.resolve():
        for file in _binlogs(index):
            file.unlink(missing_ok=True)
        index.unlink(missing_ok=True)
        if index.parent.exists():
            sync(index.parent)  # else a loss of power could bring them back beside the new data
    for path in _old(datadir):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def fresh(datadir: Path, name: str = INCOMING) -> Path:
    """Make an empty folder of the agent's; by default the one for incoming data."""
    folder = datadir / name
    drop(datadir, name)
    folder.mkdir(mode=0o700)
    belong(folder, datadir)
    return folder


def drop(datadir: Path, *names: str) -> None:
    """Remove these of the agent's folders; all if none is named."""
    for name in names or sorted(_OURS):
        shutil.rmtree(datadir / name, ignore_errors=True)


def take_place(datadir: Path, index: Path) -> None:
    """Replace the old data by the incoming data; on disk when this returns.

    This is not one step: until the caller has removed the marker of the clone, no server must be started here.
    """
    incoming = datadir / INCOMING
    for path in _files(incoming):
        belong(path, datadir)
        sync(path)
    remove_old(datadir, index)
    for path in sorted(incoming.iterdir()):
        path.rename(datadir / path.name)
    incoming.rmdir()
    sync(datadir)


def belong(path: Path, datadir: Path) -> None:
    """Give files that the agent made as root to the server: their owner becomes that of the data directory."""
    if os.geteuid() == 0:
        owner = datadir.stat()
        if owner.st_uid:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def sync(path: Path) -> None:
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> Iterator[Path]:
    """Yield all folders and files below, and the folder itself last."""
    for parent, _, files in os.walk(folder, topdown=False):
        yield from (Path(parent, name) for name in files)
        yield Path(parent)


def _old(datadir: Path) -> Iterator[Path]:
    yield from [
        path
        for path in datadir.iterdir()
        if path.name not in _OURS and path.name not in _KEPT and not _is_log(path.name)
    ]


def _is_data(name: str) -> bool:
    ours = name.startswith(".") or name in _OURS or name in _KEPT
    return not ours and not _is_log(name)


def _is_log(name: str) -> bool:
    """Whether a file is one of the server's logs, which are kept."""
    return name == "error.log" or name.endswith(".err")


def _binlogs(index: Path) -> tuple[Path, ...]:
    try:
        return read_index(index)
    except Refused:
        return tuple(index.parent.glob(f"{index.stem}.[0-9]*"))


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def forget_uuid(datadir: Path) -> None:
    """Remove ``auto.cnf``, so that MySQL makes a new ``server_uuid``."""
    try:
        os.unlink(datadir / "auto.cnf")
    except FileNotFoundError:
        return
    sync_folder(datadir)
