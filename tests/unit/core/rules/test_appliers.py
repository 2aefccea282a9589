"""A replica with a broken applier: what it counts for, which member votes instead, and when its data is replaced."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import pytest

from holdfast.core.change.failover import name_primary
from holdfast.core.cluster import Cluster
from holdfast.core.commands import Clone, Fence, Follow
from holdfast.core.decide import decide
from holdfast.core.decision import Save, Send
from holdfast.core.gtid import Flavor
from holdfast.core.members.copying import closing, next_step
from holdfast.core.members.membership import next_change
from holdfast.core.members.rejoin import best_donor, rejoin
from holdfast.core.observed.applying import Applying
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.rules.appliers import must_restart
from holdfast.core.rules.attachment import attached
from holdfast.core.rules.election import Elected, NobodyElected, elect
from holdfast.core.settings import Settings, WhenAlone
from holdfast.core.transition import Failover, RestartInPlace, Step
from holdfast.core.view import MemberState, Receiver, Replication, SemiSync, View
from tests.unit.looks import CLUSTER, RECORD, down, primary, replica, view

ERROR = "Duplicate entry '7' for key 'PRIMARY'"
SOURCE = "127.0.0.1:3301"
UUID = "00000001-0000-0000-0000-000000000000"


def lame(name: str, seconds: float = 1.0, repairs: int = 0, **changes: Any) -> MemberState:
    """It has received everything, and its applier has not passed the eighth transaction."""
    stopped = Replication(SOURCE, Receiver.ON, False, ERROR, applier_error=ERROR)
    applying = Applying(ERROR, seconds, repairs)
    return replica(
        name, **{"applied": "0-1-7", "replication": stopped, "applying": applying, **changes}
    )


def without_binlogs(name: str, seconds: float = 1.0, **changes: Any) -> MemberState:
    return replica(name, **{"applying": Applying(seconds=seconds, removed=True), **changes})


def learner(name: str, seconds: float = 1.0, repairs: int = 0, **changes: Any) -> MemberState:
    without = {"incarnation": "b", "semi_sync": SemiSync(replica=False), **changes}
    return lame(name, seconds, repairs, **without)


def voting(*names: str, acks: int = 1) -> Record:
    voters = frozenset((name, "a") for name in ("m1", *names))
    return replace(RECORD, configurations=(Configuration(voters, acks),))


def with_settings(**changes: Any) -> Cluster:
    return replace(CLUSTER, settings=replace(Settings(), **changes))


def votes_next(record: Record, seen: View, cluster: Cluster = CLUSTER) -> AbstractSet[str] | None:
    state = seen.state("m1")
    assert state is not None
    change = next_change(cluster, record, seen, state)
    return None if change is None else change.target.names() - {"m1"}


def test_it_loses_its_vote_at_once_where_a_sound_one_votes() -> None:
    seen = view(primary(), replica("m2"), lame("m3"))
    change = next_change(CLUSTER, RECORD, seen, primary())
    assert change is not None
    assert change.target == Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1)
    assert change.bar == ("m3",), "what it acknowledges after that must not count"
    assert ERROR in change.why


@pytest.mark.parametrize("names", [("m2",), ("m2", "m3")])
def test_it_keeps_its_vote_where_nobody_sound_votes(names: tuple[str, ...]) -> None:
    seen = view(primary(), *(lame(name) for name in names))
    assert votes_next(voting(*names), seen) is None


def test_it_is_let_vote_again_when_the_last_sound_voter_dies_and_leaves_when_one_is_back() -> None:
    record = voting("m2")
    assert votes_next(record, view(primary(), down("m2"), learner("m3"))) == {"m3"}
    back = replica("m2", incarnation="c", semi_sync=SemiSync(replica=False))
    standing = replace(
        voting(), configurations=(Configuration(frozenset({("m1", "a"), ("m3", "b")}), 1),)
    )
    seen = view(primary(), back, learner("m3", semi_sync=SemiSync(replica=True)))
    assert votes_next(standing, seen) == {"m2"}


def test_one_that_has_not_even_received_what_the_primary_has_is_not_let_vote() -> None:
    ahead = primary(applied="0-1-9000", received="0-1-9000")
    assert votes_next(voting("m2"), view(ahead, down("m2"), learner("m3"))) is None


def test_what_it_has_received_stands_against_one_that_has_less() -> None:
    """It cannot apply this, and a client may have been told that it is committed."""
    behind = replica("m2", received="0-1-8", applied="0-1-8")
    outcome = elect([behind, lame("m3")], CLUSTER)
    assert isinstance(outcome, NobodyElected)
    assert ERROR in outcome.reason


def named(*members: MemberState, chosen: str = "m2") -> Record:
    """The members that have promised are the recovery quorum."""
    promised = [replace(each, promised=RECORD.term) for each in members]
    electing = replace(RECORD, transition=Failover(Step.ELECT, "m1"))
    by_name = {each.name: each for each in promised}
    quorum = [each for each in promised if each.incarnation == "a"]
    return name_primary(CLUSTER, electing, view(down("m1"), *promised), by_name[chosen], quorum)


def test_a_new_primary_has_sound_voters_where_there_are_any() -> None:
    four = replace(CLUSTER, members=(*CLUSTER.members, replace(CLUSTER.members[2], name="m4")))
    promised = [replace(each, promised=4) for each in (replica("m2"), lame("m3"), replica("m4"))]
    record = name_primary(four, RECORD, view(down("m1"), *promised), promised[0], promised)
    assert record.target.names() == {"m2", "m4"}


@pytest.mark.parametrize("broken", [lame("m3"), learner("m3")])
def test_for_want_of_a_sound_one_it_is_asked_to_acknowledge_and_not_the_one_that_died(
    broken: MemberState,
) -> None:
    record = named(replica("m2"), broken)
    assert record.target.without("m2") == {("m3", broken.incarnation)}


def test_a_learner_that_is_asked_to_acknowledge_is_counted_on_only_once_a_row_has_proven_it() -> (
    None
):
    """It follows anew, and has dropped what it could not apply."""
    record = named(replica("m2"), learner("m3"))
    assert [(each.names(), each.acks) for each in record.configurations] == [
        (frozenset({"m2"}), 0),
        (frozenset({"m2", "m3"}), 1),
    ]
    assert not record.recoverable([("m3", "b")])


OPENING = replace(
    RECORD,
    primary="m2",
    configurations=(Configuration(frozenset({("m2", "a"), ("m3", "a")}), 1),),
    transition=Failover(Step.OPEN, "m1"),
)


def opened_next(broken: MemberState) -> object:
    chosen = replica("m2", replication=Replication(), semi_sync=SemiSync())
    member = CLUSTER.member("m3")
    return rejoin(CLUSTER, OPENING, view(down("m1"), chosen, broken), member).command


def test_a_voter_that_would_have_to_drop_what_it_acknowledged_is_another_voter_first() -> None:
    assert isinstance(opened_next(lame("m3")), Fence)
    assert isinstance(opened_next(learner("m3")), Follow), "nothing counted on what it received"
    assert isinstance(opened_next(replica("m3")), Follow)


@pytest.mark.parametrize("flavor", Flavor)
def test_mariadb_drops_it_with_its_receiver(flavor: Flavor) -> None:
    off = Replication(SOURCE, Receiver.OFF, False, ERROR, applier_error=ERROR)
    state = lame("m3", replication=off, flavor=flavor)
    seen = view(primary(flavor=flavor), replica("m2", flavor=flavor), state)
    if flavor is Flavor.MYSQL:
        has = {"received": f"{UUID}:1-9", "applied": f"{UUID}:1-9"}
        state = replace(state, received=f"{UUID}:1-9", applied=f"{UUID}:1-7")
        seen = view(
            primary(flavor=flavor, origin=UUID, **has), replica("m2", flavor=flavor, **has), state
        )
    command = rejoin(CLUSTER, RECORD, seen, CLUSTER.member("m3")).command
    assert isinstance(command, Fence if flavor is Flavor.MARIADB else Follow)


def test_a_broken_one_that_receives_counts_as_attached_and_is_tried_again() -> None:
    state = lame("m3")
    assert attached(CLUSTER, RECORD, state)
    seen = view(primary(), replica("m2"), state)
    assert isinstance(rejoin(CLUSTER, RECORD, seen, CLUSTER.member("m3")).command, Follow)
    connecting = replace(
        state, replication=replace(state.replication, receiver=Receiver.CONNECTING)
    )
    seen = view(primary(), replica("m2"), connecting)
    step = rejoin(CLUSTER, RECORD, seen, CLUSTER.member("m3"))
    assert step.command is None, "a receiver that is restarted would drop what it has"
    assert ERROR in step.reason


def repaired(seen: View, record: Record, cluster: Cluster = CLUSTER, name: str = "m3") -> object:
    return next_step(cluster, record, seen, cluster.member(name)).command


def test_its_data_is_replaced_after_repair_after_once_it_votes_no_longer() -> None:
    record = voting("m2")
    early = view(primary(), replica("m2"), learner("m3", seconds=59.0))
    late = view(primary(), replica("m2"), learner("m3", seconds=60.0))
    assert isinstance(repaired(early, record), Follow)
    command = repaired(late, record)
    assert isinstance(command, Clone)
    assert command.donor == "m2"
    still_votes = view(primary(), replica("m2"), lame("m3", seconds=60.0))
    assert not isinstance(repaired(still_votes, RECORD), Clone)
    never = with_settings(repair_after=None)
    assert isinstance(repaired(late, record, never), Follow)
    assert "never" in next_step(never, record, late, CLUSTER.member("m3")).reason


def test_each_repair_that_has_not_helped_doubles_the_time_to_the_next() -> None:
    record = voting("m2")
    for repairs, seconds, wanted in (
        (1, 119.0, Follow),
        (1, 120.0, Clone),
        (99, 200_000.0, Follow),
    ):
        seen = view(primary(), replica("m2"), learner("m3", seconds, repairs))
        assert isinstance(repaired(seen, record), wanted)


def test_a_broken_one_is_no_donor() -> None:
    seen = view(primary(), lame("m2"), learner("m3", seconds=99.0))
    assert best_donor(CLUSTER, RECORD, seen, "m3") == "m1"


def test_of_several_one_is_replaced_while_another_acknowledges() -> None:
    both = view(primary(), lame("m2", 99.0), lame("m3", 99.0))
    assert votes_next(RECORD, both) == {"m3"}
    record = voting("m3")
    out = lame("m2", 99.0, incarnation="b", semi_sync=SemiSync(replica=False))
    seen = view(primary(), out, lame("m3", 99.0))
    assert votes_next(record, seen) is None, "it stays out until it is sound"
    assert isinstance(repaired(seen, record, name="m2"), Clone)
    assert not isinstance(repaired(seen, record, name="m3"), Clone)


def test_one_at_a_time() -> None:
    record = voting("m2")
    five = replace(
        CLUSTER, members=(*CLUSTER.members, replace(CLUSTER.members[2], name="m4", port=3304))
    )
    seen = view(primary(), replica("m2"), learner("m3", 99.0), learner("m4", 99.0))
    sent = [
        s
        for s in decide(five, record, seen).steps
        if isinstance(s, Send) and isinstance(s.command, Clone)
    ]
    assert [each.member for each in sent] == ["m3"]


def test_the_last_voter_is_not_replaced_while_commits_wait_for_it_and_is_where_they_need_not() -> (
    None
):
    seen = view(primary(), lame("m2", 99.0))
    two = replace(CLUSTER, members=CLUSTER.members[:2])
    assert votes_next(voting("m2"), seen, two) is None
    assert closing(two, voting("m2"), seen, primary()) is None, "nobody is closed for it"
    serve = replace(two, settings=replace(Settings(), when_alone=WhenAlone.SERVE))
    assert votes_next(voting("m2"), seen, serve) == frozenset()


def test_with_all_of_them_broken_the_primary_goes_on_and_comes_back_in_place() -> None:
    seen = view(primary(), lame("m2"), lame("m3"))
    decision = decide(CLUSTER, RECORD, seen)
    assert not decision.well
    assert decision.reason.count(ERROR) == 2
    dead = view(down("m1", regained=True), lame("m2"), lame("m3"))
    decision = decide(CLUSTER, RECORD, dead)
    assert isinstance(decision.steps[0], Save)
    assert decision.steps[0].record.transition == RestartInPlace(Step.OPEN)
    assert "cannot apply" in decision.reason


def test_one_whose_binlog_files_were_removed_gives_its_vote_to_a_sound_one() -> None:
    seen = view(primary(), replica("m2"), without_binlogs("m3"))
    change = next_change(CLUSTER, RECORD, seen, primary())
    assert change is not None
    assert change.target.names() == {"m1", "m2"}
    assert "binary log were removed" in change.why
    both = view(primary(), without_binlogs("m2"), without_binlogs("m3"))
    assert votes_next(RECORD, both) is None, "an acknowledgement from it is a copy like any other"


def test_one_whose_binlog_files_were_removed_is_replaced_by_a_copy_in_time() -> None:
    member, record, learns = CLUSTER.member("m3"), voting("m2"), SemiSync(replica=False)
    seen = view(primary(), replica("m2"), without_binlogs("m3", 61.0, semi_sync=learns))
    assert isinstance(next_step(CLUSTER, record, seen, member).command, Clone)
    seen = view(primary(), replica("m2"), without_binlogs("m3", 59.0, semi_sync=learns))
    early = rejoin(CLUSTER, record, seen, member)
    assert early.command is None
    assert "cannot take over" in early.reason


@pytest.mark.parametrize("received", ["0-1-10", "0-1-11"])
def test_one_whose_binlog_files_were_removed_is_not_named(received: str) -> None:
    """No replica could follow it; so a member that has less, and would have to fetch from it, is not named either."""
    spoiled = without_binlogs("m3", received=received, applied=received)
    found = elect([replica("m2"), spoiled], CLUSTER)
    if received == replica("m2").received:
        assert isinstance(found, Elected)
        assert found.state.name == "m2"
    else:
        assert isinstance(found, NobodyElected)
        assert "binary log were removed" in found.reason


def test_one_whose_binlog_files_were_removed_is_not_restarted_for_that() -> None:
    behind = without_binlogs("m3", applied="0-1-7", replication=Replication("elsewhere:1"))
    assert not must_restart(CLUSTER, RECORD, primary(), behind)
