"""Tests whether a primary that answers can commit: its disk may be full, read-only, or not answer.

Nothing is written while commits succeed, nor while no client wants to write: an idle server need not prove that it
works, and the first client that waits is noticed. So when nothing was committed for a moment, the agent checks whether
a session is at work or has tried to write; if so, it writes a row, one at a time. A write that does not return is left
alone: it waits for what all commits wait for.

Commits that wait for voters say nothing about the disk, and neither does a write that waits for a session's lock (a
backup's FLUSH TABLES WITH READ LOCK): no primary is replaced for that, but status says that writes wait. Where
no space is left (``room.py``) no row is written: writes are taken as blocked, unless commits succeed.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Protocol

from holdfast.agent.runtime.published_state import PublishedState
from holdfast.clock import Clock
from holdfast.core.commands import Clone, Equip, Fence, Freeze, Promote, Restart, Rewind, name_of
from holdfast.core.observed.progress import Position
from holdfast.core.view import MemberState, SemiSync
from holdfast.errors import HoldfastError, Unreachable
from holdfast.log import say
from holdfast.server.base import Deadline
from holdfast.server.primary.probe import Activity, DiskFailed, WriteLocked

EVERY_SECONDS = 0.25
QUIET_SECONDS = 0.5
"""After so long without a commit the agent checks whether a client wants to write, and then as often."""
PAUSES = (1.0, 30.0)
"""Between two successful writes: the first pause, and the limit of its doubling."""
AGAIN_SECONDS = 0.5
"""Pause after a write that failed."""
TELL_SECONDS = (1.0, 0.5)
"""The silence from which blocked writes are reported, and the steps in which it is."""
LOCK_SECONDS = 1.5
"""A write that has found a lock before waits for nothing else within this time."""
LOOK_SECONDS = 0.5
WRITE_SECONDS = 86400.0
OTHERWISE_ENGAGED = frozenset(
    name_of(kind) for kind in (Promote, Restart, Rewind, Clone, Fence, Equip, Freeze)
)
"""Commands during which nothing is written."""

logger = logging.getLogger(__name__)


class Probing(Protocol):
    """See ``server/primary/probe.py``."""

    def activity(self, deadline: Deadline) -> Activity: ...

    def write(self, deadline: Deadline) -> bool: ...

    def close(self) -> None: ...


class Prober:
    """Publishes for how long no write has succeeded.

    :param folder: of the binlog
    """

    def __init__(
        self,
        probe: Probing,
        published: PublishedState,
        folder: Path,
    ) -> None:
        self._probe = probe
        self._published = published
        self._folder = folder
        self._clock = published.clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._write: _Write | None = None
        self._run_of = ""
        self._progress: tuple[str, Position] | None = None
        self._since = self._moved_at = self._own_until = self._probe_at = self._look_at = 0.0
        self._pause = PAUSES[0]
        self._failed = ""
        self._locked_at = 0.0
        self._unblocked_at = 0.0
        self._before: Activity | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End; a write that hangs in the server is left there."""
        self._stopped.set()
        self._thread.join(seconds)
        if self._write is not None:
            self._write.void()
        self._probe.close()

    def step(self) -> None:
        """Check once."""
        state, now = self._published.state, self._clock.monotonic()
        if not _is_open(state):
            self._begin("")
            if state.stuck_seconds or state.locked_seconds:
                self._published.change(stuck_seconds=0.0, stuck="", locked_seconds=0.0)
            return
        if state.incarnation != self._run_of:
            self._begin(state.incarnation)
        self._settle(now)
        moved = (state.applied, state.written) != self._progress
        self._note_blocked(now, moved, state.semi_sync)
        self._progress = (state.applied, state.written)
        if moved:
            self._moved_at, self._locked_at = now, 0.0
            if now > self._own_until:
                self._pause = PAUSES[0]
        if moved or (state.semi_sync.waiting and not state.full):
            self._since = now
        self._publish(now)
        if self._write is None and self._is_due(now, state):
            self._since = self._since if self._failed else now
            self._write = _Write(self._probe, self._folder, self._clock)
            self._begun_at = now

    def _note_blocked(self, now: float, moved: bool, waits: SemiSync) -> None:
        """MariaDB's binlog contains the first commits that wait, so it grows once more when they begin to."""
        lacking = waits.source and waits.clients < waits.acks and not waits.degraded
        if moved or not (waits.waiting or lacking):
            self._unblocked_at = now
        self._published.blocked_seconds = now - self._unblocked_at

    def _begin(self, incarnation: str) -> None:
        """Forget all that is known. A write that hangs in a former run of the server ends with that run."""
        if self._write is not None:
            self._write.void()
            self._write = None
        self._run_of = incarnation
        self._unblocked_at = self._clock.monotonic()
        self._published.blocked_seconds = 0.0
        self._progress = None
        self._since = self._moved_at = self._own_until = self._probe_at = self._look_at = 0.0
        self._pause = PAUSES[0]
        self._failed = ""
        self._locked_at = self._begun_at = 0.0
        self._before = None

    def _settle(self, now: float) -> None:
        """Evaluate a write that has ended."""
        write = self._write
        if write is None or not write.ended:
            return
        self._write = None
        if write.failed and not self._failed:
            say(logger, f"a small write failed: {write.failed}", logging.WARNING)
        self._failed = write.failed
        self._locked_at = (self._locked_at or self._begun_at) if write.locked else 0.0
        if write.failed or write.locked:
            self._probe_at = now + AGAIN_SECONDS
        else:
            self._probe_at = now + self._pause
            self._pause = min(2 * self._pause, PAUSES[1])
            self._own_until = now + 2 * EVERY_SECONDS + LOOK_SECONDS

    def _is_due(self, now: float, state: MemberState) -> bool:
        if now < self._probe_at or state.semi_sync.waiting or state.silent_seconds or state.full:
            return False
        if self._failed or self._locked_at:
            return True
        if now - self._moved_at < QUIET_SECONDS or now < self._look_at:
            return False
        self._look_at = now + QUIET_SECONDS
        try:
            deadline = Deadline(LOOK_SECONDS, clock=self._clock)
            before, self._before = self._before, self._probe.activity(deadline)
        except DiskFailed as error:  # a look needs room, too
            say(logger, f"looking whether anybody writes: {error}", logging.WARNING)
            return True
        return before is not None and (
            self._before.attempts != before.attempts or bool(self._before.at_work & before.at_work)
        )

    def _publish(self, now: float) -> None:
        write, before = self._write, self._published.state
        waits_for_lock = self._locked_at and now < self._begun_at + LOCK_SECONDS
        held_up = (write is not None and not waits_for_lock) or self._failed or before.full
        stuck = now - self._since if held_up else 0.0
        least, step = TELL_SECONDS
        told = stuck // step * step if stuck >= least else 0.0
        cause = (before.full or self._failed or (write.cause if write else "")) if told else ""
        locked = (now - self._locked_at) // step * step if self._locked_at else 0.0
        if locked != before.locked_seconds:
            if not before.locked_seconds:
                say(logger, "writes wait for a lock that a session holds", logging.WARNING)
            elif not locked:
                say(logger, "writes wait for no lock any more")
            self._published.change(during=self._run_of, locked_seconds=locked)
        if (before.stuck_seconds, before.stuck) == (told, cause):
            return
        if not before.stuck_seconds:
            say(logger, "no write comes through", logging.WARNING, cause=cause)
        elif not told:
            say(logger, "writes come through again")
        self._published.change(during=self._run_of, stuck_seconds=told, stuck=cause)

    def _run(self) -> None:
        complaint = ""
        while not self._clock.wait(self._stopped, EVERY_SECONDS):
            try:
                self.step()
                complaint = ""
            except Unreachable:
                continue  # the observer reports that the server does not answer
            except HoldfastError as error:
                if str(error) != complaint:
                    say(logger, f"looking whether writes come through: {error}", logging.WARNING)
                complaint = str(error)
            except Exception:  # the loop must not end: without it writes are not tested
                logger.exception("looking whether writes come through failed")


