"""A second fault after any step of a change of primary: two of three hosts are up, and soon take writes again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.core.gtid import Flavor
from holdfast.core.settings import Settings, WhenAlone
from tests.model.interrupting import write
from tests.model.manage import Run
from tests.model.world import Host

ROUNDS = 60
"""Looks of 0.2 s: twice as many as the longest case takes, which is a candidate that is cut off from the others after
it was named (``write_patience``, another failover, leases)."""
LONGEST = 300


def halted(run: Run, host: Host) -> None:
    """Its host answers nothing, and refuses no connection."""
    host.halted = True


def off(run: Run, host: Host) -> None:
    """No process is left on its host, which refuses connections."""
    host.crash()
    host.agent_up = host.keeper_up = False


def frozen(run: Run, host: Host) -> None:
    """Its server answers nothing; its agent answers."""
    host.frozen = True


def cut_off(run: Run, host: Host) -> None:
    """The manager reaches it, and no other member does."""
    run.world.cut |= {frozenset({host.name, other}) for other in run.world.hosts} - {
        frozenset({host.name})
    }


def parted(run: Run, host: Host) -> None:
    """Only its clients reach it."""
    run.world.part(host.name)


def begun(flavor: Flavor, planned: bool) -> Run:
    run = Run(1, 3, flavor)
    run.calm()
    write(run, 6)
    if planned:
        for name in run.world.hosts:
            run.look(name)
        run.steps_now()
        assert run.order_switchover()
    else:
        run.world.hosts["m1"].crash()
    return run


def takes_writes(run: Run) -> bool:
    before = len(run.world.acknowledged)
    run.world.write()
    for _ in range(12):
        run.world.replicate()
    return len(run.world.acknowledged) > before


def goes_on(run: Run, name: str, fault: Callable[[Run, Host], None], after: int) -> bool:
    """Whether there was such a step; the fault follows it.

    :raises AssertionError: no member takes writes in time, or a rule of the world is broken
    """
    first, since = run.steps, None
    for number in range(LONGEST):
        run.world.pass_time(0.2)
        for each in run.world.hosts:
            run.look(each)
        for step in run.steps_now():
            if since is None and run.steps - first >= after:
                fault(run, run.world.hosts[name])
                since = number
            run.take(step)
        run.world.replicate()
        run.check()
        if since is None and run.well:
            return False
        if since is not None and number > since + 3 and takes_writes(run):
            return True
        assert since is None or number - since < ROUNDS, f"nobody takes writes: {run.reason}"
    raise AssertionError(f"it does not end: {run.reason}")


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("fault", [halted, off, frozen, cut_off, parted])
@pytest.mark.parametrize(
    ("planned", "name"),
    [(False, "m2"), (False, "m3"), (True, "m1"), (True, "m2"), (True, "m3")],
)
def test_a_second_host_goes_after_any_step(
    flavor: Flavor, fault: Callable[[Run, Host], None], planned: bool, name: str
) -> None:
    """Of a failover from m1, which died, or of a switchover from it to m3."""
    after = 0
    while goes_on(begun(flavor, planned), name, fault, after):
        after += 1
    assert after > (7 if planned else 9), "it has more steps than that"


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("back", ["m1", "m2"])
@pytest.mark.parametrize("when_alone", list(WhenAlone))
@pytest.mark.parametrize("between", [0, 3, 40])
def test_one_host_after_another_goes_and_either_comes_back(
    flavor: Flavor, back: str, when_alone: WhenAlone, between: int
) -> None:
    run = Run(1, 3, flavor, Settings(when_alone=when_alone))
    run.calm()
    write(run, 6)
    off(run, run.world.hosts["m1"])
    _writes_again(run)
    for _ in range(between):
        _round(run)
    assert run.record
    off(run, run.world.hosts[run.record.primary])
    for _ in range(60):
        _round(run)
    run.world.hosts[back].begin_agent(run.world.now)
    _writes_again(run)


def _round(run: Run) -> None:
    run.manage()
    run.world.replicate()
    run.check()


def _writes_again(run: Run) -> None:
    for _ in range(ROUNDS):
        _round(run)
        if takes_writes(run):
            return
    raise AssertionError(f"nobody takes writes: {run.reason}")
