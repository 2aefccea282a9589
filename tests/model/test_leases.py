"""When a primary continues, and when another takes its place: managers that die, hosts that are cut off or halted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.gtid import Flavor
from holdfast.core.settings import Mode, Settings
from holdfast.core.timing import Timing
from tests.model.manage import Run
from tests.model.world import MANAGER

LONG = Timing(heartbeat=0.1, lease=4.0, detection=0.3)


@pytest.fixture(params=list(Flavor))
def run(request: pytest.FixtureRequest) -> Run:
    return begun(request.param)


def begun(flavor: Flavor, settings: Settings | None = None) -> Run:
    run = Run(1, 3, flavor, settings)
    run.world.timing = LONG
    run.calm()
    assert run.well, run.reason
    write(run)
    return run


def write(run: Run) -> None:
    for _ in range(2):
        run.world.write()
        for _ in range(6):
            run.world.replicate()


def manage(run: Run, seconds: float) -> None:
    """For so long, in steps, with every client writing and reading where it believes the primary to be."""
    end = run.world.now + seconds
    while run.world.now < end:
        run.manage()
        write(run)
        run.check()


def primary(run: Run) -> str:
    assert run.record
    return run.record.primary


def alone(run: Run, seconds: float) -> None:
    """No manager runs."""
    end = run.world.now + seconds
    while run.world.now < end:
        run.world.pass_time(0.1)
        write(run)
        run.check()


def test_without_any_manager_the_primary_goes_on_by_the_word_of_its_voters(run: Run) -> None:
    before = len(run.world.acknowledged)
    alone(run, 15)
    assert run.world.hosts["m1"].answers(run.world.now)
    assert len(run.world.acknowledged) > before + 20


def test_without_a_manager_and_without_voters_it_ends_with_its_lease(run: Run) -> None:
    run.world.part("m1")
    alone(run, LONG.lease + 0.1)
    assert not run.world.hosts["m1"].up


def test_one_voter_that_vouches_is_enough_of_three(run: Run) -> None:
    run.world.cut |= {frozenset({"m1", "m3"})}
    alone(run, 12)
    assert run.world.hosts["m1"].answers(run.world.now)


def test_cut_off_from_the_manager_alone_nobody_is_promoted(run: Run) -> None:
    run.world.cut |= {frozenset({"m1", MANAGER})}
    manage(run, 12)
    assert primary(run) == "m1"
    assert run.world.hosts["m1"].answers(run.world.now)
    assert "m2, m3 hear its server: it is alive" in run.reason


def test_another_opens_only_when_the_lease_of_the_lost_one_is_over(run: Run) -> None:
    run.world.part("m1")
    lost_at = run.world.now
    while primary(run) == "m1":
        manage(run, 0.1)
        assert run.world.now < lost_at + LONG.lease + 3, run.reason
    assert run.world.now >= lost_at + LONG.lease - LONG.heartbeat


def test_a_new_manager_waits_for_the_lease_that_the_one_before_it_may_have_granted(
    run: Run,
) -> None:
    run.world.part("m1")
    run.new_manager()
    manage(run, 1)
    assert run.world.hosts["m1"].answers(run.world.now), "it has its lease still"
    manage(run, LONG.lease + 3)
    assert primary(run) != "m1"


def test_what_a_voter_has_vouched_for_is_waited_for_after_its_promise(run: Run) -> None:
    run.world.cut |= {frozenset({"m1", MANAGER})}
    manage(run, 12)
    assert primary(run) == "m1"
    before = [h.vouched_until for h in run.world.hosts.values()]
    assert max(before) > run.world.now + 1, "nobody has vouched: nothing is tested"
    run.world.part("m1")
    while primary(run) == "m1":
        manage(run, 0.1)
    assert run.world.now >= max(before)


def test_a_halted_host_that_goes_on_answers_nobody(run: Run) -> None:
    host = run.world.hosts["m1"]
    host.halted = True
    manage(run, LONG.lease + 3)
    assert primary(run) != "m1"
    host.halted = False
    run.check()
    manage(run, 5)
    assert run.well, run.reason


def test_manager_and_primary_lost_together(run: Run) -> None:
    run.world.hosts["m1"].halted = True
    alone(run, 3)
    run.new_manager()
    manage(run, LONG.lease + 3)
    assert primary(run) != "m1"
    assert run.well or "does not answer" in run.reason


def test_an_agent_that_ended_stops_nobody_and_nobody_is_promoted(run: Run) -> None:
    run.world.hosts["m1"].agent_up = False
    manage(run, 12)
    assert primary(run) == "m1"
    assert run.world.hosts["m1"].answers(run.world.now)
    run.world.hosts["m1"].begin_agent(run.world.now)
    manage(run, 3)
    assert run.well, run.reason


def test_an_agent_that_ended_before_its_host_was_cut_off_cannot_fence_it(run: Run) -> None:
    run.world.hosts["m1"].agent_up = run.world.hosts["m1"].keeper_up = False
    manage(run, 1)
    run.world.part("m1")
    manage(run, 12)
    assert primary(run) == "m1"
    assert "holdfast failover --accept-loss" in run.reason


@pytest.mark.parametrize("mode", [Mode.SEMI_SYNC, Mode.ASYNC])
@pytest.mark.parametrize("flavor", list(Flavor))
def test_where_loss_is_allowed_a_minority_still_promotes_nobody(flavor: Flavor, mode: Mode) -> None:
    """The primary and one replica are on one side, the manager and one replica on the other."""
    run = begun(flavor, Settings(mode=mode, allow_loss=True))
    world = run.world
    world.cut |= {frozenset(pair) for pair in (("m1", MANAGER), ("m2", MANAGER))}
    world.cut |= {frozenset(pair) for pair in (("m1", "m3"), ("m2", "m3"))}
    manage(run, 12)
    assert primary(run) == "m1"
    assert world.hosts["m1"].answers(world.now)
    assert len([h for h in world.hosts.values() if h.answers(world.now)]) == 1


@pytest.mark.parametrize("flavor", list(Flavor))
def test_where_loss_is_allowed_a_lost_primary_is_replaced(flavor: Flavor) -> None:
    run = begun(flavor, Settings(mode=Mode.ASYNC, allow_loss=True))
    run.world.part("m1")
    manage(run, LONG.lease + 5)
    assert primary(run) != "m1"


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_lease_that_was_shortened_is_waited_for_at_its_former_length(flavor: Flavor) -> None:
    run = begun(flavor)
    run.world.timing = replace(LONG, lease=1.0)
    run.new_manager()
    run.world.part("m1")
    manage(run, 2)
    assert primary(run) == "m1"


def test_an_agent_that_hangs_costs_nothing(run: Run) -> None:
    host = run.world.hosts["m1"]
    host.hung = True
    before = len(run.world.acknowledged)
    manage(run, 15)
    assert primary(run) == "m1"
    assert host.answers(run.world.now)
    assert len(run.world.acknowledged) > before + 20
    assert "its keeper process keeps its lease" in run.reason
    host.hung = False
    manage(run, 3)
    assert run.well, run.reason


@pytest.mark.parametrize("ended", [True, False])
def test_cut_off_later_its_keeper_process_ends_the_server_and_another_takes_over(
    run: Run, ended: bool
) -> None:
    host = run.world.hosts["m1"]
    host.hung, host.agent_up = not ended, not ended
    manage(run, 12)
    run.world.part("m1")
    manage(run, LONG.lease * 2 + 3)
    assert primary(run) != "m1", run.reason
    assert not host.up


def test_where_nobody_enforces_the_lease_of_one_that_hangs_nobody_is_promoted(run: Run) -> None:
    host = run.world.hosts["m1"]
    host.hung, host.keeper_up = True, False
    manage(run, LONG.lease + 3)
    assert "no process kills its server when the lease ends: start the agent again" in run.reason
    run.world.part("m1")
    manage(run, 30)
    assert primary(run) == "m1"
    assert host.answers(run.world.now)
    assert "holdfast failover --accept-loss" in run.reason


def test_when_the_agents_of_all_members_end_no_server_does(run: Run) -> None:
    for host in run.world.hosts.values():
        host.agent_up = False
    manage(run, 20)
    assert run.world.hosts["m1"].answers(run.world.now)
    for host in run.world.hosts.values():
        host.begin_agent(run.world.now)
    manage(run, 5)
    assert run.well, run.reason


def test_a_server_that_its_keeper_left_alone_is_not_taken_for_a_kept_one(run: Run) -> None:
    """The agent of the primary ends; so does its keeper process, once the other members have ended; these come back."""
    world = run.world
    world.hosts["m1"].agent_up = False
    manage(run, 12)
    for name in ("m2", "m3"):
        world.hosts[name].agent_up = False
    manage(run, 12)
    assert not world.hosts["m1"].keeper_up
    for name in ("m2", "m3"):
        world.hosts[name].begin_agent(world.now)
    manage(run, 0.3)
    world.part("m1")
    manage(run, 30)
    assert primary(run) == "m1"
    assert "no member is promoted" in run.reason
