"""Which members lose and gain a vote, and in which order: cases that the storms of the model meet too rarely."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.cluster import Cluster, Member
from holdfast.core.commands import Clone, Restart, Rewind
from holdfast.core.gtid import Flavor
from holdfast.core.members.membership import acking_voters, next_change, unbarrable
from holdfast.core.members.rejoin import rejoin
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record, Stray
from holdfast.core.settings import Durability, Settings
from holdfast.core.view import MemberState, Receiver, Replication, SemiSync
from tests.unit.looks import CLUSTER, RECORD, down, primary, replica, unseen, view

FOUR = Cluster("c", tuple(Member(f"m{i}", "127.0.0.1", 3300 + i) for i in (1, 2, 3, 4)))
UUIDS = {f"m{i}": f"0000000{i}-0000-0000-0000-000000000000" for i in (1, 2, 3, 4)}


def mysql(state: MemberState) -> MemberState:
    """The same member, in MySQL's words."""
    has = f"{UUIDS['m1']}:1-9"
    return replace(state, flavor=Flavor.MYSQL, origin=UUIDS[state.name], received=has, applied=has)


def learner(name: str, **changes: object) -> MemberState:
    return replica(name, incarnation="b", semi_sync=SemiSync(replica=False), **changes)


def test_a_stray_that_may_still_acknowledge_is_barred_before_voters_change() -> None:
    """It lost its vote and was not reached: it follows this very server, and acknowledges to it."""
    voting = Configuration(frozenset({("m1", "a"), ("m2", "a"), ("m3", "a")}), 1)
    record = replace(RECORD, configurations=(voting,), strays=frozenset({Stray("m4", "a", "m1")}))
    seen = view(primary(), replica("m2"), learner("m3"), ("m4", unseen("m4")))
    assert ("m4", "a") in acking_voters(record, seen, primary(), FOUR)
    change = next_change(FOUR, record, seen, primary())
    assert change is not None
    assert ("m3", "b") in change.target.voters
    assert change.bar == ("m4",)
    locked = primary(barred=("repl_m4",))
    change = next_change(FOUR, record, seen, locked)
    assert change is not None
    assert change.bar == ()


def test_a_stray_of_another_server_acknowledges_nothing_here() -> None:
    record = replace(RECORD, strays=frozenset({Stray("m4", "a", "m2")}))
    seen = view(primary(), replica("m2"), replica("m3"), ("m4", unseen("m4")))
    assert ("m4", "a") not in acking_voters(record, seen, primary(), FOUR)


def test_a_barred_member_is_let_in_only_once_its_agent_has_obeyed_a_command_of_this_term() -> None:
    """An earlier command, which would make it acknowledge, may still be delayed in its agent: the term makes it void
    there."""
    without = replace(
        RECORD, term=5, configurations=(Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1),)
    )
    for term, let_in in ((4, False), (5, True)):
        seen = view(primary(), replica("m2"), learner("m3", term=term))
        assert unbarrable(without, seen, "m3") is let_in
    acknowledging = learner("m3", term=5)
    acknowledging = replace(acknowledging, semi_sync=SemiSync(replica=True))
    assert not unbarrable(without, view(primary(), replica("m2"), acknowledging), "m3")
    counted = replica("m3", term=5, semi_sync=SemiSync())
    beside = replace(without, configurations=(*RECORD.configurations, without.target))
    assert not unbarrable(beside, view(primary(), replica("m2"), counted), "m3")


def test_commits_wait_for_more_only_when_that_many_acknowledge_already() -> None:
    """A voter first votes under the previous number: commits do not wait for a receiver that is restarted."""
    everyone = Cluster("c", CLUSTER.members, Settings(durability=Durability.ALL))
    two = replace(RECORD, configurations=(Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1),))
    own = mysql(primary())
    seen = view(own, mysql(replica("m2")), mysql(learner("m3")))
    change = next_change(everyone, two, seen, own)
    assert change is not None
    assert change.target == Configuration(frozenset({("m1", "a"), ("m2", "a"), ("m3", "b")}), 1)
    voting = replace(two, configurations=(change.target,))
    asked = replica("m3", incarnation="b", replication=Replication("127.0.0.1:3301", Receiver.OFF))
    connecting = view(own, mysql(replica("m2")), mysql(asked))
    assert next_change(everyone, voting, connecting, own) is None
    acknowledging = view(own, mysql(replica("m2")), mysql(replica("m3", incarnation="b")))
    change = next_change(everyone, voting, acknowledging, own)
    assert change is not None
    assert change.target.acks == 2


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(
            {"received": "0-1-9,0-3-4", "applied": "0-1-9,0-3-4", "judged": "0-3-4"}, id="errant"
        ),
        pytest.param({"unfit": "its data is torn"}, id="unfit"),
        pytest.param(
            {"replication": Replication("127.0.0.1:3301", Receiver.ON, True, purged=True)},
            id="purged",
        ),
    ],
)
def test_what_a_voter_has_received_is_not_touched_while_it_counts(harm: dict[str, object]) -> None:
    """It may hold the only copy that a recovery quorum relies on: it must lose its vote first."""
    spoiled = replica("m3", **harm)
    step = rejoin(CLUSTER, RECORD, view(primary(), replica("m2"), spoiled), CLUSTER.member("m3"))
    assert step.command is None
    assert step.reason
    last = replace(
        RECORD, configurations=(Configuration(frozenset({("m1", "a"), ("m3", "a")}), 1),)
    )
    step = rejoin(CLUSTER, last, view(primary(), down("m2"), spoiled), CLUSTER.member("m3"))
    assert isinstance(step.command, Restart)
    again = replace(spoiled, incarnation="b")
    step = rejoin(CLUSTER, RECORD, view(primary(), replica("m2"), again), CLUSTER.member("m3"))
    assert isinstance(step.command, Rewind | Clone)


def test_a_spoiled_voter_that_counts_in_an_older_configuration_is_not_touched_either() -> None:
    joint: Record = RECORD.extended(Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1))
    has = "0-1-9,0-3-4"
    spoiled = replica("m3", received=has, applied=has, judged="0-3-4")
    step = rejoin(CLUSTER, joint, view(primary(), replica("m2"), spoiled), CLUSTER.member("m3"))
    assert step.command is None
