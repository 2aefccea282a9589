"""Whether what clients were told of rows that are changed and deleted is true: registers and counters.

A register has one writer, so its changes have an order. A read may find any change that is not older than the last one
known to have been made before the read began. Finding nothing means finding a deletion, or the beginning. A counter has
many writers: what a read may find lies between all additions that were acknowledged before it began and all that began
before it ended. A lower value is a lost update.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from tests.chaos.history import Change, Ending, Glance, History, Outcome, Verb
from tests.chaos.verdict import NEVER, Kind, Violation

BEGINNING = -1
"""The place before a register's first change: it is not there."""


def violations(history: History, ending: Ending) -> Iterator[Violation]:
    """All violations, in no particular order.

    :raises ValueError: a register's writer did two things at a time: no client of these tests has written this history
    """
    by_key: dict[int, list[Change]] = {}
    added: dict[int, list[Change]] = {}
    for change in history.changes:
        kind = added if change.verb is Verb.ADD else by_key
        kind.setdefault(change.key, []).append(change)
    registers = {key: _Register(key, changes) for key, changes in by_key.items()}
    counters = {key: _Counter(key, changes) for key, changes in added.items()}
    # the end counts as one more read of each server, after all others
    glances = [
        *history.glances,
        *(
            Glance(0, NEVER, NEVER, server, holding.registers, holding.counters)
            for server, holding in ending.holdings.items()
        ),
    ]
    for glance in glances:
        for key in (glance.registers or {}).keys() - registers.keys():
            yield Violation(Kind.STRANGE, f"{_told(glance)} saw register {key}: never set")
        for register in registers.values():
            register.note(glance)
    for register in registers.values():
        register.close()
    for glance in glances:
        for register in registers.values() if glance.registers is not None else ():
            yield from register.judge(glance)
        for counter in counters.values() if glance.counters is not None else ():
            yield from counter.judge(glance)


def _told(glance: Glance) -> str:
    if glance.end == NEVER:
        return f"{glance.server} in the end"
    return f"reader {glance.reader} ({glance.server}, {glance.begin:.3f} to {glance.end:.3f})"


class _Register:
    """The changes of one register, by their place in its order.

    :ivar known_at: by place: the first moment at which it was known to be made
    """

    def __init__(self, key: int, changes: Sequence[Change]) -> None:
        self._key = key
        self._changes = sorted(changes, key=lambda change: change.version)
        for before, after in pairwise(self._changes):
            if before.version == after.version or before.end > after.begin:
                raise ValueError(f"register {key}: two changes at a time: {before}, {after}")
        self._places = {change.version: place for place, change in enumerate(self._changes)}
        self.known_at = [c.end if c.outcome is Outcome.OK else NEVER for c in self._changes]

    def note(self, glance: Glance) -> None:
        """What the read saw is known to be there from then on."""
        for version in (glance.registers or {}).get(self._key, ()):
            place = self._places.get(version) if version is not None else None
            if place is not None and self._changes[place].outcome is not Outcome.RELEASED:
                self.known_at[place] = min(self.known_at[place], glance.end)

    def close(self) -> None:
        """Call when all reads are recorded: computes from when on no read may fall behind each place."""
        known = sorted((at, place) for place, at in enumerate(self.known_at))
        self._times = [at for at, _ in known]
        self._floors = list(accumulate((place for _, place in known), max))

    def judge(self, glance: Glance) -> Iterator[Violation]:
        assert glance.registers is not None
        one, other = glance.registers.get(self._key, (None, None))
        if one != other:
            what = f"register {self._key}: {_told(glance)} saw {one} and {other}"
            yield Violation(Kind.TORN, what)
            return
        floor = self._floor(glance.begin)
        if one is None:
            if not any(self._may_be_gone(place, glance) for place in self._from(floor)):
                yield self._late(floor, glance, "nothing")
            return
        place = self._places.get(one)
        if place is None or self._changes[place].verb is not Verb.SET:
            yield Violation(
                Kind.STRANGE, f"register {self._key}: {_told(glance)} saw {one}: never set"
            )
        elif self._changes[place].outcome is Outcome.REFUSED:
            yield Violation(Kind.REVIVED, f"{self._tell(place)}: {_told(glance)} saw it")
        elif self._changes[place].begin > glance.end:
            yield Violation(Kind.STRANGE, f"{self._tell(place)}: {_told(glance)} saw it before")
        elif place < floor:
            yield self._late(floor, glance, str(one))

    def _floor(self, before: float) -> int:
        """The last place that a read which begins at that moment must not fall behind."""
        count = bisect_left(self._times, before)
        return self._floors[count - 1] if count else BEGINNING

    def _from(self, floor: int) -> range:
        return range(floor, len(self._changes))

    def _may_be_gone(self, place: int, glance: Glance) -> bool:
        if place == BEGINNING:
            return True
        change = self._changes[place]
        return (
            change.verb is Verb.DELETE
            and change.outcome is not Outcome.REFUSED
            and change.begin <= glance.end
        )

    def _late(self, floor: int, glance: Glance, seen: str) -> Violation:
        what = f"{self._tell(floor)}: {_told(glance)} saw {seen}"
        if self._changes[floor].outcome is not Outcome.OK:
            return Violation(Kind.UNREPEATED if glance.end < NEVER else Kind.VANISHED, what)
        if glance.end == NEVER:
            return Violation(Kind.LOST, what)
        acknowledged = self._changes[floor].end < glance.begin
        return Violation(Kind.STALE if acknowledged else Kind.UNREPEATED, what)

    def _tell(self, place: int) -> str:
        change = self._changes[place]
        return (
            f"register {self._key}, {change.verb} {change.version} ({change.outcome.value} by "
            f"{change.server}, {change.begin:.3f} to {change.end:.3f})"
        )


class _Counter:
    """All additions to one counter."""

    def __init__(self, key: int, changes: Sequence[Change]) -> None:
        self._key = key
        self._acknowledged = sorted(c.end for c in changes if c.outcome is Outcome.OK)
        self._begun = sorted(c.begin for c in changes if c.outcome is not Outcome.REFUSED)

    def judge(self, glance: Glance) -> Iterator[Violation]:
        assert glance.counters is not None
        seen = glance.counters.get(self._key, 0)
        least = bisect_left(self._acknowledged, glance.begin)
        most = bisect_right(self._begun, glance.end)
        what = f"counter {self._key}: {_told(glance)} saw {seen}"
        if seen < least:
            kind = Kind.LOST if glance.end == NEVER else Kind.STALE
            yield Violation(kind, f"{what}, after {least} additions that were acknowledged")
        elif seen > most:
            yield Violation(Kind.TWICE, f"{what}, and there were {most} additions at most")
