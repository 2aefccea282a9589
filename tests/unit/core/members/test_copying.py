"""When a member may be cloned, from which donor, and what is done about a primary whose commits wait for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.agent.clone.fetch import FIRST_BYTE_SECONDS, STALL_SECONDS, Stall
from holdfast.core.change.orders import CloneMember, objections
from holdfast.core.commands import Clone, Close, Command, Fence, Promote
from holdfast.core.decide import decide
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.members.copying import RETURN_SECONDS, SILENT_CLONE_SECONDS, ends, next_step
from holdfast.core.members.copying import STALL_SECONDS as WAITED
from holdfast.core.observed.lapse import Lapse
from holdfast.core.observed.progress import Progress
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.settings import Mode
from holdfast.core.transition import RestartInPlace, Step
from holdfast.core.view import (
    MemberState,
    Receiver,
    Replication,
    SemiSync,
    Tail,
    TailVerdict,
    Unseen,
    View,
)
from tests.unit.hand_clock import HandClock
from tests.unit.looks import CLUSTER, NOW, RECORD, down, primary, replica, saved, view

TORN = Tail(TailVerdict.UNSAFE, term=3, reason="its host was restarted")
WAITS = SemiSync(source=True, acks=1, waiting=2)
OPENING = replace(RECORD, transition=RestartInPlace(Step.OPEN))
WITH_M3 = replace(RECORD, configurations=(Configuration(frozenset({("m1", "a"), ("m3", "a")}), 1),))
ALONE = replace(RECORD, configurations=(Configuration(frozenset({("m1", "a")}), 0),))


def torn(name: str, **changes: object) -> MemberState:
    return down(name, tail=TORN, **changes)


def cloning(name: str, donor: str = "m1") -> MemberState:
    progress = Progress(f"cloning from {donor}")
    return down(name, unfit="it is being cloned", cloning=donor, progress=progress)


def decided(seen: View, record: Record = RECORD) -> Decision:
    return decide(CLUSTER, record, seen)


def sent(decision: Decision, kind: type[Command]) -> list[str]:
    return [s.member for s in decision.steps if isinstance(s, Send) and isinstance(s.command, kind)]


def stalled(seen: View, seconds: float) -> View:
    return replace(seen, lapses={"m1": Lapse(seconds, "its commits wait")})


def gone(seconds: float, last: MemberState | None = None) -> tuple[str, Unseen]:
    return "m3", Unseen("connection refused", NOW - seconds, last)


def test_two_that_must_be_cloned_are_cloned_one_after_the_other() -> None:
    both = view(primary(semi_sync=SemiSync(source=False)), torn("m2"), torn("m3"))
    decision = decided(both, ALONE)
    assert sent(decision, Clone) == ["m2"]
    assert (
        "m3: its host was restarted: it must be cloned from m1; one member is cloned at a time"
        in (decision.reason)
    )
    assert "m2 is cloned first" in decision.reason
    refuses = torn("m2", clone_refused="its data may be the only copy")
    free = primary(semi_sync=SemiSync())
    decision = decided(view(free, refuses, torn("m3")), ALONE)
    assert sent(decision, Clone) == ["m3"]
    alone = next_step(CLUSTER, ALONE, view(free, refuses), CLUSTER.member("m2"))
    assert isinstance(alone.command, Clone), (
        "it is asked again: an operator may have cleared the way"
    )
    assert alone.reason == "its host was restarted: its data may be the only copy"
    begun = view(primary(semi_sync=SemiSync()), torn("m2"), cloning("m3"))
    assert not sent(decided(begun, ALONE), Clone)


@pytest.mark.parametrize("seconds", [1.0, SILENT_CLONE_SECONDS - 1, SILENT_CLONE_SECONDS + 1])
def test_a_clone_whose_agent_fell_silent_is_waited_for_but_not_for_ever(seconds: float) -> None:
    seen = view(primary(semi_sync=SemiSync()), torn("m2"), gone(seconds, cloning("m3")))
    waits = seconds < SILENT_CLONE_SECONDS
    assert sent(decided(seen, ALONE), Clone) == ([] if waits else ["m2"])


def test_nothing_is_given_up_while_the_primary_does_not_answer() -> None:
    silent = view(primary(semi_sync=SemiSync(), silent_seconds=0.2), torn("m2"), replica("m3"))
    assert next_step(CLUSTER, ALONE, silent, CLUSTER.member("m2")).command is None


def test_a_primary_is_no_donor_while_its_commits_wait_for_the_one_that_is_cloned() -> None:
    def step(seen: View, record: Record = RECORD) -> Command | None:
        return next_step(CLUSTER, record, seen, CLUSTER.member("m2")).command

    away = replica("m3", replication=Replication("127.0.0.1:3301", Receiver.CONNECTING, True))
    assert step(view(primary(), torn("m2"), away)) is None
    assert step(view(primary(semi_sync=WAITS), torn("m2"), away)) is None
    closed = primary(writable=False)
    assert isinstance(step(view(closed, torn("m2"), away)), Clone), "it takes no writes"
    held = replace(closed, semi_sync=WAITS)
    assert step(view(held, torn("m2"), away)) is None, "a commit of before waits still"
    third = replica("m3", suspects=("app.t",))  # no donor, but it acknowledges
    donor = step(view(primary(), torn("m2"), third))
    assert isinstance(donor, Clone)
    assert donor.donor == "m1"
    assert step(view(primary(semi_sync=SemiSync()), torn("m2"), away), ALONE), "k = 0"
    timed = replace(RECORD, mode=Mode.SEMI_SYNC)
    lets_go = primary(semi_sync=SemiSync(source=True, acks=1, timeout_seconds=10))
    assert step(view(lets_go, torn("m2"), away), timed), "they wait for a time only"
    assert ends(CLUSTER, RECORD, view(primary()), primary(), "m3", "m2"), (
        "a replica waits for nobody"
    )


def test_a_donor_from_whom_clones_failed_comes_last() -> None:
    def donor(*failed: str) -> str:
        step = next_step(
            CLUSTER,
            RECORD,
            view(primary(), torn("m2", clone_failed=failed), replica("m3")),
            CLUSTER.member("m2"),
        )
        assert isinstance(step.command, Clone)
        return step.command.donor

    assert donor() == "m3"
    assert donor("m3") == "m1"
    assert donor("m3", "m1") == "m3"


def test_an_idle_primary_takes_no_more_writes_when_its_last_voters_must_be_cloned_from_it() -> None:
    decision = decided(view(primary(), torn("m2"), torn("m3")))
    assert sent(decision, Close) == ["m1"]
    assert "holdfast config set when_alone serve" in decision.reason
    assert not sent(decision, Clone)
    refuses = [torn(n, clone_refused="its data may be the only copy") for n in ("m2", "m3")]
    assert not sent(decided(view(primary(), *refuses)), Close), "that would bring nothing"


def test_commits_that_wait_for_it_are_ended_by_killing_the_primary_but_not_at_once() -> None:
    seen = view(primary(semi_sync=WAITS), torn("m2"), torn("m3"))
    assert not sent(decided(stalled(seen, WAITED - 1)), Fence)
    decision = decided(stalled(seen, WAITED))
    assert saved(decision).transition == OPENING.transition
    assert "is restarted read-only, so that m2 can be cloned from it" in decision.reason
    assert sent(decided(stalled(seen, WAITED), OPENING), Fence) == ["m1"]
    row = view(primary(writable=False, semi_sync=WAITS), torn("m2"), torn("m3"))
    assert sent(decided(stalled(row, WAITED), OPENING), Fence) == ["m1"], "the row of its promotion"


def test_who_may_come_back_without_a_clone_is_waited_for_but_not_for_ever() -> None:
    """A voter's server that is only being restarted must not cost the primary its life."""

    def closes(third: MemberState | tuple[str, Unseen], seconds: float) -> bool:
        seen = stalled(view(primary(semi_sync=WAITS), torn("m2"), third), seconds)
        return any(
            isinstance(step, Save) and step.record.transition == OPENING.transition
            for step in decided(seen, WITH_M3).steps
        )

    starts = down("m3", tail=Tail(TailVerdict.CLEAN, term=3))
    for third in (starts, gone(2.0)):
        assert not closes(third, WAITED)
        assert not closes(third, RETURN_SECONDS - 1)
        assert closes(third, RETURN_SECONDS)
    assert closes(gone(RETURN_SECONDS), WAITED), "it is out"
    assert closes(gone(2.0, torn("m3", unfit="torn")), WAITED), "it would have to be cloned itself"


