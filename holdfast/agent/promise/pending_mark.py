"""The mark, across the ends of agent and server, that what a server has issued is pending, and may be cut.

It is there from a promotion on, or from a row that was acknowledged, while commits wait as
:func:`~holdfast.core.rules.releases.holds_back` says: what the server issues, and nobody else has, no client was told
of, and no session has seen. It names the run of the server by the binlog file that was the last one then: what another
run has written, which somebody started meanwhile, is none of it (``binlog/files/run.py``).

It goes *before* the server is told to wait in any lesser way (what is let through then is committed) or to follow
another (what somebody writes on a replica is committed at once); and as soon as it is seen that something was let
through. Then only a row that was acknowledged since brings it back: whoever has that row has all that stands before it
in the binlog, so nothing that was let through is ever among what the next primary lacks.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.agent.disk.term import remove_durably, replace_durably
from holdfast.binlog.files.run import Began, began
from holdfast.core.observed.tally import Tally
from holdfast.errors import Refused


@dataclass(frozen=True, slots=True)
class RunMark:
    """:ivar incarnation: run of the server; :ivar began: the same, as its binlogs tell it; None: they did not
    :ivar acks: how many voters its commits wait for
    :ivar tally: what the server had counted when nothing had been let through; None: not known yet
    :ivar let_through: why the mark holds no longer; "" while it does
    :ivar unacknowledged: how many were let through
    """

    incarnation: str
    began: Began | None
    acks: int
    tally: Tally | None = None
    let_through: str = ""
    unacknowledged: int = 0


class PendingMark:
    """:param later: does what need not be on disk at once; see ``agent/runtime/background.py``"""

    def __init__(
        self, path: Path, index: Path, later: Callable[[Callable[[], object]], None]
    ) -> None:
        self._path = path
        self._index = index
        self._later = later
        self._writing = threading.Lock()
        self._mark = self._read()
        self._written = self._mark

    @property
    def mark(self) -> RunMark | None:
        return self._mark

    def pending(self) -> Began | None:
        """The run in which all that the server issued was held back; None when there is none that is certain."""
        mark = self._mark
        return mark.began if mark is not None and not mark.let_through else None

    def hold(self, incarnation: str, acks: int, tally: Tally | None = None) -> None:
        """On disk when this returns, but for a tally of the same mark, which is written later.

        :raises Refused: when it cannot be written
        """
        with self._writing:
            written = self._written
            mark = RunMark(incarnation, began(self._index), acks, tally)
            if written is None or replace(written, tally=tally) != mark:
                self._write(mark)
            elif written != mark:
                self._later(self._write_quietly)
            self._mark = mark

    def change(self, mark: RunMark | None) -> None:
        """At once for this agent, and on disk a little later: an agent that ends in between finds the old one.

        Waits for no disk: who looks at the server calls it.
        """
        self._mark = mark
        self._later(self._write_quietly)

    def clear(self) -> None:
        """Gone when this returns, also for an agent that comes after a loss of power."""
        with self._writing:
            self._mark = None
            self._remove()

    def _remove(self) -> None:
        self._written = None
        remove_durably(self._path)

    def _write(self, mark: RunMark) -> None:
        try:
            replace_durably(self._path, json.dumps(asdict(mark)) + "\n")
        except OSError as error:
            raise Refused(f"cannot write {self._path}: {error.strerror}") from error
        self._written = mark

    def _write_quietly(self) -> None:
        """A mark that holds no longer must not outlast this agent: where it cannot be written, it goes."""
        with self._writing:
            mark = self._mark
            if mark == self._written:
                return
            if mark is None:
                self._remove()
                return
            try:
                self._write(mark)
            except Refused:
                if mark.let_through:
                    self._remove()
                raise

    def _read(self) -> RunMark | None:
        """What cannot be read counts as none: then nothing is cut."""
        try:
            data = json.loads(self._path.read_bytes())
            return _mark(data)
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _mark(data: dict[str, Any]) -> RunMark:
    run, tally = data["began"], data["tally"]
    return RunMark(
        str(data["incarnation"]),
        Began(str(run["file"]), int(run["created"])) if run else None,
        int(data["acks"]),
        Tally(**{key: int(value) for key, value in tally.items()}) if tally else None,
        str(data["let_through"]),
        int(data["unacknowledged"]),
    )
