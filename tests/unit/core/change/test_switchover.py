"""Single steps of a planned change of primary: what must have happened before the next one."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.change.switchover import begun, step, undone
from holdfast.core.commands import Drain, Freeze, Prove
from holdfast.core.decision import Decision, Send
from holdfast.core.record import Instant, Record, Step, Stray, Transition, TransitionKind
from holdfast.core.rules.diagnosis import diagnose
from holdfast.core.view import MemberState, Receiver, Replication, View
from tests.unit.looks import CLUSTER, RECORD, primary, replica, saved, view

LATER = Instant("", 1e9)
CHAINING = replace(
    RECORD,
    term=5,
    transition=Transition(
        TransitionKind.SWITCHOVER, Step.CHAIN, wish="m2", ordered=True, until=LATER
    ),
    strays=frozenset({Stray("m3", "a", "m2")}),
)
FREEZING = replace(
    CHAINING,
    transition=Transition(
        TransitionKind.SWITCHOVER, Step.FREEZE, wish="m2", ordered=True, until=LATER
    ),
)
BELOW_M2 = Replication("127.0.0.1:3302", Receiver.ON, True)


def stepped(record: Record, seen: View) -> Decision:
    return step(CLUSTER, record, seen, diagnose(CLUSTER, record, seen))


def chain(own: MemberState) -> View:
    """The third is chained, and the candidate has nothing left to apply."""
    return view(own, replica("m2", term=5), replica("m3", term=5, replication=BELOW_M2))


def test_before_writes_stop_the_primary_commits_without_those_that_are_chained() -> None:
    """Voters that stayed must really acknowledge: otherwise the freeze would wait for commits that no voter releases,
    with clients shut out. And the agent of the primary then has this term on disk before writes stop."""
    decision = stepped(CHAINING, chain(primary(term=4)))
    assert [type(each.command) for each in decision.steps if isinstance(each, Send)] == [Prove]
    frozen = saved(stepped(CHAINING, chain(primary(term=5))))
    assert frozen.transition
    assert frozen.transition.step is Step.FREEZE


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
