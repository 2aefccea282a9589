"""Whether what clients were told is true. Pure: no clock, no server, no order of threads.

    (a) LOST, TWICE        an acknowledged write is on every server, once
    (b) REVIVED            what was refused for certain is nowhere, and no client read it
    (c) STALE              a read that began after a write was acknowledged sees it, whichever server answered
        UNREPEATED         ... or after another read had seen it
    (d) VANISHED           what a read saw is there at the end
        TORN               a transaction is seen, and kept, as a whole or not at all
        STRANGE            nothing is there that no client wrote, or that was read before it was sent
        The same holds for registers, which are changed and deleted, and for counters: ``registers.py``
    (e) DIFFERENT          all servers are identical at the end
    (f) NOT_WHOLE          the cluster was whole in time after the last heal
        TWO_WRITERS        the servers that acknowledged took turns in the order of the recorded primaries

An operation happened at one moment between its begin and its end. Two operations of which neither ended before the
other began are concurrent: either order is allowed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from tests.chaos import registers
from tests.chaos.history import Change, Ending, History, Outcome, Read, Window, Write
from tests.chaos.verdict import NEVER, Kind, Verdict, Violation

WHOLE_SECONDS = 60.0
SHOWN = 10
"""The number of violations of a kind that are described; all are counted."""


def check(history: History, ending: Ending, whole_seconds: float = WHOLE_SECONDS) -> Verdict:
    """:raises ValueError: a writer did two things at a time: no client of these tests has written this history"""
    counts: Counter[Kind] = Counter()
    shown: list[Violation] = []
    for violation in violations(history, ending, whole_seconds):
        counts[violation.kind] += 1
        if counts[violation.kind] <= SHOWN:
            shown.append(violation)
    return Verdict(tuple(shown), dict(counts))


def violations(history: History, ending: Ending, whole_seconds: float) -> Iterator[Violation]:
    """All of them, in no particular order."""
    writers = {name: _Writer(name, writes) for name, writes in _by_writer(history.writes).items()}
    yield from _kept(writers, ending)
    for read in history.reads:
        yield from _noted(writers, ending, read)
    for writer in writers.values():
        writer.close()
    for read in history.reads:
        yield from _stale(writers, read)
    yield from registers.violations(history, ending)
    yield from _identical(ending)
    yield from _one_writer([*history.writes, *history.changes], ending.reigns)
    if ending.whole_seconds is None:
        yield Violation(Kind.NOT_WHOLE, f"the cluster did not become whole: {ending.why_not_whole}")
    elif ending.whole_seconds > whole_seconds:
        yield Violation(
            Kind.NOT_WHOLE,
            f"the cluster was whole {ending.whole_seconds:.1f} s after the last heal, not within "
            f"{whole_seconds:g} s",
        )


def _by_writer(writes: Sequence[Write]) -> dict[int, list[Write]]:
    found: dict[int, list[Write]] = {}
    for write in writes:
        found.setdefault(write.writer, []).append(write)
    return found


class _Writer:
    """The transactions of one writer, by their place in its order.

    :ivar of: the place of the transaction that each row belongs to
    :ivar kept: by place: a read may have seen any row of it: nothing refused it, and every server holds it
    :ivar seen_at: when the first read ended that saw it
    """

    def __init__(self, name: int, writes: list[Write]) -> None:
        self.name = name
        self.writes = sorted(writes, key=lambda write: write.first)
        for before, after in pairwise(self.writes):
            if before.last >= after.first or before.end > after.begin:
                raise ValueError(f"writer {name} did two things at a time: {before}, {after}")
        self.of = {
            number: place
            for place, write in enumerate(self.writes)
            for number in range(write.first, write.last + 1)
        }
        self.lasts = [write.last for write in self.writes]
        self.kept = [write.outcome is not Outcome.REFUSED for write in self.writes]
        self.seen_at = [NEVER] * len(self.writes)
        self.acked_at = [
            write.end if write.outcome is Outcome.OK else NEVER for write in self.writes
        ]

    def sound(self, place: int, read: Read) -> bool:
        """Whether that read may have seen it; records that it did."""
        if not self.kept[place] or self.writes[place].begin > read.end:
            return False
        self.note(place, read.end)
        return True

    def note(self, place: int, at: float) -> None:
        if at < self.seen_at[place] and self.writes[place].outcome is not Outcome.RELEASED:
            self.seen_at[place] = at

    def close(self) -> None:
        """Call when all reads are recorded: computes from when on each transaction must be seen."""
        self.known_at = [*map(min, self.acked_at, self.seen_at)]
        known = sorted((at, self.lasts[place]) for place, at in enumerate(self.known_at))
        self._known_times = [at for at, _ in known]
        self._known_heads = list(accumulate((last for _, last in known), max))

    def head(self, before: float) -> int:
        """The highest row that a read which begins at that moment must see; 0: none."""
        count = bisect_left(self._known_times, before)
        return self._known_heads[count - 1] if count else 0

    def expected(self, low: int, before: float) -> Iterator[int]:
        """Places of the transactions with rows above ``low`` that a read which begins then must see."""
        for place in range(bisect_right(self.lasts, low), len(self.writes)):
            if self.writes[place].begin >= before:
                return
            if self.known_at[place] < before:
                yield place

    def rows(self, place: int, low: int = 0) -> range:
        write = self.writes[place]
        return range(max(write.first, low + 1), write.last + 1)

    def tell(self, place: int) -> str:
        write = self.writes[place]
        rows = str(write.first) if write.first == write.last else f"{write.first}-{write.last}"
        return (
            f"writer {self.name}, row {rows} ({write.outcome.value} by {write.server}, "
            f"{write.begin:.3f} to {write.end:.3f})"
        )


def _kept(writers: dict[int, _Writer], ending: Ending) -> Iterator[Violation]:
    """(a), (b), and rows that no client wrote, on each server."""
    for server, holding in ending.holdings.items():
        for name in holding.rows.keys() - writers.keys():
            yield Violation(Kind.STRANGE, f"{server} holds rows of writer {name}: there is none")
        for name, writer in writers.items():
            held = Counter(holding.rows.get(name, ()))
            for number, times in held.items():
                if number not in writer.of:
                    yield Violation(
                        Kind.STRANGE, f"{server} holds writer {name}, row {number}: never written"
                    )
                elif times > 1:
                    what = writer.tell(writer.of[number])
                    yield Violation(
                        Kind.TWICE, f"{what}: {server} holds row {number} {times} times"
                    )
            for place, write in enumerate(writer.writes):
                rows = writer.rows(place)
                there = sum(number in held for number in rows)
                if there < len(rows):
                    writer.kept[place] = False
                if there and write.outcome is Outcome.REFUSED:
                    yield Violation(Kind.REVIVED, f"{writer.tell(place)}: {server} holds it")
                elif there < len(rows) and write.outcome is Outcome.OK:
                    yield Violation(Kind.LOST, f"{writer.tell(place)}: {server} lacks it")
                elif 0 < there < len(rows):
                    yield Violation(Kind.TORN, f"{writer.tell(place)}: {server} holds a part of it")


def _noted(writers: dict[int, _Writer], ending: Ending, read: Read) -> Iterator[Violation]:
    """(d): what one read alone shows; records when each row was seen."""
    for window in read.windows:
        writer = writers.get(window.writer)
        for number in window.seen:
            place = writer.of.get(number, -1) if writer else -1
            if writer and place >= 0 and writer.sound(place, read):
                continue
            yield from _sighting(writers, ending, read, window.writer, number)
        if writer:
            yield from _torn(writer, read, window)
    for name, head in (read.heads or {}).items():
        yield from _sighting(writers, ending, read, name, head)
        writer = writers.get(name)
        place = writer.of.get(head, -1) if writer else -1
        if writer and place >= 0 and head != writer.lasts[place]:
            yield Violation(Kind.TORN, f"{writer.tell(place)}: {_told(read)} saw a part of it")


def _sighting(
    writers: dict[int, _Writer], ending: Ending, read: Read, name: int, number: int
) -> Iterator[Violation]:
    writer = writers.get(name)
    place = writer.of.get(number) if writer else None
    if writer is None or place is None:
        yield Violation(Kind.STRANGE, f"{_told(read)} saw writer {name}, row {number}: never sent")
        return
    write = writer.writes[place]
    if write.begin > read.end:
        yield Violation(Kind.STRANGE, f"{writer.tell(place)}: {_told(read)} saw it before")
        return
    if write.outcome is Outcome.REFUSED:
        yield Violation(Kind.REVIVED, f"{writer.tell(place)}: {_told(read)} saw it")
        return
    writer.note(place, read.end)
    lacking = [server for server, rows in _rows(ending, name) if not _holds(rows, number)]
    if lacking and write.outcome is not Outcome.RELEASED:
        what = f"{writer.tell(place)}: {_told(read)} saw row {number}"
        yield Violation(Kind.VANISHED, f"{what}, {', '.join(lacking)} lack it")


def _rows(ending: Ending, name: int) -> list[tuple[str, tuple[int, ...]]]:
    return [(server, each.rows.get(name, ())) for server, each in ending.holdings.items()]


def _holds(rows: tuple[int, ...], number: int) -> bool:
    place = bisect_left(rows, number)
    return place < len(rows) and rows[place] == number


def _torn(writer: _Writer, read: Read, window: Window) -> Iterator[Violation]:
    seen = set(window.seen)
    places = {place for number in seen if (place := writer.of.get(number)) is not None}
    for place in places:
        write = writer.writes[place]
        if write.first < write.last and not seen.issuperset(writer.rows(place, window.low)):
            yield Violation(Kind.TORN, f"{writer.tell(place)}: {_told(read)} saw a part of it")


def _stale(writers: dict[int, _Writer], read: Read) -> Iterator[Violation]:
    """(c), once all reads are recorded."""
    for window in read.windows:
        if (writer := writers.get(window.writer)) is None:
            continue
        seen = set(window.seen)
        for place in writer.expected(window.low, read.begin):
            if seen.isdisjoint(writer.rows(place, window.low)):
                yield _late(writer, place, read)
    if read.heads is None:
        return
    for writer in writers.values():
        head = writer.head(read.begin)
        if read.heads.get(writer.name, 0) < head:
            yield _late(writer, writer.of[head], read)


def _late(writer: _Writer, place: int, read: Read) -> Violation:
    what = f"{writer.tell(place)}: {_told(read)} did not see it"
    if writer.acked_at[place] < read.begin:
        return Violation(Kind.STALE, what)
    return Violation(
        Kind.UNREPEATED, f"{what}, though another read had by {writer.seen_at[place]:.3f}"
    )


def _told(read: Read) -> str:
    return f"reader {read.reader} ({read.server}, {read.begin:.3f} to {read.end:.3f})"


def _identical(ending: Ending) -> Iterator[Violation]:
    """(e)"""
    holdings = list(ending.holdings.items())
    if not holdings:
        yield Violation(Kind.DIFFERENT, "no server could be looked at in the end")
    for (one, first), (other, second) in pairwise(holdings):
        if first.rows != second.rows:
            yield Violation(Kind.DIFFERENT, f"{one} and {other} do not hold the same rows")
        if (first.registers, first.counters) != (second.registers, second.counters):
            yield Violation(Kind.DIFFERENT, f"{one} and {other} do not hold the same registers")
        if first.checksum != second.checksum:
            yield Violation(
                Kind.DIFFERENT,
                f"checksums: {one} {first.checksum}, {other} {second.checksum}",
            )
        if first.executed != second.executed:
            yield Violation(
                Kind.DIFFERENT,
                f"GTID sets: {one} {first.executed}, {other} {second.executed}",
            )


def _one_writer(
    writes: Sequence[Write | Change], reigns: tuple[str, ...] | None
) -> Iterator[Violation]:
    """Whether every acknowledgement can be assigned to a reign of its server, in an order that fits all later ones.

    The earliest possible reign leaves most room for all later ones.
    """
    if reigns is None:
        return
    places: dict[str, list[int]] = {}
    for place, server in enumerate(reigns):
        places.setdefault(server, []).append(place)
    acknowledged = [write for write in writes if write.outcome is Outcome.OK]
    began = sorted(acknowledged, key=lambda write: write.begin)
    by_end = sorted(range(len(began)), key=lambda index: began[index].end)
    reign_of: list[int] = []
    floor, done = 0, 0
    for write in began:
        while done < len(by_end) and began[by_end[done]].end < write.begin:
            floor = max(floor, reign_of[by_end[done]])
            done += 1
        own = places.get(write.server, [])
        index = bisect_left(own, floor)
        if index == len(own):
            yield Violation(
                Kind.TWO_WRITERS,
                f"writer {write.writer}, {_what(write)}: {write.server} acknowledged it "
                f"({write.begin:.3f} to {write.end:.3f}) though {reigns[floor] if reigns else 'nobody'} "
                "had taken over and acknowledged before",
            )
            reign_of.append(floor)
        else:
            reign_of.append(own[index])


def _what(entry: Write | Change) -> str:
    return f"row {entry.first}" if isinstance(entry, Write) else f"{entry.verb} {entry.key}"
