"""Which record follows which: across managers that come and go, and a store that is put back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from holdfast.core.observed.lineage import (
    KEPT,
    Memory,
    RecordMark,
    follows,
    late,
    mark,
    memory,
    stamped,
)
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record, from_json, to_json

BASE = Record(1, "m1", 1, (Configuration(frozenset({("m1", "a"), ("m2", "b")}), 1),), 1)


def saved(*leaders: str) -> list[Record]:
    """One record after another, each saved by the leadership of that name."""
    found: list[Record] = []
    for leader in leaders:
        before = found[-1] if found else None
        new = before is not None and before.leader != leader
        record = replace(before, term=before.term + new) if before else BASE
        found.append(stamped(record, before, leader))
    return found


def known(record: Record) -> RecordMark:
    return RecordMark(record.term, record.leader, record.revision)


def test_a_record_follows_every_one_before_it_and_none_after() -> None:
    line = saved("x", "x", "y", "z", "z", "z")
    for later, record in enumerate(line):
        for earlier, remembered in enumerate(line):
            assert follows(record, known(remembered)) is (earlier <= later)


def test_late_is_what_its_own_leadership_has_replaced() -> None:
    line = [known(each) for each in saved("x", "x", "y", "y", "y")]
    for when, told in enumerate(line):
        for now, remembered in enumerate(line):
            same = told.leader == remembered.leader
            assert late(told, remembered) is (same and when < now), "of others the term tells"
    assert not late(RecordMark(), line[0])
    assert not late(line[0], RecordMark())
    assert late(line[0], replace(line[0], settings=1)), "and what an operator had set otherwise"


def test_an_agent_that_remembers_nothing_obeys_any_record() -> None:
    assert follows(saved("x")[0], RecordMark())


def test_terms_that_climb_again_do_not_hide_that_the_store_was_put_back() -> None:
    line = saved("x", "y", "y", "z", "z")
    back = line[1]
    for name in ("p", "q", "r", "s", "t"):
        back = stamped(replace(back, term=back.term + 1), back, name)
        assert not follows(back, known(line[-1]))
        assert not follows(back, known(line[2])), "it was put back to before that"
        assert follows(back, known(line[1]))
    assert back.term > line[-1].term
    assert back.revision > line[-1].revision


def test_two_leaderships_of_one_term_do_not_follow_each_other() -> None:
    (base,) = saved("x")
    one = stamped(replace(base, term=2), base, "y")
    other = stamped(replace(base, term=2), base, "z")
    assert not follows(one, known(other))
    assert not follows(other, known(one))


def test_a_leadership_never_saves_a_term_of_another() -> None:
    (base,) = saved("x")
    assert stamped(base, base, "y").term == base.term + 1
    assert stamped(replace(base, term=7), base, "y").term == 7
    assert stamped(base, base, "x").term == base.term


def test_what_is_older_than_all_that_is_listed_is_of_the_line() -> None:
    line = saved(*(f"l{number}" for number in range(KEPT + 5)))
    assert len(line[-1].lineage) == KEPT
    assert all(follows(line[-1], known(each)) for each in line)


def test_a_record_of_an_earlier_version_is_read_and_gone_on_from() -> None:
    data = json.loads(to_json(BASE))
    for key in ("leader", "revision", "lineage", "identities", "forsaken"):
        del data[key]
    old = from_json(json.dumps(data))
    assert (old.leader, old.revision, old.lineage) == ("", 0, ())
    first = stamped(replace(old, term=2), old, "x")
    assert (first.revision, first.lineage) == (1, ())
    assert not follows(old, known(first)), "a manager of that version would go on from before"


def test_a_record_is_the_same_when_it_was_written_and_read() -> None:
    line = saved("x", "y", "z")
    full = replace(
        line[-1], identities=frozenset({("m1", "i"), ("m2", "j")}), forsaken=frozenset({"m3"})
    )
    assert from_json(to_json(full)) == full


def test_what_agents_keep_is_read_again() -> None:
    (record,) = saved("x")
    kept = Memory(record, {"settings": {"mode": "async"}}, 4, {"m1": "http://a"})
    assert memory(kept.text()) == kept
    found = mark(kept.text())
    assert (found.term, found.leader, found.revision, found.settings) == (1, "x", 1, 4)
    assert found.digest != mark(replace(kept, version=5).text()).digest


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"record": 1}', '{"record": {}}'])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no record|Expecting value"):
        memory(text)
    with pytest.raises(ValueError, match=r"no record|Expecting value"):
        mark(text)
