"""The present run of the server: the agent notices when it appears, and at once when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections.abc import Callable
from typing import TypeVar

from holdfast.agent.observe.starts import Failure
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.observed.logins import Logins
from holdfast.core.view import (
    NOT_LOOKED_YET,
    LookFailure,
    Replication,
    SemiSync,
    ServerStatus,
    Tail,
)
from holdfast.errors import DeadlinePassed, Refused
from holdfast.log import say
from holdfast.server.process.process import ProcessEnding, Running, ServerProcess

ENDING_EVERY_SECONDS = 0.05
DYING_SECONDS = 0.1
"""A killed server usually ends within this time; then the agent checks whether it hangs."""
DYING_EVERY_SECONDS = 0.02
TAKEN_DOWN_SECONDS = 3.0
"""How long the end of a dying process is awaited before another one is started."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ServerRun:
    """Holds the present run of the server and publishes its start and end.

    :ivar on_appeared: called after a run was published as STARTING
    :ivar on_clean_end: called when the server is known to have shut down by itself, and in order
    :ivar on_end: called the moment a run is known to have ended, before that is published
    :ivar on_failed: called when a run has ended that this agent did not end, before that is published
    :ivar before_start: called before each start; raises Refused where the server must not be started
    """

    def __init__(
        self, process: ServerProcess, published: PublishedState, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.process = process
        self.on_appeared: Callable[[], None] = lambda: None
        self.on_clean_end: list[Callable[[], None]] = []
        self.on_end: Callable[[], None] = lambda: None
        self.on_failed: Callable[[Failure], None] = lambda failure: None
        self.before_start: list[Callable[[], None]] = []
        self._published = published
        self._clock = published.clock
        self._loop = loop
        self._lock = threading.RLock()
        self._running: Running | None = None
        self._started: Running | None = None
        self._dying: Running | None = None
        self._attended: Running | None = None
        self._since = 0.0
        self._came_up = False
        self._killed_because = ""

    def current(self) -> Running | None:
        """The present run; None when there is none, also when the agent has not yet processed its end."""
        running = self._running
        if running is not None and not running.alive:
            self._ended(running)
            return None
        return running

    def look(self) -> Running | None:
        """The present run, searched for among all processes when none is known. A dying one does not count."""
        with self._lock:
            running = self.current()
            if running is None and not self._hanging():
                running = self.process.find()
                if running is not None:
                    say(logger, "found the server running", pid=running.pid)
                    self._appeared(running, LookFailure.NOT_YET)
            return running

    def started(self, running: Running) -> bool:
        """Whether this agent itself started the run, so everything that was ever ordered of it is known."""
        return self._started is running

    def start(self) -> Running:
        """:raises Refused: when the server is running already, or cannot be started"""
        self.refuse_while_dying()
        for each in self.before_start:
            each()
        with self._lock:
            if self.current() is not None:
                raise Refused("the server is running already")
            running = self._started = self.process.start()
            self._appeared(running)
            return running

    def alone(self, run: Callable[[], T]) -> T:
        """Run the server's program for another purpose than to serve. Meanwhile the agent neither starts nor looks for
        it.

        :raises Refused: the server is running
        """
        with self._lock, self.process.held():
            if self.look() is not None:
                raise Refused("the server is running")
            return run()

    def refuse_while_dying(self) -> None:
        """Wait for a moment until a former run is gone: the kernel takes a second to take down a large server.

        :raises Refused: it still holds the data, and the kernel may write what it has begun to write
        """
        dying = self._hanging()
        if dying is not None and not dying.wait(TAKEN_DOWN_SECONDS):
            raise Refused(
                f"the server was killed and cannot end (pid {dying.pid}): it waits for a disk that does not "
                "answer, and holds its data: fix the disk, or restart the host"
            )
        if dying is not None:
            self._ended(dying)

    def kill(self, because: str) -> None:
        """Try to SIGKILL the present run; does not wait, and raises nothing."""
        running = self._running
        if running is not None:
            self._killed_because = because
            with contextlib.suppress(OSError):
                running.kill()
            self._attend_in_background(running)

    def fence(self, because: str, seconds: float) -> None:
        """Kill every process that runs with this agent's option file; DOWN or DYING is published when this returns.

        :raises DeadlinePassed: it lives
        """
        running = self.look()
        if running is not None:
            self._killed_because = because
            running.kill()
            if not self._attend(running, seconds):
                raise DeadlinePassed(f"killing the server (pid {running.pid})", seconds)

    def kill_and_wait(self, because: str, seconds: float) -> None:
        """Kill every process that runs with this agent's option file; DOWN is published when this returns.

        :raises DeadlinePassed: it is not gone, and may still write what it had begun to
        """
        running = self.look() or self._hanging()
        if running is not None:
            self._killed_because = because
            running.kill_and_wait(seconds)
            self._ended(running)

    def see_dying(self) -> bool:
        """Check whether the present run is dying, whatever killed it."""
        running = self._running
        if running is None or not running.dying:
            return False
        self._hangs(running)
        return True

    def end_in_order(self, because: str, seconds: float, meanwhile: Callable[[], None]) -> None:
        """Send SIGTERM; DOWN is published when this returns.

        :param meanwhile: called again and again until the server has ended
        :raises DeadlinePassed: it has not ended yet, and is still shutting down
        """
        running = self.current()
        if running is not None:
            self._killed_because = because
            running.terminate()
            end = self._clock.monotonic() + seconds
            while not running.wait(ENDING_EVERY_SECONDS):
                meanwhile()
                if self._clock.monotonic() < end:
                    continue
                raise DeadlinePassed(f"shutting the server (pid {running.pid}) down", seconds)
            self._ended(running)

    def _appeared(self, running: Running, failure: LookFailure = LookFailure.OTHER) -> None:
        self._running = running
        self._since = self._clock.monotonic()
        self._came_up = False
        self._killed_because = ""
        self._published.change(
            server=ServerStatus.STARTING,
            incarnation=running.incarnation,
            promised=0,
            proved=0,
            judged="",
            harmless="",
            frozen=0,
            stopped=0,
            tail=Tail(),
            kept=None,
            reason="",
            unobserved=NOT_LOOKED_YET if failure is LookFailure.NOT_YET else "",
            look_failure=failure,
            unobserved_seconds=0.0,
        )
        self._loop.call_soon_threadsafe(self._arm, running)
        self.on_appeared()

    def _arm(self, running: Running) -> None:
        # the reader keeps a reference, so the pidfd stays open as long as it is watched
        self._loop.add_reader(running.fd, self._readable, running)

    def _readable(self, running: Running) -> None:
        self._loop.remove_reader(running.fd)
        self._ended(running)

    def _attend_in_background(self, running: Running) -> None:
        if self._attended is running:
            return
        self._attended = running
        with contextlib.suppress(
            RuntimeError
        ):  # no more threads: the pidfd still shows when it is gone
            threading.Thread(
                target=self._attend, args=(running,), name="dying", daemon=True
            ).start()

    def _attend(self, running: Running, seconds: float = math.inf) -> bool:
        """Wait until a killed run is gone, or dying, and publish that."""
        end = self._clock.monotonic() + seconds
        pause = min(DYING_SECONDS, seconds)
        while not running.wait(pause):
            if running.dying:
                self._hangs(running)
                return True
            if self._clock.monotonic() >= end:
                return False
            pause = DYING_EVERY_SECONDS
        self._ended(running)
        return True

    def _hanging(self) -> Running | None:
        """The run that is dying, until it is gone."""
        dying = self._dying
        if dying is not None and not dying.alive:
            self._ended(dying)
            return None
        return dying

    def _hangs(self, running: Running) -> None:
        with self._lock:
            if self._running is not running:
                return
            self._running, self._dying = None, running
            self._came_up |= self._published.state.server is ServerStatus.UP
            reason = self._killed_because or "the server is ending"
            reason += (
                "; the kernel has not taken it down yet: where that lasts, its disk does not answer"
            )
            self._gone(ServerStatus.DYING, reason)
        say(logger, reason, logging.WARNING, pid=running.pid)

    def _ended(self, running: Running) -> None:
        with self._lock:
            if running not in (self._running, self._dying):
                return
            self._running = self._dying = None
            self.on_end()
            ending = running.ending()
            lived = self._clock.monotonic() - self._since
            self._came_up |= self._published.state.server is ServerStatus.UP
            said = ""
            if not self._killed_because:
                said = self._said(ending) if lived < 60 or not self._came_up else ""
                errors = self.process.errors() if not self._came_up else ()
                self.on_failed(
                    Failure(self._came_up, lived, ending.status, str(ending), said, errors)
                )
            reason = self._why(ending, said)
            self._gone(ServerStatus.DOWN, reason)
        say(logger, reason, logging.WARNING, pid=running.pid)
        if ending.clean:
            for each in self.on_clean_end:
                each()

    def _gone(self, status: ServerStatus, reason: str) -> None:
        state = self._published.state
        self._published.change(
            server=status,
            last_applied=state.applied or state.last_applied,
            incarnation="",
            writable=False,
            # what it had received may be gone when it comes back: never offered as a position
            received="",
            applied="",
            proved=0,
            judged="",
            harmless="",
            frozen=0,
            stopped=0,
            replication=Replication(),
            semi_sync=SemiSync(),
            barred=(),
            replicators=None,
            logins=Logins(),
            dumps=(),
            silent_seconds=0.0,
            stuck_seconds=0.0,
            stuck="",
            locked_seconds=0.0,
            unobserved="",
            unobserved_seconds=0.0,
            reason=reason,
        )

    def _said(self, ending: ProcessEnding) -> str:
        """The error that explains the server's end. One that was killed has logged nothing about that."""
        if ending.clean:
            return ""
        killed = ending.status is None or ending.status < 0
        return self.process.last_words(errors_only=killed)

    def _why(self, ending: ProcessEnding, said: str) -> str:
        if self._killed_because:
            return self._killed_because
        return f"the server ended: {ending}" + (f"; it said: {said}" if said else "")
