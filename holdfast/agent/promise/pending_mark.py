"""The mark that what a server has issued is pending, and may be cut. It survives the ends of agent and server.

It exists from a promotion on, or from a row that was acknowledged, while commits wait as
:func:`~holdfast.core.rules.releases.holds_back` demands. What the server issues then, and no other server has, no
client was told is committed, and no session has seen. The mark names the run of the server by the binlog file that was
the last one then: it does not cover what another run has written that somebody started meanwhile
(``binlog/files/run.py``).

The mark is removed *before* the server is ordered to wait in any lesser way (what is let through then is committed) or
to follow another (what a client writes on a replica is committed at once). It is also removed as soon as the agent sees
that a commit was let through. After that only a row that was acknowledged afterwards restores it: a server that has
that row has everything before it in the binlog. So nothing that was let through is ever among what the next primary
lacks.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from holdfast.agent.disk.term import remove_durably, replace_durably
from holdfast.binlog.files.run import Began, began
from holdfast.core.observed.tally import Tally
from holdfast.errors import Refused


@dataclass(frozen=True, slots=True)
class RunMark:
    """:ivar incarnation: run of the server; :ivar began: the same run, as its binlogs identify it; None: they did not
    :ivar acks: how many voters its commits wait for
    :ivar tally: what the server had counted when nothing had been let through; None: not known yet
    :ivar let_through: why the mark holds no longer; "" while it does

    Nothing has a default: a file in which something is missing is no mark.
    :ivar unacknowledged: how many were let through
    """

    incarnation: str
    began: Began | None
    acks: int
    tally: Tally | None
    let_through: str
    unacknowledged: int


_FORM = TypeAdapter(RunMark)


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
        """The run in which everything that the server issued was held back; None when no such run is certain."""
        mark = self._mark
        return mark.began if mark is not None and not mark.let_through else None

    def hold(self, incarnation: str, acks: int, tally: Tally | None = None) -> None:
        """Set the mark. It is on disk when this returns, except for a tally of the same mark, which is written later.

        :raises Refused: when it cannot be written
        """
        with self._writing:
            written = self._written
            mark = RunMark(incarnation, began(self._index), acks, tally, "", 0)
            if written is None or replace(written, tally=tally) != mark:
                self._write(mark)
            elif written != mark:
                self._later(self._write_quietly)
            self._mark = mark

    def change(self, mark: RunMark | None) -> None:
        """Change the mark at once for this agent, and on disk a little later: an agent that ends in between leaves the
        old mark.

        Waits for no disk: the thread that observes the server calls it.
        """
        self._mark = mark
        self._later(self._write_quietly)

    def clear(self) -> None:
        """Remove the mark. It is gone when this returns, also for an agent that starts after a loss of power."""
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
        """A mark that holds no longer must not outlast this agent: if the change cannot be written, the file is
        removed."""
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
        """A mark that cannot be read counts as none: then nothing is cut."""
        try:
            return _FORM.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return None
