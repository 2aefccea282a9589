"""What a server would boot with: reads an option file as the server does.

Groups, includes, and the variables that MySQL keeps with SET PERSIST are read. Options on a command line, and
abbreviated names, are not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from holdfast.core.check.facts import Boot
from holdfast.core.check.variables import PERSISTED
from holdfast.core.gtid import Flavor

MOST_INCLUDES = 10
"""How deep files may include each other; the servers' own limit."""

_WHOLE = frozenset(
    {
        "skip_slave_start",
        "skip_replica_start",
        "skip_name_resolve",
        "skip_networking",
        "skip_grant_tables",
    }
)
"""Names that begin with ``skip_`` and are not the negation of another name."""

_MYSQL_NAMES = {
    "skip_slave_start": "skip_replica_start",
    "log_slave_updates": "log_replica_updates",
    "slave_net_timeout": "replica_net_timeout",
    "slave_preserve_commit_order": "replica_preserve_commit_order",
    "slave_max_allowed_packet": "replica_max_allowed_packet",
    "slave_skip_errors": "replica_skip_errors",
    "slave_exec_mode": "replica_exec_mode",
}
_MARIADB_NAMES = {
    "skip_replica_start": "skip_slave_start",
    "log_replica_updates": "log_slave_updates",
    "replica_net_timeout": "slave_net_timeout",
    "replica_max_allowed_packet": "slave_max_allowed_packet",
    "replica_skip_errors": "slave_skip_errors",
    "replica_exec_mode": "slave_exec_mode",
}
_ADDED = {"plugin_load_add": "plugin_load"}
"""Options that add to the value of another one."""
_FILTER = re.compile(r"(replicate|binlog)_(wild_)?(do|ignore)_|replicate_rewrite_db")


class _Cannot(Exception):
    """A file cannot be read, or its content cannot be understood."""


def read(option_file: Path, flavor: Flavor, version: str, datadir: Path) -> Boot:
    """:param version: of the server: ``[mysqld-9.7]`` counts only for that series"""
    options: dict[str, str] = {}
    sources: dict[str, str] = {}
    filters: list[str] = []
    groups = _groups(flavor, version)
    kept = datadir / PERSISTED
    try:
        lines = [
            *_lines(option_file, groups, 0),
            *((kept, name, value) for name, value in _persisted(kept)),
        ]
        for file, name, value in lines:
            if _FILTER.match(name):
                filters.append(f"{name}={value}")
            option, value = _option(name, value)
            if option in _ADDED:
                value = ";".join(filter(None, (options.get(_ADDED[option], ""), value)))
                option = _ADDED[option]
            options[known_as(option, flavor)] = value
            sources[known_as(option, flavor)] = str(file)
    except _Cannot as problem:
        return Boot(str(option_file), problem=str(problem))
    return Boot(str(option_file), options, tuple(filters), sources=sources)


def persisted(datadir: Path) -> dict[str, str]:
    """Variables that MySQL keeps in its data directory, by name; {} if the file cannot be read: no server starts with
    such a file."""
    try:
        return dict(_persisted(datadir / PERSISTED))
    except _Cannot:
        return {}


def fingerprint(option_file: Path, datadir: Path) -> str:
    """A text that changes whenever a file changes that decides what the server boots with."""
    digest = hashlib.sha256()
    for file in (*_files(option_file, 0), datadir / PERSISTED):
        try:
            digest.update(f"{file}\n".encode() + file.read_bytes())
        except OSError as error:
            digest.update(f"{file}: {error.strerror}\n".encode())
    return digest.hexdigest()


def _files(file: Path, depth: int) -> Iterator[Path]:
    """The option file and all files that it includes."""
    yield file
    try:
        lines = file.read_text(errors="replace").splitlines() if depth <= MOST_INCLUDES else []
        for line in map(str.strip, lines):
            if line.startswith("!include"):
                word, _, named = line.partition(" ")
                for each in _included(file, word, Path(named.strip())):
                    yield from _files(each, depth + 1)
    except (OSError, _Cannot):
        return


def _groups(flavor: Flavor, version: str) -> frozenset[str]:
    series = ".".join(version.split(".")[:2])
    names = ["mysqld"] if flavor is Flavor.MYSQL else ["mysqld", "mariadb", "mariadbd"]
    return frozenset({"server", *names, *(f"{name}-{series}" for name in names)})


def _lines(file: Path, groups: frozenset[str], depth: int) -> Iterator[tuple[Path, str, str]]:
    """The options of our groups in one file, in order; the last one counts."""
    if depth > MOST_INCLUDES:
        raise _Cannot(f"{file} is included by too many files")
    try:
        text = file.read_text(errors="replace")
    except OSError as error:
        raise _Cannot(f"cannot read {file}: {error.strerror}") from None
    group = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("!include"):
            word, _, named = line.partition(" ")
            for each in _included(file, word, Path(named.strip())):
                yield from _lines(each, groups, depth + 1)
        elif line.startswith("["):
            group = line[1:].partition("]")[0].strip()
        elif not group:
            raise _Cannot(f"{file}, line {number}: an option before any [group]")
        elif group in groups:
            name, equals, value = line.partition("=")
            yield file, _normal(name), _value(value) if equals else "ON"


def _included(file: Path, word: str, named: Path) -> list[Path]:
    if word == "!include":
        return [named]
    if word != "!includedir":
        raise _Cannot(f"{file}: {word} is neither !include nor !includedir")
    try:
        return sorted(each for each in named.iterdir() if each.suffix == ".cnf")
    except OSError as error:
        raise _Cannot(f"cannot read {named}: {error.strerror}") from None


def _normal(name: str) -> str:
    return name.strip().replace("-", "_").lower().removeprefix("loose_")


def _value(text: str) -> str:
    """The value without quotes, or without the comment after it."""
    text = text.strip()
    if text[:1] in ("'", '"') and (end := text.find(text[0], 1)) > 0:
        return text[1:end]
    return text.partition(" #")[0].strip()


def _option(name: str, value: str) -> tuple[str, str]:
    """The option without a prefix ``skip_``, ``disable_`` or ``enable_``."""
    if name in _WHOLE:
        return name, value
    for prefix, meant in (("skip_", "OFF"), ("disable_", "OFF"), ("enable_", "ON")):
        if name.startswith(prefix):
            return name.removeprefix(prefix), meant
    return name, value


def known_as(name: str, flavor: Flavor) -> str:
    """An old or a new name, in the words of this flavor."""
    return (_MYSQL_NAMES if flavor is Flavor.MYSQL else _MARIADB_NAMES).get(name, name)


def _persisted(file: Path) -> Iterator[tuple[str, str]]:
    """Variables that MySQL keeps in its data directory: they override the option file and the command line."""
    try:
        saved = json.loads(file.read_text())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise _Cannot(f"cannot read {file}: {error}") from None
    for key, kept in saved.items():
        if not isinstance(kept, dict):
            continue
        for name, each in kept.items():
            if isinstance(each, dict) and "Value" in each:
                yield _normal(name), str(each["Value"])
            elif key == "mysql_server" and isinstance(each, dict):  # the layout of MySQL 8.0
                for inner, value in each.items():
                    yield _normal(inner), str(value.get("Value", "")) if value else ""
