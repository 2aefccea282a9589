"""What else might start or restart the server: systemd's units, read from their files, and wrapper scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from holdfast.core.check.facts import Unit

FOLDERS = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system",
           "lib/systemd/system", "usr/lib/systemd/system")  # fmt: skip
"""Where units are, below the root; an earlier folder hides the same name in a later one."""

PATTERN = re.compile(r"(mysql|mysqld|mariadb|mariadbd)(@[^/]*)?\.service")
WRAPPERS = ("mysqld_safe", "mariadbd-safe", "mariadbd_safe")


def find_units(root: Path, pid: int | None) -> tuple[Unit, ...]:
    """Units of database servers below ``root``, sorted by name.

    :param pid: of the running server
    """
    runner = _unit_of(root, pid)
    found: dict[str, Unit] = {}
    for folder in _folders(root):
        for file in _entries(folder):
            own = PATTERN.fullmatch(file.name)
            if own and file.name not in found and not file.name.endswith("@.service"):
                found[file.name] = _unit(root, file, runner)
    if runner and runner not in found:
        template = re.sub(r"@.*\.service", "@.service", runner)
        files = [f / name for f in _folders(root) for name in (runner, template)]
        existing = next((file for file in files if file.exists()), None)
        if existing:
            found[runner] = _unit(root, existing, runner, runner)
    return tuple(found[name] for name in sorted(found))


def supervisor(root: Path, pid: int | None) -> str:
    """The script that waits for the server in order to start it again, or ""."""
    if pid is None:
        return ""
    try:
        stat = (root / f"proc/{pid}/stat").read_text(errors="replace")
        parent = stat.rpartition(")")[2].split()[1]
        line = (root / f"proc/{parent}/cmdline").read_bytes().split(b"\0")
    except (OSError, IndexError):
        return ""
    names = {Path(word.decode(errors="replace")).name for word in line[:2]}
    return next((name for name in WRAPPERS if name in names), "")


def _unit(root: Path, file: Path, runner: str, name: str = "") -> Unit:
    name = name or file.name
    masked = _masked(file)
    restart = "no"
    for part in (file, *_drop_ins(root, name)):
        restart = _restart(part, restart)
    return Unit(
        name=name,
        masked=masked,
        enabled=not masked and _enabled(root, name),
        restart="no" if masked else restart,
        runs_it=name == runner,
    )


def _masked(file: Path) -> bool:
    try:
        return str(file.readlink()) == "/dev/null" if file.is_symlink() else not file.stat().st_size
    except OSError:
        return False


def _drop_ins(root: Path, name: str) -> list[Path]:
    """The drop-ins, ordered by file name, whatever their folder."""
    found: dict[str, Path] = {}
    for folder in _folders(root):
        for file in _entries(folder / f"{name}.d"):
            if file.suffix == ".conf":
                found.setdefault(file.name, file)
    return [found[each] for each in sorted(found)]


def _restart(file: Path, before: str) -> str:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return before
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and key.strip() == "Restart":
            before = value.strip() or "no"
    return before


def _enabled(root: Path, name: str) -> bool:
    return any(
        (wants / name).is_symlink()
        for folder in _folders(root)
        for wants in _entries(folder)
        if wants.suffix in (".wants", ".requires")
    )


def _unit_of(root: Path, pid: int | None) -> str:
    """The service to whose control group a process belongs, or ""."""
    if pid is None:
        return ""
    try:
        groups = (root / f"proc/{pid}/cgroup").read_text()
    except OSError:
        return ""
    services = re.findall(r"/([^/\n]+\.service)(?=/|\n|$)", groups)
    return next((name for name in reversed(services) if PATTERN.fullmatch(name)), "")


def _folders(root: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    for each in FOLDERS:
        folder = (root / each).resolve()
        if folder not in seen:
            seen.add(folder)
            yield folder


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
