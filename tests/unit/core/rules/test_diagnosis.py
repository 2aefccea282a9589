"""A primary that is lost, frozen or stuck, and one that only seems so; what an operator may order then."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from holdfast.core.change import takeover
from holdfast.core.change.restart import CLOSING
from holdfast.core.change.takeover import FailoverOrder
from holdfast.core.cluster import Cluster
from holdfast.core.commands import Fence
from holdfast.core.decide import decide
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.quorum import Configuration
from holdfast.core.record import Past, Pause, Record, from_json, to_json
from holdfast.core.rules.diagnosis import Primary, diagnose
from holdfast.core.settings import Settings
from holdfast.core.transition import Failover, Instant, RestartInPlace, Step
from holdfast.core.view import MemberState, Receiver, Replication, Seen, ServerStatus, Unseen, View
from tests.unit.looks import CLUSTER, NOW, RECORD, down, primary, replica

SOURCE = "127.0.0.1:3301"
ON = Replication(SOURCE, Receiver.ON, True)
SILENT = replace(ON, unheard=1.1)
REFUSED = Replication(SOURCE, Receiver.CONNECTING, True, refused=True)
ELECTING = replace(RECORD, term=5, transition=Failover(Step.ELECT, "m1"))


def lost(seconds: float = 1.5, **changes: Any) -> Unseen:
    return replace(Unseen("no answer in time", NOW - seconds, primary()), **changes)


def view(
    first: MemberState | Unseen, *others: MemberState | Unseen, over: float = NOW, date: float = 0.0
) -> View:
    """A view of m1, m2, m3."""
    seen = {
        f"m{i}": each if isinstance(each, Unseen) else Seen(each, NOW)
        for i, each in enumerate((first, *others), 1)
    }
    return View(seen, NOW, leases=dict.fromkeys(seen, over), date=date)


def hears(name: str, replication: Replication = ON, **changes: Any) -> MemberState:
    return replica(name, replication=replication, **changes)


def found(first: MemberState | Unseen, *others: MemberState | Unseen) -> Primary:
    return diagnose(CLUSTER, RECORD, view(first, *others)).primary


def decided(record: Record, seen: View, cluster: Cluster = CLUSTER) -> Decision:
    return decide(cluster, record, seen)


def saved(decision: Decision) -> Record:
    (step,) = decision.steps
    assert isinstance(step, Save)
    return step.record


class TestLost:
    def test_neither_the_manager_nor_its_replicas_hear_it(self) -> None:
        seen = view(lost(), hears("m2", SILENT), hears("m3", SILENT))
        decision = decided(RECORD, seen)
        assert saved(decision).transition == Failover(Step.ELECT, "m1")
        assert "m2, m3 hear nothing from its server" in decision.reason

    @pytest.mark.parametrize("deaf", [[], ["m2"]])
    def test_cut_off_from_the_manager_alone_it_goes_on(self, deaf: list[str]) -> None:
        others = [hears(name, SILENT if name in deaf else ON) for name in ("m2", "m3")]
        decision = decided(RECORD, view(lost(60), *others))
        assert not decision.steps
        said = "m3 hears its server" if deaf else "m2, m3 hear its server"
        assert f"{said}: it is alive, so no member is promoted" in decision.reason

    def test_one_that_cannot_be_asked_is_no_witness(self) -> None:
        away = Unseen("no answer in time", NOW - 60, None)
        assert found(lost(60), hears("m2", SILENT), away) is Primary.UNSEEN

    def test_a_receiver_that_somebody_stopped_is_no_witness(self) -> None:
        off = Replication(SOURCE, Receiver.OFF, True, unheard=60)
        assert found(lost(60), hears("m2", off), hears("m3", off)) is Primary.UNSEEN

    def test_one_that_was_stopped_by_its_promise_is(self) -> None:
        off = Replication(SOURCE, Receiver.OFF, True)
        promised = [hears(name, off, promised=4) for name in ("m2", "m3")]
        assert found(lost(60), *promised) is Primary.LOST

    def test_not_before_it_has_been_silent_for_as_long_as_detection_takes(self) -> None:
        assert found(lost(0.9), hears("m2", SILENT), hears("m3", SILENT)) is Primary.UNSEEN
        half = replace(ON, unheard=0.9)
        assert found(lost(), hears("m2", half), hears("m3", half)) is Primary.UNSEEN

    def test_at_once_when_its_host_says_that_the_server_is_gone(self) -> None:
        refused = lost(0.1, agent_gone=True)
        assert found(refused, hears("m2", REFUSED), hears("m3", REFUSED)) is Primary.LOST

    def test_an_agent_that_ended_raises_no_false_alarm(self) -> None:
        refused = lost(60, agent_gone=True)
        assert found(refused, hears("m2"), hears("m3")) is Primary.UNSEEN

    def test_an_agent_that_ended_first_cannot_have_fenced_it(self) -> None:
        refused = lost(60, agent_gone=True)
        decision = decided(RECORD, view(refused, hears("m2", SILENT), hears("m3", SILENT)))
        assert not decision.steps
        assert "start the agent, or make sure that the server is down" in decision.reason

    def test_during_a_planned_restart_too(self) -> None:
        seen = view(lost(), hears("m2", SILENT), hears("m3", SILENT))
        record = saved(decided(replace(RECORD, transition=CLOSING), seen))
        assert record.transition == Failover(Step.ELECT, "m1")


class TestFrozen:
    def test_neither_its_agent_nor_its_replicas_hear_it(self) -> None:
        frozen = primary(silent_seconds=1.2)
        assert found(frozen, hears("m2", SILENT), hears("m3", SILENT)) is Primary.FROZEN

    def test_a_server_that_its_replicas_hear_is_slow(self) -> None:
        slow = primary(silent_seconds=60.0)
        assert found(slow, hears("m2"), hears("m3", SILENT)) is Primary.WELL

    def test_nor_is_one_whose_replicas_receive_nothing_for_a_moment(self) -> None:
        seen = view(primary(silent_seconds=60.0), hears("m2"), hears("m3"))
        soon = replace(seen, quiet={"m2": 4.9, "m3": 60.0})
        assert diagnose(CLUSTER, RECORD, soon).primary is Primary.WELL

    def test_one_that_sends_heartbeats_and_nothing_else_is_stuck(self) -> None:
        seen = view(primary(silent_seconds=5.0), hears("m2"), hears("m3"))
        stuck = diagnose(CLUSTER, RECORD, replace(seen, quiet={"m2": 5.0, "m3": 5.0}))
        assert stuck.primary is Primary.STUCK
        assert "m2, m3 receive nothing new" in stuck.reason

    def test_one_in_crash_recovery_is_starting(self) -> None:
        starting = primary(server=ServerStatus.STARTING, incarnation="b", silent_seconds=60.0)
        assert found(starting, hears("m2", SILENT), hears("m3", SILENT)) is Primary.RESTARTED


class TestStuck:
    def test_after_its_patience(self) -> None:
        stuck = primary(stuck_seconds=5.0, stuck="waiting for handler commit")
        diagnosis = diagnose(CLUSTER, RECORD, view(stuck, hears("m2"), hears("m3")))
        assert diagnosis.primary is Primary.STUCK
        assert "waiting for handler commit" in diagnosis.reason
        assert found(primary(stuck_seconds=4.9), hears("m2"), hears("m3")) is Primary.WELL

    def test_where_nobody_may_take_over_the_others_are_mended_meanwhile(self) -> None:
        decision = decided(RECORD, view(primary(stuck_seconds=60.0), down("m2"), down("m3")))
        assert [step.member for step in decision.steps if isinstance(step, Send)] == ["m2", "m3"]
        assert "no member can take over: the server of m2 is down too" in decision.reason


class TestIsolated:
    """The manager reaches the primary, and its voters do not: none can acknowledge what it commits."""

    CUT = replace(ON, unheard=5.0)

    def test_after_the_patience_that_a_write_has(self) -> None:
        assert found(primary(), hears("m2", self.CUT), hears("m3", self.CUT)) is Primary.ISOLATED
        soon = replace(ON, unheard=4.9)
        assert found(primary(), hears("m2", soon), hears("m3", soon)) is Primary.WELL

    def test_one_that_hears_it_is_enough(self) -> None:
        assert found(primary(), hears("m2", self.CUT), hears("m3")) is Primary.WELL

    def test_it_is_killed_once_its_voters_have_promised(self) -> None:
        off = Replication(SOURCE, Receiver.OFF, True)
        promised = [hears(name, off, promised=5, term=5) for name in ("m2", "m3")]
        assert decided(ELECTING, view(primary(), *promised)).steps == (Send("m1", Fence()),)


class TestDying:
    def test_a_server_that_was_killed_and_hangs_in_the_kernel_is_dead(self) -> None:
        dying = down("m1", server=ServerStatus.DYING)
        assert found(dying, hears("m2"), hears("m3")) is Primary.DEAD


class TestHold:
    """What holds before another primary is named."""

    def promised(self, vouched: float = 0.0) -> list[MemberState]:
        off = Replication(SOURCE, Receiver.OFF, True)
        return [hears(n, off, promised=5, term=5, vouched=vouched) for n in ("m2", "m3")]

    def test_a_server_that_can_be_killed_is_killed_first(self) -> None:
        decision = decided(ELECTING, view(primary(), *self.promised()))
        assert decision.steps == (Send("m1", Fence()),)

    def test_not_before_its_voters_have_promised(self) -> None:
        decision = decided(ELECTING, view(primary(), hears("m2"), hears("m3")))
        assert Send("m1", Fence()) not in decision.steps

    def test_its_lease_is_waited_for_to_the_moment(self) -> None:
        decision = decided(ELECTING, view(lost(), *self.promised(), over=NOW + 0.4))
        assert not decision.steps
        assert decision.again == pytest.approx(0.4)
        assert saved(decided(ELECTING, view(lost(), *self.promised()))).primary == "m2"

    def test_so_is_what_its_voters_have_vouched_for(self) -> None:
        decision = decided(ELECTING, view(lost(), *self.promised(vouched=0.5)))
        assert not decision.steps
        assert decision.again == pytest.approx(0.505)

    def test_not_once_its_agent_has_said_that_it_is_gone(self) -> None:
        ended = view(lost(last=down("m1")), *self.promised(vouched=9.0), over=NOW + 9)
        assert saved(decided(ELECTING, ended)).primary == "m2"

    def test_a_manager_that_knows_nothing_of_leases_names_nobody(self) -> None:
        seen = replace(view(lost(), *self.promised()), leases={})
        assert not decided(ELECTING, seen).steps


def ago(*seconds: float, boot: str = "") -> tuple[Past, ...]:
    """Automatic failovers that began so long before NOW by the clock of that kernel."""
    return tuple(Past(Instant(boot, NOW - each), 5.0) for each in seconds)


class TestLimits:
    """A wall clock that was stepped, forward or back, changes nothing: no wall clock is read."""

    def failover(self, record: Record, boot: str = "", **settings: Any) -> Decision:
        limited = replace(CLUSTER, settings=Settings(**settings))
        seen = view(down("m1"), hears("m2"), hears("m3"), date=5000.0)
        return decided(record, replace(seen, boot=boot), limited)

    def test_so_many_within_an_hour(self) -> None:
        often = replace(RECORD, failovers=ago(4000, 3000, 1000))
        begun = saved(self.failover(often, failovers_per_hour=3)).failovers
        assert begun == (*ago(3000, 1000), Past(Instant("", NOW), 5000.0))
        refused = self.failover(often, failovers_per_hour=2)
        assert "2 automatic failovers within an hour" in refused.reason
        assert saved(refused).transition == RestartInPlace(Step.OPEN)
        assert saved(self.failover(often, failovers_per_hour=0)).term == 5

    def test_so_long_after_the_last(self) -> None:
        lately = replace(RECORD, failovers=ago(10))
        assert "10 s ago" in self.failover(lately, failover_interval=20.0).reason
        assert saved(self.failover(lately, failover_interval=5.0)).term == 5

    def test_one_that_is_yet_to_come_keeps_nobody_back(self) -> None:
        assert saved(self.failover(replace(RECORD, failovers=ago(-1e6)))).term == 5

    def test_longer_than_an_hour_where_the_interval_is(self) -> None:
        lately = replace(RECORD, failovers=ago(7000))
        assert "7000 s ago" in self.failover(lately, failover_interval=7200.0).reason

    def test_of_another_kernels_clock_nothing_is_known(self) -> None:
        lately = replace(RECORD, failovers=ago(1e5, boot="other"))
        assert "0 s ago" in self.failover(lately, "here", failover_interval=20.0).reason
        own = replace(lately, failovers=ago(1e5, boot="here"))
        assert saved(self.failover(own, "here", failover_interval=20.0)).term == 5

    def test_a_manager_of_another_host_counts_from_when_it_began_to_lead(self) -> None:
        before = replace(RECORD, failovers=(*ago(50, boot="other"), *ago(-5, 30, boot="here")))
        after = before.taken_over(Instant("here", NOW))
        assert [each.instant.at for each in after.failovers] == [NOW, NOW, NOW - 30]
        assert {each.instant.boot for each in after.failovers} == {"here"}
        assert [each.date for each in after.failovers] == [5.0] * 3
        assert from_json(to_json(after)) == after

    def test_a_record_of_before_has_dates_which_say_nothing(self) -> None:
        old = json.loads(to_json(RECORD)) | {"failovers": [1.7e9]}
        found = from_json(json.dumps(old)).taken_over(Instant("here", NOW))
        assert found.failovers == (Past(Instant("here", NOW), 1.7e9),)

    def test_those_that_count_no_longer_are_forgotten(self) -> None:
        """A manager on another host would count them again."""
        well = view(primary(), hears("m2"), hears("m3"))
        old = replace(RECORD, failovers=ago(3700, 100))
        assert saved(decided(old, well)).failovers == ago(100)
        assert not decided(replace(RECORD, failovers=ago(100)), well).steps


class TestPause:
    PAUSED = replace(RECORD, paused=Pause("disks are exchanged", until=6000.0))

    def test_nothing_is_begun(self) -> None:
        decision = decided(self.PAUSED, view(down("m1"), hears("m2"), hears("m3")))
        assert not decision.steps
        assert decision.reason == (
            "PAUSED until 01:40 UTC (disks are exchanged): no automatic failover, repair or change of "
            "voters. The server of m1, the primary, is "
            "gone: run holdfast failover or holdfast resume"
        )
        assert decided(self.PAUSED, view(primary(), hears("m2"), hears("m3"))).reason.startswith(
            "PAUSED until 01:40 UTC (disks are exchanged): no automatic failover, repair or change of "
            "voters. m1 takes writes"
        )

    def test_what_is_under_way_is_finished(self) -> None:
        paused = replace(ELECTING, paused=self.PAUSED.paused)
        assert decided(paused, view(down("m1"), hears("m2"), hears("m3"))).steps

    def test_it_ends_by_itself(self) -> None:
        seen = view(primary(), hears("m2"), hears("m3"), date=6000.0)
        assert saved(decided(self.PAUSED, seen)).paused is None


class TestByHand:
    def against(self, order: FailoverOrder, seen: View, record: Record = RECORD) -> tuple[str, ...]:
        return takeover.against(CLUSTER, record, seen, order)

    def test_for_a_primary_that_is_well_it_is_refused(self) -> None:
        (why,) = self.against(FailoverOrder(), view(primary(), hears("m2"), hears("m3")))
        assert why == "m1 is primary and takes writes: a failover needs a lost primary"

    def test_a_dead_primary_is_replaced_by_whom_the_person_wants(self) -> None:
        seen = view(down("m1"), hears("m2"), hears("m3"))
        order = FailoverOrder(to="m3")
        assert self.against(order, seen) == ()
        begun = takeover.begun(RECORD, seen, order).record
        assert begun.term == 5
        off = Replication(SOURCE, Receiver.OFF, True)
        promised = [hears(name, off, promised=5, term=5) for name in ("m2", "m3")]
        named = saved(decided(begun, view(down("m1"), *promised)))
        assert named.primary == "m3"
        assert named.failovers == (), "a person's is not counted against the limit"

    def test_a_learner_cannot_be_ordered_to_take_over_while_voters_can(self) -> None:
        two = Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1)
        record = replace(RECORD, configurations=(two,))
        seen = view(down("m1"), hears("m2"), hears("m3"))
        assert self.against(FailoverOrder("m2"), seen, record) == ()
        for order in (FailoverOrder("m3"), FailoverOrder("m3", accept_loss=True)):
            (why,) = self.against(order, seen, record)
            assert why == "m3 does not vote, and cannot take over while voters can (m2)"

    def test_an_unseen_one_only_with_the_risk_taken(self) -> None:
        seen = view(lost(60, agent_gone=True), hears("m2", SILENT), hears("m3", SILENT))
        (why,) = self.against(FailoverOrder(), seen)
        assert "nothing ends that server" in why
        assert self.against(FailoverOrder(accept_loss=True), seen) == ()

    def test_without_a_quorum_only_with_the_risk_taken(self) -> None:
        seen = view(down("m1"), hears("m2"), Unseen("no answer in time", 0.0, None))
        (why,) = self.against(FailoverOrder(), seen)
        assert why == (
            "too few voters can be asked for what they have: the agent of m3 does not answer; what was acknowledged "
            "may be lost; to accept that: holdfast failover --accept-loss c"
        )
        order = FailoverOrder(accept_loss=True)
        assert self.against(order, seen) == ()
        begun = takeover.begun(RECORD, seen, order).record
        assert begun.electing
        assert begun.electing.lossy

    def test_all_that_stands_against_it_is_said_at_once(self) -> None:
        seen = view(down("m1"), down("m2"), Unseen("no answer in time", 0.0, None))
        reasons = self.against(FailoverOrder(to="m2"), seen)
        assert len(reasons) == 2
        assert "m2 cannot take over: its server is not known to be healthy" in reasons


def test_a_voter_that_cannot_tell_whether_the_primary_lives_is_named() -> None:
    def said(*others: MemberState | Unseen) -> str:
        return diagnose(CLUSTER, RECORD, view(lost(60), *others)).reason

    way_out = "; once its server is certainly down: holdfast failover --accept-loss c"
    stopped = hears("m2", Replication(SOURCE, Receiver.OFF, True))
    assert said(stopped, hears("m3", SILENT)).endswith(
        f"no member is promoted; the receiver of m2 was stopped by hand{way_out}"
    )
    away = hears("m2", Replication("db9:3306", Receiver.ON, True))
    assert f"m2 follows db9:3306: it was detached by hand{way_out}" in said(
        away, hears("m3", SILENT)
    )
    assert f"m2 follows nobody: it was detached by hand{way_out}" in said(
        hears("m2", Replication()), hears("m3", SILENT)
    )
    assert f"the server of m2 is down{way_out}" in said(down("m2"), hears("m3", SILENT))
    gone = said(Unseen("no route to host", NOW - 60), hears("m3", SILENT))
    assert f"the agent of m2 does not answer either{way_out}" in gone
    assert "failover" not in said(stopped, hears("m3"))
    assert "detached" not in said(hears("m2"), hears("m3"))
