"""Writes and logs for threads that must wait neither for a disk nor for the reader of the log."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from holdfast.log import say

logger = logging.getLogger(__name__)


class BackgroundWriter:
    """Runs the functions that it is given in their order, in a separate thread. Giving one never blocks."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="background writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Run what is left, for so long at most."""
        self._work.put(None)
        self._thread.join(seconds)

    def do(self, work: Callable[[], object]) -> None:
        self._work.put(work)

    def say(self, source: logging.Logger, message: str, level: int = logging.INFO) -> None:
        self.do(lambda: say(source, message, level))

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:  # whatever error one function raised, the next one is run
                logger.exception("work in the background failed")
