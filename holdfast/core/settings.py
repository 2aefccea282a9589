"""What a person may change while the cluster runs; kept in the store beside the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from holdfast.core.timing import Timing


class Mode(StrEnum):
    """How much a client's "committed" is worth.

    STRONG: voters have it, however long that takes. SEMI_SYNC: voters have it, unless they took longer than a
    time-out. ASYNC: the primary has it.
    """

    STRONG = "strong"
    SEMI_SYNC = "semi-sync"
    ASYNC = "async"


class Durability(StrEnum):
    """How many voters must have a transaction. ZONES: a majority, and one of them in another zone."""

    MAJORITY = "majority"
    ALL = "all"
    ZONES = "zones"


class WhenAlone(StrEnum):
    """What a primary does when no other voter is left: acknowledge nothing, or go on without a second copy."""

    BLOCK = "block"
    SERVE = "serve"


class WaitPoint(StrEnum):
    """AFTER_SYNC: nobody sees a row before voters have it. AFTER_COMMIT: faster where sessions compete for rows, but
    others see a row that a failover may take back."""

    AFTER_SYNC = "after_sync"
    AFTER_COMMIT = "after_commit"


class Profile(StrEnum):
    """Which heartbeat, lease and detection hold where they are not set themselves."""

    DEFAULT = "default"
    FAST = "fast"


PROFILES = {
    Profile.DEFAULT: Timing(),
    Profile.FAST: Timing(heartbeat=0.1, lease=0.4, detection=0.35),
}


@dataclass(frozen=True, slots=True)
class MemberSettings:
    """One member.

    :ivar priority: who takes over when several could: the highest; 0 is never primary
    :ivar zone: members of one zone may be lost together
    :ivar voter: whether it may vote; a member that may not stays a learner
    :ivar max_lag_seconds: how far its applier may be behind for it to take over; None: any
    """

    priority: int = 100
    zone: str = ""
    voter: bool = True
    max_lag_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """One cluster.

    :ivar ack_count: the least number of acknowledgements, where more are wanted than ``durability`` asks
    :ivar semi_sync_timeout: seconds after which mode semi-sync stops waiting
    :ivar ack_patience: seconds for which a voter may owe acknowledgements before it votes no longer
    :ivar strong_sync_threshold: bytes of the primary's binlog that a member may have left to apply when it is let vote
    :ivar allow_loss: in the modes that do not promise anything, let a replica take over that may lack something
    :ivar automatic_failover: where not, a primary that died is restarted in place
    :ivar failovers_per_hour: how many automatic ones there may be; 0: any number
    :ivar failover_interval: seconds between two automatic ones; 0: none
    :ivar write_patience: seconds after which a primary on which no write comes through is replaced
    :ivar repair_after: seconds after which a member whose applier is broken is replaced by a copy; None: never
    :ivar events: the event scheduler runs on the primary, and there only; False: it is left as it is
    :ivar verify_every: seconds after which a member's tables are compared with the primary's again; 0: never by itself
    :ivar timing: heartbeat, lease and detection
    """

    mode: Mode = Mode.STRONG
    durability: Durability = Durability.MAJORITY
    when_alone: WhenAlone = WhenAlone.BLOCK
    wait_point: WaitPoint = WaitPoint.AFTER_SYNC
    ack_count: int = 0
    semi_sync_timeout: float = 10.0
    ack_patience: float = 1.0
    strong_sync_threshold: int = 100 * 1024 * 1024
    allow_loss: bool = False
    automatic_failover: bool = True
    failovers_per_hour: int = 12
    failover_interval: float = 0.0
    write_patience: float = 5.0
    repair_after: float | None = 60.0
    events: bool = True
    verify_every: float = 0.0
    profile: Profile = Profile.DEFAULT
    timing: Timing = PROFILES[Profile.DEFAULT]
    members: Mapping[str, MemberSettings] = field(default_factory=dict)

    def member(self, name: str) -> MemberSettings:
        return self.members.get(name) or MemberSettings()
