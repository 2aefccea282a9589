"""How long the parts of a command took."""

from __future__ import annotations

from enum import StrEnum

from holdfast.clock import Clock


class KnownStep(StrEnum):
    """Steps that timelines and benchmarks look for."""

    RECEIVER_STOPPED = "receiver stopped"
    OPENED = "opened"


class Steps:
    """Milliseconds of each part of the work, in order."""

    def __init__(self, clock: Clock) -> None:
        self.ms: dict[str, float] = {}
        self._clock = clock
        self._last = clock.monotonic()

    def done(self, what: str) -> None:
        now = self._clock.monotonic()
        self.ms[what] = round((now - self._last) * 1000, 2)
        self._last = now

    def __str__(self) -> str:
        return ", ".join(f"{what} {ms:g}" for what, ms in self.ms.items())
