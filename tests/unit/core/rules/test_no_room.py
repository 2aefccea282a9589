"""A full disk, a server that does not start: what is held against which member, which one takes over, what is
reported."""

from __future__ import annotations

from dataclasses import asdict, replace

from holdfast.cli.show.status import concern_lines
from holdfast.core.answers.status import status
from holdfast.core.commands import Cut, Start
from holdfast.core.decide import decide
from holdfast.core.members.rejoin import rejoin
from holdfast.core.observed.lapse import Lapse
from holdfast.core.quorum import Configuration
from holdfast.core.record import Pause
from holdfast.core.rules.diagnosis import Primary, diagnose
from holdfast.core.rules.election import Elected, NobodyElected, elect
from holdfast.core.rules.pulse import Pulse, felt, lapses
from holdfast.core.rules.returned import OPENING
from holdfast.core.settings import Settings, WhenAlone
from holdfast.core.view import Receiver, Replication, Seen, SemiSync, Tail, TailVerdict, View
from holdfast.manager.leader.decision_log import DecisionLog
from holdfast.manager.leader.events import EventKind, EventLog
from tests.unit.looks import CLUSTER, NOW, RECORD, down, primary, replica, saved, view

FULL = "no space is left in /data"
STUCK = primary(full=FULL, stuck_seconds=5.0, stuck=FULL)


def test_a_primary_without_room_is_replaced_by_one_that_has_some() -> None:
    seen = view(STUCK, replica("m2", full=FULL), replica("m3"))
    found = diagnose(CLUSTER, RECORD, seen)
    assert (found.primary, found.reason) == (Primary.STUCK, f"{FULL} on m1, the primary")
    begun = saved(decide(CLUSTER, RECORD, seen))
    assert begun.electing
    chosen = elect([replica("m2", full=FULL), replica("m3")], CLUSTER)
    assert isinstance(chosen, Elected)
    assert chosen.state.name == "m3"


def test_where_nobody_has_room_nobody_takes_over_and_nobody_is_restarted() -> None:
    seen = view(
        replace(STUCK, silent_seconds=60.0), replica("m2", full=FULL), replica("m3", full=FULL)
    )
    decision = decide(CLUSTER, RECORD, seen)
    assert decision.steps == ()
    assert isinstance(elect([replica("m2", full=FULL)], CLUSTER), NobodyElected)
    seen = view(STUCK, replica("m2", full=FULL), replica("m3", full=FULL))
    decision = decide(CLUSTER, RECORD, seen)
    assert decision.steps == ()
    assert f"m2: {FULL}" in decision.reason
    assert f"m3: {FULL}" in decision.reason
    shown = status(CLUSTER, RECORD, seen, decision)
    assert not shown.writable
    assert shown.reason.startswith(f"commits on m1 are blocked: {FULL}, for 5 s; ")


def test_replicas_are_not_blamed_for_what_a_full_primary_does_not_send() -> None:
    behind = replica("m2", received="0-1-8", applied="0-1-8")
    pulses: dict[str, Pulse] = {}
    for full, held in ((FULL, False), ("", True)):
        for second in range(4):
            sightings = {
                "m1": Seen(primary(full=full), NOW + second),
                "m2": Seen(behind, NOW + second),
            }
            pulses = felt(pulses, "m1", View(sightings, NOW + second))
        assert ("m2" in lapses(pulses)) is held


def test_what_a_full_replica_owes_it_owes_for_want_of_room() -> None:
    pulses: dict[str, Pulse] = {}
    hangs = replica("m2", full=FULL, silent_seconds=2.0)
    off = replica(
        "m2", full=FULL, replication=Replication("127.0.0.1:3301", Receiver.CONNECTING, True)
    )
    for each in (hangs, off):
        pulses = felt(pulses, "m1", view(primary(), each))
        assert lapses(pulses)["m2"].reason == FULL
    assert lapses(pulses)["m2"] == Lapse(2.0, FULL)
    shown = status(
        CLUSTER,
        RECORD,
        (seen := view(primary(), hangs, replica("m3"))),
        decide(CLUSTER, RECORD, seen),
    )
    assert shown.members[1].reason == FULL


def test_why_a_server_does_not_start_is_told_until_it_does() -> None:
    why = "its server does not start: unknown variable 'typo=1'"
    clean = Tail(TailVerdict.CLEAN, 4)
    for state, command in (
        (down("m2", start_failed=why), Cut),
        (down("m2", start_failed=why, tail=clean), Start),
        (down("m2", start_failed=why, tail=clean, resting=True), type(None)),
    ):
        step = rejoin(CLUSTER, RECORD, view(primary(), state, replica("m3")), CLUSTER.member("m2"))
        assert (type(step.command), step.reason) == (command, why)


