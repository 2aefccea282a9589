"""GTID sets of both dialects: parse, contains, union, subtract.

One algebra serves both. A set maps a *stream* to intervals of sequence numbers:

* MySQL: the stream is a server's UUID, or ``uuid:tag``; intervals are what the text says.
* MariaDB: the stream is ``domain-server``. ``@@gtid_binlog_state`` names the last sequence number of each; the server
  counts a GTID as present when ``n <= state[(domain, server)]``, so ``0-1-7`` is the interval 1..7. With
  ``gtid_strict_mode`` (which Holdfast requires) numbers only grow within a domain, no matter which server wrote them: a
  domain's history is a line, and its head is its highest number.

The *issuer* of a stream is the server that writes it. MySQL: the UUID, whatever the tag; MariaDB: the server id,
whatever the domain. A client chooses the tag or the domain of its session (``SET gtid_next = 'AUTOMATIC:tag'``, ``SET
gtid_domain_id``), so the streams that a server will write to cannot be listed. A set may hold an issuer as a whole,
with every GTID that it has issued or will issue: ``UUID:*``, ``*-SERVER``. Holdfast's commands use that notation; the
servers do not know it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

Interval = tuple[int, int]
"""First and last sequence number, both included."""


class Flavor(StrEnum):
    MARIADB = "mariadb"
    MYSQL = "mysql"


SEQUENCE_STEP = 1_000_000
"""MariaDB: a new primary's numbers begin at the next multiple of this: further ahead than the number of clients that
can wait for commits at a time (``server/mariadb.py``)."""


@dataclass(frozen=True, slots=True)
class GtidSet:
    """An immutable set of GTIDs.

    :ivar streams: stream -> its intervals, ascending, disjoint, never touching, never empty
    :ivar issuers: the issuers of which the set holds everything, in all streams
    """

    flavor: Flavor
    streams: Mapping[str, tuple[Interval, ...]]
    issuers: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.streams or self.issuers)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, GtidSet)
            and self.flavor is other.flavor
            and dict(self.streams) == dict(other.streams)
            and self.issuers == other.issuers
        )

    def __hash__(self) -> int:
        return hash((self.flavor, frozenset(self.streams.items()), self.issuers))

    def __str__(self) -> str:
        """The set as text. MariaDB takes the last entry of a domain in ``gtid_binlog_state`` for its head, so the
        highest stands last."""
        listed = sorted(self.streams.items(), key=self._place)
        return ",".join(
            (
                *(_format(self.flavor, *entry) for entry in listed),
                *(everything(self.flavor, issuer) for issuer in sorted(self.issuers)),
            )
        )

    def _place(self, entry: tuple[str, tuple[Interval, ...]]) -> tuple[str, int, str]:
        stream, spans = entry
        if self.flavor is Flavor.MYSQL:
            return stream, 0, ""
        return stream.partition("-")[0], spans[-1][1], stream

    def has(self, stream: str, number: int) -> bool:
        """Whether the single GTID ``number`` of ``stream`` is in the set."""
        return issuer_of(self.flavor, stream) in self.issuers or any(
            low <= number <= high for low, high in self.streams.get(stream, ())
        )

    def contains(self, other: GtidSet) -> bool:
        """Whether every GTID of ``other`` is in this set."""
        return not self.subtract(other, reverse=True)

    def covers(self, other: GtidSet) -> bool:
        """Whether a server that has this set has come at least as far as one that has ``other``.

        On MySQL the same as :meth:`contains`. On MariaDB a receiver reports only the last GTID that it received: what
        lies between the applier and that GTID may come from other servers and cannot be listed. So on MariaDB the heads
        of each domain are compared. This is exact as long as histories have not diverged; :meth:`contains` shows that
        once everything received has been applied.
        """
        if self.flavor is Flavor.MYSQL:
            return self.contains(other)
        mine = self.heads()
        for domain, (number, server) in other.heads().items():
            reached, by = mine.get(domain, (0, ""))
            if server in self.issuers:
                continue
            if reached < number or (reached == number and by != server):
                return False
        return True

    def union(self, other: GtidSet) -> GtidSet:
        streams = dict(self.streams)
        for stream, intervals in other.streams.items():
            streams[stream] = _merge((*streams.get(stream, ()), *intervals))
        issuers = self.issuers | other.issuers
        return GtidSet(self.flavor, self._listed(streams, issuers), issuers)

    def _listed(
        self, streams: Mapping[str, tuple[Interval, ...]], issuers: frozenset[str]
    ) -> Mapping[str, tuple[Interval, ...]]:
        """Streams of an issuer that is held as a whole are not listed: each set has one form."""
        if not issuers:
            return streams
        return {
            s: spans for s, spans in streams.items() if issuer_of(self.flavor, s) not in issuers
        }

    def subtract(self, other: GtidSet, *, reverse: bool = False) -> GtidSet:
        """The GTIDs of this set that are not in ``other`` (``reverse``: of ``other`` that are not in this set).

        If this set has an issuer as a whole and ``other`` has not, everything of that issuer is left: GTIDs that
        ``other`` lists are not removed.
        """
        left, right = (other, self) if reverse else (self, other)
        streams = {}
        for stream, intervals in left.streams.items():
            if issuer_of(self.flavor, stream) in right.issuers:
                continue
            rest = tuple(_without(intervals, right.streams.get(stream, ())))
            if rest:
                streams[stream] = rest
        return GtidSet(self.flavor, streams, left.issuers - right.issuers)

    def not_of(self, origin: str) -> GtidSet:
        """The set without what one server has issued, in all its streams.

        :param origin: one of these streams, as in ``MemberState``; "": no server's
        """
        own = frozenset({issuer_of(self.flavor, origin)} if origin else ())
        return self.subtract(GtidSet(self.flavor, {}, own))

    def count(self) -> int:
        """How many sequence numbers are listed (on MariaDB an upper bound of transactions)."""
        return sum(high - low + 1 for spans in self.streams.values() for low, high in spans)

    def last(self) -> str:
        """The head in short, for display: MariaDB ``0-2-117``, MySQL ``…d9e2:1-117`` of the longest stream."""
        if not self.streams:
            return ""
        if self.flavor is Flavor.MARIADB:
            heads = self.heads()
            return ",".join(f"{d}-{server}-{n}" for d, (n, server) in sorted(heads.items()))
        stream, spans = max(self.streams.items(), key=lambda entry: entry[1][-1][1])
        uuid, _, tag = stream.partition(":")
        return f"…{uuid[-4:]}:{tag and tag + ':'}{spans[0][0]}-{spans[-1][1]}"

    def heads(self) -> dict[str, tuple[int, str]]:
        """MariaDB: domain -> its highest number, and the server that issued it."""
        heads: dict[str, tuple[int, str]] = {}
        for stream, spans in self.streams.items():
            domain, server = stream.split("-")
            heads[domain] = max(heads.get(domain, (0, "")), (spans[-1][1], server))
        return heads


@lru_cache(maxsize=1024)
def parse(flavor: Flavor, text: str) -> GtidSet:
    """Parse a GTID set as the server prints it, or as :meth:`GtidSet.__str__` does (MariaDB: ``0-1-5..9`` too).

    :raises ValueError: with the offending part, when ``text`` is not one
    """
    streams: dict[str, tuple[Interval, ...]] = {}
    entries = _mariadb_entries if flavor is Flavor.MARIADB else _mysql_entries
    parts = list(_parts(text))
    issuers = frozenset(found for part in parts if (found := _whole_issuer(flavor, part)))
    for stream, interval in entries(part for part in parts if not _whole_issuer(flavor, part)):
        if not issuers or issuer_of(flavor, stream) not in issuers:
            streams[stream] = (*streams.get(stream, ()), interval)
    return GtidSet(flavor, {stream: _merge(spans) for stream, spans in streams.items()}, issuers)


def issuer_of(flavor: Flavor, stream: str) -> str:
    """The server that writes this stream."""
    if flavor is Flavor.MYSQL:
        return stream.partition(":")[0]
    return stream.rpartition("-")[2]


def everything(flavor: Flavor, issuer: str) -> str:
    """Text of all that a server has issued and will issue, in all its streams."""
    return f"{issuer}:*" if flavor is Flavor.MYSQL else f"*-{issuer}"


def _whole_issuer(flavor: Flavor, part: str) -> str:
    """The issuer that ``part`` names as a whole, or \"\"."""
    if flavor is Flavor.MYSQL:
        uuid, _, rest = part.partition(":")
        return uuid.lower() if rest.strip() == "*" and len(uuid) == 36 else ""
    domain, _, server = part.partition("-")
    return str(int(server)) if domain == "*" and server.isdecimal() else ""