def test_a_primary_that_is_closed_for_a_copy_is_opened_only_after_it() -> None:
    closed = primary(writable=False)
    for record in (WITH_M3, replace(WITH_M3, transition=OPENING.transition)):
        for second in (torn("m2"), cloning("m2")):
            decision = decided(view(closed, second, gone(99.0)), record)
            assert not sent(decision, Promote)
            assert "m1 takes no writes until m2 has been cloned from it" in decision.reason
        acknowledges = view(closed, cloning("m2", "m1"), replica("m3"))
        assert sent(decided(acknowledges, record), Promote) == ["m1"], "others acknowledge"
        refuses = torn("m2", clone_refused="its data may be the only copy")
        assert sent(decided(view(closed, refuses, gone(99.0)), record), Promote) == ["m1"]


def test_one_that_came_back_in_place_is_copied_before_it_is_opened_if_it_has_all() -> None:
    back = primary(writable=False, semi_sync=SemiSync())
    record = replace(WITH_M3, transition=OPENING.transition)
    known = down("m3", kept="0-1-9")
    assert sent(decided(view(back, torn("m2"), known), record), Clone) == ["m2"]
    assert not sent(decided(view(back, torn("m2"), gone(99.0)), record), Clone), "m3 may have more"
    whole = replace(back, regained=True)
    assert sent(decided(view(whole, torn("m2"), gone(99.0)), record), Clone) == ["m2"]
    behind = replace(back, applied="0-1-5", received="0-1-5")
    assert not sent(decided(view(behind, torn("m2"), replica("m3")), record), Clone)
    # nor does status say so
    seen = view(behind, torn("m2"), replica("m3", suspects=("app.t",)))
    assert next_step(CLUSTER, record, seen, CLUSTER.member("m2")).command is None


