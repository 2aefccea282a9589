"""A record that is older than what agents obeyed is noticed, and rebuilt only if that is proved to be right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from holdfast.core.cluster import Cluster, Member
from holdfast.core.gtid import Flavor
from holdfast.core.members.rollback import (
    FIRST_JUMP,
    LONGEST_JUMP,
    Rebuilt,
    Remembered,
    contradicted,
    jump_allowed,
    rebuilt,
    regained,
)
from holdfast.core.observed.lineage import Memory, RecordMark, follows, mark, stamped
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.view import MemberState, Seen, Sighting, Unseen, View

CLUSTER = Cluster("c", tuple(Member(name, name, 3306) for name in ("m1", "m2", "m3")))
ALL = frozenset({("m1", "a"), ("m2", "b"), ("m3", "c")})
FIRST = stamped(Record(1, "m1", 1, (Configuration(ALL, 1),), 1), None, "x")
NEXT = stamped(replace(FIRST, term=2), FIRST, "y")
WITHOUT = replace(NEXT, configurations=(Configuration(ALL - {("m3", "c")}, 1),), serial=2)
NEWEST = stamped(WITHOUT, NEXT, "y")
BACK = stamped(replace(FIRST, term=2), FIRST, "z")
"""What a manager makes of the first record after that was put back."""


def said(name: str, record: Record | None, **fields: Any) -> MemberState:
    known = mark(Memory(record).text()) if record else RecordMark()
    term, leader = (record.term, record.leader) if record else (0, "")
    state = MemberState(name, Flavor.MYSQL, term, leader=leader, record=known)
    return replace(state, **fields)


def view(*states: MemberState, lost: bool = False) -> View:
    found: dict[str, Sighting] = {
        each.name: Unseen("gone", 1.0, each) if lost else Seen(each, 1.0) for each in states
    }
    return View(found, 1.0)


def remembers(record: Record | None, term: int = 0, identity: str = "") -> Remembered:
    if record is None:
        return Remembered(term, identity)
    kept = Memory(record)
    return Remembered(term or record.term, identity, mark(kept.text()), kept)


def repaired(
    stored: Record | None,
    heard: Mapping[str, Remembered],
    silent: Mapping[str, str] | None = None,
    wanted: str = "",
) -> Rebuilt:
    found = rebuilt(CLUSTER, Memory(stored) if stored else None, heard, silent or {}, wanted)
    assert isinstance(found, Rebuilt), found
    return found


def test_agents_that_obeyed_this_line_stand_against_nothing() -> None:
    states = (said("m1", NEWEST), said("m2", NEXT), said("m3", None))
    assert contradicted(CLUSTER, NEWEST, view(*states)) == ""


def test_one_that_obeyed_a_later_record_stops_every_decision_and_is_named() -> None:
    states = (said("m1", FIRST), said("m2", NEWEST), said("m3", FIRST))
    why = contradicted(CLUSTER, BACK, view(*states))
    assert "m2 has obeyed a later record than the store has (revision 3 of term 2" in why
    assert "m1" not in why
    assert "holdfast store repair c" in why


def test_what_an_agent_said_before_it_fell_silent_counts() -> None:
    assert contradicted(CLUSTER, BACK, view(said("m2", NEWEST), lost=True))


def test_an_equal_term_of_another_leadership_is_one_that_was_given_to_another() -> None:
    state = said("m2", None, term=2, leader="w")
    assert "m2 has promised term 2 to another manager" in contradicted(CLUSTER, NEXT, view(state))
    assert contradicted(CLUSTER, NEXT, view(said("m2", None, term=2, leader="y"))) == ""
    kept = said("m2", None, term=2, identity="i")
    assert contradicted(CLUSTER, NEXT, view(kept)), "its file is of an earlier version"


def test_an_agent_of_an_earlier_version_does_not_say_to_whom_it_has_promised() -> None:
    for term, contradicts in ((1, False), (2, False), (3, True)):
        state = said("m2", None, term=term)
        assert bool(contradicted(CLUSTER, NEXT, view(state))) is contradicts


def test_of_members_that_were_given_up_nothing_counts_until_they_obey_again() -> None:
    given_up = replace(BACK, forsaken=frozenset({"m2"}))
    m2 = said("m2", NEWEST)
    assert contradicted(CLUSTER, given_up, view(m2)) == ""
    above = regained(given_up, view(m2))
    assert above
    assert above.term == 3, "it obeys a term above the one that it promised elsewhere"
    assert regained(above, view(m2)) is None
    obeyed = said("m2", above)
    back = regained(above, view(obeyed))
    assert back
    assert not back.forsaken


def test_the_newest_record_that_all_remember_is_proved() -> None:
    heard = {"m1": remembers(NEWEST), "m2": remembers(NEXT), "m3": remembers(NEXT)}
    found = repaired(BACK, heard)
    assert (found.source, found.doubts) == ("m1", ())
    record = found.memory.record
    assert record.configurations == NEWEST.configurations
    assert record.term == 3
    after = stamped(record, record, "w")
    assert all(follows(after, each.mark) for each in heard.values())


def test_a_record_that_came_with_a_poll_alone_is_gone_above_too() -> None:
    """Its term is promised with the first command."""
    ahead = replace(NEWEST, term=9)
    behind = remembers(ahead, term=2)
    found = repaired(BACK, {"m1": behind, "m2": remembers(NEXT), "m3": remembers(NEXT)})
    assert found.memory.record.term == 10
    given_up = replace(BACK, forsaken=frozenset({"m2"}))
    above = regained(given_up, view(said("m2", ahead, term=2)))
    assert above
    assert above.term == 10


def test_with_an_empty_store_it_is_the_same() -> None:
    heard = {name: remembers(NEWEST) for name in ("m1", "m2", "m3")}
    assert repaired(None, heard).doubts == ()


def test_the_record_in_the_store_is_kept_where_it_follows_all() -> None:
    heard = {name: remembers(NEXT) for name in ("m1", "m2", "m3")}
    assert repaired(NEWEST, heard).source == ""


def test_a_silent_member_may_remember_a_later_one() -> None:
    heard = {"m1": remembers(NEWEST), "m2": remembers(NEXT)}
    found = repaired(BACK, heard, {"m3": "connection refused"})
    assert found.doubts == ("m3 may remember a later record (connection refused)",)
    assert found.memory.record.forsaken == {"m3"}


def test_of_a_silent_primary_the_risk_is_said() -> None:
    (doubt,) = repaired(FIRST, {"m2": remembers(NEXT), "m3": remembers(NEXT)}, {"m1": "x"}).doubts
    assert "may have acknowledged writes by that one which no other member has" in doubt


def test_a_member_that_only_the_newest_record_names_has_to_be_asked() -> None:
    more = replace(NEWEST, configurations=(Configuration(ALL | {("m4", "d")}, 1),))
    heard = {name: remembers(more) for name in ("m1", "m2", "m3")}
    assert repaired(BACK, heard).doubts == (
        "m4 may remember a later record (it is not configured here)",
    )


def test_an_agent_that_has_forgotten_proves_nothing() -> None:
    heard = {"m1": remembers(NEXT), "m2": remembers(NEXT), "m3": remembers(None)}
    assert "m3 has forgotten" in repaired(FIRST, heard).doubts[0]
    pinned = replace(NEXT, identities=frozenset({("m3", "before")}))
    heard["m1"] = heard["m2"] = remembers(pinned)
    heard["m3"] = remembers(FIRST, identity="after")
    assert "the agent of m3 is not the one" in repaired(FIRST, heard).doubts[0]


def test_two_lines_that_changed_nothing_since_they_parted_are_one() -> None:
    heard = {"m1": remembers(NEXT), "m2": remembers(BACK), "m3": remembers(FIRST)}
    found = repaired(BACK, heard)
    assert found.doubts == ()
    after = stamped(found.memory.record, found.memory.record, "w")
    assert all(follows(after, each.mark) for each in heard.values())


def test_of_two_lines_that_did_an_operator_has_to_choose() -> None:
    named = stamped(replace(BACK, primary="m2", elected=2), BACK, "z")
    heard = {"m1": remembers(NEWEST), "m2": remembers(named), "m3": remembers(FIRST)}
    found = repaired(BACK, heard)
    assert "has obeyed another manager than" in found.doubts[0]
    for wanted, primary in (("m1", "m1"), ("m2", "m2")):
        chosen = repaired(BACK, heard, wanted=wanted)
        assert chosen.doubts
        assert chosen.memory.record.primary == primary
        after = stamped(chosen.memory.record, chosen.memory.record, "w")
        assert all(follows(after, each.mark) for each in heard.values())


def test_agents_that_remember_terms_alone_leave_it_to_an_operator() -> None:
    heard = {name: remembers(None, term=9) for name in ("m1", "m2", "m3")}
    found = repaired(FIRST, heard)
    assert len(found.doubts) == 3
    assert found.memory.record.term == 10
    assert isinstance(rebuilt(CLUSTER, None, heard, {}), str)


def test_a_term_that_no_manager_can_have_reached_is_not_gone_above() -> None:
    heard = {"m1": remembers(NEXT), "m2": remembers(NEXT), "m3": remembers(NEXT, term=2**50)}
    found = rebuilt(CLUSTER, None, heard, {})
    assert isinstance(found, str)
    assert "m3 has promised term" in found


def test_the_jump_of_a_term_is_bounded() -> None:
    assert jump_allowed(7, 7 + LONGEST_JUMP)
    assert not jump_allowed(7, 8 + LONGEST_JUMP)
    assert jump_allowed(0, FIRST_JUMP), "a new member comes into a cluster of any age"
    assert not jump_allowed(0, FIRST_JUMP + 1)
