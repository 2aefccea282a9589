"""Finds third-party programs on this machine: database servers, etcd, nft, HAProxy.

A server comes from one of three places, tried in this order: the binary that an option names, PATH, and the private
tree that ``scripts/get-servers`` fetches. A private tree holds the libc that the server was built for, so its programs
are run by the tree's own loader.

Standard library only: ``scripts/get-servers`` runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.errors import BadInput

Flavor = Literal["mariadb", "mysql"]
Companion = Literal["etcd", "nft", "haproxy", "haproxy3"]
"""The programs of the managers' store, of an agent's gate and of an endpoint; ``haproxy3`` is a later one, for
tests."""
Version = tuple[int, int, int]

STAMP = ".holdfast-tree"
"""The file that marks a private tree as complete."""

OLDEST: dict[str, Version] = {
    # older ones lose or stall semi-sync: MDEV-32960, MDEV-35109 and MDEV-36663
    "mariadb": (10, 11, 12),
    "mysql": (8, 4, 0),
}
PROGRAMS = {"mariadb": ("mariadbd", "mysqld"), "mysql": ("mysqld",)}
COMPANIONS: dict[Companion, str] = {
    "etcd": "bin/etcd",
    "nft": "sbin/nft",
    "haproxy": "sbin/haproxy",
    "haproxy3": "sbin/haproxy",
}
"""The program of each, below the tree's ``usr``."""
ALIASES = {
    "mysql": "mariadb",
    "mysqladmin": "mariadb-admin",
    "mysqlbinlog": "mariadb-binlog",
    "mysqldump": "mariadb-dump",
    "mariabackup": "mariadb-backup",
}
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")
"""Where distributions put servers; an ordinary user's PATH lacks them."""

VERSION_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class ServerTree:
    """A database server that can be run.

    :ivar command: argv prefix that runs the server: its binary, behind a loader where it needs one
    :ivar loader: argv prefix that runs any program of the tree; empty for an installed server
    :ivar basedir: the folder that holds ``bin``, ``lib``, ``share``
    :ivar share_dir: error messages, and MariaDB's SQL files for a new data directory
    :ivar plugin_dir: ``None`` where no such folder was found: the server's built-in one is used
    :ivar version_text: the version as the server prints it
    """

    flavor: Flavor
    binary: Path
    command: tuple[str, ...]
    loader: tuple[str, ...]
    basedir: Path
    share_dir: Path
    plugin_dir: Path | None
    version: Version
    version_text: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """Options that every run of this server needs, after ``--no-defaults`` or the like."""
        options = [f"--basedir={self.basedir}", f"--lc-messages-dir={self.share_dir}"]
        if self.plugin_dir is not None:
            options.append(f"--plugin-dir={self.plugin_dir}")
        if self.flavor == "mysql":
            # the built-in folder for files need not exist, and the X plugin opens a port
            options += ["--secure-file-priv=", "--mysqlx=OFF"]
        if os.geteuid() == 0:
            options.append("--user=root")
        return tuple(options)

    def tool(self, name: str) -> tuple[str, ...]:
        """Argv prefix of a client program, by its MySQL or its MariaDB name.

        :raises BadInput: the program does not come with this server
        """
        for candidate in _names(name, self.flavor):
            for folder in (self.binary.parent, self.basedir / "bin", self.basedir / "sbin"):
                path = folder / candidate
                if path.is_file():
                    return (*self.loader, str(path)) if _is_elf(path) else (str(path),)
            found = None if self.loader else shutil.which(candidate, path=_search_path())
            if found:
                return (found,)
        raise BadInput(f"tool.{name}", f"does not come with {self.binary}; install it beside it")


def cache_dir() -> Path:
    """The folder for what can be fetched or made again: ``HOLDFAST_CACHE``, or the user's cache."""
    own = os.environ.get("HOLDFAST_CACHE")
    if own:
        return Path(own).resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "holdfast"


def find(flavor: Flavor, binary: Path | None = None) -> ServerTree:
    """Find the server of this flavor: `binary` if given, else on PATH, else the private tree.

    :raises BadInput: there is none, or it is of the other flavor or too old; says what to do
    """
    if binary is not None:
        return installed(flavor, binary)
    found = on_path(flavor)
    if found is not None:
        return found
    root = cache_dir() / "servers" / flavor
    try:
        is_there = (root / STAMP).is_file()
    except OSError as error:
        raise BadInput("HOLDFAST_CACHE", f"cannot read {root}: {error.strerror}") from None
    if not is_there:
        raise BadInput(
            "server.binary",
            f"no usable {flavor} server on PATH and none in {root}: run scripts/get-servers "
            f"{flavor}, or name the server with --server-binary",
        )
    return in_tree(flavor, root)


def on_path(flavor: Flavor) -> ServerTree | None:
    """The server of this flavor on PATH, if there is one that Holdfast can use."""
    for name in PROGRAMS[flavor]:
        path = shutil.which(name, path=_search_path())
        if path is None:
            continue
        try:
            return installed(flavor, Path(path))
        except BadInput:  # of the other flavor, or too old: no error, as no option named it
            continue
    return None