class _Write:
    """One write, in a separate thread.

    :ivar cause: what may hold it up, as far as the file system shows; :ivar failed: why it failed, or \"\"
    :ivar locked: it waited in vain for a lock
    """

    def __init__(self, probe: Probing, folder: Path, clock: Clock) -> None:
        self.cause = "the disk may not answer"
        self.failed = ""
        self.locked = False
        self._probe = probe
        self._folder = folder
        self._void = False
        self._clock = clock
        self._thread = threading.Thread(target=self._do, name="small write", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def void(self) -> None:
        self._void = True

    def _do(self) -> None:
        try:
            self.cause = _trouble(self._folder) or self.cause
            self._probe.write(Deadline(WRITE_SECONDS, lambda: self._void, self._clock))
        except DiskFailed as error:
            self.failed = str(error)
        except WriteLocked:
            self.locked = True
        except HoldfastError as error:  # it says nothing about the disk
            if not self._void:
                say(logger, f"a small write: {error}", logging.WARNING)
        except OSError as error:
            self.cause = self.failed = str(error)


def _is_open(state: MemberState) -> bool:
    return (
        state.up
        and state.writable
        and not state.replication.source
        and state.busy not in OTHERWISE_ENGAGED
    )


def _trouble(folder: Path) -> str:
    """What is wrong with a file system; it may not answer either."""
    found = os.statvfs(folder)
    if found.f_flag & os.ST_RDONLY:
        return f"the file system of {folder} is read-only"
    if not found.f_bavail:
        return f"no space is left in {folder}"
    return ""
