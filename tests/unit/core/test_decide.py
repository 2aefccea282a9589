"""Single decisions, and the sentences that an operator reads at night. Whole procedures: ``tests/model``."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.answers.status import MemberRole, status
from holdfast.core.commands import (
    Clone,
    Cut,
    Fence,
    Follow,
    Promise,
    Promote,
    Rewind,
    SetAcks,
    Start,
    Unbar,
)
from holdfast.core.decide import decide
from holdfast.core.decision import Call, Decision, Save, Send
from holdfast.core.lease import electorate
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record, Stray, from_json, to_json
from holdfast.core.transition import Failover, RestartInPlace, Step, Switchover
from holdfast.core.view import (
    Receiver,
    Replication,
    SemiSync,
    Tail,
    TailVerdict,
    View,
)
from tests.unit.looks import (
    CLUSTER,
    NOW,
    RECORD,
    VOTERS,
    down,
    primary,
    replica,
    saved,
    unseen,
    view,
)


def decided(record: Record | None, seen: View) -> Decision:
    return decide(CLUSTER, record, seen)


def test_a_well_cluster_is_left_alone() -> None:
    decision = decided(RECORD, view(primary(), replica("m2"), replica("m3")))
    assert decision == Decision("m1 is primary and takes writes; all members vote", well=True)


def test_a_dead_primary_begins_a_failover_in_a_new_term() -> None:
    record = saved(decided(RECORD, view(down("m1"), replica("m2"), replica("m3"))))
    assert record.term == 5
    assert record.transition == Failover(Step.ELECT, "m1")
    assert record.primary == "m1"


def test_an_unseen_primary_is_not_a_dead_one() -> None:
    decision = decided(RECORD, view(("m1", unseen("m1", 0.0)), replica("m2"), replica("m3")))
    assert not decision.steps
    assert "no member is promoted" in decision.reason


def test_without_quorum_nothing_is_stopped_and_the_reason_names_who_is_missing() -> None:
    decision = decided(RECORD, view(down("m1"), replica("m2"), ("m3", unseen("m3"))))
    assert not decision.steps
    assert decision.reason == (
        "the server of m1, the primary, is gone; no member can take over: "
        "the agent of m3 does not answer; waiting for m3"
    )


def test_without_quorum_for_long_the_primary_is_restarted_in_place() -> None:
    for missing in (down("m3"), replica("m3", incarnation="b"), ("m3", unseen("m3", NOW - 60))):
        record = saved(decided(RECORD, view(down("m1"), replica("m2"), missing)))
        assert record.transition == RestartInPlace(Step.OPEN)
        assert record.term == 4
        decision = decided(record, view(down("m1"), replica("m2"), missing))
        assert decision.steps == (Send("m1", Start()),)


def test_one_that_boots_open_is_not_started_again_in_any_role() -> None:
    why = "its server boots with read_only = OFF (from /etc/extra.cnf)"
    opens = down("m1", unstartable=why)
    restarting = replace(RECORD, transition=RestartInPlace(Step.OPEN))
    decision = decided(restarting, view(opens, replica("m2"), down("m3")))
    assert not decision.steps
    assert why in decision.reason
    two = replace(RECORD, configurations=(Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1),))
    decision = decided(two, view(primary(), replica("m2"), down("m3", unstartable=why)))
    assert not decision.steps
    assert f"m3: {why}" in decision.reason
    decision = decide(CLUSTER, None, view(replace(opens, term=0), down("m2"), down("m3")))
    assert not decision.steps


def test_promises_are_asked_of_all_that_have_not_given_one() -> None:
    electing = replace(RECORD, term=5, transition=Failover(Step.ELECT, "m1"))
    silent = Replication("127.0.0.1:3301", Receiver.OFF, True)
    stopped = replica("m2", term=5, promised=5, replication=silent)
    # m3's agent has heard of the term, and its receiver is stopped: but its positions have not been read since
    seen = view(down("m1"), stopped, replica("m3", term=5, replication=silent))
    decision = decided(electing, seen)
    assert decision.steps == (Send("m1", Promise()), Send("m3", Promise()))
    assert decision.reason == "failover: waiting for the promise of m3"


def test_the_commit_point_names_the_foremost_and_keeps_it_from_being_deposed_alone() -> None:
    electing = replace(RECORD, term=5, transition=Failover(Step.ELECT, "m1"))
    silent = Replication("127.0.0.1:3301", Receiver.OFF, True)
    ahead = replica(
        "m3", term=5, promised=5, replication=silent, received="0-1-12", applied="0-1-12"
    )
    lagging = replica("m2", term=5, promised=5, replication=silent)
    record = saved(decided(electing, view(down("m1"), lagging, ahead)))
    assert (record.primary, record.elected, record.serial) == ("m3", 5, 8)
    assert record.transition == Failover(Step.OPEN, "m1")
    assert record.configurations == (
        Configuration(frozenset({("m3", "a")}), 0),
        Configuration(frozenset({("m2", "a"), ("m3", "a")}), 1),
    )
    assert record.acks == 1
    assert not record.recoverable([("m2", "a")])


def test_while_it_opens_servers_that_are_down_wait() -> None:
    opening = replace(
        RECORD,
        term=5,
        elected=5,
        primary="m3",
        configurations=(Configuration(frozenset({("m2", "a"), ("m3", "a")}), 1),),
        transition=Failover(Step.OPEN, "m1"),
    )
    named = replica("m3", replication=Replication(), semi_sync=SemiSync())
    decision = decided(opening, view(down("m1"), replica("m2"), named))
    assert decision.steps == (
        Send("m3", Promote(1, 7, electorate=electorate(CLUSTER, opening))),
        Send("m2", Follow("m3", "127.0.0.1", 3303, semi_sync=True)),
    )
    alone = replace(
        opening, configurations=(Configuration(frozenset({("m1", "a"), ("m3", "a")}), 1),)
    )
    decision = decided(alone, view(down("m1"), ("m2", unseen("m2")), named))
    assert Send("m1", Cut("m3", "0-1-9,*-3")) in decision.steps


def test_one_that_took_over_while_it_followed_is_settled_when_it_follows_nobody() -> None:
    opening = replace(
        RECORD,
        transition=Switchover(Step.OPEN, "m1", deposed="m2", drained="0-2-8"),
    )
    behind = Replication("127.0.0.1:3302", Receiver.ON, True)
    seen = view(primary(proved=7, replication=behind), replica("m2"), replica("m3"))
    sent = [each for each in decided(opening, seen).steps if isinstance(each, Send)]
    assert [(each.member, type(each.command)) for each in sent] == [("m1", Promote)]
    seen = view(primary(proved=7), replica("m2"), replica("m3"))
    assert saved(decided(opening, seen)).transition is None


def test_whom_it_barred_when_it_was_primary_before_is_let_in_before_it_opens() -> None:
    """The opening waits for its voters, and the agent does nothing else meanwhile."""
    opening = replace(
        RECORD,
        primary="m3",
        configurations=(Configuration(frozenset({("m2", "a"), ("m3", "a")}), 1),),
        transition=Failover(Step.OPEN, "m1"),
    )
    named = replica("m3", replication=Replication(), barred=("repl_m2",))
    decision = decided(opening, view(down("m1"), replica("m2"), named))
    assert Send("m3", Unbar("repl_m2")) in decision.steps
    assert not any(isinstance(s, Send) and isinstance(s.command, Promote) for s in decision.steps)


def test_one_that_came_back_without_what_others_have_received_gets_nobody_attached() -> None:
    opening = replace(RECORD, transition=RestartInPlace(Step.OPEN))
    back = primary(applied="0-1-5", received="0-1-5", semi_sync=SemiSync(), writable=False)
    seen = view(replace(back, barred=("repl_m2",)), replica("m2"), replica("m3"))
    decision = decided(opening, seen)
    assert not decision.steps
    assert "came back without transactions that m2 has received" in decision.reason


def test_a_server_that_is_down_is_checked_cut_and_started_but_not_when_that_is_unsafe() -> None:
    two = replace(RECORD, configurations=(Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1),))

    def step(tail: Tail) -> tuple[Send | Save | Call, ...]:
        return decided(two, view(primary(), replica("m2"), down("m3", tail=tail))).steps

    check = Send("m3", Cut("m1", "*-1"))
    assert step(Tail()) == (check,)
    assert step(Tail(TailVerdict.CUT, term=2)) == (check,), "compared with an older primary"
    assert step(Tail(TailVerdict.CUT, term=3)) == (Send("m3", Start()),)
    unsafe = Tail(TailVerdict.UNSAFE, term=3, reason="it holds DDL")
    decision = decided(two, view(primary(), replica("m2"), down("m3", tail=unsafe)))
    assert decision.steps == (Send("m3", clone_from("m2")),)
    assert decision.reason == "m3: it holds DDL: it is cloned from m2"
    committed = Tail(TailVerdict.COMMITTED, term=3, reason="it was no primary")
    assert step(committed) == (Send("m3", Start()),)


def clone_from(name: str) -> Clone:
    donor = CLUSTER.member(name)
    return Clone(name, donor.host, donor.port, donor.agent, "*-1")


def test_what_a_receiver_ran_into_before_its_promise_says_nothing_of_the_new_primary() -> None:
    """Chained below a candidate that lagged behind, its source lacked what it has; then it promised."""
    opening = replace(
        RECORD,
        primary="m3",
        configurations=(Configuration(frozenset({("m2", "a"), ("m3", "a")}), 1),),
        transition=Failover(Step.OPEN, "m1"),
    )
    named = replica("m3", replication=Replication())
    refused = Replication("127.0.0.1:3303", Receiver.OFF, True, purged=True)
    told = Send("m2", Follow("m3", "127.0.0.1", 3303, semi_sync=True))
    promised = replica("m2", promised=4, replication=refused)
    assert told in decided(opening, view(down("m1"), promised, named)).steps
    again = replica("m2", replication=refused)  # it has asked the new primary since
    assert told not in decided(opening, view(down("m1"), again, named)).steps


def test_errant_transactions_are_rewound() -> None:
    errant = replica("m3", incarnation="b", applied="0-1-9,0-3-4", replication=Replication())
    errant = replace(errant, judged="0-3-4")
    two = replace(RECORD, configurations=(Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1),))
    decision = decided(two, view(primary(), replica("m2"), errant))
    assert decision.steps == (Send("m3", Rewind("m1", "*-1")),)
    assert "m3: it has transactions that m1 lacks (0-3-4)" in decision.reason


def test_a_replica_that_was_looked_at_later_than_the_primary_is_not_errant() -> None:
    decision = decided(RECORD, view(primary(), replica("m2", applied="0-1-15"), replica("m3")))
    assert decision.well


def test_a_second_writer_is_fenced() -> None:
    decision = decided(RECORD, view(primary(), replica("m2", writable=True), replica("m3")))
    assert Send("m2", Fence()) in decision.steps


def test_semi_sync_switched_off_by_hand_is_switched_on_again() -> None:
    off = primary(semi_sync=SemiSync(source=False, acks=0))
    decision = decided(RECORD, view(off, replica("m2"), replica("m3")))
    assert decision.steps[0] == Send("m1", SetAcks(1))
    assert not decision.well


def test_a_restarted_voter_votes_again_only_through_a_joint_configuration() -> None:
    again = replica("m3", incarnation="b", semi_sync=SemiSync(replica=False))
    record = saved(decided(RECORD, view(primary(), replica("m2"), again)))
    assert record.configurations[0] == VOTERS
    assert record.target.incarnation("m3") == "b"
    assert record.serial == 8
    decision = decided(record, view(primary(), replica("m2"), again))
    assert Send("m3", Follow("m1", "127.0.0.1", 3301, semi_sync=True)) in decision.steps


def test_the_last_other_voter_stays_so_that_the_primary_blocks_rather_than_serves_alone() -> None:
    decision = decided(RECORD, view(primary(), down("m2"), down("m3")))
    assert not any(isinstance(step, Save) for step in decision.steps)
    assert (
        "commits on m1 wait for 1 acknowledgement, and none of its voters can give one now"
        in decision.reason
    )


def test_without_a_record_a_member_that_has_been_in_a_cluster_is_not_touched() -> None:
    fresh = [down(f"m{i}", term=0) for i in (1, 2, 3)]
    assert decided(None, view(*fresh)).steps == tuple(Send(f"m{i}", Start()) for i in (1, 2, 3))
    decision = decided(None, view(fresh[0], fresh[1], down("m3", term=9)))
    assert not decision.steps
    assert "the store has no record of c, but m3 was in a cluster before" in decision.reason


def test_the_record_survives_the_store() -> None:
    joint = RECORD.extended(Configuration(frozenset({("m1", "a"), ("m2", "b")}), 1))
    stray = replace(RECORD, strays=frozenset({Stray("m3", "a", "m2")}))
    for record in (
        RECORD,
        joint,
        stray,
        replace(joint, transition=RestartInPlace(Step.OPEN)),
    ):
        assert from_json(to_json(record)) == record


def test_status_tells_roles_and_why_each_is_not_well() -> None:
    seen = view(primary(), replica("m2", incarnation="b"), ("m3", unseen("m3")))
    shown = status(CLUSTER, RECORD, seen, decided(RECORD, seen))
    assert [member.role for member in shown.members] == [
        MemberRole.PRIMARY,
        MemberRole.LEARNER,
        MemberRole.VOTER,
    ]
    assert shown.writable
    assert not shown.whole
    assert shown.members[2].state == "unknown"
    assert shown.members[2].reason == "its agent does not answer (connection refused)"
