"""What a voter has received must not become less while it runs: then what it acknowledged may be gone.

The rules count a voter by the run of its server: what it acknowledged in that run, it holds. A hand can make that
untrue. MariaDB drops the relay log when both threads are started (``STOP SLAVE; START SLAVE``), and fetches anew what
was not applied, if its source still lives; ``RESET REPLICA`` drops it on both servers, ``RESET MASTER`` the history.

So each look is compared with the one before. Where something is gone, the server is killed: its next run is another
voter, which has to be admitted like any other. That is the one thing that no manager can overlook, also one that learns
of it late, and it needs no statement of a server on which somebody is at work. What was dropped and fetched again
between two looks is not noticed, and not lost.

An agent that was away has not looked. So it keeps how many statements the server had executed that steer replication
(``server/steering.py``). Where an agent finds a voter running and that number is another one, somebody has stopped,
started or reset its replication meanwhile: what it acknowledged may be gone, and the server is killed, too.

A rewind makes the history shorter on purpose, in a run of the server that has acknowledged nothing
(``rewinding.Rewinding.part``). So does a Forget, in a run that may have: what it takes out the member has written
itself, and it takes nothing else (:meth:`Receipts.forgetting`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.agent.term import replace_durably
from holdfast.agent.watch import Watch
from holdfast.core.gtid import GtidSet, parse
from holdfast.errors import Refused
from holdfast.log import say
from holdfast.server.base import Deadline, Observation, Server

LOOK_SECONDS = 1.0
COUNT_SECONDS = 1.0
"""How often it is asked how many statements have steered it. Killed within that time after a command of its own, an
agent takes its own statements for somebody else's: a vote too many is lost then, and nothing else."""

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

    def __init__(self, server: Server, watch: Watch, state_dir: Path) -> None:
        self._server = server
        self._watch = watch
        self._path = state_dir / "steered"
        self._kept = self._read()
        self._first = True
        self._counted: tuple[str, int] | None = None
        self._counted_at = -COUNT_SECONDS
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
            if self._paused:
                return
            counted = self._counted
            if not (found.writable or found.semi_sync.source):
                self._count(incarnation)
            self._first = False
            self._compare(found, incarnation)
            # nothing was missing at a look that was begun after they were counted
            if counted is not None and counted != self._kept:
                self._keep(counted)

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

    def _count(self, incarnation: str) -> None:
        """:raises Refused: this is this agent's first look, and a hand has been at work since another one's last"""
        now = time.monotonic()
        if now < self._counted_at + COUNT_SECONDS:
            return
        count = (incarnation, self._server.steered(Deadline(LOOK_SECONDS)))
        if self._first and self._kept and self._kept[0] == incarnation and self._kept != count:
            raise self._killed(
                "while its agent was away, its replication was stopped, started or reset by a hand: whether it has all "
                "that it acknowledged is not known, so it was killed, and votes again when it has caught up"
            )
        self._counted_at, self._counted = now, count

    def _keep(self, count: tuple[str, int]) -> None:
        try:
            replace_durably(self._path, json.dumps(count) + "\n")
        except OSError as error:
            say(logger, f"cannot write {self._path}: {error.strerror}", logging.WARNING)
        self._kept = count

    def _read(self) -> tuple[str, int] | None:
        try:
            run, count = json.loads(self._path.read_text())
            return str(run), int(count)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            return "", 0

    def _look(self, found: Observation, incarnation: str) -> _Look:
        texts = (found.received, found.applied)
        received, applied = (parse(self._server.flavor, text) for text in texts)
        return _Look(incarnation, texts, received, applied)

    def _lost(self, gone: GtidSet) -> Refused:
        return self._killed(
            f"it has lost {gone.count()} transactions that it had received ({gone}), by a hand that restarted or reset "
            "its replication: it was killed, and votes again when it has caught up"
        )

    def _killed(self, reason: str) -> Refused:
        say(logger, reason, logging.ERROR)
        self._watch.kill(reason)  # until it is gone, it is compared with what it had
        return Refused(reason)
