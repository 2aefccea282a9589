"""Entries of the history: written and read back, shown to operators, and never too large."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.cli.show.postmortem import told
from holdfast.core.calls import Ran
from holdfast.core.history import build
from holdfast.core.history.entry import (
    LARGEST_BYTES,
    CandidateNote,
    Entry,
    HookResult,
    Moment,
    Outcome,
    Positions,
    Returned,
    Setup,
    Sort,
    What,
    both_ends,
    from_json,
    head,
    to_json,
)
from holdfast.core.history.verified import TableVerified, Verified

TEXT = st.text(max_size=40)
MS = st.floats(-1e6, 1e9).map(lambda ms: round(ms, 1))
AT = st.floats(0, 4e9)
MOMENTS = st.builds(
    Moment, MS, st.sampled_from(Sort), TEXT, TEXT, MS, st.dictionaries(TEXT, MS, max_size=3)
)
SETUPS = st.builds(
    Setup, st.integers(0), TEXT, st.lists(TEXT, max_size=4).map(tuple), st.integers(0, 4), TEXT
)
RUNS = st.builds(Ran, TEXT, TEXT, st.none() | st.integers(-9, 255), MS, TEXT, TEXT)
ENTRIES = st.builds(
    Entry,
    st.sampled_from(What),
    TEXT,
    AT,
    TEXT,
    st.integers(0),
    number=st.integers(1, 10**6),
    new=TEXT,
    ordered=TEXT,
    managers=st.lists(TEXT, max_size=3).map(tuple),
    stopped=st.none() | AT,
    named=st.none() | AT,
    opened=st.none() | AT,
    ended=st.none() | AT,
    whole=st.none() | AT,
    outcome=st.sampled_from(Outcome),
    why=TEXT,
    before=st.none() | SETUPS,
    after=st.none() | SETUPS,
    positions=st.builds(Positions, TEXT, TEXT, TEXT),
    candidates=st.lists(
        st.builds(CandidateNote, TEXT, st.booleans(), st.booleans(), TEXT, TEXT), max_size=3
    ).map(tuple),
    hooks=st.lists(
        st.builds(HookResult, TEXT, TEXT, TEXT, MS, st.lists(RUNS, max_size=2).map(tuple)),
        max_size=2,
    ).map(tuple),
    moments=st.lists(MOMENTS, max_size=6).map(tuple),
    left_out=st.integers(0),
    returned=st.builds(
        Returned,
        TEXT,
        st.lists(TEXT, max_size=2).map(tuple),
        st.integers(0),
        TEXT,
        st.booleans(),
        st.booleans(),
        st.none() | AT,
    ),
    verification=st.none()
    | st.builds(
        Verified,
        TEXT,
        TEXT,
        AT,
        AT,
        halted=TEXT,
        failed=st.booleans(),
        interrupted=st.integers(0, 9),
        tables=st.lists(st.builds(TableVerified, TEXT, st.integers(0), TEXT, TEXT), max_size=3).map(
            tuple
        ),
        repeats=st.integers(0, 9),
        since=AT,
    ),
)
ENTRY = Entry(What.FAILOVER, "m1 is gone", 1000.0, "m1", 7)


@given(ENTRIES)
def test_what_was_written_is_read_back(entry: Entry) -> None:
    assert from_json(to_json(entry)) == entry


@given(ENTRIES)
def test_whatever_is_in_an_entry_can_be_told(entry: Entry) -> None:
    lines = told(entry, "c")
    assert str(entry.number) in lines[0]
    assert json.dumps(head(entry))


@given(ENTRIES, st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_what_is_no_entry_is_a_value_error_and_nothing_else(
    entry: Entry, data: st.DataObject
) -> None:
    document = json.loads(to_json(entry))
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | TEXT
        | st.lists(st.integers(), max_size=2)
        | st.dictionaries(TEXT, st.integers(), max_size=2)
    )
    try:
        found = from_json(json.dumps(document))
    except ValueError:
        return
    assert isinstance(found, Entry)
    told(found, "c")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("managers", {}),
        ("managers", {"a": 1}),
        ("candidates", {"a": 1}),
        ("begun", 10**400),
        ("begun", float("inf")),
        ("ended", float("nan")),
        ("opened", 1e17),
    ],
)
def test_a_field_that_is_damaged_is_a_value_error(key: str, value: object) -> None:
    document = json.dumps({**json.loads(to_json(ENTRY)), key: value})
    with pytest.raises(ValueError, match=key):
        from_json(document)


FORMER = """{"format": 1, "what": "switchover", "cause": "m2 is to take over from m1", "begun": 1000.0, "old": "m1",
 "term": 8, "number": 3, "new": "m2", "ordered": "switchover to m2, by 127.0.0.1", "managers": ["mgr1"],
 "named": 1000.5, "opened": 1000.56, "ended": 1000.6, "whole": 1001.0, "outcome": "done", "why": "m2 is open",
 "before": {"term": 7, "primary": "m1", "voters": ["m1", "m2"], "acks": 1, "mode": "strong"},
 "after": {"term": 8, "primary": "m2", "voters": ["m1", "m2"], "acks": 1, "mode": "strong"},
 "positions": {"old": "", "new": "", "difference": ""}, "candidates": [], "hooks": [], "moments": [
 {"at_ms": 0.0, "sort": "record", "text": "m2 is to take over (term 8)", "member": "", "ms": 0.0, "steps": {}},
 {"at_ms": 500.0, "sort": "note", "text": "writes stop", "member": "", "ms": 0.0, "steps": {}},
 {"at_ms": 520.0, "sort": "command", "text": "freeze", "member": "m1", "ms": 5.0, "steps": {"frozen": 4.0}}],
 "left_out": 0, "returned": {"verdict": "", "saved": [], "transactions": 0, "reason": "", "rewound": false,
 "cloned": false, "following": null}, "verification": null}"""
"""As stored by versions that knew only from a sentence when writes had stopped."""


def test_an_entry_of_a_former_version_is_read_and_its_outage_is_the_same() -> None:
    entry = from_json(FORMER)
    assert entry.stopped == 1000.5
    assert entry.outage_ms == 60.0
    assert from_json(to_json(entry)) == entry


def test_no_sentence_of_a_moment_counts_as_when_writes_stopped() -> None:
    moment = Moment(500.0, Sort.NOTE, "writes stop")
    entry = replace(ENTRY, what=What.SWITCHOVER, opened=1000.56, moments=(moment,))
    assert entry.outage_ms == 560.0
    assert from_json(to_json(entry)).outage_ms == 560.0
    assert replace(entry, stopped=1000.5, moments=()).outage_ms == 60.0


def test_what_a_client_wrote_does_not_drive_the_terminal() -> None:
    text = "Duplicate entry '\x1b[2J\x00'"
    entry = replace(ENTRY, moments=(Moment(1.0, Sort.FAILED, text),), cause=text)
    assert not any("\x1b" in line or "\x00" in line for line in told(entry, "c"))


def test_what_a_hook_printed_is_kept_with_its_end_and_shortened_where_it_is_too_much() -> None:
    output = "begun\n" + "x" * 10_000 + "\nPermission denied"
    kept = both_ends(output, 4000)
    assert len(kept) == 4000
    assert kept.startswith("begun\n")
    assert kept.endswith("\nPermission denied")
    assert both_ends("short", 5) == "short"
    run = Ran("failover", "stop", 1, 1.0, both_ends("ü" * 10_000 + "at last", 4000))
    result = HookResult("stop", "bad", "it failed", 1.0, (run,) * 10)
    entry = replace(ENTRY, hooks=(result,) * 10, moments=(Moment(1.0, Sort.NOTE, "x"),))
    text = to_json(entry)
    assert len(text) <= LARGEST_BYTES
    assert len(from_json(text).hooks) == 10
    few = replace(entry, hooks=(replace(result, ran=(run,)),))
    assert from_json(to_json(few)) == few


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"format": "x"}'])
def test_garbage_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_json(text)


def test_fields_of_a_later_version_are_passed_over_and_its_format_is_refused() -> None:
    document = json.loads(to_json(ENTRY))
    assert from_json(json.dumps({**document, "mood": "blue"})) == ENTRY
    with pytest.raises(ValueError, match="format 2"):
        from_json(json.dumps({**document, "format": 2}))
    with pytest.raises(ValueError, match="sideways"):
        from_json(json.dumps({**document, "outcome": "sideways"}))


def test_an_entry_never_grows_beyond_what_a_store_takes() -> None:
    entry = ENTRY
    for number in range(1000):
        steps = {f"a part of number {each}": 1.5 for each in range(20)}
        entry = build.noted(entry, 1000 + number, Sort.COMMAND, "ü" * 3000, "m1", number, steps)
    assert len(entry.moments) < 200
    text = to_json(entry)
    assert len(text.encode()) <= LARGEST_BYTES
    kept = from_json(text)
    assert kept.moments[0] == entry.moments[0]
    assert kept.moments[-1] == entry.moments[-1]
    assert len(kept.moments) + kept.left_out == 1000
    assert f"({kept.left_out} lines in the middle were not kept)" in told(kept, "c")[-1]
