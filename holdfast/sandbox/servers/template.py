"""Data directories: made once for each server version, then copied for every member.

Making one takes seconds, copying it a tenth of one. All members start from the same image, accounts included, of which
no binary log has anything: the set of executed GTIDs is empty.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from holdfast.errors import BadInput, Refused
from holdfast.sandbox.servers.trees import ServerTree, cache_dir
from holdfast.server.process.initialise import MARIADB_CLOSING, MARIADB_FILES, MARIADB_OPENING

INITIALISE_SECONDS = 120.0
COPY_SECONDS = 120.0
RECIPE = "2"
"""Part of a template's name: raise it when this module would make another image."""

NOT_COPIED = ("auto.cnf", "#ib_16384_0.dblwr", "#ib_16384_1.dblwr")
"""A server makes its own: two members with one server_uuid cannot replicate from each other."""


def make_template(
    tree: ServerTree, statements: Sequence[str], templates: Path | None = None
) -> Path:
    """Return an initialised data directory of this server, made now unless it is there already.

    :param statements: run as SQL once the system tables exist, each on one line, not logged
    :param templates: the folder to keep it in, instead of ``templates`` in the cache
    :raises BadInput: a statement cannot be run this way
    :raises Refused: the server could not make it; holds the end of its log
    """
    script = _script(statements)
    folder = templates or cache_dir() / "templates"
    digest = hashlib.sha256(json.dumps([RECIPE, tree.version_text, script]).encode()).hexdigest()
    name = f"{tree.flavor}-{'.'.join(map(str, tree.version))}-{digest[:12]}"
    target = folder / name
    if target.is_dir():
        return target
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        for left in folder.glob(f".{name}.*/"):  # left by a maker that was killed
            shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
        try:
            datadir = _initialise(tree, script, work)
            for unwanted in NOT_COPIED:
                (datadir / unwanted).unlink(missing_ok=True)
            datadir.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def copy_template(template: Path, datadir: Path) -> None:
    """Copy a template to `datadir`, which must not exist yet or be empty; it appears whole.

    :raises BadInput: there is something in `datadir`
    :raises Refused: it could not be copied; `datadir` is as it was
    """
    if datadir.exists() and (not datadir.is_dir() or any(datadir.iterdir())):
        raise BadInput("datadir", f"{datadir} is not empty; Holdfast does not overwrite data")
    datadir.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{datadir.name}.", dir=datadir.parent))
    try:
        # cp shares the blocks where the filesystem can; -a keeps the modes of key files
        subprocess.run(
            ["cp", "-a", "--reflink=auto", "--", f"{template}/.", str(work)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=COPY_SECONDS,
            check=True,
        )
        work.chmod(0o700)
        work.rename(datadir)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()[-500:]
        raise Refused(f"copying {template} to {datadir} failed: {said}") from error
    except subprocess.TimeoutExpired as error:
        raise Refused(f"copying {template} took over {COPY_SECONDS:.0f} s; stopped") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _script(statements: Sequence[str]) -> str:
    """The statements as both servers read them at initialisation: one a line, with its end."""
    lines = []
    for statement in statements:
        line = statement.strip().removesuffix(";")
        if "\n" in line or "\r" in line:
            raise BadInput("statements", f"must be on one line: {statement!r}")
        lines.append(f"{line};\n")
    return "".join(lines)


def _initialise(tree: ServerTree, script: str, work: Path) -> Path:
    """Make a data directory in `work`. The server ends by itself, having shut down cleanly."""
    datadir = work / "data"
    datadir.mkdir(mode=0o700)
    common = [*tree.command, "--no-defaults", *tree.arguments, f"--datadir={datadir}"]
    # not the shared one: a MariaDB that starts meanwhile would remove this one's temporary tables
    common.append(f"--tmpdir={work}")
    sql = work / "init.sql"
    if tree.flavor == "mariadb":
        sql.write_text(_mariadb_tables(tree) + script, encoding="utf-8")
        # a member that wants a larger redo log gets it at its first start
        _run(tree, [*common, "--bootstrap", "--innodb-log-file-size=4M"], sql, work)
    else:
        sql.write_text(script, encoding="utf-8")
        small = ["--disable-log-bin", "--innodb-redo-log-capacity=32M", "--innodb-doublewrite=OFF"]
        begin = ["--initialize-insecure", f"--init-file={sql}"]
        _run(tree, [*common, *small, *begin], Path(os.devnull), work)
    return datadir


def _mariadb_tables(tree: ServerTree) -> str:
    prefix = "mariadb" if (tree.share_dir / "mariadb_system_tables.sql").is_file() else "mysql"
    files = [tree.share_dir / name.format(prefix) for name in MARIADB_FILES]
    tables = "".join(path.read_text(encoding="utf-8") for path in files)
    return MARIADB_OPENING + tables + MARIADB_CLOSING


def _run(tree: ServerTree, command: list[str], given: Path, work: Path) -> None:
    """Run the server until it ends; after its deadline it is killed."""
    log = work / "log"
    what = f"{tree.flavor} {tree.version_text} ({tree.binary}) could not make a data directory"
    try:
        with given.open("rb") as stdin, log.open("wb") as output:
            done = subprocess.run(
                command,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=work,
                timeout=INITIALISE_SECONDS,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise Refused(f"{what} in {INITIALISE_SECONDS:.0f} s\n{_tail(log)}") from error
    except OSError as error:
        raise Refused(f"{what}: {error}") from error
    if done.returncode != 0:
        raise Refused(f"{what}: it ended with {done.returncode}\n{_tail(log)}")


def _tail(log: Path, lines: int = 12) -> str:
    text = log.read_text(errors="replace")
    return "\n".join("    " + line for line in text.splitlines()[-lines:])
