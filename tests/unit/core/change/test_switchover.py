"""Single steps of a planned change of primary: what must have happened before the next one."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.change.switchover import LONGEST_FREEZE_SECONDS, begun, step, under_way, undone
from holdfast.core.commands import Drain, Freeze, Prove
from holdfast.core.decision import Decision, Send
from holdfast.core.record import Record, Stray
from holdfast.core.rules.diagnosis import diagnose
from holdfast.core.transition import Instant, Step, Switchover
from holdfast.core.view import MemberState, Receiver, Replication, View
from tests.unit.looks import CLUSTER, RECORD, primary, replica, saved, view

LATER = Instant("", 1e9)
CHAINING = replace(
    RECORD,
    term=5,
    transition=Switchover(Step.CHAIN, "m2", LATER),
    strays=frozenset({Stray("m3", "a", "m2")}),
)
FREEZING = replace(
    CHAINING,
    transition=Switchover(Step.FREEZE, "m2", LATER),
)
BELOW_M2 = Replication("127.0.0.1:3302", Receiver.ON, True)


def stepped(record: Record, seen: View) -> Decision:
    change = under_way(record)
    assert change
    return step(CLUSTER, record, seen, diagnose(CLUSTER, record, seen), change)


def chain(own: MemberState) -> View:
    """The third is chained, and the candidate has nothing left to apply."""
    return view(own, replica("m2", term=5), replica("m3", term=5, replication=BELOW_M2))


def test_before_writes_stop_the_primary_commits_without_those_that_are_chained() -> None:
    """Voters that stayed must really acknowledge: otherwise the freeze would wait for commits that no voter releases,
    with clients shut out. And the agent of the primary then has this term on disk before writes stop."""
    decision = stepped(CHAINING, chain(primary(term=4)))
    assert [type(each.command) for each in decision.steps if isinstance(each, Send)] == [Prove]
    seen = chain(primary(term=5))
    frozen = saved(stepped(CHAINING, seen))
    assert frozen.transition == Switchover(
        Step.FREEZE, "m2", Instant("", seen.now + LONGEST_FREEZE_SECONDS)
    )


def test_a_freeze_counts_in_its_own_term_alone() -> None:
    for term, again in ((5, False), (4, True)):
        closed = primary(term=5, writable=False, frozen=term)
        decision = stepped(FREEZING, chain(closed))
        asked = [each.command for each in decision.steps if isinstance(each, Send)]
        assert any(isinstance(command, Freeze) for command in asked) is again
    assert (
        saved(stepped(FREEZING, chain(primary(term=5, writable=False, frozen=5)))).primary == "m2"
    )


def test_the_candidate_is_named_once_it_has_applied_all() -> None:
    more = primary(term=5, writable=False, frozen=5, applied="0-1-12", received="0-1-12")
    decision = stepped(FREEZING, chain(more))
    assert decision.steps == (Send("m2", Drain("0-1-12")),)


def test_whom_it_chains_is_remembered_before_he_is_told() -> None:
    seen = view(primary(), replica("m2"), replica("m3"))
    record = begun(CLUSTER, RECORD, seen, "m2", 1e9).record
    assert record.term == RECORD.term + 1
    assert record.strays == {Stray("m3", "a", "m2")}


def test_what_was_ordered_in_it_is_void_once_it_is_undone() -> None:
    assert undone(CHAINING, "why").record.term == CHAINING.term + 1