def test_a_clone_by_hand_obeys_the_same_rules() -> None:
    second = replica("m2")
    order = CloneMember("m2", "m1")
    seen = view(primary(), second, cloning("m3"))
    assert any("m3 is being cloned" in each for each in objections(CLUSTER, RECORD, seen, order))
    away = replica("m3", replication=Replication("127.0.0.1:3301", Receiver.OFF, True))
    against = objections(CLUSTER, RECORD, view(primary(), second, away), order)
    assert any("no copy can be made of m1" in each for each in against)


def test_a_copy_of_which_nothing_comes_any_more_is_called_off() -> None:
    now = [0.0]
    stall = Stall("m1", HandClock(lambda: now[0]))
    now[0] = FIRST_BYTE_SECONDS
    stall.look(0)  # it may have to open many tables first
    stall.look(5, "FILE COPY")
    now[0] += STALL_SECONDS
    stall.look(5, "PAGE COPY")
    now[0] += STALL_SECONDS
    stall.look(5, "PAGE COPY")
    now[0] += 1
    with pytest.raises(Exception, match="nothing has come from m1 for 61 s, in stage PAGE COPY"):
        stall.look(5, "PAGE COPY")
    stall.look(6, "FILE SYNC")
    now[0] += 10 * STALL_SECONDS
    stall.look(6, "FILE SYNC", working_here=True)  # a slow disk of this host
    stall.look(6, "FILE SYNC")
