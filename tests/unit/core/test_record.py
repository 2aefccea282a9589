"""A stored record: one of an earlier version is read, and one of a later version is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.core.observed.lineage import Memory, mark, memory
from holdfast.core.quorum import Configuration
from holdfast.core.record import (
    FORMAT,
    NewerFormat,
    Owed,
    Past,
    Pause,
    Planned,
    Record,
    Reign,
    Stray,
    from_json,
    to_json,
)
from holdfast.core.settings import Mode
from holdfast.core.transition import Instant, Step, Switchover, TransitionKind
from tests.unit.looks import RECORD

WITHOUT_NUMBER = """
{"term": 7, "primary": "m2", "elected": 7, "voters": {"m2": "b1"}, "acks": 0,
 "joint": [{"voters": {"m2": "b1", "m3": "c1"}, "acks": 1}], "serial": 12,
 "transition": {"kind": "switchover", "step": "open", "deposed": "m1", "lossy": false, "wish": "m2", "ordered": true,
                "until": {"boot": "k1", "at": 12.5}, "drained": "0-1-40", "skip_stop": false},
 "strays": [["m4", "d1", "m1"]], "mode": "semi-sync", "paused": {"reason": "maintenance", "until": 1700000000.0},
 "failovers": [{"instant": {"boot": "k1", "at": 3.5}, "date": 1600000000.0}], "lease": 1.2,
 "owed": {"kind": "switchover", "before": "m1"},
 "planned": {"at": 1800000000.0, "to": "m3", "seconds": 20.0, "old": 1.0, "wait": true, "kill_after": 5.0},
 "leader": "ab12", "revision": 31, "lineage": [["cd34", 6, 29]], "identities": {"m1": "i1", "m2": "i2"},
 "forsaken": ["m4"], "unkept": "b1", "doubt": "0-2-41", "brought": "0-2-39"}
"""
"""As written by the last version that gave it no format."""

THE_SAME = Record(
    term=7,
    primary="m2",
    elected=7,
    configurations=(
        Configuration(frozenset({("m2", "b1")}), 0),
        Configuration(frozenset({("m2", "b1"), ("m3", "c1")}), 1),
    ),
    serial=12,
    transition=Switchover(
        Step.OPEN, "m2", until=Instant("k1", 12.5), deposed="m1", drained="0-1-40"
    ),
    strays=frozenset({Stray("m4", "d1", "m1")}),
    mode=Mode.SEMI_SYNC,
    paused=Pause("maintenance", 1.7e9),
    failovers=(Past(Instant("k1", 3.5), 1.6e9),),
    lease=1.2,
    owed=Owed(TransitionKind.SWITCHOVER, "m1"),
    planned=Planned(1.8e9, "m3", 20.0, 1.0, True, 5.0),
    leader="ab12",
    revision=31,
    lineage=(Reign("cd34", 6, 29),),
    identities=frozenset({("m1", "i1"), ("m2", "i2")}),
    forsaken=frozenset({"m4"}),
    unkept="b1",
    doubt="0-2-41",
    brought="0-2-39",
)


def of_format(text: str, number: Any) -> str:
    return json.dumps(json.loads(text) | {"format": number})


def test_one_without_a_number_is_read() -> None:
    assert from_json(WITHOUT_NUMBER) == THE_SAME


def test_one_that_is_written_has_a_number_and_is_the_same() -> None:
    text = to_json(THE_SAME)
    assert from_json(text) == THE_SAME
    assert json.loads(text) == json.loads(WITHOUT_NUMBER) | {"format": FORMAT}


def test_the_least_that_a_record_has_is_read() -> None:
    data = json.loads(to_json(RECORD))
    needed = ("term", "primary", "elected", "voters", "acks", "joint", "serial", "transition")
    least = {key: data[key] for key in (*needed, "strays", "mode")}
    found = from_json(json.dumps(least))
    assert found.configurations == RECORD.configurations
    assert (found.leader, found.revision, found.owed, found.lease) == ("", 0, None, 0.0)


def test_one_of_a_later_version_is_refused_and_says_what_to_do() -> None:
    with pytest.raises(
        NewerFormat,
        match=f"has format {FORMAT + 1}, and .* up to {FORMAT}: install a later version",
    ):
        from_json(of_format(WITHOUT_NUMBER, FORMAT + 1))


@pytest.mark.parametrize("number", ["x", None, []])
def test_a_format_that_is_no_number_is_refused(number: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        from_json(of_format(WITHOUT_NUMBER, number))


def remembered(record: str) -> str:
    return json.dumps(
        {"record": json.loads(record), "settings": {}, "version": 4, "agents": {"m1": "http://m1"}}
    )


def test_what_an_agent_remembered_without_a_number_is_read() -> None:
    assert memory(remembered(WITHOUT_NUMBER)) == Memory(THE_SAME, {}, 4, {"m1": "http://m1"})


def test_what_an_agent_remembers_of_a_later_version_is_named_and_not_read() -> None:
    later = remembered(of_format(WITHOUT_NUMBER, FORMAT + 1))
    assert (mark(later).term, mark(later).leader, mark(later).revision) == (7, "ab12", 31)
    with pytest.raises(NewerFormat, match="install a later version"):
        memory(later)
