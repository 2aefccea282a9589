"""Which member takes over: one that has received everything that any member of the recovery quorum has received."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.core.cluster import Cluster
from holdfast.core.observed.applying import REMOVED
from holdfast.core.view import MemberState
from holdfast.core.wording import joined, lasting, of_member

SOON_APPLIED = 2000
"""Transactions that a learner may have left to apply when it is preferred to the voters."""

SOON_FETCHED = 2000
"""Transactions that a member of higher priority may lack when it is preferred to a member that lacks none."""

HELD_UP_SECONDS = 1.0
"""An applier that has finished nothing for so long may stay blocked: by a lock or a long transaction."""

WISHED = 1_000_000
"""A priority above all that can be set: an operator wants this member and no other."""


@dataclass(frozen=True, slots=True)
class Elected:
    """:ivar drained: the member has applied all that it received, and may be named
    :ivar fetch_from: the member from which it must first fetch what it lacks, or ""
    """

    state: MemberState
    drained: bool
    fetch_from: str = ""


@dataclass(frozen=True, slots=True)
class NobodyElected:
    """:ivar reason: one sentence that names the members, says what stands against each, and what to do"""

    reason: str


def elect(
    quorum: Sequence[MemberState], cluster: Cluster, learners: Sequence[MemberState] = ()
) -> Elected | NobodyElected:
    """Choose a member of ``quorum``: by priority, then the one that is ready first.

    If no member of the quorum may be primary, ``learners``, which promised too, may fetch from one what they lack.

    A member is named only after it has applied what it received; only then are MariaDB's sets exact (see
    ``GtidSet.covers``), and only then does a history show that another member of the quorum has and it lacks.
    """
    foremost = [
        state
        for state in quorum
        if all(state.received_set().covers(other.received_set()) for other in quorum)
    ]
    if not foremost:
        return NobodyElected(_diverged(quorum))
    able = [
        state
        for state in foremost
        if (drained(state) or state.replication.applier) and not state.applying.removed
    ]
    if not able:
        names = ", ".join(state.name for state in foremost)
        if foremost[0].applying.removed:
            return NobodyElected(f"{names} received everything but cannot take over: {REMOVED}")
        error = foremost[0].replication.error or "it is stopped"
        return NobodyElected(
            f"{names} received everything but cannot apply it ({error}); fix the applier"
        )
    front = min(able, key=lambda state: not drained(state))
    chosen = _preferred(quorum, able, cluster) or _preferred(
        [s for s in learners if _goes_on_from(front, s)], able, cluster
    )
    if chosen is None:
        reasons = (
            of_member(state.name, against(state, cluster) or "it cannot fetch what it lacks")
            for state in quorum
        )
        return NobodyElected(joined("; ", reasons))
    if chosen not in able and not drained(front):
        return Elected(front, drained=False)  # only what is applied can be fetched from it
    first = chosen if chosen in able else front
    if not drained(first):
        return Elected(first, drained=False)
    for other in quorum:
        missing = other.received_set().subtract(first.applied_set())
        if missing:
            return NobodyElected(
                f"{other.name} has {missing} which {first.name} lacks although it has come as far: "
                "their histories have diverged; decide which to keep and clone the other"
            )
    if chosen is first or chosen.applied_set().contains(first.applied_set()):
        return Elected(chosen, drained=drained(chosen))
    if chosen.received_set().contains(first.applied_set()):
        return Elected(chosen, drained=False)
    return Elected(chosen, drained=False, fetch_from=first.name)


def _goes_on_from(front: MemberState, learner: MemberState) -> bool:
    """Whether the learner can fetch from ``front`` what it lacks. On MariaDB only ``contains`` shows that histories
    have diverged, and only once everything that was received is applied (``GtidSet.covers``)."""
    if not front.received_set().covers(learner.received_set()):
        return False
    return not drained(front) or front.applied_set().contains(learner.applied_set())


def against(state: MemberState, cluster: Cluster) -> str:
    """Why a member may not become primary, or ""."""
    setting = cluster.setting(state.name)
    if setting.priority <= 0:
        return "its priority is 0"
    if state.unfit:
        return state.unfit
    if state.applying.removed:
        return REMOVED
    if state.full and setting.priority < WISHED:
        return state.full
    if state.suspects:
        return "it was rewound, and has not been compared yet"
    if state.differs and setting.priority < WISHED:
        return f"it differs from the primary in {', '.join(map(str, state.differs))}"
    limit, lag = setting.max_lag_seconds, state.replication.lag_seconds
    if limit is not None and not drained(state) and (lag is None or lag > limit):
        far = "far" if lag is None else lasting(lag)
        return "its applier is " + far + f" behind, max_lag is {limit:g} s"
    return ""


def _preferred(
    quorum: Sequence[MemberState], able: Sequence[MemberState], cluster: Cluster
) -> MemberState | None:
    """The eligible member with the highest priority, preferably one whose agent can log in.

    A member that must fetch first is passed over if that could take long. So is a member whose applier makes no
    progress, because of sessions there or a long transaction, if another member is eligible.
    """
    ready = [state for state in able if not against(state, cluster)]
    front = able[0].received_set()

    def soon(state: MemberState) -> bool:
        if not (drained(state) or state.replication.applier):
            return False
        return not ready or front.subtract(state.received_set()).count() <= SOON_FETCHED

    eligible = [state for state in quorum if not against(state, cluster)]
    return min(
        (state for state in eligible if state in ready or (state not in able and soon(state))),
        key=lambda state: (
            bool(state.logins.shut_out),  # its agent may not be able to open it
            held_up(state) and cluster.setting(state.name).priority < WISHED,
            -cluster.setting(state.name).priority,
            state not in ready,
            not drained(state),
        ),
        default=None,
    )


def prefer_learner(
    elected: Elected,
    learners: Sequence[MemberState],
    quorum: Sequence[MemberState],
    cluster: Cluster,
) -> Elected:
    """Prefer a learner that received more than the whole quorum, if it can apply that soon.

    Any member that has everything that the quorum has may be named. If the learner were passed over, it would have to
    be rewound.
    """
    if elected.fetch_from:
        return elected
    for learner in learners:
        further = learner.received_set()
        if (
            learner.logins.shut_out
            or against(learner, cluster)
            or not further.covers(elected.state.received_set())
        ):
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


def held_up(state: MemberState) -> bool:
    """Whether the applier, which is not broken, has finished nothing for a while although transactions are left."""
    return state.applying.stalled >= HELD_UP_SECONDS and not drained(state)


def drained(state: MemberState) -> bool:
    """Whether everything that was received is applied."""
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
    return "no member has received everything that the other members have"
