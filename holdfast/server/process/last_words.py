"""The last words of a server that has ended: the error that explains it, not the lines that follow from that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from holdfast.core.gtid import Flavor
from holdfast.server.process import boot

MOST_BYTES = 256 * 1024
LONGEST = 300

_ERROR = re.compile(r"\[ERROR\]\s*(?:\[MY-\d+\]\s*)?(?:\[\w+\]\s*)?(.*)")
_FOLLOWS = re.compile(
    r"Aborting$|Plugin '?(InnoDB|Aria)'? |Unknown/unsupported storage engine|Data Dictionary initialization failed"
    r"|Failed to initialize (builtin plugins|plugins|DD Storage Engine)|.*: Shutdown complete"
    r"|(InnoDB: )?(Plugin initialization|Database creation) (was )?aborted with error|Can't init tc log$"
    r"|Cannot continue operation|Could not open mysql\.plugin table|(InnoDB: )?Log scan aborted"
    r"|Assertion failure: .*::fatal",
    re.IGNORECASE,
)
"""What both servers write after the error that made them give up."""

_PROGRAM = re.compile(r"^\S*/?(mariadbd|mysqld): ")


def log_of(flavor: Flavor, option_file: Path, datadir: Path) -> Path | None:
    """The server's own log, as its option file has it; None if it writes to its standard error."""
    named = boot.read(option_file, flavor, "", datadir).options.get("log_error", "")
    return datadir / named if named not in ("", "ON", "stderr") else None


def size(log: Path | None) -> int:
    """The size of the log, by which earlier lines are distinguished from later ones."""
    try:
        return log.stat().st_size if log else 0
    except OSError:
        return 0


def errors(output: Path, log: Path | None = None, since: int = 0) -> tuple[str, ...]:
    """The errors of one run, the oldest first.

    :param output: its output before its log was open
    :param log: its own; :param since: the log's size in bytes when the server was started
    """
    found = (_ERROR.search(line) for line in _said(output, log, since))
    return tuple(each.group(1).strip() for each in found if each)


def last_words(
    output: Path, log: Path | None = None, since: int = 0, errors_only: bool = False
) -> str:
    """The last error that explains why it ended; if there is none, the last line; "": it wrote nothing.

    Parameters as for :func:`errors`.

    :param errors_only: "" if there is no error
    """
    lines = _said(output, log, since)
    found = next(_explaining(reversed(lines)), "")
    if not found and not errors_only:
        found = lines[-1] if lines else ""
    return found[:LONGEST]


def _said(output: Path, log: Path | None, since: int) -> list[str]:
    return [*_lines(output, 0), *(_lines(log, since) if log else ())]


def _explaining(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        error = _ERROR.search(line)
        if error and error.group(1) and not _FOLLOWS.match(error.group(1)):
            yield _PROGRAM.sub("", error.group(1).strip())


def _lines(file: Path, since: int) -> list[str]:
    try:
        with file.open("rb") as opened:
            end = opened.seek(0, 2)
            opened.seek(max(since if since <= end else 0, end - MOST_BYTES))
            text = opened.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.split("\n") if line.strip()]
