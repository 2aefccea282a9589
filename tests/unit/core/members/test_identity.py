"""Which agent answers: copies, strangers and hosts that were installed anew."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.gtid import Flavor
from holdfast.core.members.identity import identity_of, impostor, pinned, unmasked
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.transition import Failover, RestartInPlace, Step
from holdfast.core.view import MemberState, Seen, Unseen, View

RECORD = Record(
    3,
    "m1",
    1,
    (Configuration(frozenset({("m1", "a"), ("m2", "b")}), 1),),
    1,
    identities=frozenset({("m1", "one"), ("m2", "two")}),
)


def agent(name: str, identity: str, term: int = 3) -> MemberState:
    return MemberState(name, Flavor.MARIADB, term, identity=identity)


def view(*states: MemberState) -> View:
    return View({each.name: Seen(each, 5.0) for each in states}, 5.0)


def against(record: Record | None, state: MemberState, *others: MemberState) -> str:
    return impostor(record, state.name, state, view(state, *others))


def test_the_agents_that_are_known_are_believed() -> None:
    seen = view(agent("m1", "one"), agent("m2", "two"))
    assert unmasked(RECORD, seen) is seen
    assert pinned(RECORD, seen) is None
    assert (identity_of(RECORD, "m2"), identity_of(RECORD, "m9"), identity_of(None, "m1")) == (
        "two",
        "",
        "",
    )


def test_a_copy_of_a_member_is_refused_and_both_are_named() -> None:
    why = against(RECORD, agent("m3", "two"), agent("m2", "two"))
    assert "the agents of m3 and m2 have the same identity" in why
    assert against(RECORD, agent("m2", "two"), agent("m3", "two")) == "", "it is known as m2's"


def test_a_copy_of_a_member_that_is_silent_is_refused_too() -> None:
    assert "m3 and m2" in against(RECORD, agent("m3", "two"))


def test_of_two_copies_that_nobody_knows_neither_is_believed() -> None:
    one, two = agent("m3", "new", 0), agent("m4", "new", 0)
    assert against(RECORD, one, two)
    assert against(RECORD, two, one)


def test_a_host_that_was_installed_anew_takes_its_place() -> None:
    new = agent("m2", "three", term=0)
    assert against(RECORD, new) == ""
    record = pinned(replace(RECORD, transition=Failover(Step.ELECT, "m1")), view(new))
    assert record, "commands name the agent that is meant: it does not wait"
    assert identity_of(record, "m2") == "three"


def test_another_agent_with_a_past_takes_nobodys_place() -> None:
    why = against(RECORD, agent("m2", "three"))
    assert "another agent answers for m2 than before" in why
    assert "holdfast member confirm m2" in why


def test_who_is_not_believed_counts_as_one_that_does_not_answer() -> None:
    seen = unmasked(RECORD, view(agent("m1", "one"), agent("m2", "three")))
    assert seen.state("m1")
    assert isinstance(seen.members["m2"], Unseen)
    assert seen.members["m2"].last is None


def test_a_new_member_is_remembered_once_nothing_is_under_way() -> None:
    seen = view(agent("m1", "one"), agent("m2", "two"), agent("m3", "three", 0))
    busy = replace(RECORD, transition=RestartInPlace(Step.OPEN))
    assert pinned(busy, seen) is None
    record = pinned(RECORD, seen)
    assert record
    assert identity_of(record, "m3") == "three"


def test_one_that_is_no_member_any_more_is_forgotten() -> None:
    record = pinned(RECORD, view(agent("m1", "one")))
    assert record
    assert record.identities == {("m1", "one")}


def test_an_agent_of_an_earlier_version_has_no_identity() -> None:
    assert against(RECORD, agent("m2", "")) == ""
    assert pinned(RECORD, view(agent("m1", "one"), agent("m2", ""))) is None
