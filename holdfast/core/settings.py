"""What an operator may change while the cluster runs; kept in the store beside the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from holdfast.core.timing import Timing


class Mode(StrEnum):
    """What a client's "committed" is worth.

    STRONG: voters have the transaction, however long that takes. SEMI_SYNC: voters have it, unless they took longer
    than a time-out. ASYNC: the primary has it.
    """

    STRONG = "strong"
    SEMI_SYNC = "semi-sync"
    ASYNC = "async"


class Durability(StrEnum):
    """How many voters must have a transaction. ZONES: a majority, including one in another zone."""

    MAJORITY = "majority"
    ALL = "all"
    ZONES = "zones"


class WhenAlone(StrEnum):
    """What a primary does if no other voter is left: acknowledge nothing, or continue without a second copy."""

    BLOCK = "block"
    SERVE = "serve"


class WaitPoint(StrEnum):
    """AFTER_SYNC: no client sees a row before voters have it. AFTER_COMMIT: faster if sessions compete for rows, but
    other clients see a row that a failover may take back."""

    AFTER_SYNC = "after_sync"
    AFTER_COMMIT = "after_commit"


class Profile(StrEnum):
    """Which heartbeat, lease and detection apply, unless they are set one by one."""

    DEFAULT = "default"
    FAST = "fast"


PROFILES = {
    Profile.DEFAULT: Timing(),
    Profile.FAST: Timing(heartbeat=0.1, lease=0.4, detection=0.35),
}


@dataclass(frozen=True, slots=True)
class MemberSettings:
    """The settings of one member.

    :ivar priority: of several members that could take over, the highest does; 0 never becomes primary
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
    """The settings of one cluster.

    :ivar ack_count: the least number of acknowledgements, if more are wanted than ``durability`` requires
    :ivar semi_sync_timeout: seconds after which mode semi-sync stops waiting
    :ivar ack_patience: seconds for which a voter may owe acknowledgements before it is removed from the voters
    :ivar strong_sync_threshold: bytes of the primary's binlog that a member may have left to apply when it is admitted
        as a voter
    :ivar allow_loss: in the modes that promise nothing, let a replica take over that may lack something
    :ivar automatic_failover: if False, a primary that died is restarted in place
    :ivar failovers_per_hour: how many automatic failovers there may be; 0: any number
    :ivar failover_interval: seconds between two automatic failovers; 0: none
    :ivar write_patience: seconds after which a primary on which no write completes is replaced
    :ivar repair_after: seconds after which the data of a member with a broken applier is replaced by a copy; None:
        never
    :ivar events: the event scheduler runs on the primary and nowhere else; False: it is left as it is
    :ivar verify_every: seconds after which a member's tables are compared with the primary's again; 0: never
        automatically
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