def test_a_primary_that_does_not_start_in_place_is_left_alone_for_a_while() -> None:
    record = replace(RECORD, transition=OPENING)
    dead = down("m1", start_failed="its server does not start: typo")
    seen = view(dead, down("m2"), down("m3"))
    assert [
        type(step.command)
        for step in decide(CLUSTER, record, seen).steps
        if hasattr(step, "command")
    ] == [Start]
    seen = view(replace(dead, resting=True), down("m2"), down("m3"))
    decision = decide(CLUSTER, record, seen)
    assert decision.steps == ()
    assert "m1: its server does not start: typo" in decision.reason


def test_what_an_operator_should_see_to_stands_beside_a_member_that_is_well() -> None:
    seen = view(primary(concerns=("less than 5% is free in /data",)), replica("m2"), replica("m3"))
    shown = status(CLUSTER, RECORD, seen, decide(CLUSTER, RECORD, seen))
    assert shown.whole
    assert shown.members[0].concerns == ("less than 5% is free in /data",)


def test_it_is_an_event_when_it_begins_and_a_line_of_the_status_while_it_lasts() -> None:
    events = EventLog("c")
    heard: list[str] = []
    events.hearers.append(lambda e: heard.append(e.text) if e.kind is EventKind.CONCERN else None)
    decision_log = DecisionLog(events)
    for concerns in (("low",), ("low",), ("low", FULL), (), ("low",)):
        seen = view(primary(concerns=concerns), replica("m2"), replica("m3"))
        decision = decide(CLUSTER, RECORD, seen)
        decision_log.decided(CLUSTER, RECORD, seen, decision, decision)
    assert heard == ["m1: low", f"m1: {FULL}", "m1: low"]


def test_a_concern_that_is_the_reason_stands_there_alone() -> None:
    full = replica("m2", full=FULL, concerns=("low", FULL))
    seen = view(primary(full=FULL, concerns=(FULL,)), full, replica("m3"))
    shown = status(CLUSTER, RECORD, seen, decide(CLUSTER, RECORD, seen))
    assert [each.concerns for each in shown.members] == [(FULL,), ("low",), ()]
    assert concern_lines([asdict(each) for each in shown.members]) == [f"m1: {FULL}", "m2: low"]


def test_a_copy_that_replaced_a_members_data_is_told_with_its_reason() -> None:
    events = EventLog("c")
    heard: list[str] = []
    events.hearers.append(lambda e: heard.append(e.text) if e.kind is EventKind.CLONED else None)
    decision_log = DecisionLog(events)
    fails = {"unfit": "its clone from m2 failed: no space"}
    for state in (
        {"unfit": "its history was reset"},
        {"cloning": "m2", "unfit": "it is being cloned from m2"},
        fails,
        {"cloning": "m1"},
        {},
        {},
    ):
        seen = view(primary(), replica("m2"), replica("m3", **state))
        decision = decide(CLUSTER, RECORD, seen)
        decision_log.decided(CLUSTER, RECORD, seen, decision, decision)
    assert heard == [f"m3 was cloned from m1: {fails['unfit']}"]


def test_a_primary_that_serves_alone_is_said_to_have_no_second_copy() -> None:
    alone = replace(RECORD, configurations=(Configuration(frozenset({("m1", "a")}), 0),))
    cluster = replace(CLUSTER, settings=replace(Settings(), when_alone=WhenAlone.SERVE))
    own = primary(semi_sync=SemiSync())
    seen = view(own, down("m2"), down("m3"))
    assert "its commits have no second copy" in decide(cluster, alone, seen).reason
    one = replace(cluster, members=cluster.members[:1])
    assert "second copy" not in decide(one, alone, view(own)).reason


def test_what_a_pause_holds_up_is_said_of_each_member() -> None:
    record = replace(RECORD, paused=Pause("disks"))
    seen = view(primary(), down("m2"), replica("m3"))
    for told, waits in ((RECORD, False), (record, True)):
        shown = status(CLUSTER, told, seen, decide(CLUSTER, told, seen))
        assert shown.members[1].reason.endswith("(PAUSED: not before it is resumed)") is waits
        assert shown.members[2].reason == ""
