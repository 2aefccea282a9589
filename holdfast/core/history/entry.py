"""The history: what is kept of each failover, switchover and restart in place, of operators' orders, and of each
verification.

An entry begins with its transition, and is completed step by step, also by another manager, and even minutes later,
when the old primary is back. The store keeps it by its number, apart from the record; no decision is ever based on it.
"""

from __future__ import annotations

import json
import types
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from holdfast.core.calls import Ran
from holdfast.core.history.verified import Verified, shortened

FORMAT = 1
"""The format of the JSON. Fields may be added without another number: unknown ones are ignored."""
FORMERLY_STOPPED = "writes stop"
"""By this text of a moment entries without ``stopped`` show when writes stopped; it never changes, because entries are
stored."""
LARGEST_BYTES = 64 * 1024
LONGEST_TEXT = 500
LONGEST_GTIDS = 4000
LONGEST_OUTPUT = 4000
"""Characters of a hook's output: both ends of it."""
MOST_CANDIDATES = 16
MOST_HOOKS = 10
"""Results of hooks in an entry, and runs of each."""
FIRST_MOMENTS, LAST_MOMENTS = 110, 50
"""How many of the first and of the last moments are kept."""

EARLIEST, LATEST = -1e10, 2.5e11
"""Seconds of any date that can be displayed, and any milliseconds in between."""

T = TypeVar("T")


class What(StrEnum):
    """RESTART: of the primary, which came back in place. ORDER: something else that an operator wanted. ALARM: commits
    that were answered OK without a voter. VERIFICATION: of a member's tables."""

    FAILOVER = "failover"
    SWITCHOVER = "switchover"
    RESTART = "restart"
    ORDER = "order"
    ALARM = "alarm"
    VERIFICATION = "verification"

    @property
    def is_transition(self) -> bool:
        """Whether the entry has steps, and some of them may be still to come."""
        return self in (What.FAILOVER, What.SWITCHOVER, What.RESTART)


class Outcome(StrEnum):
    """UNDONE: the primary stayed the same. REPLACED: by another change, which began before this one had ended."""

    UNDER_WAY = "under way"
    DONE = "done"
    UNDONE = "undone"
    REPLACED = "replaced"


class Sort(StrEnum):
    """RECORD: the record was replaced. WAITED: what the manager gave as its reason. COMMAND: an agent has carried out a
    command; FAILED: it has not. HOOK: the result of the hooks. NOTE: anything else."""

    RECORD = "record"
    WAITED = "waited"
    COMMAND = "command"
    FAILED = "failed"
    HOOK = "hook"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Moment:
    """:ivar at_ms: milliseconds from the begin of the entry to the end of this; below 0 for what was before
    :ivar ms: how long it took; :ivar steps: of its parts, in order
    """

    at_ms: float
    sort: Sort
    text: str
    member: str = ""
    ms: float = 0.0
    steps: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setup:
    """The configuration, as the record has it.

    :ivar voters: names, including the primary's
    """

    term: int
    primary: str
    voters: tuple[str, ...]
    acks: int
    mode: str


@dataclass(frozen=True, slots=True)
class Positions:
    """GTIDs applied, in the server's own text.

    :ivar old: what the old primary had last reported; :ivar new: what the new one had when it was named
    :ivar difference: in words
    """

    old: str = ""
    new: str = ""
    difference: str = ""


@dataclass(frozen=True, slots=True)
class CandidateNote:
    """:ivar received: the last GTID that it had received
    :ivar reason: why it was chosen, or why not
    """

    name: str
    chosen: bool
    voter: bool
    received: str
    reason: str


@dataclass(frozen=True, slots=True)
class HookResult:
    """:ivar at_ms: as in :class:`Moment`"""

    phase: str
    outcome: str
    text: str
    at_ms: float
    ran: tuple[Ran, ...] = ()


@dataclass(frozen=True, slots=True)
class Returned:
    """What became of the old primary.

    :ivar verdict: of its binlog's end, as in ``view.TailVerdict``, or ""
    :ivar saved: files on its host with what only it had
    :ivar transactions: how many
    :ivar reason: why that is so, or why it had to be cloned
    :ivar rewound, cloned: what was done to it
    :ivar following: when it was a replica again, or the primary; seconds since 1970
    """

    verdict: str = ""
    saved: tuple[str, ...] = ()
    transactions: int = 0
    reason: str = ""
    rewound: bool = False
    cloned: bool = False
    following: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """Moments of time are seconds since 1970.

    :ivar number: within the cluster; 0 until it is stored
    :ivar cause: the diagnosis, or what an operator wanted
    :ivar old, new: the primary before, and after; new is "" until it is named
    :ivar term: in which it began
    :ivar ordered: what an operator ordered, or "" if it began automatically
    :ivar managers: those that led it, in order
    :ivar stopped: when a switchover began to block writers
    :ivar opened: when the primary took writes again; :ivar whole: when every member was as it should be
    :ivar why: how it ended, or why it was undone
    :ivar left_out: how many moments were not kept
    :ivar verification: of a VERIFICATION, whose ``cause`` has its result in one sentence; None for all others
    """

    what: What
    cause: str
    begun: float
    old: str
    term: int
    number: int = 0
    new: str = ""
    ordered: str = ""
    managers: tuple[str, ...] = ()
    stopped: float | None = None
    named: float | None = None
    opened: float | None = None
    ended: float | None = None
    whole: float | None = None
    outcome: Outcome = Outcome.UNDER_WAY
    why: str = ""
    before: Setup | None = None
    after: Setup | None = None
    positions: Positions = field(default_factory=Positions)
    candidates: tuple[CandidateNote, ...] = ()
    hooks: tuple[HookResult, ...] = ()
    moments: tuple[Moment, ...] = ()
    left_out: int = 0
    returned: Returned = field(default_factory=Returned)
    verification: Verified | None = None

    @property
    def under_way(self) -> bool:
        return self.outcome is Outcome.UNDER_WAY

    @property
    def outage_ms(self) -> float | None:
        """Milliseconds from the detection, or from the stop of writes, until the primary took writes; None while it
        does not."""
        if self.opened is None:
            return None
        return round(
            (self.opened - (self.begun if self.stopped is None else self.stopped)) * 1000, 1
        )

    @property
    def live(self) -> bool:
        """Whether something of the entry is still to come."""
        if not self.what.is_transition or self.outcome is Outcome.UNDONE:
            return False
        if self.under_way or (self.whole is None and self.outcome is Outcome.DONE):
            return True
        return self.what is What.FAILOVER and self.returned.following is None


