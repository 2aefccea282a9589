"""The times of detection and lease, and how they must fit together. The arithmetic stands here alone.

A primary that is lost without a word, at moment 0:

    <= heartbeat               its last answer reached the manager
    detection                  manager and replicas have heard nothing for so long: the failover begins
    detection + a moment       promises are given
    lease, and a little more   the last lease is surely over (:func:`surely_over`); the new primary opens

So the outage is the larger of detection and lease, and the promotion on top. A lease must outlast a few heartbeats, or
one late answer costs the primary its place; and the agent must have time to ask its peers before it ends.
"""

from __future__ import annotations

from dataclasses import dataclass

CLOCK_DRIFT = 0.01
"""By how much two monotonic clocks may differ in speed."""
FENCE_SECONDS = 0.05
"""Within which an agent whose lease has ended has killed its server."""
HEARTBEATS_PER_LEASE = 3
HEARTBEATS_PER_DETECTION = 2
ASK_PEERS_AT = 0.5
"""The share of a lease that is left when the agent begins to ask its peers, as no manager has renewed it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds.

    :ivar heartbeat: within which an agent that has nothing new to say speaks all the same, and a source to its replicas
    :ivar lease: for how long a primary may answer clients after its last sign of life
    :ivar detection: a member of which nothing is heard for so long counts as gone
    """

    heartbeat: float = 0.25
    lease: float = 1.2
    detection: float = 1.0


def contradictions(timing: Timing) -> list[tuple[str, str]]:
    """What does not fit together: the key, and why."""
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
    """By the manager's clock, the moment at which a lease is over.

    :param answered: when the answer came that the grant was based on: its clock was read before
    """
    return answered + lease * (1 + CLOCK_DRIFT) + FENCE_SECONDS


def relied_on(seconds: float) -> float:
    """For how long, by a voter's clock, a server may answer that has its word for ``seconds`` by its agent's."""
    return seconds * (1 + CLOCK_DRIFT) + FENCE_SECONDS
