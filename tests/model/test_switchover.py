"""Switchovers that are interrupted after each step, by the loss of any member, and in storms."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.core.change.switchover import FREEZE_SECONDS
from holdfast.core.commands import Drain, Follow, Freeze, Promote
from holdfast.core.decision import Send
from holdfast.core.gtid import Flavor
from holdfast.core.record import Record
from holdfast.core.transition import Step
from tests.model.interrupting import whole, write
from tests.model.manage import Run


def begun(flavor: Flavor, members: int = 3) -> Run:
    run = Run(1, members, flavor)
    run.calm()
    assert run.well, run.reason
    write(run, 4)
    run.manage()
    assert run.order_switchover()
    return run


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("members", [2, 3, 5])
def test_another_takes_over_and_the_old_primary_votes_as_it_runs(
    flavor: Flavor, members: int
) -> None:
    run = begun(flavor, members)
    old = run.record
    assert old
    incarnation = run.world.hosts[old.primary].incarnation
    run.calm()
    assert run.well, run.reason
    now = run.record
    assert now
    assert now.primary != old.primary
    assert run.switchovers == 1
    assert (old.primary, incarnation) in now.target.voters
    assert not now.joint
    assert not now.strays
    whole(run)


def another_manager(run: Run, old: str, new: str) -> None:
    run.new_manager()


def the_candidate_dies(run: Run, old: str, new: str) -> None:
    run.world.hosts[new].crash()


def the_primary_dies(run: Run, old: str, new: str) -> None:
    run.world.hosts[old].crash()


def both_die(run: Run, old: str, new: str) -> None:
    run.world.hosts[old].crash()
    run.world.hosts[new].crash()


def the_third_dies(run: Run, old: str, new: str) -> None:
    third = next(name for name in run.world.hosts if name not in (old, new))
    run.world.hosts[third].crash()


def the_primary_freezes(run: Run, old: str, new: str) -> None:
    run.world.hosts[old].frozen = True


def the_candidates_host_freezes(run: Run, old: str, new: str) -> None:
    run.world.hosts[new].halted = True


def the_primary_is_cut_off(run: Run, old: str, new: str) -> None:
    run.world.part(old)


def the_candidate_is_cut_off(run: Run, old: str, new: str) -> None:
    run.world.part(new)


def its_time_is_over(run: Run, old: str, new: str) -> None:
    run.world.pass_time(31.0)


@pytest.mark.parametrize(
    ("flavor", "members"),
    [(Flavor.MARIADB, 3), (Flavor.MYSQL, 3), (Flavor.MYSQL, 5)],
    ids=["mariadb", "mysql", "mysql-of-five"],
)
@pytest.mark.parametrize(
    "disaster",
    [
        another_manager,
        the_candidate_dies,
        the_primary_dies,
        both_die,
        the_third_dies,
        the_primary_freezes,
        the_candidates_host_freezes,
        the_primary_is_cut_off,
        the_candidate_is_cut_off,
        its_time_is_over,
    ],
    ids=lambda disaster: disaster.__name__,
)
@pytest.mark.parametrize("broken", ["after", "within"])
def test_it_ends_well_whatever_happens_after_any_step(
    flavor: Flavor, members: int, disaster: Disaster, broken: str
) -> None:
    at = 0
    while _struck(begun(flavor, members), disaster, at, broken):
        at += 1
    assert at >= 6, "there were hardly any steps: nothing was tested"


Disaster = Callable[[Run, str, str], None]


def _struck(run: Run, disaster: Disaster, at: int, broken: str) -> bool:
    """The disaster comes after the step with this number, or within it; False if the switchover was over before."""
    before = run.record
    assert before
    old, new, first = before.primary, before.wish, run.steps
    for _ in range(60):
        run.world.pass_time(0.05)
        for name in run.world.hosts:
            run.look(name)
        for step in run.steps_now():
            last = run.steps - first == at
            run.take(step, interrupted=last and broken == "within")
            if last:
                disaster(run, old, new)
                _endured(run)
                return True
        if run.well:
            return False
        for _ in range(5):
            run.world.replicate()
        run.world.write()
        run.check()
    raise AssertionError(f"it does not end: {run.reason}")


def _endured(run: Run) -> None:
    """The disaster lasts for a while; then everything is repaired."""
    for _ in range(30):
        run.manage()
        for _ in range(10):
            run.world.replicate()
        run.world.write()
        run.check()
    whole(run)


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_commit_that_nobody_acknowledges_holds_it_up_until_it_is_undone(flavor: Flavor) -> None:
    run = begun(flavor)
    record = run.record
    assert record
    while not (record.transition and record.transition.step is Step.FREEZE):
        run.manage()
        record = run.record
        assert record
    for host in run.world.hosts.values():
        host.receiving = host.receiving and host.name == record.primary
    run.world.write()
    for _ in range(20):
        run.manage()
    record = run.record
    assert record
    assert record.transition is None
    assert run.switchovers == 0
    whole(run)


def _until(run: Run, reached: Callable[[Record], bool]) -> Record:
    while not (run.record and reached(run.record)):
        for name in run.world.hosts:
            run.look(name)
        for step in run.steps_now():
            run.take(step)
        run.world.replicate()
    for name in run.world.hosts:
        run.look(name)
    return run.record


@pytest.mark.parametrize("flavor", list(Flavor))
def test_the_candidate_applies_the_last_of_it_while_sessions_are_ended(flavor: Flavor) -> None:
    run = begun(flavor)
    record = _until(run, lambda r: bool(r.transition and r.transition.step is Step.FREEZE))
    primary, to = run.world.hosts[record.primary], record.wish
    freeze = Send(primary.name, Freeze(FREEZE_SECONDS))
    assert run.steps_now() == (freeze,)
    primary.writable, primary.stopped = False, record.term
    run.look(primary.name)
    has = primary.state(run.world.now).applied
    assert run.steps_now() == (freeze, Send(to, Drain(has))), "nobody is named yet"
    primary.stopped = record.term - 1
    run.look(primary.name)
    assert run.steps_now() == (freeze,), "that was told of another freeze"


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize(("members", "chained"), [(2, False), (3, True)])
def test_others_follow_once_the_new_primary_is_open_unless_it_needs_them_for_that(
    flavor: Flavor, members: int, chained: bool
) -> None:
    run = begun(flavor, members)
    record = _until(run, lambda r: bool(r.transition and r.transition.step is Step.OPEN))
    kinds = [type(step.command) for step in run.steps_now() if isinstance(step, Send)]
    assert Promote in kinds
    assert (Follow in kinds) is not chained
    run.world.hosts[record.primary].writable = True
    run.look(record.primary)
    assert any(isinstance(s, Send) and isinstance(s.command, Follow) for s in run.steps_now())


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_promotion_that_ends_before_it_follows_nobody_is_gone_through_again(
    flavor: Flavor,
) -> None:
    """The new primary's row is proven, and its agent ends: a server that follows another obeys no command that is for a
    primary."""
    run = begun(flavor)
    record = _until(run, lambda r: bool(r.transition and r.transition.step is Step.OPEN))
    new = run.world.hosts[record.primary]
    for step in run.steps_now():
        if isinstance(step, Send) and isinstance(step.command, Promote):
            run.begin(step.member, record.term, step.command)
        else:
            run.take(step)
    while new.proved < record.serial:
        assert new.under_way
        run.world.replicate()
        run.world.go_on(new.name)
    assert new.writable
    assert new.source
    new.agent_up = False
    run.world.pass_time(0.2)
    new.under_way = None
    new.begin_agent(run.world.now)
    run.calm()
    assert run.well, run.reason
    third = next(name for name in run.world.hosts if name not in ("m1", new.name))
    run.world.hosts[third].frozen = True
    for _ in range(30):
        run.manage()
        run.world.replicate()
    assert run.record
    assert third not in run.record.target.names(), run.reason
    whole(run)
