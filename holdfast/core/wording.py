"""How lists, numbers, moments and durations are put into sentences, and by which key sentences are compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from holdfast.core.gtid import SEQUENCE_STEP, Flavor, GtidSet

DAY_SECONDS = 86_400


def agree(names: Collection[str], one: str, several: str) -> str:
    """``m2 hears``; ``m2, m3 hear``."""
    return f"{', '.join(names)} {one if len(names) == 1 else several}"


def counted(count: int, one: str, several: str = "") -> str:
    """``1 acknowledgement``; ``2 acknowledgements``."""
    return f"{count} {one if count == 1 else several or one + 's'}"


def some_of(count: int, names: Collection[str]) -> str:
    """That many of the names: ``m2``; ``m2, m3``; ``1 of m2, m3``."""
    listed = ", ".join(names)
    return listed if count >= len(names) else f"{count} of {listed}"


def transactions(gtids: GtidSet) -> str:
    """How many transactions these are, if that is known.

    MariaDB's servers share the numbers of a domain, and jump to a far higher number with each new primary: in a stream
    that is not known from before nothing can be counted.
    """
    count = gtids.count()
    if gtids.flavor is Flavor.MARIADB:
        unknown = any(spans[0][0] == 1 < spans[-1][1] for spans in gtids.streams.values())
        if unknown or count >= SEQUENCE_STEP:
            return "transactions"
    return counted(count, "transaction")


def moment(at: float, now: float) -> str:
    """``08:12 UTC``, with the number of days that it is ahead.

    :param at, now: seconds since 1970
    """
    days = int(at // DAY_SECONDS) - int(now // DAY_SECONDS)
    minutes = int(at % DAY_SECONDS) // 60
    ahead = f" in {counted(days, 'day')}" if days > 0 else ""
    return f"{minutes // 60:02}:{minutes % 60:02} UTC{ahead}"


class Topic(Enum):
    """What one sentence may say that another one says too.

    WRITES: the primary takes writes. WAITS: commits on the member wait for others. NO_VOTER: none of its voters can
    acknowledge. VOTER: why the member cannot. MEMBER: why the member is not well. AGENT: its agent does not answer.
    QUOTED: what an agent says, in its own words.
    """

    WRITES = auto()
    WAITS = auto()
    NO_VOTER = auto()
    VOTER = auto()
    MEMBER = auto()
    AGENT = auto()
    QUOTED = auto()


@dataclass(frozen=True, slots=True)
class Point:
    """:ivar says: which of several things is said about that; "" if there is only one"""

    topic: Topic
    member: str = ""
    says: str = ""


class Reason(str):
    """A sentence for display, with the key by which it is compared, and what it says.

    It stays a Reason when it is put together with ``+``, :func:`joined` and :func:`once`. An f-string makes a plain
    ``str`` of it, which is compared as it stands: right for what is only shown.

    :ivar key: the sentence without how long it has lasted
    :ivar points: what it says that another sentence may say too
    :ivar parts: the parts that :func:`once` put together, in order; () if it is a single part
    """

    __slots__ = ("key", "parts", "points")
    key: str
    points: frozenset[Point]
    parts: tuple[str, ...]

    def __new__(
        cls, text: str, key: str, points: Iterable[Point] = (), parts: tuple[str, ...] = ()
    ) -> Reason:
        made = super().__new__(cls, text)
        made.key, made.points, made.parts = key, frozenset(points), parts
        return made

    def __add__(self, other: str) -> Reason:
        points = self.points | points_of(other)
        return Reason(str.__add__(self, other), self.key + key_of(other), points)

    def __radd__(self, other: str) -> Reason:
        points = points_of(other) | self.points
        return Reason(str.__add__(other, self), key_of(other) + self.key, points)

    def __reduce__(self) -> tuple[type[Reason], tuple[str, str, frozenset[Point], tuple[str, ...]]]:
        return Reason, (str(self), self.key, self.points, self.parts)


def lasting(seconds: float, digits: int = 0) -> Reason:
    """``12 s``: how long something has lasted, or how long ago it was."""
    return Reason(f"{seconds:.{digits}f} s", "")


def key_of(text: str) -> str:
    """The key by which a sentence is compared."""
    return text.key if isinstance(text, Reason) else text


def points_of(text: str) -> frozenset[Point]:
    return text.points if isinstance(text, Reason) else frozenset()


def parts_of(text: str) -> tuple[str, ...]:
    return (isinstance(text, Reason) and text.parts) or (text,)


def saying(text: str, topic: Topic, member: str = "", says: str = "") -> Reason:
    """``text`` as one part, marked with a point that it makes."""
    return Reason(text, key_of(text), points_of(text) | {Point(topic, member, says)})


def quoted(text: str, member: str) -> Reason:
    """The words of that member's agent."""
    return saying(text, Topic.QUOTED, member, text)


def of_member(name: str, why: str) -> str:
    """``m2: its server is down``: why a member is not well."""
    first, *more = parts_of(why)
    return once([saying(f"{name}: " + first, Topic.MEMBER, name, str(why)), *more])


def once(parts: Iterable[str]) -> str:
    """All parts in one sentence. A part is left out if the same part is already there, or if a part before says the
    same about the member."""
    found: list[str] = []
    told: set[Point] = set()
    for part in (each for one in parts for each in parts_of(one)):
        says = {point for point in points_of(part) if point.topic is Topic.MEMBER}
        if part not in found and not (says and says <= told):
            found.append(part)
            told |= points_of(part)
    text = joined("; ", found)
    return Reason(text, key_of(text), told, tuple(found)) if len(found) > 1 else text


def joined(separator: str, parts: Iterable[str]) -> str:
    """``separator.join(parts)``; a Reason if one of them is."""
    text = ""
    for number, part in enumerate(parts):
        text = text + separator + part if number else part
    return text


def capitalised(text: str) -> str:
    """The sentence with a capital: ``The server …``; a member's name stays as it is."""
    if not text.startswith(("the ", "a ")):
        return text
    first = text[0].upper()
    key = first + key_of(text)[1:]
    return Reason(first + text[1:], key, points_of(text))


def is_under_way(kind: str) -> str:
    """:param kind: of a transition"""
    return f"{_KINDS.get(kind, f'a {kind}')} is under way"


_KINDS = {"strengthen": "a change to mode strong", "bootstrap": "the opening of the first primary"}
"""Kinds whose names are no nouns to an operator."""
