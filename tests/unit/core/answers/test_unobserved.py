"""A server that cannot be observed is not "starting", nor down, nor well: it is shown as not known, with its age."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.core.answers.routing import directions
from holdfast.core.answers.stages import Stage
from holdfast.core.answers.status import MemberRole, Status, status
from holdfast.core.change.failover import prospects
from holdfast.core.decide import decide
from holdfast.core.decision import Save
from holdfast.core.lease import Lease, LeaseHolder
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.rules.diagnosis import Primary, diagnose
from holdfast.core.rules.pulse import felt, lapses
from holdfast.core.settings import Durability, Settings
from holdfast.core.transition import Failover, Step
from holdfast.core.view import (
    LookFailure,
    MemberState,
    Receiver,
    Replication,
    ServerStatus,
    Unseen,
    View,
)
from tests.unit.looks import CLUSTER, NOW, RECORD, down, primary, replica, view

DENIED = "error 1045: Access denied for user 'holdfast'@'localhost'"
LEASED = Lease(enforced=True, by=LeaseHolder.PEERS, left=0.8)
DEAF = Replication("127.0.0.1:3301", Receiver.ON, True, unheard=6.0)
TWO = replace(RECORD, configurations=(replace(RECORD.target, acks=2),))
ELECT = replace(RECORD, term=5, transition=Failover(Step.ELECT, "m1"))


NOT_YET: dict[str, Any] = {"unobserved": "worded in any way", "look_failure": LookFailure.NOT_YET}
ENDS: dict[str, Any] = {
    "unobserved": "it is shutting down, in any words",
    "look_failure": LookFailure.SHUTS_DOWN,
}


def restarted(why: str = DENIED, **changes: Any) -> MemberState:
    """Its agent found the server running, and has had no look at it."""
    state = down("m1", server=ServerStatus.STARTING, incarnation="a", unobserved=why, lease=LEASED)
    return replace(state, **changes)


def shown(seen: View, record: Record = RECORD) -> Status:
    return status(CLUSTER, record, seen, decide(CLUSTER, record, seen))


def hidden(first: MemberState | Unseen, *others: MemberState) -> View:
    one = first if isinstance(first, MemberState) else ("m1", first)
    return view(one, *(others or (replica("m2"), replica("m3"))))


def gone(**changes: Any) -> Unseen:
    return Unseen("connection refused", NOW - 4.0, primary(**changes))


@pytest.mark.parametrize(
    "first",
    [restarted(), restarted(**NOT_YET), primary(unobserved=DENIED), gone()],
    ids=["denied", "not looked yet", "was up", "agent gone"],
)
def test_a_primary_that_cannot_be_looked_into_takes_writes_while_its_voters_hear_it(
    first: MemberState | Unseen,
) -> None:
    seen = hidden(first)
    found = shown(seen)
    assert found.writable
    assert not found.whole
    assert found.members[0].role is MemberRole.PRIMARY
    assert found.members[0].state in ("not observed", "unknown")
    assert "starting" not in found.reason
    assert "m2, m3 hear" in found.reason
    assert not decide(CLUSTER, RECORD, seen).steps
    assert diagnose(CLUSTER, RECORD, seen).primary is Primary.UNSEEN


def test_the_servers_own_error_is_told() -> None:
    assert DENIED in shown(hidden(restarted())).reason
    assert DENIED in shown(hidden(primary(unobserved=DENIED))).reason
    own = f"its agent cannot query it: {DENIED}"
    for first in (restarted(reason=own), primary(unobserved=DENIED, reason=own)):
        assert shown(hidden(first)).members[0].told, "once"
    told = shown(hidden(primary(), replica("m2", unobserved=DENIED), replica("m3")))
    assert f"m2: its server runs, and its agent cannot query it: {DENIED}" in told.reason


@pytest.mark.parametrize(
    ("seen", "record"),
    [
        (hidden(restarted(), replica("m2"), down("m3")), TWO),
        (hidden(restarted(), down("m2"), down("m3")), RECORD),
        (hidden(restarted(lease=Lease())), RECORD),
        (hidden(restarted(incarnation="b")), RECORD),
        (hidden(primary(writable=False, **ENDS)), RECORD),
        (hidden(gone(writable=False)), RECORD),
        (hidden(gone(stopped=4)), RECORD),
        (hidden(Unseen("connection refused", NOW - 4.0)), RECORD),
        (hidden(gone()), ELECT),
        (hidden(gone(), replica("m2", replication=DEAF), replica("m3", replication=DEAF)), RECORD),
    ],
    ids=[
        "too few acknowledge", "nobody hears it", "it was not opened", "another run", "shuts down",
        "was closed", "was being frozen", "never seen", "an election", "its voters hear nothing",
    ],
)  # fmt: skip
def test_nothing_is_claimed_where_nothing_speaks_for_it(seen: View, record: Record) -> None:
    assert not shown(seen, record).writable


def test_its_clients_are_left_to_its_lease() -> None:
    for first in (restarted(), primary(unobserved=DENIED), gone()):
        kept = directions(CLUSTER, RECORD, hidden(first)).primary
        assert kept is not None
        assert kept.name == "m1"
    for first in (restarted(incarnation="b"), primary(writable=False, **ENDS)):
        assert directions(CLUSTER, RECORD, hidden(first)).primary is None
    assert directions(CLUSTER, ELECT, hidden(restarted())).primary is None


def test_one_that_nobody_hears_is_replaced_all_the_same() -> None:
    deaf = [replica(name, replication=DEAF) for name in ("m2", "m3")]
    for first in (restarted(), primary(unobserved=DENIED)):
        assert diagnose(CLUSTER, RECORD, hidden(first, *deaf)).primary is Primary.ISOLATED
    frozen = restarted(silent_seconds=1.2, **NOT_YET)
    assert diagnose(CLUSTER, RECORD, hidden(frozen, *deaf)).primary is Primary.FROZEN
    (step,) = decide(CLUSTER, RECORD, hidden(frozen, *deaf)).steps
    assert isinstance(step, Save)
    assert step.record.transition == ELECT.transition


@pytest.mark.parametrize(("since", "replaced"), [(0.4, False), (1.0, True)])
def test_a_primary_that_shuts_down_is_not_waited_for_longer_than_a_silent_one(
    since: float, replaced: bool
) -> None:
    first = primary(writable=False, unobserved_seconds=since, **ENDS)
    found = diagnose(CLUSTER, RECORD, hidden(first))
    assert (found.primary is Primary.STUCK) is replaced
    assert "shutting down" in found.reason
    assert not shown(hidden(first)).writable


def test_a_voter_that_cannot_be_looked_into_cannot_promise_and_leaves_after_patience() -> None:
    blind = replica("m2", unobserved=DENIED, unobserved_seconds=4.0)
    seen = hidden(down("m1"), blind, replica("m3"))
    found = prospects(RECORD, seen)
    assert ("m2", "a") not in found.reachable
    assert found.missing == (f"the agent of m2 cannot query its server: {DENIED}",)
    assert not found.silent
    just = replace(blind, unobserved_seconds=0.0, **NOT_YET)
    assert prospects(RECORD, hidden(down("m1"), just, replica("m3"))).silent == ("m2",)
    hangs = replace(just, silent_seconds=4.0)
    assert not prospects(RECORD, hidden(down("m1"), hangs, replica("m3"))).silent
    owes = hidden(primary(), blind, replica("m3"))
    owed = lapses(felt(felt({}, "m1", owes), "m1", owes))
    assert owed["m2"].seconds >= 4.0
    assert "cannot query" in owed["m2"].reason


def test_a_silent_member_does_not_look_healthy() -> None:
    lagging = replace(replica("m2").replication, lag_seconds=0.0)
    silent = replica("m2", incarnation="b", replication=lagging, silent_seconds=3.8)
    found = shown(hidden(primary(), silent, replica("m3"))).members[1]
    assert (found.state, found.stage, found.lag_seconds) == ("no answer", Stage.NONE, None)
    assert found.age_seconds == 3.8
    assert found.bytes_behind is None
    assert "has not answered its agent for 4 s" in found.reason
    unseen = Unseen("no route to host", NOW - 6.0, silent)
    away = shown(view(primary(), ("m2", unseen), replica("m3"))).members[1]
    assert (away.state, away.lag_seconds, away.age_seconds) == ("unknown", None, 9.8)
    never = shown(view(primary(), ("m2", Unseen("not asked yet", NOW)), replica("m3"))).members[1]
    assert never.age_seconds is None
    well = shown(hidden(primary())).members[1]
    assert (well.age_seconds, well.stage) == (0.0, Stage.VOTER)


@pytest.mark.parametrize(
    ("receiver", "applier", "state"),
    [
        (Receiver.ON, True, "replicating"),
        (Receiver.CONNECTING, True, "connecting"),
        (Receiver.CONNECTING, False, "applier stopped"),
        (Receiver.OFF, True, "read-only"),
    ],
)
def test_a_replica_replicates_only_while_it_is_connected(
    receiver: Receiver, applier: bool, state: str
) -> None:
    m2 = replica("m2", replication=Replication("127.0.0.1:3301", receiver, applier))
    assert shown(hidden(primary(), m2, replica("m3"))).members[1].state == state


def test_a_member_without_a_seat_is_a_standby_and_the_cause_is_told() -> None:
    settings = Settings(durability=Durability.ALL)
    cluster = replace(CLUSTER, settings=settings)
    record = replace(
        RECORD, configurations=(Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1),)
    )
    m3 = replica("m3", semi_sync=replace(replica("m3").semi_sync, replica=False))
    seen = view(primary(), replica("m2"), m3)
    decision = decide(cluster, record, seen)
    assert decision.reason == "m1 is primary and takes writes; m2 votes; m3 is a standby"
    found = status(cluster, record, seen, decision)
    assert found.whole
    assert [each.role for each in found.members] == [
        MemberRole.PRIMARY,
        MemberRole.VOTER,
        MemberRole.STANDBY,
    ]
    assert found.members[2].standby == (
        "MariaDB waits for one acknowledgement only, so with durability all 2 vote at most"
    )
