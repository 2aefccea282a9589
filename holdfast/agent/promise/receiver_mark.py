"""Which receiver an agent has observed, kept for its successor.

Everything that removes what a running server has received stops its receiver first: ``RESET``, ``CHANGE MASTER``, and
on MariaDB ``STOP SLAVE; START SLAVE``, which drops the relay log. Each start of the receiver is another thread of the
server; the same thread restores lost connections (both found by trying: ``test_server_received.py``). So an agent that
finds another receiver, or none, in a run of the server that its predecessor had observed knows that somebody changed
replication meanwhile.

The file ``receiver`` in the state directory is written without a sync: it need not outlive the host, as no run of the
server does. It is valid for the term in which it was written: so the first command of another term, which may stop the
receiver, need not remove it. Removing it would take time: even without a sync a file system lets a rename wait for
milliseconds while others write to its journal.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

from holdfast.agent.disk.term import TermFile
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.log import say
from holdfast.server.base import RECEIVER_CONNECTING, RECEIVER_FAILED, Deadline, Server

EVERY_SECONDS = 1.0
"""How often the thread's id is read. If an agent is killed so soon after an operator restarted a receiver, its
successor takes the restart for one in its absence: then a voter is admitted anew without need, and nothing is lost."""
AFTER_COMMAND_SECONDS = 0.2
"""No mark is written so soon after a command of the agent's: the next command of a failover would have to remove it."""
LOOK_SECONDS = 1.0

logger = logging.getLogger(__name__)


class ReceiverMark:
    """The mark of a voter: the run of its server, and its receiver's thread (``Server.receiver_thread``).

    The agent's own commands may restart the receiver (:meth:`steering`): meanwhile no mark is written.
    """

    def __init__(
        self, server: Server, state_dir: Path, term: TermFile, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._server = server
        self._clock = clock
        self._path = state_dir / "receiver"
        self._term = term
        self._before = self._read()
        self._marked = self._before
        self._asked_at = -EVERY_SECONDS
        self._steering = 0
        self._steered = 0
        self._complaint = ""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def steering(self) -> Iterator[None]:
        """Context around the agent's own work on replication."""
        with self._lock:
            self._steering += 1
            self._steered += 1
            self._take_back()
        try:
            yield
        finally:
            with self._lock:
                self._steering -= 1
                self._asked_at = self._clock.monotonic() - EVERY_SECONDS + AFTER_COMMAND_SECONDS

    def moved(self, run: str) -> bool:
        """At the first look of this agent: whether its predecessor had observed another receiver in this run."""
        if self._before is None:
            return False
        # a receiver that ended with an error dropped nothing: an operator who resets it also clears the error
        watched, thread, term = self._before
        other_now = watched != run or term != self._term.promised
        if other_now or self._thread() in (thread, RECEIVER_FAILED):
            self._before = None
        return self._before is not None

    def note(self, run: str) -> None:
        """To be called with each look at a voter."""
        now = self._clock.monotonic()
        if now < self._asked_at + EVERY_SECONDS:
            return
        steered = self._steered
        found = (run, self._thread(), self._term.promised)
        if found[1] == RECEIVER_CONNECTING:
            return
        with self._lock:
            if not self._steering and steered == self._steered:
                self._asked_at = now
                self._write(found)

    def drop(self) -> None:
        """The member votes no more."""
        with self._lock:
            self._take_back()

    def _take_back(self) -> None:
        if self._marked is not None and self._marked[2] == self._term.promised:
            self._write(None)

    def _thread(self) -> int:
        return self._server.receiver_thread(Deadline(LOOK_SECONDS, clock=self._clock))

    def _write(self, found: tuple[str, int, int] | None) -> None:
        if found == self._marked:
            return
        part = self._path.with_name(".receiver.part")
        try:
            part.write_text(json.dumps(found) + "\n")
            part.replace(self._path)
        except OSError as error:
            self._complain(f"cannot write {self._path}: {error.strerror}")
            with contextlib.suppress(OSError):  # a full disk still removes a file
                self._path.unlink(missing_ok=True)
            found = None  # so it is tried again
        else:
            self._complaint = ""
        self._marked = found

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            say(logger, text, logging.WARNING)
        self._complaint = text

    def _read(self) -> tuple[str, int, int] | None:
        try:
            found = json.loads(self._path.read_text())
            return None if found is None else (str(found[0]), int(found[1]), int(found[2]))
        except (OSError, ValueError, TypeError, LookupError):
            return None
