"""How long a learner will need to catch up, estimated from its recent speed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from holdfast.core.answers.stages import Stage, standing
from holdfast.core.cluster import Cluster
from holdfast.core.record import Record
from holdfast.core.view import View

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
        """None when it cannot be estimated: too few looks, or the member does not get closer."""
        if not self.looks:
            return None
        (began, then), (now, left) = self.looks[0], self.looks[-1]
        if now - began < SHORTEST_SECONDS or left >= then:
            return None
        return left * (now - began) / (then - left)


class Estimates:
    """The estimates for all members of a cluster that are catching up."""

    def __init__(self) -> None:
        self._of: dict[str, Estimate] = {}

    def look(
        self, cluster: Cluster, record: Record | None, view: View, members: Iterable[str]
    ) -> dict[str, float]:
        """Seconds until each learner has caught up, where that can be estimated."""
        found = {}
        for name in members:
            stands = standing(cluster, record, view, name) if record else None
            if stands is None or not stands.bytes_behind or stands.stage is Stage.VOTER:
                self._of.pop(name, None)
                continue
            estimate = self._of.setdefault(name, Estimate())
            estimate.look(view.now, stands.bytes_behind)
            if (left := estimate.seconds_left()) is not None:
                found[name] = round(left, 1)
        return found
