"""The promised term, on disk: an agent never obeys a manager that it has promised to refuse.

A term is a number and the leadership it was promised to: so two managers that choose the same number are distinguished.
The record under which it was promised is written with it (see ``obeyed.py``).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from holdfast.binlog.files.durable import sync_folder
from holdfast.errors import Fatal, Refused

_FORM = re.compile(r"term (\d{1,18})(?: ([0-9A-Za-z]{1,64}))?\n(?:(\{.*\})\n)?", re.ASCII)


class TermFile:
    """The highest term that was promised; 0 for an agent that has promised nothing yet.

    A file of an earlier version names no leadership and no record.

    :raises Fatal: when the file exists and cannot be read: it is never taken for "nothing promised"
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "term"
        self._kept = self._read()

    @property
    def promised(self) -> int:
        return self._kept[0]

    @property
    def leader(self) -> str:
        """The leadership to which the term was promised; "" where that is not known."""
        return self._kept[1]

    @property
    def record(self) -> str:
        """The record that was written with the term, as it was received, or ""."""
        return self._kept[2]

    def refuses(self, term: int, leader: str) -> bool:
        """Whether ``term`` is lower than the promised one, or equal but of another leadership."""
        promised, to, _ = self._kept
        return term < promised or (term == promised and leader != to)

    def raise_to(self, term: int, leader: str = "", record: str = "") -> None:
        """Promise ``term``; it is on disk when this returns.

        :raises Refused: when it cannot be written: the promise stays what it was
        """
        if term <= self.promised:
            return
        text = f"term {term} {leader}".rstrip() + "\n" + (f"{record}\n" if record else "")
        try:
            replace_durably(self._path, text)
        except OSError as error:
            raise Refused(f"cannot write term {term} to {self._path}: {error.strerror}") from error
        self._kept = (term, leader, record)

    def _read(self) -> tuple[int, str, str]:
        try:
            text = self._path.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return 0, "", ""
        except OSError as error:
            raise Fatal(f"cannot read the promised term in {self._path}: {error}") from error
        match = _FORM.fullmatch(text)
        if match is None:
            raise Fatal(
                f"{self._path} is damaged, and the agent must not forget what it promised: "
                f"write the line 'term N' into it, N being the highest term of the cluster's members"
            )
        return int(match[1]), match[2] or "", match[3] or ""


def replace_durably(path: Path, text: str) -> None:
    """Replace the file in one step; the new content survives a loss of power once this returns."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make the folder, readable only by its owner, unless it exists; it survives a loss of power once this returns."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    sync_folder(path.parent)


def remove_durably(path: Path) -> None:
    """Remove the file if it exists; it stays removed after a loss of power once this returns."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    sync_folder(path.parent)
