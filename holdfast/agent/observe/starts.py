"""A server that does not come up is started again at growing intervals, and its own error is kept until it does.

It is started again at once the first time, then after 2, 4, 8 … seconds, in the end once a minute; and at once when
what it boots with has changed. The same holds for a server that comes up and crashes soon; not for one that is killed
when it is up, which says nothing about the next start. If it logs twice that its data files cannot be used it is unfit:
see ``core/check/unusable.py``.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.check.unusable import unusable
from holdfast.errors import HoldfastError, Refused
from holdfast.log import say

FIRST_PAUSE = 2.0
LONGEST_PAUSE = 60.0
SOON_SECONDS = 60.0
"""A server that crashes within this time after its start is started again at growing intervals."""
KILLED = frozenset({-signal.SIGKILL, -signal.SIGTERM})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that ended by itself.

    :ivar came_up: it had answered; :ivar lived: seconds; :ivar status: as in ``Ending``; :ivar how: in words
    :ivar said: the error that explains it, or ""; :ivar errors: all of them
    """

    came_up: bool
    lived: float
    status: int | None
    how: str
    said: str
    errors: tuple[str, ...]

    @property
    def counts(self) -> bool:
        """Whether the next start is likely to end in the same way."""
        if not self.came_up:
            return True
        crashed = self.status not in KILLED and self.status not in (None, 0)
        return crashed and self.lived < SOON_SECONDS


class Starts:
    """Decides when a server that failed is started again. Called with each end, and before each start.

    :param booted_with: returns a text that changes with everything that the server boots with
    :param unfit: called with why the data must be replaced
    """

    def __init__(
        self,
        published: PublishedState,
        booted_with: Callable[[], str],
        unfit: Callable[[str], None],
    ) -> None:
        self._published = published
        self._booted_with = booted_with
        self._unfit = unfit
        self._clock = published.clock
        self._lock = threading.Lock()
        self._times = 0
        self._due = 0.0
        self._with = ""
        self._unusable = ""

    def failed(self, failure: Failure) -> None:
        """A run has ended, and this agent did not end it."""
        if self._published.state.cloning:
            return  # a copy that does not start has another reason
        with self._lock:
            if not failure.counts:
                self._forget()
                return
            self._times += 1
            pause = min(FIRST_PAUSE * 2 ** (self._times - 2), LONGEST_PAUSE)
            resting = self._times > 1
            self._due = self._clock.monotonic() + (pause if resting else 0.0)
            self._with = self._booted_with() if resting else ""
            self._published.change(start_failed=_why(failure, resting), resting=resting)
            self._judge("" if failure.came_up else unusable(failure.errors))

    def before_start(self) -> None:
        """:raises Refused: it is too early"""
        self.look_again()
        state = self._published.state
        if state.resting and not state.cloning:
            raise Refused(state.start_failed)

    def look_again(self) -> None:
        """Called while the server is down: publish when the wait is over."""
        with self._lock:
            if self._published.state.resting and (
                self._clock.monotonic() >= self._due or self._booted_with() != self._with
            ):
                self._published.change(resting=False)

    def came_up(self) -> None:
        """The number of failures is kept until the end of this run."""
        if self._published.state.start_failed:
            self._published.change(start_failed="", resting=False)

    def at_once(self) -> None:
        """The cause of the failure may be gone, or the data was replaced."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._times, self._unusable = 0, ""
        if self._published.state.start_failed:
            self._published.change(start_failed="", resting=False)

    def _judge(self, wrong: str) -> None:
        before, self._unusable = self._unusable, wrong
        if not wrong or not before:
            return
        reason = f"its server cannot use its data files: {wrong}"
        say(logger, f"{reason}; it must be cloned", logging.ERROR)
        try:
            self._unfit(reason)
        except HoldfastError as error:  # the next failure tries again
            say(logger, str(error), logging.WARNING)


def _why(failure: Failure, resting: bool) -> str:
    said = failure.said or failure.how
    what = "crashes soon after its start" if failure.came_up else "does not start"
    if not resting:
        return f"its server {what}: {said}"
    again = "it is started again when its option files are changed, and else once a minute"
    return f"its server {what}: {said}; {again}"
