"""The record: what the store remembers of a cluster, replaced only by compare-and-set."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from holdfast.core.quorum import Configuration, Voter, recoverable
from holdfast.core.settings import Mode
from holdfast.core.transition import (
    Failover,
    Instant,
    Step,
    Switchover,
    Transition,
    TransitionKind,
    transition_from,
    transition_json,
)

RESUMED_SECONDS = 3.0
"""For so long a switchover continues that a manager on another host began: writes may be stopped meanwhile."""

FORMAT = 1
"""The format of the record, in the store and as agents remember it; the first had no number. A record with a higher
format is not read: a later version may rely on something that this one would drop."""


class NewerFormat(ValueError):
    """A record of a later version."""

    def __init__(self, found: int) -> None:
        reads = f"this version of Holdfast reads formats up to {FORMAT}"
        super().__init__(
            f"it has format {found}, and {reads}: install a later version on this host"
        )


@dataclass(frozen=True, slots=True)
class Past:
    """An automatic failover.

    :ivar date: seconds since 1970, only for display
    """

    instant: Instant
    date: float = 0.0


@dataclass(frozen=True, slots=True)
class Owed:
    """The start hook must still be called for the primary; see ``core/change/hooking.py``.

    :ivar kind: of the change, or of the attempt
    :ivar before: the primary before the change: the same member, if no other was named
    """

    kind: TransitionKind
    before: str


@dataclass(frozen=True, slots=True)
class Planned:
    """A switchover for later, with its moment; the other fields are those of ``preflight.SwitchoverOrder``.

    :ivar at: seconds since 1970, by the wall clock of the manager that leads then
    """

    at: float
    to: str = ""
    seconds: float = 30.0
    old: float = 2.0
    wait: bool = False
    kill_after: float | None = None

    def __str__(self) -> str:
        return f"the switchover{f' to {self.to}' if self.to else ''} for later"


@dataclass(frozen=True, slots=True)
class Pause:
    """No new step begins automatically; leases are still renewed.

    :ivar until: seconds since 1970 at which the pause ends automatically, by the wall clock of the manager that leads
        then; None: an operator ends it
    """

    reason: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Stray:
    """A voter that lost its vote and could not be told.

    It may still follow ``source``, and acknowledge to it whenever that server is the primary, until its agent has been
    reached: see ``failover.name_primary`` and ``membership.acking_voters``.
    """

    name: str
    incarnation: str
    source: str


@dataclass(frozen=True, slots=True)
class Reign:
    """A leadership that has ended; see ``core/observed/lineage.py``.

    :ivar leader: names it
    :ivar term, revision: of the last record that it saved
    """

    leader: str
    term: int
    revision: int


@dataclass(frozen=True, slots=True)
class Record:
    """The state of one cluster.

    :ivar term: only grows; each leading manager and each change of primary starts a new one
    :ivar primary: the member that may take writes, or that is being deposed while the transition's step is ELECT
    :ivar elected: the term in which ``primary`` was named
    :ivar configurations: those in force, oldest first; more than one while voters change (the joint rule of
        ``quorum.py``); the last is the one that the cluster is changing to
    :ivar serial: grows with every configuration; a row proven with it settles the last one
    :ivar failovers: automatic failovers that began lately
    :ivar lease: the longest lease that may have been granted to ``primary``, in seconds
    :ivar owed: the start hook is still to be called
    :ivar planned: a switchover that an operator has scheduled
    :ivar leader: names the leadership that saved this record: a new name each time a manager begins to lead
    :ivar revision: grows by one with every save of the record
    :ivar lineage: the earlier leaderships, the oldest first, as far as they are kept
    :ivar identities: of each member's agent, as far as it was seen: (name, identity)
    :ivar forsaken: members whose memory does not count, by an operator's decision
    :ivar unkept: the run of the primary's server that nothing ends with its lease, as far as is known; see
        ``core/rules/enforcement.py``
    :ivar brought: GTIDs that only ``primary`` had, because it wrote them itself, when it took over; "": none
    :ivar doubt: GTIDs of ``primary`` that may have been acknowledged without a voter; see ``core/rules/ackers.py``
    """

    term: int
    primary: str
    elected: int
    configurations: tuple[Configuration, ...]
    serial: int
    transition: Transition | None = None
    strays: frozenset[Stray] = frozenset()
    mode: Mode = Mode.STRONG
    paused: Pause | None = None
    failovers: tuple[Past, ...] = ()
    lease: float = 0.0
    owed: Owed | None = None
    planned: Planned | None = None
    leader: str = ""
    revision: int = 0
    lineage: tuple[Reign, ...] = ()
    identities: frozenset[tuple[str, str]] = frozenset()
    forsaken: frozenset[str] = frozenset()
    unkept: str = ""
    doubt: str = ""
    brought: str = ""

    @property
    def target(self) -> Configuration:
        return self.configurations[-1]

    @property
    def joint(self) -> bool:
        return len(self.configurations) > 1

    @property
    def acks(self) -> int:
        """How many acknowledgements the primary's commits wait for, by ``quorum.extendable``."""
        return self.target.acks

    @property
    def wish(self) -> str:
        """The member that must take over if possible, or ""."""
        return self.transition.wish if isinstance(self.transition, Failover | Switchover) else ""

    @property
    def electing(self) -> Failover | None:
        """A failover that has not passed its commit point: the primary is being deposed."""
        match self.transition:
            case Failover(step=Step.ELECT) as failover:
                return failover
            case _:
                return None

    def names(self, name: str) -> bool:
        """Whether a configuration in force counts on that member."""
        return any(name in each.names() for each in self.configurations)

    def counts(self, name: str, incarnation: str) -> bool:
        """Whether that run of the member is a voter of any configuration in force: what it has received may be the only
        copy that a recovery quorum relies on."""
        return any((name, incarnation) in each.voters for each in self.configurations)

    def votes(self, name: str, incarnation: str) -> bool:
        """Whether that run of the member must acknowledge: it is a voter of the target."""
        return (name, incarnation) in self.target.voters

    def recoverable(self, promised: Iterable[tuple[str, str]]) -> bool:
        """Whether these promises make it safe to depose the primary. Only mode strong can guarantee that."""
        return self.mode is Mode.STRONG and recoverable(
            self.configurations, self.primary, frozenset(promised)
        )

    def taken_over(self, now: Instant) -> Record:
        """The record with which a manager begins to lead.

        What began by another clock counts from now on: so the time between failovers may be longer after a manager on
        another host took over, never shorter. A switchover under way has :data:`RESUMED_SECONDS` left.
        """

        def known(instant: Instant) -> bool:
            return instant.boot == now.boot and instant.at <= now.at

        failovers = tuple(
            each if known(each.instant) else replace(each, instant=now) for each in self.failovers
        )
        transition = self.transition
        match transition:
            case Switchover(until=Instant(boot=boot)) if boot != now.boot:
                until = Instant(now.boot, now.at + RESUMED_SECONDS)
                transition = replace(transition, until=until)
        return replace(self, failovers=failovers, transition=transition)

    def extended(self, target: Configuration, lost: Iterable[Voter] = ()) -> Record:
        """The record with ``target`` in force too; ``quorum.extendable`` says when that is safe.

        :param lost: present voters that are none in the target and may not know it yet. Earlier commands to them are
            void from now on: a new term begins.
        """
        strays = {Stray(*voter, self.primary) for voter in lost}
        kept = tuple(each for each in self.configurations if each != target)
        return replace(
            self,
            term=self.term + bool(strays),
            configurations=(*kept, target),
            serial=self.serial + 1,
            strays=self.strays | strays,
        )

    def settled(self, primary_incarnation: str) -> Record:
        """The record with only the last configuration in force, and nothing under way."""
        voters = self.target.without(self.primary) | {(self.primary, primary_incarnation)}
        return replace(
            self,
            configurations=(Configuration(frozenset(voters), self.target.acks),),
            transition=None,
        )


