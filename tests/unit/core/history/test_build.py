"""What the history says about a failover or switchover: made from saves and looks, one after another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.cli.show.postmortem import told
from holdfast.core.calls import Called, Phase, Ran
from holdfast.core.calls import HookOutcome as HookOutcome
from holdfast.core.cluster import Cluster, Member
from holdfast.core.history import aftermath, build
from holdfast.core.history.entry import (
    Entry,
    Outcome,
    Returned,
    Setup,
    What,
)
from holdfast.core.quorum import Configuration
from holdfast.core.record import Pause, Record
from holdfast.core.settings import Mode
from holdfast.core.transition import Failover, RestartInPlace, Step, Switchover
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
from tests.unit import looks
from tests.unit.looks import NOW

MEMBERS = tuple(Member(f"m{n}", f"h{n}", 3306) for n in (1, 2, 3))
CLUSTER = Cluster("c", MEMBERS)
TERM = 7
VOTING = Configuration(frozenset({("m1", "a"), ("m2", "b"), ("m3", "c")}), 1)
CALM = Record(TERM, "m1", 3, (VOTING,), 5)
ELECT = replace(CALM, term=8, transition=Failover(Step.ELECT, "m1"))
NAMED = replace(ELECT, primary="m2", transition=Failover(Step.OPEN, "m1"))
OVER = replace(NAMED, transition=None)


def server(name: str, applied: str, received: str = "", **more: Any) -> MemberState:
    incarnation = {"m1": "a", "m2": "b", "m3": "c"}[name]
    state = looks.replica(
        name,
        incarnation=incarnation,
        applied=applied,
        received=received or applied,
        replication=Replication(),
        semi_sync=SemiSync(),
    )
    return replace(state, **more)


def down(name: str, last_applied: str, tail: Tail | None = None) -> MemberState:
    return looks.down(name, last_applied=last_applied, tail=tail or Tail())


def view(*members: MemberState | tuple[str, Unseen], at: float, **more: Any) -> View:
    return looks.view(*members, date=at, **more)


def begun(
    before: Record,
    record: Record,
    look: View,
    at: float = 1000.0,
    cause: str = "why",
    why: str = "why",
    ordered: str = "",
    manager: str = "",
) -> Entry:
    entry = build.begun(before, record, look, at, cause, why, ordered, manager)
    assert entry is not None
    return entry


PROMISED: dict[str, Any] = {"promised": 8, "replication": Replication(applier=True)}


def failing_over(lacking: str = "0-1-100") -> Entry:
    look = view(down("m1", "0-1-103"), server("m2", "0-1-103"), server("m3", lacking), at=1000.004)
    entry = begun(CALM, ELECT, look, 1000.0, "the server of m1 is gone", "it begins", "", "mgr1")
    look = view(
        down("m1", "0-1-103"),
        server("m2", "0-1-102", **PROMISED),
        server("m3", lacking, **PROMISED),
        at=1000.02,
    )
    entry = build.saved(entry, ELECT, NAMED, "m2 takes over", look)
    return build.compared(entry, CLUSTER, ELECT, NAMED, look)


def test_a_failover_from_its_beginning_to_its_end() -> None:
    assert begun(CALM, ELECT, view(at=1000.0)).old == "m1"
    assert build.begun(ELECT, NAMED, view(at=1000.0), 1000.0, "w", "w") is None
    entry = failing_over()
    assert (entry.old, entry.new, entry.outcome) == ("m1", "m2", Outcome.UNDER_WAY)
    assert entry.before == Setup(TERM, "m1", ("m1", "m2", "m3"), 1, "strong")
    assert entry.positions.old == "0-1-103"
    assert entry.positions.new == "0-1-102"
    assert "m2 lacked" in entry.positions.difference
    assert "no client was told that they are committed" in entry.positions.difference
    chosen, other = entry.candidates
    assert (chosen.name, chosen.chosen) == ("m2", True)
    assert chosen.reason == "it had all that m3 had received"
    assert other.reason == "it lacked 2 transactions that m2 had received"
    closed = view(down("m1", "0-1-103"), server("m2", "0-1-102"), at=1000.03)
    assert aftermath.looked(entry, CLUSTER, NAMED, closed) is entry
    opened = view(down("m1", "0-1-103"), server("m2", "0-1-102", writable=True), at=1000.05)
    entry = aftermath.looked(entry, CLUSTER, NAMED, opened)
    assert entry.outage_ms == 50.0
    entry = build.saved(entry, NAMED, OVER, "m2 is open", opened)
    assert (entry.outcome, entry.why) == (Outcome.DONE, "m2 is open")
    assert entry.after == Setup(8, "m2", ("m1", "m2", "m3"), 1, "strong")
    assert entry.live, "m1 is not back, and not every member is well"


def test_what_was_cut_and_where_it_was_saved_is_seen_when_the_old_primary_comes_back() -> None:
    entry = replace(failing_over(), opened=1000.1, outcome=Outcome.DONE, whole=1001.0)
    cut = Tail(TailVerdict.CUT, 8, "/var/pending/x.binlog", 1)
    new = server("m2", "0-1-102", writable=True)
    look = view(down("m1", "0-1-103", cut), new, at=1003.0)
    entry = aftermath.looked(entry, CLUSTER, OVER, look)
    assert entry.returned == Returned("cut", ("/var/pending/x.binlog",), 1)
    assert aftermath.looked(entry, CLUSTER, OVER, look) is entry
    starting = view(server("m1", "0-1-102"), new, at=1004.0)
    assert aftermath.looked(entry, CLUSTER, OVER, starting).live
    follows: dict[str, Any] = {
        "replication": Replication("h2:3306", Receiver.ON, True),
        "semi_sync": SemiSync(replica=True),
    }
    look = view(server("m1", "0-1-102", **follows), new, at=1005.0)
    entry = aftermath.looked(entry, CLUSTER, OVER, look)
    assert entry.returned.following == 1005.0
    assert not entry.live
    text = " ".join(told(entry, "c"))
    assert "1 transaction was cut from its binlog (no client was told that it is committed)" in text
    assert "/var/pending/x.binlog" in text
    assert "it was back after 5.0 s" in text


def test_a_tail_of_an_earlier_term_is_not_of_this_failover() -> None:
    entry = replace(failing_over(), opened=1000.1)
    look = view(down("m1", "0-1-1", Tail(TailVerdict.CUT, 7, "/x", 1)), at=1003.0)
    assert aftermath.looked(entry, CLUSTER, OVER, look).returned.verdict == ""


def test_a_rewind_is_told_with_the_file_of_what_was_taken_back() -> None:
    entry = replace(failing_over(), opened=1000.1)
    saved = Tail(term=8, saved="/var/pending/y.txt", transactions=2)
    look = view(server("m1", "0-1-103", tail=saved), server("m2", "0-1-102"), at=1003.0)
    entry = aftermath.did(aftermath.looked(entry, CLUSTER, OVER, look), "rewind")
    text = " ".join(told(entry, "c"))
    assert "2 transactions were taken back (rewound)" in text
    assert "/var/pending/y.txt" in text


def test_a_failover_that_is_given_up_is_undone_and_the_restart_is_another_entry() -> None:
    restart = replace(ELECT, transition=RestartInPlace(Step.OPEN))
    look = view(down("m1", "0-1-9"), at=1000.0)
    first = begun(CALM, ELECT, look, 1000.0, "m1 is gone", "it begins", "", "mgr1")
    why = "no recovery quorum; m1 must come back"
    first = build.gave_way(first, ELECT, restart, why, look)
    assert (first.outcome, first.why, first.live) == (Outcome.UNDONE, why, False)
    second = begun(ELECT, restart, look, 1000.5, why, why, "", "mgr1")
    assert second.what is What.RESTART
    back = view(server("m1", "0-1-9", writable=True, incarnation="z"), at=1002.0)
    second = aftermath.looked(second, CLUSTER, restart, back)
    second = build.saved(second, restart, CALM, "m1 is open", back)
    assert (second.outcome, second.outage_ms, second.new) == (Outcome.DONE, 1500.0, "")


def test_a_planned_restart_counts_its_outage_only_once_the_server_has_ended() -> None:
    closing = replace(CALM, transition=RestartInPlace(Step.CLOSE))
    running = view(server("m1", "0-1-9", writable=True), at=1000.0)
    entry = begun(CALM, closing, running, 1000.0, "why", "why", "a person", "mgr1")
    assert aftermath.looked(entry, CLUSTER, closing, running).opened is None
    refused = build.saved(entry, closing, CALM, "m1 goes on: a commit waits", running)
    assert (refused.outcome, refused.outage_ms) == (Outcome.UNDONE, None)


def test_a_new_primary_that_dies_before_it_was_settled_is_another_failover() -> None:
    again = replace(NAMED, term=9, transition=Failover(Step.ELECT, "m2"))
    assert begun(NAMED, again, view(at=1000.0)).old == "m2"
    look = view(down("m2", "0-1-103"), at=1001.0)
    entry = build.gave_way(failing_over(), NAMED, again, "m2 is gone", look)
    assert entry.outcome is Outcome.REPLACED
    assert entry.live, "what m1 had is not known yet"


def test_a_switchover_counts_from_when_writes_stop() -> None:
    chain = Switchover(Step.CHAIN, "m2")
    chained = replace(CALM, term=8, transition=chain)
    frozen = replace(chained, transition=replace(chain, step=Step.FREEZE))
    opening = replace(frozen, primary="m2", transition=replace(chain, step=Step.OPEN))
    members = (server("m1", "0-1-9"), server("m2", "0-1-9", **PROMISED), server("m3", "0-1-9"))
    entry = begun(CALM, chained, view(*members, at=1000.0), 1000.0, "w", "w", "", "a")
    assert entry.ordered == "an operator has ordered it"
    entry = build.saved(entry, chained, frozen, "freeze", view(*members, at=1002.0))
    look = view(*members, at=1002.006)
    entry = build.saved(entry, frozen, opening, "named", look)
    entry = build.compared(entry, CLUSTER, frozen, opening, look)
    assert entry.positions.difference == "m2 had all that m1 had"
    assert entry.candidates[0].reason.startswith("the switchover was to it")
    assert entry.candidates[1].reason == "another one was chosen: the switchover was to m2"
    opened = view(server("m2", "0-1-9", writable=True), at=1002.012)
    entry = aftermath.looked(entry, CLUSTER, opening, opened)
    assert entry.outage_ms == 12.0
    undone = build.saved(
        begun(CALM, chained, opened, 1000.0, "w", "w"),
        frozen,
        replace(CALM, term=9),
        "m2 is gone",
        opened,
    )
    assert (undone.outcome, undone.why) == (Outcome.UNDONE, "m2 is gone")


def test_a_primary_that_is_not_seen_was_last_heard_before_it_began() -> None:
    unseen = Unseen("no answer", NOW - 0.8, server("m1", "0-1-50"))
    look = view(("m1", unseen), at=1000.0)
    entry = begun(CALM, ELECT, look, 1000.0, "m1 is lost", "it begins")
    assert entry.positions.old == "0-1-50"
    assert entry.moments[0].at_ms == pytest.approx(-800)
    assert "heard no more" in entry.moments[0].text


def test_a_loss_that_was_allowed_is_called_a_loss() -> None:
    lossy = replace(ELECT, mode=Mode.ASYNC)
    lossy = replace(lossy, transition=Failover(Step.ELECT, "m1", lossy=True))
    look = view(down("m1", "0-1-103"), server("m2", "0-1-100"), at=1000.0)
    entry = begun(CALM, lossy, look, 1000.0, "m1 is gone", "it begins")
    named = replace(NAMED, mode=Mode.ASYNC)
    entry = build.saved(entry, lossy, named, "m2 takes over", look)
    entry = build.compared(entry, CLUSTER, lossy, named, look)
    assert "may have been acknowledged" in entry.positions.difference


def test_results_of_hooks_are_kept_once() -> None:
    ran = (Ran("stop", "stop", 10, 0.2, "moving the address", ""),)
    called = {Phase.STOP: Called(8, HookOutcome.RUNNING), Phase.START: Called(7, HookOutcome.GOOD)}
    look = view(server("m2", "0-1-9"), at=1000.1, called=called)
    entry = failing_over()
    assert aftermath.hooked(entry, look) is entry, "one runs still, the other is of before"
    look = replace(look, called={Phase.STOP: Called(8, HookOutcome.GOOD, "it warned", ran)})
    entry = aftermath.hooked(entry, look)
    assert aftermath.hooked(entry, replace(look, date=1000.2)) is entry
    assert entry.hooks[0].ran == (Ran("stop", "stop", 10, 0.2, "moving the address", ""),)
    assert any("exit code 10 after 200 ms" in line for line in told(entry, "c"))


def test_a_pause_that_is_over_by_itself_is_nobodys_order() -> None:
    record = replace(CALM, paused=Pause("x", 1.0))
    entry = build.order("the pause is over (x)", 5.0, record, "mgr1", by_person=False)
    assert entry.ordered == ""
