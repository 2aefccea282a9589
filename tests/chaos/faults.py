"""A random schedule of faults. Pure: a seed always gives the same one.

Faults come in *lanes*, side by side; within a lane a fault waits until the one before is healed. The target is a role,
such as the primary, which is resolved when the fault happens. What the configuration claims to survive:

* of the members one is harmed at a time, and the next only when all votes are back;
* of the etcd nodes and of the managers one is harmed at a time;
* at any time people order switchovers and clones, change settings and remove and add members, and administrators do to
  servers what administrators do.

``beyond`` there are two lanes for members that wait for nothing, and all members, nodes or managers may be hit at once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Lane(StrEnum):
    MEMBERS = "members"
    MORE_MEMBERS = "more members"
    MANAGERS = "managers"
    ETCD = "etcd"
    MACHINE = "machine"
    PEOPLE = "people"
    HANDS = "hands"


class Role(StrEnum):
    """LEADER: the leading manager. A member, manager or node is drawn by ``Fault.draw``."""

    PRIMARY = "primary"
    REPLICA = "replica"
    LEADER = "leader"
    MANAGER = "manager"
    NODE = "etcd node"
    MEMBERS = "all members"
    MANAGERS = "all managers"
    NODES = "all etcd nodes"
    NOBODY = "machine"


class Harm(StrEnum):
    """A host that is killed, or a daemon, is started again when the fault is healed; its agent starts a server."""

    KILL_SERVER = "kill-server"
    FREEZE_SERVER = "freeze-server"
    FREEZE_HOST = "freeze-host"
    KILL_HOST = "kill-host"
    KILL_DAEMON = "kill-daemon"
    STOP_DAEMON = "stop-daemon"
    CUT_ALL = "cut-all"
    CUT_MANAGERS = "cut-managers"
    CUT_MEMBERS = "cut-members"
    CUT_CLIENT = "cut-client"
    CUT_ETCD = "cut-etcd"
    MUTE = "mute"
    DEAF = "deaf"
    LOSS = "loss"
    DELAY = "delay"
    DISK_FULL = "disk-full"
    DISK_STALL = "disk-stall"
    CPU = "cpu"
    SWITCHOVER = "switchover"
    POWER_CUT = "power-cut"
    HANG_AGENT = "hang-agent"
    CLOCK = "clock"
    CLONE = "clone"
    SETTING = "setting"
    MEMBER = "member"
    KILLS = "kills"
    VARIABLE = "variable"
    THREADS = "threads"
    RESET = "reset"
    FLUSH = "flush"
    SHUTDOWN = "shutdown"
    DDL = "ddl"
    STRANGER = "stranger"
    PUT_BACK = "put-back"


MEMBER_HARMS: Mapping[Harm, int] = {
    Harm.KILL_SERVER: 3,
    Harm.FREEZE_SERVER: 3,
    Harm.FREEZE_HOST: 4,
    Harm.KILL_HOST: 2,
    Harm.KILL_DAEMON: 2,
    Harm.CUT_ALL: 4,
    Harm.CUT_MANAGERS: 2,
    Harm.CUT_MEMBERS: 2,
    Harm.CUT_CLIENT: 1,
    Harm.MUTE: 2,
    Harm.DEAF: 2,
    Harm.LOSS: 2,
    Harm.DELAY: 1,
    Harm.DISK_FULL: 1,
    Harm.DISK_STALL: 1,
    Harm.POWER_CUT: 2,
    Harm.HANG_AGENT: 2,
}
MANAGER_HARMS: Mapping[Harm, int] = {
    Harm.KILL_DAEMON: 3,
    Harm.STOP_DAEMON: 2,
    Harm.FREEZE_HOST: 3,
    Harm.CUT_ALL: 2,
    Harm.CUT_MEMBERS: 1,
    Harm.CUT_ETCD: 2,
    Harm.LOSS: 1,
    Harm.CLOCK: 2,
    Harm.PUT_BACK: 1,
}
NODE_HARMS: Mapping[Harm, int] = {
    Harm.KILL_DAEMON: 3,
    Harm.FREEZE_HOST: 2,
    Harm.CUT_ALL: 2,
    Harm.LOSS: 1,
}
PEOPLES_HARMS: Mapping[Harm, int] = {
    Harm.SWITCHOVER: 6,
    Harm.CLONE: 1,
    Harm.SETTING: 2,
    Harm.MEMBER: 1,
}
HANDS_HARMS: Mapping[Harm, int] = {
    Harm.KILLS: 3,
    Harm.VARIABLE: 5,
    Harm.THREADS: 3,
    Harm.RESET: 1,
    Harm.FLUSH: 3,
    Harm.SHUTDOWN: 1,
    Harm.DDL: 2,
    Harm.STRANGER: 2,
}
"""What administrators do to a server behind the cluster's back; only the cluster undoes it."""
OF_REPLICAS = frozenset({Harm.CLONE, Harm.MEMBER, Harm.THREADS, Harm.RESET})
OF_PRIMARIES = frozenset({Harm.KILLS, Harm.DDL, Harm.STRANGER})
STEPS_SECONDS = (-86_400.0, -3_600.0, -5.0, 5.0, 3_600.0, 86_400.0)
"""By how much a wall clock is stepped; drawn by ``Fault.draw``."""
RESTS = {Lane.MACHINE: (20, 60), Lane.PEOPLE: (4, 15), Lane.HANDS: (2, 8)}
"""Seconds between two faults of a lane, where they are not 1 to 8."""
SHORT = frozenset(
    {Harm.KILL_SERVER, Harm.SWITCHOVER, Harm.CLONE, Harm.VARIABLE, Harm.THREADS, Harm.RESET}
    | {Harm.FLUSH, Harm.SHUTDOWN, Harm.DDL}
)
"""Faults that other parties heal at once."""


