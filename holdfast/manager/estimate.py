"""How long a learner will need to catch up, from how fast it did lately."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 10.0
SHORTEST_SECONDS = 1.0


@dataclass(slots=True)
class Estimate:
    """One member's looks, oldest first: when (monotonic seconds), and bytes behind."""

    looks: deque[tuple[float, int]] = field(default_factory=deque)

    def look(self, now: float, bytes_behind: int) -> None:
        if self.looks and now - self.looks[-1][0] < SHORTEST_SECONDS / 4:
            return
        self.looks.append((now, bytes_behind))
        while now - self.looks[0][0] > WINDOW_SECONDS:
            self.looks.popleft()

    def seconds_left(self) -> float | None:
        """None when it cannot be told: too few looks, or it does not come nearer."""
        if not self.looks:
            return None
        (began, then), (now, left) = self.looks[0], self.looks[-1]
        if now - began < SHORTEST_SECONDS or left >= then:
            return None
        return left * (now - began) / (then - left)
