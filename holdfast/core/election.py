"""Who takes over: the one that has received everything that any of the recovery quorum has received."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.core.view import MemberState

SOON_APPLIED = 2000
"""Transactions that a learner may have left to apply when it is preferred to the voters."""


@dataclass(frozen=True, slots=True)
class Elected:
    """:ivar drained: it has applied all that it received, and may be named"""

    state: MemberState
    drained: bool


@dataclass(frozen=True, slots=True)
class NobodyElected:
    """:ivar reason: one sentence that says who stands against whom, and what to do"""

    reason: str


def elect(quorum: Sequence[MemberState]) -> Elected | NobodyElected:
    """Choose among ``quorum``, whose order decides between equals.

    Before anybody is named it has applied what it received; only then are MariaDB's sets exact (see
    ``GtidSet.covers``), and a history that another of the quorum has and it lacks shows.
    """
    foremost = [
        state
        for state in quorum
        if all(state.received_set().covers(other.received_set()) for other in quorum)
    ]
    if not foremost:
        return NobodyElected(_diverged(quorum))
    able = [state for state in foremost if drained(state) or state.replication.applier]
    if not able:
        names = ", ".join(state.name for state in foremost)
        error = foremost[0].replication.error or "it is stopped"
        return NobodyElected(
            f"{names} received everything but cannot apply it ({error}); mend the applier"
        )
    chosen = min(able, key=lambda state: not drained(state))
    if not drained(chosen):
        return Elected(chosen, drained=False)
    for other in quorum:
        missing = other.received_set().subtract(chosen.applied_set())
        if missing:
            return NobodyElected(
                f"{other.name} has {missing} which {chosen.name} lacks although it has come as far: "
                "their histories have diverged; decide which to keep and clone the other"
            )
    return Elected(chosen, drained=True)


def prefer_learner(
    elected: Elected, learners: Sequence[MemberState], quorum: Sequence[MemberState]
) -> Elected:
    """A learner that received more than the whole quorum goes first, if it can apply it soon.

    Whoever has everything that the quorum has may be named. Passed over, the learner would keep transactions that
    nobody else has, and stay out.
    """
    for learner in learners:
        further = learner.received_set()
        if not further.covers(elected.state.received_set()):
            continue
        if elected.state.received_set().covers(further):
            continue
        if not drained(learner):
            left = further.subtract(learner.applied_set()).count()
            if learner.replication.applier and left <= SOON_APPLIED:
                return Elected(learner, drained=False)
            continue
        if all(learner.applied_set().contains(state.received_set()) for state in quorum):
            return Elected(learner, drained=True)
    return elected


def drained(state: MemberState) -> bool:
    """Whether all that was received is applied."""
    return state.applied_set().contains(state.received_set())


def _diverged(quorum: Sequence[MemberState]) -> str:
    for one in quorum:
        for other in quorum:
            mine, theirs = one.received_set(), other.received_set()
            if not mine.covers(theirs) and not theirs.covers(mine):
                return (
                    f"{one.name} ({mine.last()}) and {other.name} ({theirs.last()}) have diverged: "
                    "each received what the other lacks; decide which to keep and clone the other"
                )
    return "nobody has received everything that the others have"
