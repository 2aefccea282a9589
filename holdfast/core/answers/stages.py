"""How far a member is on its way to being a voter, as ``holdfast status`` shows it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from holdfast.core.cluster import Cluster
from holdfast.core.members.membership import CAUGHT_UP, backlog, behind
from holdfast.core.record import Record
from holdfast.core.view import MemberState, View


class Stage(StrEnum):
    """NONE: the member does not follow the primary. LEARNER: it has more than ``strong_sync_threshold`` left to apply.
    CATCHING_UP: less than that, and has not received everything. AT_THE_HEAD: it could vote. VOTER: it votes."""

    NONE = ""
    LEARNER = "learner"
    CATCHING_UP = "catching up"
    AT_THE_HEAD = "at the head"
    VOTER = "voter"


@dataclass(frozen=True, slots=True)
class MemberStanding:
    """:ivar bytes_behind: bytes of the primary's binlog not applied yet, at most; None if not known"""

    stage: Stage = Stage.NONE
    bytes_behind: int | None = None


def standing(cluster: Cluster, record: Record, view: View, name: str) -> MemberStanding:
    primary, state = view.state(record.primary), view.state(name)
    if primary is None or state is None or name == record.primary:
        return MemberStanding()
    if not state.observed:
        return MemberStanding()  # it may be anywhere by now
    if state.replication.source != cluster.member(record.primary).address:
        return MemberStanding()
    left = backlog(primary, state)
    if record.target.incarnation(name) == state.incarnation:
        return MemberStanding(Stage.VOTER, left)
    return MemberStanding(_learner(cluster, primary, state, left), left)


def _learner(cluster: Cluster, primary: MemberState, state: MemberState, left: int | None) -> Stage:
    if left is not None and left >= cluster.settings.strong_sync_threshold:
        return Stage.LEARNER
    if behind(primary, state) > CAUGHT_UP:
        return Stage.CATCHING_UP if left is not None else Stage.LEARNER
    return Stage.AT_THE_HEAD
