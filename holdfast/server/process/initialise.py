"""Creates a new data directory with the server's own tools."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from holdfast.core.gtid import Flavor
from holdfast.errors import Refused
from holdfast.server.base import Account, Deadline
from holdfast.server.process.option_copy import copy_options

ELSEWHERE = frozenset({"datadir", "log_error", "pid_file", "socket", "log_bin"})
"""Options of the running server that a server must not take which only creates a data directory."""
POLL_SECONDS = 0.05

SHARES = ("share/mariadb", "share/mysql", "share")
MARIADB_OPENING = """\
create database if not exists mysql;
use mysql;
set @auth_root_socket=NULL;
set @skip_auth_anonymous=1;
"""
MARIADB_FILES = (
    "{}_system_tables.sql",
    "{}_performance_tables.sql",
    "{}_system_tables_data.sql",
    "{}_sys_schema.sql",
    "maria_add_gis_sp_bootstrap.sql",
)
MARIADB_CLOSING = """\
DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';
FLUSH PRIVILEGES;
"""
"""Before privileges are loaded CREATE USER is refused. The deleted accounts are root's, without a password, for this
machine's name and its loopback addresses."""


def administrator(admin: Account) -> list[str]:
    """The statements that create the account which the agent uses."""
    name = f"'{admin.user}'@'localhost'"
    password = admin.fresh().password.replace("\\", "\\\\").replace("'", "''")
    return [
        f"CREATE USER {name} IDENTIFIED BY '{password}'",
        f"GRANT ALL PRIVILEGES ON *.* TO {name} WITH GRANT OPTION",
    ]


def initialise(
    flavor: Flavor,
    command: Sequence[str],
    option_file: Path,
    folder: Path,
    scratch: Path,
    statements: Sequence[str],
    deadline: Deadline,
    own: Callable[[Path], None] = lambda path: None,
) -> None:
    """Create a data directory in ``folder``, which is empty; only the accounts of ``statements`` can log in to it.

    :raises Refused: that failed
    """
    closed = (*statements, "ALTER USER 'root'@'localhost' ACCOUNT LOCK")
    if flavor is Flavor.MYSQL:
        initialise_mysql(command, option_file, folder, scratch, closed, deadline, own=own)
    else:
        initialise_mariadb(command, option_file, folder, scratch, closed, deadline)


def initialise_mariadb(
    command: Sequence[str],
    option_file: Path,
    folder: Path,
    scratch: Path,
    statements: Sequence[str],
    deadline: Deadline,
) -> None:
    """The same for MariaDB, without its shell script: the server reads the SQL files that come with it.

    :raises Refused: that failed, or those files were not found
    """
    options, log = scratch / "initialise.cnf", scratch / "initialise.log"
    script = scratch / "initialise.sql"
    copy_options(option_file, options, without=ELSEWHERE, loose=True)
    try:
        tables = _system_tables(command, options, deadline)
        script.touch(mode=0o600)
        script.write_text(
            MARIADB_OPENING + tables + MARIADB_CLOSING + "".join(f"{s};\n" for s in statements),
            encoding="utf-8",
        )
        argv = [*command, f"--defaults-file={options}", f"--datadir={folder}", "--bootstrap"]
        argv += ["--skip-log-bin", "--loose-innodb-buffer-pool-size=64M"]
        with script.open("rb") as given, log.open("wb") as output:
            run_to_end(argv, output, log, "making a data directory", deadline, given=given)
    finally:
        script.unlink(missing_ok=True)
        options.unlink(missing_ok=True)


def _system_tables(command: Sequence[str], options: Path, deadline: Deadline) -> str:
    """The SQL of a new data directory's tables."""
    asked = [*command, f"--defaults-file={options}", "--verbose", "--help"]
    try:
        told = subprocess.run(
            asked,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=max(1.0, min(30.0, deadline.left)),
            check=False,
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"making a data directory: cannot run {command[0]}: {error}") from error
    places = dict(re.findall(r"^(lc-messages-dir|basedir) +(\S+)$", told, re.MULTILINE))
    base, messages = (Path(places.get(name, "/usr")) for name in ("basedir", "lc-messages-dir"))
    for folder in (messages, messages.parent, *(base / each for each in SHARES)):
        for prefix in ("mariadb", "mysql"):
            files = [folder / name.format(prefix) for name in MARIADB_FILES]
            if files[0].is_file():
                return "".join(path.read_text(encoding="utf-8") for path in files)
    raise Refused(
        f"making a data directory: no {MARIADB_FILES[0].format('mariadb')} in {messages}, or in share below {base}: "
        "install the server's package that has it, or make the data directory with mariadb-install-db"
    )


def initialise_mysql(
    command: Sequence[str],
    option_file: Path,
    folder: Path,
    scratch: Path,
    statements: Sequence[str],
    deadline: Deadline,
    keep_open: Sequence[int] = (),
    own: Callable[[Path], None] = lambda path: None,
) -> None:
    """Create a data directory in ``folder``, which is empty; the server ends without a signal, after a clean shutdown.

    :param scratch: a folder for the copy of the option file and the log
    :param statements: run once the system tables exist, each on one line; in no binary log
    :param keep_open: file descriptors that the server holds open for as long as it runs
    :param own: changes the owner of a file to the server's user
    :raises Refused: that failed; holds the end of the log
    """
    options, log = scratch / "initialise.cnf", scratch / "initialise.log"
    # beside the folder: the user that the server runs as need not see our own folders
    script = folder.with_name(".holdfast-init.sql")
    copy_options(option_file, options, without=ELSEWHERE, loose=True)
    try:
        script.unlink(missing_ok=True)
        descriptor = os.open(script, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{statement};\n" for statement in statements)
        own(script)
        argv = [
            *command,
            f"--defaults-file={options}",
            f"--datadir={folder}",
            "--disable-log-bin",
            "--initialize-insecure",
            f"--init-file={script}",
        ]
        with log.open("wb") as output:
            run_to_end(argv, output, log, "making a data directory", deadline, keep_open)
    finally:
        script.unlink(missing_ok=True)
        options.unlink(missing_ok=True)


def run_to_end(
    argv: Sequence[str],
    output: BinaryIO,
    log: Path,
    what: str,
    deadline: Deadline,
    keep_open: Sequence[int] = (),
    given: BinaryIO | None = None,
) -> None:
    """Run a program to its end; it is killed if the work is called off.

    :param given: its standard input
    :param output, log: the open file for its output, and the name of that file
    :raises Refused: it failed; holds the last lines of its output
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=given if given is not None else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(keep_open),
            cwd=log.parent,
        )
    except OSError as error:
        raise Refused(f"{what}: cannot run {argv[0]}: {error}") from error
    try:
        while True:
            try:
                status = process.wait(POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                deadline.check(what)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if status != 0:
        raise Refused(f"{what} failed with status {status}: {last_words(log)}")


def last_words(log: Path, lines: int = 3) -> str:
    """The last lines of a log, joined into one."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return "nothing is known of why"
    plain = "".join(each for each in text if each.isprintable() or each == "\n")
    words = [line.strip() for line in plain.splitlines() if line.strip()]
    errors = [line for line in words if "error" in line.lower() or "fatal" in line.lower()]
    return " / ".join((errors or words)[-lines:])[:600] or "it said nothing"
