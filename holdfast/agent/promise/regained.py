"""Whether a primary that came back has all that it had when it ended; see ``core/rules/returned.py``.

Killing a server takes nothing from its binlog: the kernel has what was written. Other things may: a recovery that cuts
the binlog by itself, a data directory that was exchanged, a host that went down. So the agent compares the binlog's end
three times: when it notices that the server has ended, right before it starts it again, and when the server is up. The
binlog must not be shorter, and no other run of a server may have come in between.

This can only be known by an agent that has observed the server as an open primary, and its end; an agent that was
started afterwards knows nothing.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.agent.observe.binlog_end import BinlogEnd
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.binlog.files.run import Began, began, started_since
from holdfast.core.observed.progress import Position
from holdfast.server.base import Deadline, Observation
from holdfast.server.process.process import Running


class Regained:
    """Compares the binlog's end. Called with each look, each end, each start, and each first answer of a run."""

    def __init__(self, published: PublishedState, server_run: ServerRun, index: Path) -> None:
        self._published = published
        self._server_run = server_run
        self._index = index
        self._end = BinlogEnd(index)
        self._whole = False  # it has all that it ever had as a primary
        self._answered: Running | None = None
        self._run: Began | None = None
        self._ended_at: Position | None = None
        self._left: Path | None = None
        self._bytes = 0

    def looked(self, found: Observation) -> None:
        if found.semi_sync.source or found.writable:
            self._whole = True
        elif found.replication.source:
            self._whole = False

    def ended(self) -> None:
        """Called the moment the server's end is noticed: nobody can have put other data in its place by then."""
        self._ended_at = self._end.look()

    def before_start(self) -> None:
        """The server's last run has ended, and the agent is about to start it."""
        self._left = None
        had, self._ended_at = self._ended_at, None
        run, end = self._run, self._end.look()
        if not self._whole or had is None or run is None or started_since(self._index, run):
            return
        if end.file and (end.file, end.offset) >= (had.file, had.offset):
            self._left, self._bytes = self._end.last, end.offset

    def answers(self, running: Running, _: Deadline) -> None:
        """Called, perhaps again and again, for a run that is not published as up yet."""
        if running is self._answered:
            return
        self._answered = running
        left, self._left = self._left, None
        ours = self._server_run.started(running)
        self._whole = bool(ours and left and left.exists() and left.stat().st_size >= self._bytes)
        self._run = began(self._index)
        self._published.change(during=running.incarnation, regained=self._whole)
