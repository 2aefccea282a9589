"""Work that takes longer than a command may: one job at a time, in a separate thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.observed.progress import Progress
from holdfast.errors import CalledOff, HoldfastError, Refused
from holdfast.log import say
from holdfast.server.base import Deadline

PUBLISH_SECONDS = 0.5
"""How often progress is published."""
RATE_SECONDS = 5.0
"""The time over which the rate is averaged."""

logger = logging.getLogger(__name__)


class Job:
    """One job, as the work itself uses it.

    :ivar what: text for an operator, such as "cloning from m2"; may change while the job runs
    :ivar called_off: who cancelled it, or \"\"
    :ivar clock: the agent's
    """

    def __init__(self, what: str, published: PublishedState) -> None:
        self.what = what
        self._published = published
        self.clock = published.clock
        self.called_off = ""
        self._called = threading.Event()
        self._published_at = 0.0
        self._marks: list[tuple[float, int]] = []

    def cancel(self, because: str) -> None:
        self.called_off = f"called off by {because}"
        self._called.set()

    @property
    def cancelled(self) -> bool:
        return self._called.is_set()

    def check(self) -> None:
        """:raises CalledOff:"""
        if self.cancelled:
            raise CalledOff(f"{self.what}: {self.called_off}")

    def pause(self, seconds: float) -> None:
        """Wait, unless the job is cancelled. :raises CalledOff:"""
        self.clock.wait(self._called, seconds)
        self.check()

    def deadline(self, seconds: float) -> Deadline:
        """A deadline that also ends when the job is cancelled."""
        return Deadline(seconds, lambda: self.cancelled, self.clock)

    def stage(self, what: str) -> None:
        """Another part of the work begins, with a count of its own."""
        self.what = what
        self._marks.clear()
        self._published_at = 0.0
        self.progress(0, 0)

    def progress(self, done: int, total: int = 0) -> None:
        """Report how many bytes are done; published at most twice a second. :raises CalledOff:"""
        self.check()
        now = self.clock.monotonic()
        if self._published_at and now - self._published_at < PUBLISH_SECONDS:
            return
        self._published_at = now
        self._marks = [mark for mark in self._marks if now - mark[0] <= RATE_SECONDS]
        self._marks.append((now, done))
        began, first = self._marks[0]
        rate = (done - first) / (now - began) if now > began else 0.0
        self._published.change(progress=Progress(self.what, done, total, round(rate)))


class Jobs:
    """The agent's background work: at most one job.

    The error of a failed job is logged, and stays the member's reason until the next job begins
    (``PublishedState.lasting``).
    """

    def __init__(self, published: PublishedState) -> None:
        self._published = published
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def running(self) -> str:
        """What is under way, or ""."""
        job = self._job
        return job.what if job else ""

    def start(self, what: str, work: Callable[[Job], None]) -> Job:
        """Begin ``work`` in a separate thread.

        :raises Refused: when another job is running, or the agent ends
        """
        with self._lock:
            if self._stopped:
                raise Refused("the agent is stopping")
            if self._job is not None:
                raise Refused(
                    f"{self._published.state.name} is busy: {self._job.what}; wait for its end"
                )
            job = self._job = Job(what, self._published)
            over = {"reason": ""} if self._published.state.reason == self._published.lasting else {}
            self._published.lasting = ""
            self._published.change(progress=Progress(what), **over)
            self._thread = threading.Thread(
                target=self._run, args=(job, work), name=what, daemon=True
            )
            self._thread.start()
            return job

    def cancel(self, because: str) -> None:
        """Cancel what is under way, if anything; does not wait."""
        job = self._job
        if job is not None:
            job.cancel(because)

    def wait(self, seconds: float) -> bool:
        """Wait for at most ``seconds``; returns whether no job is under way any more."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)
        return self._job is None

    def stop(self) -> None:
        """Cancel what is under way, and begin nothing more; does not wait."""
        with self._lock:
            self._stopped = True
        self.cancel("the end of the agent")

    def _run(self, job: Job, work: Callable[[Job], None]) -> None:
        begun = job.clock.monotonic()
        what, failed = job.what, ""
        try:
            work(job)
        except HoldfastError as error:
            failed = str(error)
            say(logger, f"{what}: {failed}", logging.WARNING)
        except OSError as error:
            failed = f"{job.what}: {error}"
            say(logger, failed, logging.WARNING)
        except Exception as error:  # the thread's end must be published, whatever error it raised
            failed = f"{job.what} failed: {error!r}"
            logger.exception("%s failed unexpectedly", job.what)
        else:
            say(logger, f"{what}: done in {job.clock.monotonic() - begun:.1f} s")
        with self._lock:
            self._job = None
            if failed:
                self._published.lasting = failed
                self._published.change(progress=None, reason=failed)
            else:
                self._published.change(progress=None)