def _mariadb_entries(parts: Iterable[str]) -> Iterator[tuple[str, Interval]]:
    for part in parts:
        prefix, range_, last = part.rpartition("..")
        numbers = (prefix if range_ else part).split("-")
        if len(numbers) != 3 or not all(n.isdecimal() for n in (*numbers, last if range_ else "0")):
            raise ValueError(f"not a MariaDB GTID: {part!r}")
        domain, server, number = (int(n) for n in numbers)
        if range_ and not 1 <= number <= int(last):
            raise ValueError(f"not an interval: {part!r}")
        if number:
            yield f"{domain}-{server}", (number, int(last)) if range_ else (1, number)


def _mysql_entries(parts: Iterable[str]) -> Iterator[tuple[str, Interval]]:
    for part in parts:
        uuid, *rest = (piece.strip() for piece in part.split(":"))
        if len(uuid) != 36 or not rest:
            raise ValueError(f"not a MySQL GTID set: {part!r}")
        stream = uuid.lower()
        for piece in rest:
            low, _, high = piece.partition("-")
            if low.isdecimal() and (high.isdecimal() or not high):
                first, last = int(low), int(high or low)
                if not 1 <= first <= last:
                    raise ValueError(f"not an interval: {piece!r} in {part!r}")
                yield stream, (first, last)
            elif piece.isidentifier():
                stream = f"{uuid.lower()}:{piece.lower()}"
            else:
                raise ValueError(f"neither interval nor tag: {piece!r} in {part!r}")


def _parts(text: str) -> Iterator[str]:
    return (part for part in (piece.strip() for piece in text.split(",")) if part)


def _format(flavor: Flavor, stream: str, spans: tuple[Interval, ...]) -> str:
    if flavor is Flavor.MYSQL:
        return ":".join([stream, *(str(a) if a == b else f"{a}-{b}" for a, b in spans)])
    if len(spans) == 1 and spans[0][0] == 1:
        return f"{stream}-{spans[0][1]}"
    return ",".join(f"{stream}-{a}" if a == b else f"{stream}-{a}..{b}" for a, b in spans)


def _merge(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    merged: list[Interval] = []
    for low, high in sorted(intervals):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def _without(intervals: tuple[Interval, ...], holes: tuple[Interval, ...]) -> Iterator[Interval]:
    for start, high in intervals:
        low = start
        for hole_low, hole_high in holes:
            if hole_high < low:
                continue
            if hole_low > high:
                break
            if low < hole_low:
                yield low, hole_low - 1
            low = hole_high + 1
        if low <= high:
            yield low, high
