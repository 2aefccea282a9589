"""What a voter has received must not become less while it runs: then what it acknowledged may be gone.

The rules count a voter by the run of its server: what it acknowledged in that run, it holds. A hand can make that
untrue. MariaDB drops the relay log when both threads are started (``STOP SLAVE; START SLAVE``), and fetches anew what
was not applied, if its source still lives; ``RESET REPLICA`` drops it on both servers, ``RESET MASTER`` the history.

So each look is compared with the one before. Where something is gone, the server is killed: its next run is another
voter, which has to be admitted like any other. That is the one thing that no manager can overlook, also one that learns
of it late, and it needs no statement of a server on which somebody is at work. What was dropped and fetched again
between two looks is not noticed, and not lost.

A rewind makes the history shorter on purpose, in a run of the server that has acknowledged nothing
(``rewinding.Rewinding.part``). So does a Forget, in a run that may have: what it takes out the member has written
itself, and it takes nothing else (:meth:`Receipts.forgetting`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.agent.watch import Watch
from holdfast.core.gtid import GtidSet, parse
from holdfast.errors import Refused
from holdfast.log import say
from holdfast.server.base import Deadline, Observation, Server

LOOK_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Look:
    """:ivar run: the incarnation; :ivar texts: what the server said, received and applied"""

    run: str
    texts: tuple[str, str]
    received: GtidSet
    applied: GtidSet

    def without(self, gtids: GtidSet) -> _Look:
        received, applied = self.received.subtract(gtids), self.applied.subtract(gtids)
        return _Look(self.run, ("", ""), received, applied)

    def gone(self, now: _Look) -> GtidSet:
        """What the later look ``now`` has no more, of either."""
        return self.received.subtract(now.received).union(self.applied.subtract(now.applied))


class Receipts:
    """Of a server that acknowledges: the last look at what it has."""

    def __init__(self, server: Server, watch: Watch) -> None:
        self._server = server
        self._watch = watch
        self._last: _Look | None = None
        self._turn = threading.Lock()
        self._paused = False

    @contextlib.contextmanager
    def forgetting(self, gtids: GtidSet) -> Iterator[None]:
        """These go within the block. While they do the server may say that it has nothing at all: then it is compared
        after the block, with all that it had but for them. Where the block fails, with all that it had."""
        with self._turn:
            self._paused = True
        try:
            yield
            with self._turn:
                if self._last is not None:
                    self._last = self._last.without(gtids)
        finally:
            with self._turn:
                self._paused = False

    def seen(self, found: Observation, incarnation: str) -> None:
        """To be told of each look before it is published.

        :raises Refused: the server has lost what it had, and was killed
        """
        with self._turn:
            if not self._paused:
                self._compare(found, incarnation)

    def _compare(self, found: Observation, incarnation: str) -> None:
        last = self._last
        if not found.semi_sync.replica:
            self._last = None
            return
        if last is not None and last.run != incarnation:
            last = None
        if last is not None and last.texts == (found.received, found.applied):
            return
        now = self._look(found, incarnation)
        if last is not None and last.gone(now):
            # the parts of one look are not of one moment: what is received may have been applied in between
            found = self._server.observe(Deadline(LOOK_SECONDS))
            now = self._look(found, incarnation)
            if found.semi_sync.replica and (gone := last.gone(now)):
                raise self._lost(gone)
        self._last = now

    def _look(self, found: Observation, incarnation: str) -> _Look:
        texts = (found.received, found.applied)
        received, applied = (parse(self._server.flavor, text) for text in texts)
        return _Look(incarnation, texts, received, applied)

    def _lost(self, gone: GtidSet) -> Refused:
        reason = (
            f"it has lost {gone.count()} transactions that it had received ({gone}), by a hand that restarted or reset "
            "its replication: it was killed, and votes again when it has caught up"
        )
        say(logger, reason, logging.ERROR)
        self._watch.kill(reason)  # until it is gone, it is compared with what it had
        return Refused(reason)