def to_json(record: Record) -> str:
    """The record as the store holds it."""
    base, *further = record.configurations
    transition = record.transition
    return json.dumps(
        {
            "format": FORMAT,
            "term": record.term,
            "primary": record.primary,
            "elected": record.elected,
            **_configuration_json(base),
            "joint": [_configuration_json(each) for each in further] or None,
            "serial": record.serial,
            "transition": transition and transition_json(transition),
            "strays": sorted([s.name, s.incarnation, s.source] for s in record.strays),
            "mode": record.mode,
            "paused": record.paused and asdict(record.paused),
            "failovers": [asdict(each) for each in record.failovers],
            "lease": record.lease,
            "owed": record.owed and asdict(record.owed),
            "planned": record.planned and asdict(record.planned),
            "leader": record.leader,
            "revision": record.revision,
            "lineage": [[r.leader, r.term, r.revision] for r in record.lineage],
            "identities": dict(sorted(record.identities)),
            "forsaken": sorted(record.forsaken),
            "unkept": record.unkept,
            "doubt": record.doubt,
            "brought": record.brought,
        }
    )


def from_json(text: str) -> Record:
    """:raises ValueError, KeyError: ``text`` is no record; NewerFormat: it is of a later version"""
    data = json.loads(text)
    if "format" in data and int(data["format"]) > FORMAT:
        raise NewerFormat(data["format"])
    return Record(
        term=data["term"],
        primary=data["primary"],
        elected=data["elected"],
        configurations=tuple(_configuration(each) for each in (data, *(data["joint"] or ()))),
        serial=data["serial"],
        transition=transition_from(data["transition"]) if data["transition"] else None,
        strays=frozenset(Stray(*each) for each in data["strays"]),
        mode=Mode(data["mode"]),
        paused=Pause(**paused) if (paused := data.get("paused")) else None,
        failovers=tuple(_past(each) for each in data.get("failovers", ())),
        owed=_owed(data.get("owed")),
        planned=Planned(**planned) if (planned := data.get("planned")) else None,
        lineage=tuple(Reign(*each) for each in data.get("lineage", ())),
        identities=frozenset(data.get("identities", {}).items()),
        forsaken=frozenset(data.get("forsaken", ())),
        **_as_they_are(data, "lease", "leader", "revision", "unkept", "doubt", "brought"),
    )


def _configuration_json(configuration: Configuration) -> dict[str, Any]:
    return {"voters": dict(sorted(configuration.voters)), "acks": configuration.acks}


def _configuration(data: dict[str, Any]) -> Configuration:
    return Configuration(frozenset(data["voters"].items()), data["acks"])


def _as_they_are(data: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Values that need no decoding; what an earlier version did not write has its default."""
    return {key: data[key] for key in keys if key in data}


def _owed(data: Any) -> Owed | None:
    return Owed(TransitionKind(data["kind"]), data["before"]) if data else None


def _past(data: Any) -> Past:
    if isinstance(data, dict):
        return Past(Instant(data["instant"]["boot"], data["instant"]["at"]), data["date"])
    return Past(Instant("", 0.0), data)
