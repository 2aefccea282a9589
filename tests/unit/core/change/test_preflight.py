"""What stands against a switchover, and which member takes over if none is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.answers.routing import directions
from holdfast.core.change.preflight import SwitchoverOrder, chosen, objections
from holdfast.core.change.switchover import begun, step, under_way
from holdfast.core.cluster import Cluster
from holdfast.core.decision import Decision
from holdfast.core.gtid import Flavor
from holdfast.core.observed.applying import Applying
from holdfast.core.observed.blockers import Blocker, Holds
from holdfast.core.observed.lapse import Lapse
from holdfast.core.record import RESUMED_SECONDS, Pause, Planned, Record, Stray, from_json, to_json
from holdfast.core.rules.backlog import backlog
from holdfast.core.rules.diagnosis import diagnose
from holdfast.core.settings import MemberSettings, Settings
from holdfast.core.transition import Instant, Step, Strengthen, Switchover
from holdfast.core.view import MemberState, Receiver, Replication, SemiSync, View
from tests.unit import looks
from tests.unit.looks import CLUSTER, RECORD, primary, replica, saved


def with_settings(**members: MemberSettings) -> Cluster:
    return replace(CLUSTER, settings=Settings(members=members))


def view(*states: MemberState) -> View:
    return looks.view(*states, date=1000.0)


ALL_WELL = view(primary(), replica("m2"), replica("m3"))


def texts(cluster: Cluster, found: View, order: SwitchoverOrder, *blockers: Blocker) -> list[str]:
    return [each.text for each in objections(cluster, RECORD, found, order, blockers)]


def test_nothing_stands_against_a_voter_that_is_level() -> None:
    assert texts(CLUSTER, ALL_WELL, SwitchoverOrder()) == []
    assert texts(CLUSTER, ALL_WELL, SwitchoverOrder("m3")) == []
    assert chosen(CLUSTER, RECORD, ALL_WELL, SwitchoverOrder()) == "m2"


def test_the_highest_priority_goes_first_and_zero_never() -> None:
    cluster = with_settings(m3=MemberSettings(priority=200))
    assert chosen(cluster, RECORD, ALL_WELL, SwitchoverOrder()) == "m3"
    cluster = with_settings(m2=MemberSettings(priority=0))
    assert chosen(cluster, RECORD, ALL_WELL, SwitchoverOrder()) == "m3"
    assert texts(cluster, ALL_WELL, SwitchoverOrder("m2")) == ["m2: its priority is 0"]


def test_everything_is_said_at_once() -> None:
    """With no member named: why each cannot."""
    stopped = replace(replica("m2").replication, applier=False, error="duplicate key")
    off = replace(replica("m3").replication, receiver=Receiver.CONNECTING)
    found = view(primary(), replica("m2", replication=stopped), replica("m3", replication=off))
    blocker = Blocker(17, "app", "web1", Holds.TRANSACTION, 12.4, "UPDATE t SET a = 1")
    record = replace(RECORD, transition=Strengthen())
    said = [each.text for each in objections(CLUSTER, record, found, SwitchoverOrder(), [blocker])]
    assert said == [
        "a change to mode strong is under way",
        "connection 17 (app@web1) has had a transaction open on m1 for 12 s: UPDATE t SET a = 1",
        "m2: its applier is stopped (duplicate key)",
        "m3: it receives nothing from m1",
    ]


def test_a_primary_that_is_not_well_is_replaced_by_a_failover() -> None:
    found = view(primary(writable=False), replica("m2"), replica("m3"))
    assert texts(CLUSTER, found, SwitchoverOrder()) == [
        "m1, the primary, is read-only: a switchover needs a healthy primary"
    ]


@pytest.mark.parametrize(
    ("changes", "said", "passes"),
    [
        ({"incarnation": "b"}, "m2: it does not vote", True),
        ({"unfit": "its clone was interrupted"}, "m2: its clone was interrupted", False),
        ({"suspects": ("app.t",)}, "m2: it was rewound, and has not been compared yet", True),
        ({"silent_seconds": 0.6}, "m2: its server does not answer", True),
    ],
)
def test_what_passes_by_itself_is_worth_waiting_for(
    changes: dict[str, object], said: str, passes: bool
) -> None:
    found = view(primary(), replica("m2", **changes), replica("m3"))
    against = objections(CLUSTER, RECORD, found, SwitchoverOrder("m2"))
    assert said in [each.text for each in against]
    assert all(each.passes is passes for each in against if each.text == said)


def test_a_jump_of_mariadbs_numbers_is_no_backlog() -> None:
    assert backlog(replica("m2", received="0-1-2000009", applied="0-1-1000004")) == 9
    assert backlog(replica("m2", received="0-3-2000009", applied="0-1-1000004")) == 9
    assert backlog(replica("m2", received="0-1-2000009", applied="0-1-2000004")) == 5
    assert backlog(replica("m2", received="0-1-2000000", applied="0-1-1999999")) == 1
    assert backlog(replica("m2", received="0-1-9", applied="0-1-9")) == 0
    uuid = "00000001-0000-0000-0000-000000000000"
    mysql = MemberState("m2", Flavor.MYSQL, received=f"{uuid}:1-3000", applied=f"{uuid}:1-500")
    assert backlog(mysql) == 2500


def test_whoever_is_chained_is_a_stray_of_the_candidates_and_can_be_read() -> None:
    saved = begun(CLUSTER, RECORD, ALL_WELL, "m2", 30.0)
    record = saved.record
    assert record.term == RECORD.term + 1
    assert record.strays == {Stray("m3", "a", "m2")}
    below = replica(
        "m3",
        term=record.term,
        replication=Replication("127.0.0.1:3302", Receiver.ON, True),
        semi_sync=SemiSync(replica=True),
    )
    found = view(primary(), replica("m2"), below)
    shown = directions(CLUSTER, record, found)
    assert shown.primary == CLUSTER.member("m1")
    assert [each.member.name for each in shown.readers] == ["m2", "m3"]
    frozen = replace(record, transition=Switchover(Step.FREEZE, "m2"))
    assert directions(CLUSTER, frozen, found).primary is None


def stepped(record: Record, seen: View) -> Decision:
    change = under_way(record)
    assert change
    return step(CLUSTER, record, seen, diagnose(CLUSTER, record, seen), change)


def test_when_its_time_is_over_it_is_undone() -> None:
    record = begun(CLUSTER, RECORD, ALL_WELL, "m2", 30.0).record
    soon = replace(ALL_WELL, now=ALL_WELL.now + 29.9, date=1e9)  # a wall clock that is stepped
    assert "is undone" not in stepped(record, soon).reason
    late = replace(ALL_WELL, now=ALL_WELL.now + 30.0, date=-1e9)
    decision = stepped(record, late)
    assert decision.reason == "the switchover to m2 is undone: it timed out; m1 stays primary"
    back = saved(decision)
    assert back.transition is None
    assert back.term == record.term + 1


def test_a_manager_of_another_host_gives_a_switchover_little_time() -> None:
    record = begun(CLUSTER, RECORD, ALL_WELL, "m2", 300.0).record
    same = record.taken_over(Instant("", ALL_WELL.now + 100))
    assert same.transition == record.transition
    elsewhere = replace(record.taken_over(Instant("b", 7.0)), term=9)
    until = Instant("b", 7.0 + RESUMED_SECONDS)
    assert elsewhere.transition == Switchover(Step.CHAIN, "m2", until)
    late = replace(ALL_WELL, boot="b", now=7.0 + RESUMED_SECONDS)
    decision = stepped(elsewhere, late)
    assert "it timed out" in decision.reason
    stale = replace(ALL_WELL, boot="c")
    assert "it timed out" in stepped(record, stale).reason


def test_a_record_with_a_switchover_under_way_and_another_planned_is_kept_whole() -> None:
    transition = Switchover(Step.OPEN, "m2", until=Instant("b", 5.5), deposed="m1", drained="0-1-9")
    planned = Planned(2000.0, "m3", wait=True, kill_after=3.0)
    record = replace(RECORD, transition=transition, planned=planned)
    assert from_json(to_json(record)) == record


def test_where_no_commit_comes_through_that_is_said_first_and_of_silent_members_no_more() -> None:
    silent = {"silent_seconds": 3.0}
    mute = Lapse(3.0, "its server does not answer")
    found = view(primary(), replica("m2", **silent), replica("m3", **silent))
    found = replace(found, lapses={"m2": mute, "m3": mute})
    first, *others = texts(CLUSTER, found, SwitchoverOrder())
    assert first.startswith("commits on m1 are blocked: ")
    assert others == ["m2: its server does not answer", "m3: its server does not answer"]


def test_one_from_which_nobody_could_replicate_is_refused_and_that_does_not_pass() -> None:
    gone = replica("m2", applying=Applying(removed=True))
    found = view(primary(), gone, replica("m3"))
    (against,) = objections(CLUSTER, RECORD, found, SwitchoverOrder("m2"))
    assert "binary log were removed" in against.text
    assert not against.passes


def test_paused_with_a_primary_that_is_lost_the_way_out_is_a_failover() -> None:
    found = view(looks.down("m1"), replica("m2"), replica("m3"))
    paused = replace(RECORD, paused=Pause("disks"))
    for record, said in ((RECORD, False), (paused, True)):
        (against,) = objections(CLUSTER, record, found, SwitchoverOrder())
        assert ("holdfast failover" in against.text) is said


def test_a_name_that_is_no_members_is_refused_with_those_that_are() -> None:
    assert texts(CLUSTER, ALL_WELL, SwitchoverOrder("m9")) == [
        "there is no member m9; there are m1, m2, m3"
    ]
