"""The times of detection and lease, and how they must fit together. All their arithmetic is in this module.

A primary that is lost without a message, at moment 0:

    <= heartbeat               its last answer reached the manager
    detection                  manager and replicas have heard nothing for so long: the failover begins
    detection + a moment       promises are given
    lease, and a little more   the last lease is certainly over (:func:`surely_over`); the new primary opens

So the outage is the larger of detection and lease, plus the promotion. A lease must outlast several heartbeats, or one
late answer would make the primary lose its role; and the agent must have time to ask its peers before the lease ends.
"""

from __future__ import annotations

from dataclasses import dataclass

CLOCK_DRIFT = 0.01
"""How much the speed of two monotonic clocks may differ."""
FENCE_SECONDS = 0.05
"""Seconds after the end of a lease within which the agent has killed its server."""
HEARTBEATS_PER_LEASE = 3
HEARTBEATS_PER_DETECTION = 2
ASK_PEERS_AT = 0.5
"""The share of a lease that is left when the agent begins to ask its peers because no manager has renewed it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in seconds.

    :ivar heartbeat: interval at which an agent answers, and a source sends something to its replicas, even if nothing
        changed
    :ivar lease: for how long a primary may answer clients after its last sign of life
    :ivar detection: a member that has been silent for so long counts as gone
    """

    heartbeat: float = 0.25
    lease: float = 1.2
    detection: float = 1.0


def contradictions(timing: Timing) -> list[tuple[str, str]]:
    """The values that do not fit together: the key, and why."""
    heartbeat, lease, detection = timing.heartbeat, timing.lease, timing.detection
    found = []
    least = HEARTBEATS_PER_LEASE * heartbeat
    if lease < least:
        found.append(
            (
                "lease",
                f"{lease:g} s is less than {HEARTBEATS_PER_LEASE} heartbeats of {heartbeat:g} s: one late "
                f"answer would cost the primary its place; set it to {least:g}s at least",
            )
        )
    least = HEARTBEATS_PER_DETECTION * heartbeat
    if detection < least:
        found.append(
            (
                "detection",
                f"{detection:g} s is less than {HEARTBEATS_PER_DETECTION} heartbeats of {heartbeat:g} s: one late "
                f"answer would look like a dead member; set it to {least:g}s at least",
            )
        )
    return found


def surely_over(answered: float, lease: float) -> float:
    """The moment by the manager's clock at which a lease is over.

    :param answered: when the answer came on which the grant was based: the agent's clock was read before that
    """
    return answered + lease * (1 + CLOCK_DRIFT) + FENCE_SECONDS


def relied_on(seconds: float) -> float:
    """How long, by a voter's clock, a server may answer for which the voter vouched for ``seconds`` by its agent's
    clock."""
    return seconds * (1 + CLOCK_DRIFT) + FENCE_SECONDS
