"""The primary's lease: until when its server may answer clients, and which members extend it without a manager.

A server answers as primary only while its agent holds a lease. There are two ways to get one:

* *The leading manager grants it*, until a moment on the agent's own clock: the clock that stood in the agent's last
  answer, plus ``lease``. That moment holds no matter how long the grant is under way.
* *The primary's voters vouch for it*: no manager renews, and enough other agents confirm that their servers follow this
  primary and that they have promised no other term. So a manager that is dead, or cut off from only the primary, stops
  no primary.

Why two primaries never answer: before another is named, the manager has stopped granting, and

1. either the old primary's agent has reported that its server is gone,
2. or (a) the last lease that this manager granted, or that a previous manager can have granted, is over, (b) the
   members that promised leave too few to vouch (:func:`revoked`), and (c) the time for which those members had vouched
   before is over too. After its promise an agent vouches for no primary until it gets a command to follow again.

(b) holds by the same rule by which commits are safe: where k voters can acknowledge, k voters can vouch, and a recovery
quorum leaves fewer than k.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from holdfast.core.cluster import Cluster
from holdfast.core.record import Record
from holdfast.core.settings import Mode


@dataclass(frozen=True, slots=True)
class Quorum:
    """:ivar need: how many of ``names`` must vouch"""

    names: tuple[str, ...]
    need: int


class Protection(StrEnum):
    """What ends a server whose lease is over, or shuts its ports."""

    AGENT = "agent"
    KEEPER = "keeper"
    GATE = "gate"
    WATCHDOG = "watchdog"


class LeaseHolder(StrEnum):
    """What extends a primary's lease. NOBODY: it has none, or it is over."""

    NOBODY = "nobody"
    MANAGER = "manager"
    PEERS = "peers"


@dataclass(frozen=True, slots=True)
class Lease:
    """A primary's lease, as its agent sees it.

    :ivar enforced: the server is a primary, and is killed when the lease ends
    :ivar left: seconds
    :ivar quorums: the members whose confirmation extends it without a manager, as the agent knows them; None: not known
    """

    enforced: bool = False
    by: LeaseHolder = LeaseHolder.NOBODY
    left: float = 0.0
    quorums: tuple[Quorum, ...] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The process that enforces the lease of the primary at ``address`` (``host:port``) asked this member to vouch, the
    last time ``seconds`` ago."""

    address: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Electorate:
    """The members without whose votes no primary other than ``primary`` can be named.

    The latest one counts, by ``age``. It travels with every grant, and with the commands after which an older
    configuration may be dropped from the record (Promote, Prove): so an agent never relies on voters that a recovery
    quorum can do without.

    :ivar settled: the configuration of that serial stands alone; before that it stood beside others
    :ivar accounts: replication accounts of all members, by which the primary's agent recognises strangers; none: not
        known
    :ivar quorums: the primary needs enough confirmations of each; none: no other member can be elected
    :ivar agents: URL of the agent of each member that is named
    :ivar address: ``host:port`` of the primary's server, as its replicas know it
    """

    primary: str
    term: int
    serial: int
    quorums: tuple[Quorum, ...]
    agents: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    settled: bool = False
    accounts: frozenset[str] = frozenset()

    @property
    def age(self) -> tuple[int, int, bool]:
        """Of two electorates the one with the higher age is the later one."""
        return self.term, self.serial, self.settled


def electorate(cluster: Cluster, record: Record) -> Electorate:
    """The electorate of the recorded primary, by the configurations in force.

    If commits wait for no acknowledgement (k = 0) and mode ``strong`` holds, only the primary has what it acknowledged,
    and it is never deposed. In mode ``async`` a majority of all members decides.
    """
    quorums = tuple(
        Quorum(tuple(sorted(name for name, _ in each.without(record.primary))), each.acks)
        for each in record.configurations
        if each.acks
    )
    if record.mode is not Mode.STRONG and any(each.acks == 0 for each in record.configurations):
        others = tuple(sorted(each.name for each in cluster.others(record.primary)))
        quorums = (*quorums, Quorum(others, len(cluster.members) // 2))
    named = {name for each in quorums for name in each.names}
    agents = {each.name: each.agent for each in cluster.members if each.name in named}
    address = cluster.member(record.primary).address
    members = {each.name for each in cluster.members} | {stray.name for stray in record.strays}
    members |= {name for each in record.configurations for name in each.names()}
    return Electorate(
        record.primary,
        record.term,
        record.serial,
        quorums,
        agents,
        address,
        settled=not record.joint,
        accounts=frozenset(map(cluster.account, members)),
    )


def upheld(known: Electorate, vouching: Collection[str]) -> bool:
    """Whether the primary may continue without a manager: enough members of each quorum vouch for it."""
    return all(sum(name in vouching for name in each.names) >= each.need for each in known.quorums)


def revoked(known: Electorate, promised: Collection[str]) -> bool:
    """Whether the promise of these members leaves too few to vouch for the primary, no matter which others answer
    it."""
    return any(
        sum(name not in promised for name in each.names) < each.need for each in known.quorums
    )