def companion(name: Companion) -> tuple[str, ...]:
    """Argv prefix that runs it: from PATH, else from the private tree.

    :raises BadInput: there is none; says what to do
    """
    found = companion_on_path(name)
    return (str(found),) if found else companion_in_tree(name, cache_dir() / "servers" / name)


def companion_on_path(name: Companion) -> Path | None:
    if name == "haproxy3":  # the installed one may be the other version
        return None
    path = shutil.which(Path(COMPANIONS[name]).name, path=_search_path())
    return Path(path) if path else None


def companion_in_tree(name: Companion, root: Path) -> tuple[str, ...]:
    """:raises BadInput: the tree is not there, or not whole"""
    binary, loader = root.absolute() / "usr" / COMPANIONS[name], _loader(root)
    if not binary.is_file() or loader is None:
        raise BadInput(
            name,
            f"there is no {binary.name} on PATH and none in {root}: run scripts/get-servers {name}, or "
            "install it",
        )
    return (*_by(loader), str(binary))


def installed(flavor: Flavor, binary: Path) -> ServerTree:
    """Describe the server that a path names, in a private tree or anywhere else."""
    if not binary.is_file():
        raise BadInput("server.binary", f"{binary} is not a file")
    path = binary.resolve()
    root = next((folder for folder in path.parents if (folder / STAMP).is_file()), None)
    if root is not None:
        return in_tree(flavor, root)
    return _describe(flavor, path, path.parent.parent, ())


def in_tree(flavor: Flavor, root: Path) -> ServerTree:
    """Describe the server in an unpacked private tree."""
    usr = root.absolute() / "usr"
    binary = next(
        (usr / "sbin" / name for name in PROGRAMS[flavor] if (usr / "sbin" / name).is_file()), None
    )
    loader = _loader(root)
    if binary is None or loader is None:
        raise BadInput(
            "server.binary",
            f"{root} is not a whole tree of {flavor}: remove it and run scripts/get-servers "
            f"{flavor}",
        )
    return _describe(flavor, binary, usr, _by(loader))


def _loader(root: Path) -> Path | None:
    # not lib64/ld-linux*: in some releases that is an absolute link, to this machine's own loader
    return next(
        iter(sorted((root.absolute() / "usr").glob("lib/*-linux-gnu*/ld-linux*.so.*"))), None
    )


def _by(loader: Path) -> tuple[str, ...]:
    return (str(loader), "--library-path", str(loader.parent))


def _describe(flavor: Flavor, binary: Path, basedir: Path, loader: tuple[str, ...]) -> ServerTree:
    command = (*loader, str(binary))
    text = _version_text(command)
    is_mariadb = "mariadb" in text.lower()
    match = re.search(r"\bVer (\d+)\.(\d+)\.(\d+)\S*", text)
    if match is None or is_mariadb != (flavor == "mariadb"):
        raise BadInput(
            "server.binary", f"{binary} is not a {flavor} server; it says: {text.strip()[:200]!r}"
        )
    version = (int(match[1]), int(match[2]), int(match[3]))
    if version < OLDEST[flavor]:
        oldest = ".".join(map(str, OLDEST[flavor]))
        raise BadInput(
            "server.binary",
            f"{binary} is {flavor} {match[0][4:]}, and Holdfast needs {oldest} or later: upgrade "
            f"it, or run scripts/get-servers {flavor}",
        )
    return ServerTree(
        flavor=flavor,
        binary=binary,
        command=command,
        loader=loader,
        basedir=basedir,
        share_dir=_share_dir(flavor, basedir),
        plugin_dir=_plugin_dir(basedir),
        version=version,
        version_text=match[0][4:],
    )


def _version_text(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [*command, "--no-defaults", "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadInput("server.binary", f"{command[-1]} cannot be run: {error}") from error
    return done.stdout.decode(errors="replace")


def _share_dir(flavor: Flavor, basedir: Path) -> Path:
    # the SQL files are mariadb_*.sql since MariaDB 11
    marker = "*_system_tables.sql" if flavor == "mariadb" else "english/errmsg.sys"
    for name in ("share/mysql", "share/mariadb", "share"):
        if any((basedir / name).glob(marker)):
            return basedir / name
    raise BadInput(
        "server.binary",
        f"{basedir}/share has no {marker}: the {flavor} server there is not installed whole",
    )


def _plugin_dir(basedir: Path) -> Path | None:
    for lib in ("lib", "lib64"):
        for name in ("mysql/plugin", "mariadb/plugin", "plugin"):
            if (basedir / lib / name).is_dir():
                return basedir / lib / name
    return None


def _names(name: str, flavor: Flavor) -> list[str]:
    """The names of a program, the one that the flavor's makers use first."""
    for old, new in ALIASES.items():
        if name in (old, new):
            return [new, old] if flavor == "mariadb" else [old]
    return [name]


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
