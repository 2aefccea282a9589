"""The checker of the chaos runs: it finds every kind of false answer, and reports nothing that is allowed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.checker import check, violations
from tests.chaos.history import (
    Change,
    Ending,
    Entry,
    Excuse,
    Glance,
    History,
    Holding,
    Outcome,
    Read,
    Verb,
    Window,
    Write,
    line,
    load,
)
from tests.chaos.registers import violations as of_registers
from tests.chaos.verdict import Kind

OK, REFUSED, UNKNOWN, RELEASED = Outcome


def write(
    first: int,
    begin: float,
    end: float,
    outcome: Outcome = OK,
    server: str = "m1",
    last: int = 0,
    writer: int = 1,
) -> Write:
    return Write(writer, first, last or first, begin, end, server, outcome)


def read(begin: float, end: float, *seen: int, low: int = 0, server: str = "m1") -> Read:
    return Read(9, begin, end, server, (Window(1, low, seen),))


def heads(begin: float, end: float, server: str = "m1", **found: int) -> Read:
    return Read(9, begin, end, server, heads={int(name[1:]): n for name, n in found.items()})


def ending(*rows: int, **changes: Any) -> Ending:
    same = {name: Holding({1: rows} if rows else {}) for name in ("m1", "m2", "m3")}
    return replace(Ending(same, 5.0), **changes)


def kinds(history: Sequence[Write | Read], end: Ending) -> set[Kind]:
    writes = [each for each in history if isinstance(each, Write)]
    reads = [each for each in history if isinstance(each, Read)]
    return set(check(History(writes, reads), end).counts)


def test_all_is_well() -> None:
    history: list[Write | Read] = [
        write(1, 0, 1),
        write(2, 2, 3, UNKNOWN),
        write(3, 4, 5, REFUSED),
        write(4, 6, 7, last=6, server="m2"),
        read(2, 3, 1),
        read(8, 9, 4, 5, 6, low=3, server="m2"),
        heads(8, 9, w1=6),
    ]
    assert kinds(history, ending(1, 4, 5, 6, reigns=("m1", "m2"))) == set()
    assert kinds(history, ending(1, 2, 4, 5, 6)) == set()


def test_an_acknowledged_write_is_missing_on_one_server() -> None:
    end = ending(1, 2)
    end.holdings["m3"] = Holding({1: (1,)})
    assert kinds([write(1, 0, 1), write(2, 2, 3)], end) == {Kind.LOST, Kind.DIFFERENT}


def test_an_acknowledged_write_is_there_twice() -> None:
    assert kinds([write(1, 0, 1)], ending(1, 1)) == {Kind.TWICE}


def test_a_refused_write_is_there_after_all() -> None:
    assert kinds([write(1, 0, 1, REFUSED)], ending(1)) == {Kind.REVIVED}


def test_a_refused_write_was_seen_for_a_while() -> None:
    assert kinds([write(1, 0, 1, REFUSED), read(2, 3, 1)], ending()) == {Kind.REVIVED}


@pytest.mark.parametrize("late", [read(1.5, 2), heads(1.5, 2), read(1.5, 9, 0)])
def test_a_read_that_began_after_the_acknowledgement_misses_the_write(late: Read) -> None:
    found = kinds([write(1, 0, 1), late], ending(1))
    assert Kind.STALE in found


def test_a_read_that_began_before_the_acknowledgement_may_miss_the_write() -> None:
    history: list[Write | Read] = [write(1, 0, 1), read(0.9, 99), read(1, 99), heads(1, 99)]
    assert kinds(history, ending(1)) == set()


def test_a_window_says_nothing_of_the_rows_below_it() -> None:
    assert kinds([write(1, 0, 1), read(2, 3, low=1)], ending(1)) == set()


def test_a_stale_read_is_one_whoever_answered() -> None:
    history: list[Write | Read] = [
        write(1, 0, 1, server="m2"),
        read(2, 3, server="m1"),
        read(4, 5, 1, server="m2"),
    ]
    assert kinds(history, ending(1)) == {Kind.STALE}


def test_a_read_misses_what_another_read_had_seen() -> None:
    history: list[Write | Read] = [write(1, 0, 9, UNKNOWN), read(1, 2, 1), read(3, 4)]
    assert kinds(history, ending(1)) == {Kind.UNREPEATED}
    assert kinds([*history[:2], heads(3, 4)], ending(1)) == {Kind.UNREPEATED}
    assert kinds([*history[:2], heads(1.5, 4)], ending(1)) == set()


def test_what_a_read_saw_is_gone_at_the_end() -> None:
    assert kinds([write(1, 0, 9, UNKNOWN), read(1, 2, 1)], ending()) == {Kind.VANISHED}
    assert kinds([write(1, 0, 9, UNKNOWN), heads(1, 2, w1=1)], ending()) == {Kind.VANISHED}


def test_a_transaction_is_kept_or_seen_in_part() -> None:
    several = write(1, 0, 9, UNKNOWN, last=3)
    assert kinds([several], ending(1, 2)) == {Kind.TORN}
    assert kinds([several, read(1, 2, 1, 2)], ending(1, 2, 3)) == {Kind.TORN}
    assert kinds([several, read(1, 2, 2, 3, low=1)], ending(1, 2, 3)) == set()
    assert kinds([several, heads(1, 2, w1=2)], ending(1, 2, 3)) == {Kind.TORN}


def test_rows_that_nobody_wrote() -> None:
    assert kinds([write(1, 0, 1)], ending(1, 2)) == {Kind.STRANGE}
    assert kinds([write(1, 0, 1), read(2, 3, 1, 7)], ending(1)) == {Kind.STRANGE}
    assert kinds([], ending(1)) == {Kind.STRANGE}


def test_a_row_that_was_read_before_it_was_sent() -> None:
    assert kinds([write(1, 5, 6), read(1, 2, 1)], ending(1)) == {Kind.STRANGE}


def test_servers_differ_in_the_end() -> None:
    for odd in (Holding({1: (1,)}, executed="x"), Holding({1: (1,)}, checksum="x")):
        end = ending(1)
        end.holdings["m2"] = odd
        assert kinds([write(1, 0, 1)], end) == {Kind.DIFFERENT}
    assert kinds([], ending(holdings={})) == {Kind.DIFFERENT}


@pytest.mark.parametrize("seconds", [None, 60.5])
def test_the_cluster_is_not_whole_in_time(seconds: float | None) -> None:
    assert kinds([], ending(whole_seconds=seconds)) == {Kind.NOT_WHOLE}


def test_an_old_primary_acknowledges_after_the_new_one() -> None:
    history: list[Write | Read] = [
        write(1, 0, 1),
        write(2, 2, 3, server="m2"),
        write(1, 4, 5, writer=2),
    ]
    end = ending(reigns=("m1", "m2"))
    rows = {1: (1, 2), 2: (1,)}
    end = replace(end, holdings={name: Holding(rows) for name in end.holdings})
    assert kinds(list(history), end) == {Kind.TWO_WRITERS}
    assert kinds(list(history), replace(end, reigns=("m1", "m2", "m1"))) == set()
    assert kinds(list(history), replace(end, reigns=None)) == set()
    overlapping = replace(history[2], begin=2.5)
    assert kinds([*history[:2], overlapping], end) == set()


def test_who_was_never_primary_acknowledges() -> None:
    assert kinds([write(1, 0, 1, server="m3")], ending(1, reigns=("m1",))) == {Kind.TWO_WRITERS}


def test_a_writer_that_does_two_things_at_a_time_is_no_history_of_ours() -> None:
    with pytest.raises(ValueError, match="two things at a time"):
        kinds([write(1, 0, 5), write(2, 4, 6)], ending(1, 2))


def test_all_violations_are_counted_but_only_the_first_told() -> None:
    verdict = check(History([write(n, n, n + 0.5) for n in range(1, 101)]), ending())
    assert verdict.counts == {Kind.LOST: 300}
    assert len(verdict.violations) == 10
    assert not verdict.good


def test_fifty_thousand_operations_take_seconds() -> None:
    writes = [
        write(n, n / 50, n / 50 + 0.01, writer=name) for name in range(1, 9) for n in range(1, 4001)
    ]
    kept = {name: tuple(range(1, 4001)) for name in range(1, 9)}
    reads = []
    for index in range(20000):
        begin = index / 250
        head = int((begin - 0.011) * 50) if begin > 0.011 else 0
        low = max(0, head - 50)
        window = Window(index % 8 + 1, low, tuple(range(low + 1, head + 1)))
        reads.append(Read(1, begin, begin + 0.001, "m1", (window,)))
    end = Ending({name: Holding(kept) for name in ("m1", "m2", "m3")}, 1.0, ("m1",))
    began = time.perf_counter()
    assert check(History(writes, reads), end).counts == {}
    assert time.perf_counter() - began < 10


def test_a_history_comes_back_from_its_file(tmp_path: Path) -> None:
    writes = [write(1, 0.25, 1.5), write(2, 2, 3, UNKNOWN, "m2", last=5)]
    reads = [read(1, 2, 1, 2, 3, 7, 9, low=0), read(2, 3), heads(4, 5, w1=3, w22=1), heads(4, 5)]
    changes = [change(1, 0, 1), change(2, 2, 3, UNKNOWN, verb=Verb.DELETE), added(4, 5)]
    glances = [
        glance(1, 2, 1),
        Glance(9, 3, 4, "m2", {1: (1, None)}),
        Glance(9, 5, 6, "m1", None, {0: 1}),
    ]
    path = tmp_path / "history"
    entries: list[Entry] = [*writes, *reads, *changes, *glances]
    path.write_text("".join(line(each) + "\n" for each in entries))
    assert load([path]) == History(writes, reads, changes, glances)


# -- registers and counters -------------------------------------------------------------------------


def change(
    version: int, begin: float, end: float, outcome: Outcome = OK, verb: Verb = Verb.SET
) -> Change:
    return Change(1, verb, 7, version, begin, end, "m1", outcome)


def added(begin: float, end: float, outcome: Outcome = OK) -> Change:
    return Change(1, Verb.ADD, 0, 0, begin, end, "m1", outcome)


def glance(begin: float, end: float, *seen: int) -> Glance:
    """Nothing, one version in both rows, or two."""
    return Glance(9, begin, end, "m1", {7: (seen[0], seen[-1])} if seen else {})


def counted(begin: float, end: float, seen: int) -> Glance:
    return Glance(9, begin, end, "m1", counters={0: seen})


def told(changes: list[Change], *glances: Glance, last: Holding | None = None) -> list[Kind]:
    holdings = {"m1": last} if last else {}
    history = History(changes=changes, glances=list(glances))
    return [each.kind for each in of_registers(history, Ending(holdings, 1.0))]


SET_THEN_DELETED = [change(1, 0, 1), change(2, 2, 3), change(3, 4, 5, verb=Verb.DELETE)]


@pytest.mark.parametrize(
    "fine",
    [
        glance(0.5, 0.6),
        glance(0.5, 0.6, 1),
        glance(1.5, 1.6, 1),
        glance(2.5, 2.6, 1),
        glance(2.5, 2.6, 2),
        glance(4.5, 4.6, 2),
        glance(4.5, 4.6),
        glance(6, 7),
        glance(0, 9),
    ],
)
def test_a_register_says_what_was_set_last_or_is_being_set(fine: Glance) -> None:
    assert told(SET_THEN_DELETED, fine) == []


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (glance(1.5, 1.6), Kind.STALE),
        (glance(3.5, 3.6, 1), Kind.STALE),
        (glance(6, 7, 2), Kind.STALE),
        (glance(1.5, 1.6, 2), Kind.STRANGE),
        (glance(1.5, 1.6, 9), Kind.STRANGE),
        (glance(6, 7, 3), Kind.STRANGE),
        (glance(2.5, 2.6, 1, 2), Kind.TORN),
    ],
)
def test_a_register_that_says_something_else(seen: Glance, kind: Kind) -> None:
    assert told(SET_THEN_DELETED, seen) == [kind]


def test_a_register_after_a_change_of_which_nobody_knows_what_came() -> None:
    doubtful = [change(1, 0, 1), change(2, 2, 3, UNKNOWN)]
    assert told(doubtful, glance(4, 5, 1)) == told(doubtful, glance(4, 5, 2)) == []
    assert told(doubtful, glance(4, 5, 2), glance(6, 7, 1)) == [Kind.UNREPEATED]
    assert told(doubtful, glance(4, 5, 2), last=Holding({}, registers={7: (1, 1)})) == [
        Kind.VANISHED
    ]
    refused = [change(1, 0, 1), change(2, 2, 3, REFUSED)]
    assert told(refused, glance(4, 5, 2)) == [Kind.REVIVED]
    gone = [change(1, 0, 1), change(2, 2, 3, REFUSED, Verb.DELETE)]
    assert told(gone, glance(4, 5)) == [Kind.STALE]


def test_a_register_in_the_end() -> None:
    assert told(SET_THEN_DELETED, last=Holding({})) == []
    assert told(SET_THEN_DELETED, last=Holding({}, registers={7: (2, 2)})) == [Kind.LOST]
    assert told([change(1, 0, 1)], last=Holding({})) == [Kind.LOST]
    assert told([], last=Holding({}, registers={7: (1, 1)})) == [Kind.STRANGE]


def test_a_writer_that_changes_a_register_twice_at_a_time_is_no_history_of_ours() -> None:
    with pytest.raises(ValueError, match="two changes at a time"):
        told([change(1, 0, 5), change(2, 4, 6)])


def test_a_counter_loses_no_addition_and_makes_none_twice() -> None:
    additions = [added(0, 1), added(2, 3), added(4, 5, UNKNOWN), added(6, 7, REFUSED)]
    assert told(additions, counted(1.5, 1.6, 1), counted(2.5, 2.6, 1), counted(2.5, 2.6, 2)) == []
    assert told(additions, counted(3.5, 3.6, 1)) == [Kind.STALE]
    assert told(additions, counted(3.5, 3.6, 3)) == [Kind.TWICE]
    for value, kinds_ in ((1, [Kind.LOST]), (2, []), (3, []), (4, [Kind.TWICE])):
        assert told(additions, last=Holding({}, counters={0: value})) == kinds_


def test_what_a_hand_released_promises_nothing_and_all_else_does() -> None:
    history = History(
        [write(1, 0, 1), write(2, 2, 3)],
        [read(3.5, 4, 1, 2)],
        [change(1, 2, 3)],
        [glance(3.5, 4, 1)],
    )
    excused = history.excused([Excuse("m1", 2.5, 4)])
    assert [each.outcome for each in excused.writes] == [OK, RELEASED]
    assert [each.outcome for each in excused.changes] == [RELEASED]
    end = ending(1)
    assert set(check(excused, end).counts) == set()
    assert set(check(history, end).counts) == {Kind.LOST, Kind.VANISHED}
    for other in (Excuse("m2", 2.5, 4), Excuse("m1", 3.5, 4), Excuse("m1", 2.5, 4, connection=8)):
        assert history.excused([other]) == history
    assert set(check(excused, ending()).counts) == {Kind.LOST, Kind.VANISHED}


def test_servers_hold_other_registers_in_the_end() -> None:
    history = History(changes=[change(1, 0, 1, UNKNOWN)])
    end = Ending({"m1": Holding({}), "m2": Holding({}, registers={7: (1, 1)})}, 1.0)
    assert set(check(history, end).counts) == {Kind.DIFFERENT}


# -- against a checker that follows the definitions word by word ------------------------------------

MOMENTS = st.integers(0, 12).map(float)
ROWS = st.lists(st.integers(1, 9), max_size=8)


@st.composite
def histories(draw: st.DrawFn) -> History:
    found = History()
    for name in (1, 2):
        number, now = 1, draw(MOMENTS)
        for _ in range(draw(st.integers(0, 3))):
            last = number + draw(st.integers(0, 2))
            end = now + draw(st.integers(0, 3))
            server = draw(st.sampled_from(("m1", "m2")))
            found.writes.append(
                Write(name, number, last, now, end, server, draw(st.sampled_from(Outcome)))
            )
            number = last + draw(st.integers(1, 2))
            now = end + draw(st.integers(0, 2))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(MOMENTS)
        end = begin + draw(st.integers(0, 4))
        if draw(st.booleans()):
            low = draw(st.integers(0, 6))
            seen = tuple(sorted({n for n in draw(ROWS) if n > low}))
            windows = (Window(draw(st.sampled_from((1, 2, 3))), low, seen),)
            found.reads.append(Read(1, begin, end, "m1", windows))
        else:
            names = st.sampled_from((1, 2, 3))
            top = draw(st.dictionaries(names, st.integers(1, 9), max_size=2))
            found.reads.append(Read(1, begin, end, "m1", heads=top))
    return found


@st.composite
def endings(draw: st.DrawFn) -> Ending:
    full = {1: tuple(range(1, 10)), 2: tuple(range(1, 10))}
    holdings = {}
    for server in ("m1", "m2"):
        if draw(st.booleans()):
            holdings[server] = Holding(full)
        else:
            rows = {name: tuple(sorted(draw(ROWS))) for name in (1, 2)}
            holdings[server] = Holding({name: kept for name, kept in rows.items() if kept})
    reigns = draw(st.none() | st.lists(st.sampled_from(("m1", "m2")), max_size=4).map(tuple))
    return Ending(holdings, 1.0, reigns)


@given(histories(), endings())
def test_the_checker_finds_what_the_definitions_say(history: History, end: Ending) -> None:
    found = Counter(each.kind for each in violations(history, end, 60.0))
    two_writers = found.pop(Kind.TWO_WRITERS, 0)
    assert found == Counter(_naive(history, end))
    assert bool(two_writers) is not _turns_can_be_given(history, end)


def _rows(each: Write) -> set[int]:
    return set(range(each.first, each.last + 1))


def _naive(history: History, end: Ending) -> Iterator[Kind]:
    names = {each.writer for each in history.writes}
    for holding in end.holdings.values():
        for name, rows in holding.rows.items():
            if name not in names:
                yield Kind.STRANGE
                continue
            written = set().union(*(_rows(w) for w in history.writes if w.writer == name))
            for number in set(rows):
                if number not in written:
                    yield Kind.STRANGE
                elif rows.count(number) > 1:
                    yield Kind.TWICE
        for each in history.writes:
            there = _rows(each) & set(holding.rows.get(each.writer, ()))
            if each.outcome is REFUSED:
                yield from [Kind.REVIVED] * bool(there)
            elif each.outcome is OK:
                yield from [Kind.LOST] * (there != _rows(each))
            else:
                yield from [Kind.TORN] * (there not in (set(), _rows(each)))
    for one in history.reads:
        for name, number in _sights(one):
            yield from _naive_sight(history, end, one, name, number)
        for each in history.writes:
            for above, seen in _parts(one, each):
                if seen and seen != above:
                    yield Kind.TORN
            if _naive_missed(one, each):
                if each.outcome is OK and each.end < one.begin:
                    yield Kind.STALE
                elif each.outcome not in (REFUSED, RELEASED) and any(
                    other.end < one.begin and _saw(other, each) for other in history.reads
                ):
                    yield Kind.UNREPEATED
        yield from _naive_heads(history, one)
    held = [each.rows for each in end.holdings.values()]
    yield from [Kind.DIFFERENT] * (held[0] != held[1])


def _naive_sight(
    history: History, end: Ending, one: Read, name: int, number: int
) -> Iterator[Kind]:
    of = [each for each in history.writes if each.writer == name and number in _rows(each)]
    if not of or of[0].begin > one.end:
        yield Kind.STRANGE
    elif of[0].outcome is REFUSED:
        yield Kind.REVIVED
    elif of[0].outcome is not RELEASED and any(
        number not in each.rows.get(name, ()) for each in end.holdings.values()
    ):
        yield Kind.VANISHED


def _sights(one: Read) -> list[tuple[int, int]]:
    sights = [(window.writer, number) for window in one.windows for number in window.seen]
    return sights + list((one.heads or {}).items())


def _parts(one: Read, each: Write) -> Iterator[tuple[set[int], set[int]]]:
    """Of each window, what it could have seen of a write, and what it saw."""
    for window in one.windows:
        if window.writer == each.writer:
            above = {number for number in _rows(each) if number > window.low}
            yield above, above & set(window.seen)
    if one.heads and (head := one.heads.get(each.writer)) in _rows(each) and head is not None:
        yield {number for number in _rows(each) if number >= head}, {head}


def _saw(one: Read, each: Write) -> bool:
    return each.begin <= one.end and any(
        name == each.writer and number in _rows(each) for name, number in _sights(one)
    )


def _naive_missed(one: Read, each: Write) -> bool:
    """Whether a window missed the write; each write is checked separately."""
    return each.begin < one.begin and any(
        above and not seen
        for window in one.windows
        if window.writer == each.writer
        for above, seen in _parts(replace(one, windows=(window,), heads=None), each)
    )


def _naive_heads(history: History, one: Read) -> Iterator[Kind]:
    """Of each writer the highest row counts that the read had to see."""
    if one.heads is None:
        return
    for name in {each.writer for each in history.writes}:
        known = [
            each
            for each in history.writes
            if each.writer == name
            and each.outcome not in (REFUSED, RELEASED)
            and (
                (each.outcome is OK and each.end < one.begin)
                or any(other.end < one.begin and _saw(other, each) for other in history.reads)
            )
        ]
        highest = max(known, key=lambda each: each.last, default=None)
        if highest is not None and one.heads.get(name, 0) < highest.last:
            acknowledged = highest.outcome is OK and highest.end < one.begin
            yield Kind.STALE if acknowledged else Kind.UNREPEATED


def _turns_can_be_given(history: History, end: Ending) -> bool:
    """By trying every reign for every acknowledgement."""
    if end.reigns is None:
        return True
    acknowledged = [each for each in history.writes if each.outcome is OK]

    def place(index: int, given: list[int]) -> bool:
        if index == len(acknowledged):
            return True
        own = acknowledged[index]
        for reign, server in enumerate(end.reigns or ()):
            fits = server == own.server and all(
                (other.end >= own.begin or before <= reign)
                and (own.end >= other.begin or reign <= before)
                for other, before in zip(acknowledged, given, strict=False)
            )
            if fits and place(index + 1, [*given, reign]):
                return True
        return False

    return place(0, [])