def head(entry: Entry) -> dict[str, Any]:
    """What a list shows of an entry."""
    return {
        "number": entry.number,
        "what": entry.what.value,
        "begun": entry.begun,
        "ended": entry.ended,
        "old": entry.old,
        "new": entry.new,
        "outage_ms": entry.outage_ms,
        "whole": entry.whole,
        "outcome": entry.outcome.value,
        "why": entry.why,
        "cause": entry.cause,
        "ordered": entry.ordered,
        "verification": _counts(entry.verification) if entry.verification else None,
    }


def _counts(found: Verified) -> dict[str, Any]:
    told = asdict(found)
    del told["tables"], told["left_out"]
    return told


def to_json(entry: Entry) -> str:
    """The entry as JSON of at most LARGEST_BYTES: for that, the output of hooks is shortened, then tables and moments
    are left out, then the rest of that output."""
    if len(text := _json(entry)) > LARGEST_BYTES:
        entry = _printed(entry, LONGEST_TEXT)
    while len(text := _json(entry)) > LARGEST_BYTES and (found := entry.verification):
        if not (count := len(found.tables)):
            break
        entry = replace(entry, verification=shortened(found, count // 2))
    while len(text := _json(entry)) > LARGEST_BYTES and (count := len(entry.moments)):
        drop = max(1, count // 4)
        first = (count - drop) // 2
        kept = (*entry.moments[:first], *entry.moments[first + drop :])
        entry = replace(entry, moments=kept, left_out=entry.left_out + drop)
    return text if len(text) <= LARGEST_BYTES else _json(_printed(entry, 0))


def _printed(entry: Entry, most: int) -> Entry:
    """The entry with at most ``most`` characters of each hook's output."""
    hooks = tuple(
        replace(
            each, ran=tuple(replace(ran, output=both_ends(ran.output, most)) for ran in each.ran)
        )
        for each in entry.hooks
    )
    return replace(entry, hooks=hooks)


def _json(entry: Entry) -> str:
    return json.dumps({"format": FORMAT, **asdict(entry)})


def from_json(text: str) -> Entry:
    """:raises ValueError: ``text`` is no entry, or one of a later version"""
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError(f"is no entry, but {type(data).__name__}")
    version = data.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise ValueError(f"is of format {version}, and this version of Holdfast knows {FORMAT}")
    entry = _object(Entry, data, "entry")
    if "stopped" not in data:
        at_ms = next((each.at_ms for each in entry.moments if each.text == FORMERLY_STOPPED), None)
        stopped = None if at_ms is None else entry.begun + at_ms / 1000
        return replace(entry, stopped=stopped)
    return entry


def clipped(text: str, most: int = LONGEST_TEXT) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def both_ends(text: str, most: int) -> str:
    """The text without its middle if it is too long; why a script failed stands at the end of its output."""
    if len(text) <= most:
        return text
    first = most // 4
    return f"{text[:first]}…{text[len(text) - most + first + 1 :]}" if most else "…"


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _object(kind: type[T], data: Any, where: str) -> T:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is {data!r}")
    hints = _hints(cast(Hashable, kind))
    known = {
        each.name: _value(hints[each.name], data[each.name], f"{where}.{each.name}")
        for each in fields(kind)  # type: ignore[arg-type]  # a dataclass
        if each.name in data
    }
    try:
        return kind(**known)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None


def _value(hint: Any, data: Any, where: str) -> Any:
    """``data`` as a value of the type ``hint``, which must be one of the types used above."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType,):
        return None if data is None else _value(arguments[0], data, where)
    if origin is tuple and isinstance(data, list):
        return tuple(_value(arguments[0], each, where) for each in data)
    if origin is Mapping and isinstance(data, dict):
        return {str(key): _value(arguments[1], each, where) for key, each in data.items()}
    if origin is None and is_dataclass(hint):
        return _object(cast(type[Any], hint), data, where)
    if hint is float and isinstance(data, int | float) and not isinstance(data, bool):
        if EARLIEST < data < LATEST:
            return float(data)
        raise ValueError(f"{where} is out of range")
    if origin is None and issubclass(hint, StrEnum):
        return hint(data)
    if origin is None and type(data) is hint:
        return data
    raise ValueError(f"{where} is {data!r}")
