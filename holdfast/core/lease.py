"""The primary's lease: until when its server may answer clients, and who lets it go on without a manager.

A server answers as primary only while its agent holds a lease. There are two ways to one:

* *The leading manager grants it*, until a moment on the agent's own clock: the clock that stood in the agent's last
  answer, plus ``lease``. However long the grant is under way, that moment stands.
* *Its voters vouch for it*: no manager renews, and enough other agents say that their servers follow this primary and
  that nobody had them promise otherwise. A manager that is dead, or cut off from the primary alone, stops nobody.

Why no two primaries answer: before another is named, the manager has stopped granting, and

1. either the old primary's agent has said that its server is gone,
2. or (a) the last lease that this manager granted, or one before it can have, is over, (b) those that promised leave
   too few to vouch (:func:`revoked`), and (c) the time for which those that promised had vouched before is over too.
   After its promise an agent vouches for nobody until it is told to follow again.

(b) holds by the very rule by which commits are safe: k voters can acknowledge where k voters can vouch, and a recovery
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
    """Who upholds a primary's lease. NOBODY: it has none, or it is over."""

    NOBODY = "nobody"
    MANAGER = "manager"
    PEERS = "peers"


@dataclass(frozen=True, slots=True)
class Lease:
    """A primary's lease, as its agent sees it.

    :ivar enforced: the server is a primary, and will be killed when the lease ends
    :ivar left: seconds
    :ivar quorums: by whose word it goes on without a manager, as far as it was told; None: not known
    """

    enforced: bool = False
    by: LeaseHolder = LeaseHolder.NOBODY
    left: float = 0.0
    quorums: tuple[Quorum, ...] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What enforces the lease of the primary at ``address`` (``host:port``) has asked this member to vouch, the last
    time ``seconds`` ago."""

    address: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Electorate:
    """Without whose word no other primary can be named than ``primary``.

    The latest one counts, by ``age``. It travels with every grant, and with the commands after
    which an older configuration may be dropped from the record (Promote, Prove): so an agent never relies on voters
    that a recovery quorum can do without.

    :ivar settled: the configuration of that serial stands alone; before that it stood beside others
    :ivar accounts: replication accounts of all members, by which the primary's agent knows strangers; none: not told
    :ivar quorums: of all of them the primary needs the word; none: nobody can be elected in its place
    :ivar agents: URL of the agent of each that is named
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
        """Of two, the one in which it is higher is the later one."""
        return self.term, self.serial, self.settled


def electorate(cluster: Cluster, record: Record) -> Electorate:
    """Of the recorded primary, by the configurations in force.

    Where commits wait for nobody (k = 0) and mode ``strong`` holds, the primary alone has what it acknowledged and is
    never deposed. In mode ``async`` a majority of all members decides.
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
    """Whether the primary may go on without a manager: enough of each quorum vouch for it."""
    return all(sum(name in vouching for name in each.names) >= each.need for each in known.quorums)


def revoked(known: Electorate, promised: Collection[str]) -> bool:
    """Whether the promise of these leaves too few to vouch for the primary, whoever else answers it."""
    return any(
        sum(name not in promised for name in each.names) < each.need for each in known.quorums
    )
