"""Hooks on the way to another primary: whatever dies or fails, in the end they have directed the clients to the
primary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from holdfast.core.calls import Phase
from holdfast.core.gtid import Flavor
from holdfast.core.record import to_json
from tests.model.interrupting import (
    failover,
    interrupted,
    lost_primary,
    restart_in_place,
    whole,
    write,
)
from tests.model.manage import Run
from tests.model.outsiders import Outsiders


def switched(run: Run) -> None:
    write(run, 4)
    run.manage()
    assert run.order_switchover()


def switched_and_undone(run: Run) -> None:
    """The stop hook is called, and fails."""
    assert run.outsiders
    run.outsiders.failing[Phase.STOP] = 1
    switched(run)


def switched_and_lost(run: Run) -> None:
    """The primary dies after the hook has moved its clients away."""
    switched(run)
    assert run.outsiders
    for _ in range(200):
        run.manage()
        run.world.replicate()
        if run.outsiders.calls:
            break
    assert run.outsiders.calls[-1][0] is Phase.STOP
    run.world.hosts["m1"].crash()


def failover_held_up(run: Run) -> None:
    assert run.outsiders
    run.outsiders.failing[Phase.STOP] = 2
    failover(run)


def start_fails(run: Run) -> None:
    assert run.outsiders
    run.outsiders.failing[Phase.START] = 3
    failover(run)


def given_up(run: Run) -> None:
    """The voters die while the hook moves the clients away from a dead primary: the primary must come back."""
    failover(run)
    assert run.outsiders
    run.outsiders.slow = 5
    for _ in range(200):
        run.manage()
        if run.outsiders.running:
            break
    assert Phase.STOP in run.outsiders.running
    run.world.hosts["m2"].crash()
    run.world.hosts["m3"].crash()


DISASTERS = [
    failover,
    lost_primary,
    restart_in_place,
    switched,
    switched_and_undone,
    switched_and_lost,
    failover_held_up,
    start_fails,
    given_up,
]


def begun(flavor: Flavor, disaster: Callable[[Run], None]) -> Run:
    run = Run(1, 3, flavor)
    run.calm()
    assert run.well, run.reason
    assert run.record
    run.outsiders = Outsiders(run.record.primary)
    disaster(run)
    return run


def told(run: Run) -> None:
    """The end state that every case must reach."""
    for _ in range(60):
        run.calm()
        if run.record and run.record.owed is None and not run.record.transition:
            break
    whole(run)
    record, outsiders = run.record, run.outsiders
    assert record
    assert outsiders
    assert record.owed is None
    assert outsiders.address == record.primary, outsiders.calls


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("disaster", DISASTERS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("broken", ["after", "before"])
def test_another_manager_goes_on_and_the_clients_find_the_primary(
    flavor: Flavor, disaster: Callable[[Run], None], broken: str
) -> None:
    at = 0
    while interrupted(begun(flavor, disaster), at, broken, over, ends=told):
        at += 1
    assert at >= 4, "there were hardly any steps: nothing was tested"


def over(run: Run) -> bool:
    return run.well and run.record is not None and run.record.owed is None


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("change", [failover, switched])
def test_each_is_called_once_where_nothing_goes_wrong(
    flavor: Flavor, change: Callable[[Run], None]
) -> None:
    run = begun(flavor, change)
    told(run)
    assert run.record
    assert run.outsiders
    assert run.outsiders.calls == [(Phase.STOP, "m1"), (Phase.START, run.record.primary)]
    assert run.record.primary != "m1"


@pytest.mark.parametrize("flavor", list(Flavor))
def test_nobody_is_named_while_the_stop_hook_runs_or_fails(flavor: Flavor) -> None:
    run = begun(flavor, failover)
    assert run.outsiders
    run.outsiders.failing[Phase.STOP] = 1000
    for _ in range(60):
        run.manage()
        run.world.replicate()
    assert run.record
    assert run.record.primary == "m1"
    electing = run.record.electing
    assert electing
    assert "held up" in run.reason or "which failed before" in run.reason or "waiting" in run.reason
    assert run.outsiders.calls == []
    skipping = replace(run.record, transition=replace(electing, skip_stop=True))
    run.stored = to_json(skipping)
    run.calm()
    assert run.well, run.reason
    assert [phase for phase, _ in run.outsiders.calls] == [Phase.START]
    told(run)


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_switchover_that_the_stop_hook_refuses_is_undone_and_the_primary_gets_its_clients_back(
    flavor: Flavor,
) -> None:
    run = begun(flavor, switched_and_undone)
    told(run)
    assert run.record
    assert run.outsiders
    assert run.record.primary == "m1"
    assert run.outsiders.calls == [(Phase.START, "m1")]


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_primary_whose_start_hook_fails_takes_writes_and_is_made_whole_all_the_same(
    flavor: Flavor,
) -> None:
    run = begun(flavor, failover)
    assert run.outsiders
    run.outsiders.failing[Phase.START] = 10_000
    for _ in range(300):
        run.manage()
        for _ in range(20):
            run.world.replicate()
    assert run.record
    assert run.record.transition is None
    assert len(run.record.target.voters) == 3
    assert run.world.hosts[run.record.primary].answers(run.world.now)
    assert "the start hook" in run.reason
    assert not run.well


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("fails", [False, True])
def test_a_stop_hook_may_set_the_primary_read_only_as_mhas_sample_does(
    flavor: Flavor, fails: bool
) -> None:
    run = begun(flavor, switched)
    assert run.outsiders
    run.outsiders.failing[Phase.STOP] = int(fails)
    run.outsiders.closing = lambda name: setattr(run.world.hosts[name], "writable", False)
    told(run)
    assert run.record
    assert (run.record.primary == "m1") is fails
    assert run.switchovers == (not fails)
