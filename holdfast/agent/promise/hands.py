"""Reports, for some minutes, what an operator changed on a server and its agent put back, and for how long it held."""

from __future__ import annotations

import logging
import threading
import time

from holdfast.agent.runtime.published_state import PublishedState
from holdfast.log import say

TOLD_SECONDS = 300.0

logger = logging.getLogger(__name__)


class Hands:
    """One setting that is checked with each look.

    :param what: names the setting among a member's concerns
    """

    def __init__(self, published: PublishedState, what: str) -> None:
        self._published = published
        self._what = what
        self._clock = published.clock
        self._lock = threading.Lock()
        self._run = ""
        self._well_at: float | None = None
        self._until: float | None = None

    def well(self) -> None:
        """A look found the setting as it should be."""
        with self._lock:
            self._run, self._well_at = self._published.state.incarnation, self._clock.monotonic()
            if self._until is not None and self._well_at >= self._until:
                self._until = None
                self._published.concern(self._what, "")

    def put_back(self, found: str) -> None:
        """The setting was otherwise, and is as it should be again.

        :param found: a sentence without its end
        """
        with self._lock:
            now = self._clock.monotonic()
            lasted = "for how long is not known"
            if self._well_at is not None and self._run == self._published.state.incarnation:
                lasted = f"that held for {now - self._well_at:.1f} s at most"
            at = time.strftime("%H:%M:%S UTC", time.gmtime(self._clock.now()))
            text = f"{found}; it was put back at {at}, {lasted}"
            self._until = now + TOLD_SECONDS
        say(logger, text, logging.ERROR)
        self._published.concern(self._what, text)
