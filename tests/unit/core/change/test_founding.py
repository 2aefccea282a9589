"""A cluster is founded from empty data directories, and never beside data that exists."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from holdfast.core.commands import Initialise, Start
from holdfast.core.decide import decide
from holdfast.core.decision import Save, Send
from holdfast.core.gtid import Flavor
from holdfast.core.observed.data_state import Data
from holdfast.core.observed.lineage import RecordMark
from holdfast.core.view import MemberState, Seen, ServerStatus, Sighting, Unseen, View
from tests.unit.looks import CLUSTER, NOW, RECORD, commands


def member(name: str, data: Data = Data.EMPTY, **changes: Any) -> MemberState:
    state = MemberState(name, Flavor.MARIADB, data=data, unfit="its data directory is empty")
    return replace(state, **changes)


def sees(*members: MemberState) -> View:
    return View({each.name: Seen(each, NOW) for each in members}, NOW)


def three(*data: Data) -> View:
    return sees(*(member(f"m{n}", each) for n, each in enumerate(data, 1)))


def initialised(view: View) -> set[str]:
    steps = decide(CLUSTER, None, view).steps
    return {s.member for s in steps if isinstance(s, Send) and isinstance(s.command, Initialise)}


def test_three_empty_ones_are_initialised_then_started() -> None:
    assert initialised(three(Data.EMPTY, Data.EMPTY, Data.EMPTY)) == {"m1", "m2", "m3"}
    assert initialised(three(Data.NEW, Data.EMPTY, Data.NEW)) == {"m2"}, "it goes on"
    made = decide(CLUSTER, None, three(Data.NEW, Data.NEW, Data.NEW))
    assert [type(each) for each in commands(made)] == [Start] * 3


def test_beside_one_that_has_data_nothing_is_made_and_the_way_on_is_said() -> None:
    view = three(Data.USED, Data.EMPTY, Data.NEW)
    decision = decide(CLUSTER, None, view)
    assert decision.steps == ()
    assert "the data directory of m2 is empty, and m1 has data" in decision.reason
    assert "holdfast adopt" in decision.reason
    both = decide(CLUSTER, None, three(Data.USED, Data.EMPTY, Data.USED))
    assert "m1, m3 have data" in both.reason


def test_why_it_was_not_made_is_said() -> None:
    view = sees(
        member("m1", reason="its data directory is not initialised: no SQL files"),
        member("m2"),
        member("m3"),
    )
    assert "m1: its data directory is not initialised: no SQL files" in (
        decide(CLUSTER, None, view).reason
    )


def _sightings(name: str) -> list[Sighting]:
    """What a manager may see of a member; a cluster may be founded from the first few."""
    fresh = member(name)
    return [
        Seen(fresh, NOW),
        Seen(replace(fresh, data=Data.NEW), NOW),
        Seen(replace(fresh, data=Data.USED), NOW),
        Seen(replace(fresh, term=3), NOW),
        Seen(replace(fresh, record=RecordMark(1, "l", 4)), NOW),
        Seen(replace(fresh, server=ServerStatus.UP, incarnation="a"), NOW),
        Seen(replace(fresh, server=ServerStatus.STARTING, incarnation="a"), NOW),
        Seen(replace(fresh, flavor=Flavor.MYSQL), NOW),
        Unseen("connection refused", NOW - 60),
        Unseen("connection refused", NOW - 60, fresh),
    ]


def test_whatever_is_seen_nothing_is_made_beside_what_exists() -> None:
    """Each combination of what can be seen of three members: the conditions of ``data_state.py``, one by one."""
    made = 0
    for found in itertools.product(*(_sightings(each.name) for each in CLUSTER.members)):
        view = View(dict(zip(("m1", "m2", "m3"), found, strict=True)), NOW)
        to_make = initialised(view)
        if not to_make:
            continue
        made += 1
        states = {name: view.state(name) for name in ("m1", "m2", "m3")}
        for name, state in states.items():
            assert state is not None, "every member answers"
            assert (state.term, state.record.revision) == (0, 0), "nobody has obeyed"
            assert state.data is not Data.USED, "nobody has data"
            assert state.ended, "no server runs"
            assert (state.data is Data.EMPTY) == (name in to_make)
        assert len({state.flavor for state in states.values() if state}) == 1
        assert not any(isinstance(each, Save) for each in decide(CLUSTER, None, view).steps)
    assert made == 7 + 1, "MariaDB: empty or new, but not all new; MySQL: all empty"


def test_with_a_record_an_empty_member_is_not_initialised() -> None:
    view = three(Data.EMPTY, Data.EMPTY, Data.EMPTY)
    steps = decide(CLUSTER, RECORD, view).steps
    assert not any(
        isinstance(each, Send) and isinstance(each.command, Initialise) for each in steps
    )


@pytest.mark.parametrize("name", ["m1", "m2", "m3"])
def test_one_that_does_not_answer_is_waited_for(name: str) -> None:
    view = three(Data.EMPTY, Data.EMPTY, Data.EMPTY)
    unseen = replace(view, members={**view.members, name: Unseen("no", NOW)})
    decision = decide(CLUSTER, None, unseen)
    assert decision.steps == ()
    assert f"waiting for the agent of {name}" in decision.reason
