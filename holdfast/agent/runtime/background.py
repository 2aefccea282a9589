"""Writes and speaks for threads that must wait neither for a disk nor for whoever reads the log."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from holdfast.log import say

logger = logging.getLogger(__name__)


class BackgroundWriter:
    """Does what it is given in the order of its coming, in a thread of its own. Giving never blocks."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="background writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Do what there is, for so long at most."""
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
            except Exception:  # whatever one piece of work ran into, the next one is done
                logger.exception("work in the background failed")