@dataclass(frozen=True, slots=True)
class Fault:
    """:ivar at: seconds after the begin at the earliest
    :ivar seconds: until it is healed
    :ivar share: of packets lost; :ivar ms: of delay
    :ivar draw: 0 to 1, chooses among the hosts that have the role
    """

    lane: Lane
    at: float
    harm: Harm
    role: Role
    seconds: float
    draw: float
    share: float = 0.0
    ms: float = 0.0

    def __str__(self) -> str:
        more = f" {self.share:.0%}" if self.share else f" {self.ms:.0f} ms" if self.ms else ""
        return f"{self.harm}{more} {self.role} for {self.seconds:.1f} s"


def schedule(
    seed: int | str, seconds: float, managers: int = 3, beyond: bool = False
) -> tuple[Fault, ...]:
    """The faults in the order of their time; all are healed after about ``seconds``."""
    found: list[Fault] = []
    lanes = [Lane.MEMBERS, Lane.MACHINE, Lane.PEOPLE, Lane.HANDS]
    lanes += [Lane.MANAGERS, Lane.ETCD] if managers > 1 else [Lane.MANAGERS]
    lanes += [Lane.MORE_MEMBERS] if beyond else []
    for lane in lanes:
        # each lane draws by itself, so that the others stay as they are when one changes
        dice = random.Random(f"{seed} {lane}")
        at = dice.uniform(1, 5)
        while True:
            fault = _fault(dice, lane, at, managers, beyond)
            if fault.at + fault.seconds > seconds:
                break
            found.append(fault)
            at = fault.at + fault.seconds + _rest(dice, lane)
    return tuple(sorted(found, key=lambda fault: (fault.at, fault.lane)))


def _rest(dice: random.Random, lane: Lane) -> float:
    least, most = RESTS.get(lane, (1, 8))
    return dice.uniform(least, most)


def _fault(dice: random.Random, lane: Lane, at: float, managers: int, beyond: bool) -> Fault:
    draw, all_of_them = dice.random(), dice.random() < 0.2
    seconds = dice.choice((dice.uniform(0.3, 2.5), dice.uniform(2.5, 9), dice.uniform(2.5, 9)))
    share, ms = dice.uniform(0.05, 0.5), dice.uniform(20, 400)
    match lane:
        case Lane.MACHINE:
            return Fault(lane, at, Harm.CPU, Role.NOBODY, dice.uniform(3, 10), draw)
        case Lane.PEOPLE | Lane.HANDS:
            return _by_people(dice, lane, at, draw, seconds)
        case Lane.MANAGERS:
            role = Role.LEADER if dice.random() < 0.7 else Role.MANAGER
            harms, everyone = MANAGER_HARMS, Role.MANAGERS
            if managers == 1:
                without = (Harm.CUT_ETCD, Harm.PUT_BACK)
                harms = {harm: weight for harm, weight in harms.items() if harm not in without}
        case Lane.ETCD:
            role, harms, everyone = Role.NODE, NODE_HARMS, Role.NODES
        case _:
            role = Role.PRIMARY if dice.random() < 0.7 else Role.REPLICA
            harms, everyone = MEMBER_HARMS, Role.MEMBERS
    (harm,) = dice.choices(list(harms), weights=list(harms.values()))
    return Fault(
        lane=lane,
        at=at,
        harm=harm,
        role=everyone if beyond and all_of_them else role,
        seconds=0.0 if harm in SHORT else seconds,
        draw=draw,
        share=share if harm is Harm.LOSS else 0.0,
        ms=ms if harm is Harm.DELAY else 0.0,
    )


def _by_people(dice: random.Random, lane: Lane, at: float, draw: float, seconds: float) -> Fault:
    harms = PEOPLES_HARMS if lane is Lane.PEOPLE else HANDS_HARMS
    (harm,) = dice.choices(list(harms), weights=list(harms.values()))
    role = Role.PRIMARY if dice.random() < 0.5 or harm in OF_PRIMARIES else Role.REPLICA
    if harm in (Harm.SWITCHOVER, Harm.SETTING):
        role = Role.NOBODY
    elif harm in OF_REPLICAS:
        role = Role.REPLICA
    return Fault(lane, at, harm, role, 0.0 if harm in SHORT else seconds, draw)
