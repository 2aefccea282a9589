"""A failover, a restart in place and a return, broken off after each step and gone on with by another manager."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.core.gtid import Flavor
from tests.model.manage import Run


def failover(run: Run) -> None:
    """The primary dies with acknowledged transactions that one replica has not applied, and pending ones."""
    hosts = run.world.hosts
    write(run, 6)
    for name in ("m2", "m3"):
        hosts[name].applying = name == "m2"
    write(run, 3)
    hosts["m3"].applying = True
    hosts["m2"].receiving = hosts["m3"].receiving = False
    for _ in range(3):
        run.world.write()
    assert hosts["m1"].pending
    hosts["m1"].crash()


def restart_in_place(run: Run) -> None:
    """The primary dies together with a voter: nobody may take over."""
    write(run, 6)
    run.world.hosts["m1"].crash()
    run.world.hosts["m2"].crash()


def power_cut(run: Run) -> None:
    write(run, 6)
    for host in run.world.hosts.values():
        host.crash()


def replica_crash(run: Run) -> None:
    write(run, 6)
    run.world.hosts["m3"].crash()


def write(run: Run, count: int) -> None:
    for _ in range(count):
        run.world.write()
        for _ in range(6):
            run.world.replicate()


def begun(flavor: Flavor, disaster: Callable[[Run], None]) -> Run:
    run = Run(1, 3, flavor)
    run.calm()
    assert run.well, run.reason
    disaster(run)
    return run


def whole(run: Run) -> None:
    """The end that every disaster must have, wherever it was interrupted."""
    run.calm()
    assert run.well, run.reason
    write(run, 2)
    for _ in range(100):
        run.world.replicate()
    binlogs = {tuple(host.binlog) for host in run.world.hosts.values()}
    assert len(binlogs) == 1, "the members differ"
    assert set(run.world.acknowledged) <= set(*binlogs)


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("disaster", [failover, restart_in_place, power_cut, replica_crash])
@pytest.mark.parametrize("broken", ["after", "before", "within"])
def test_another_manager_goes_on_from_any_step(
    flavor: Flavor, disaster: Callable[[Run], None], broken: str
) -> None:
    interrupted_at = 0
    while True:
        run = begun(flavor, disaster)
        first = run.steps
        while not run.well or run.steps == first:
            for name in run.world.hosts:
                run.look(name)
            for step in run.steps_now():
                if run.steps - first < interrupted_at:
                    run.take(step)
                    continue
                if broken != "before":
                    run.take(step, interrupted=broken == "within")
                run.new_manager()
                whole(run)
                break
            else:
                run.world.replicate()
                run.check()
                continue
            break
        else:
            break  # it was over before the step at which to interrupt it
        interrupted_at += 1
    assert interrupted_at >= 4, "there were hardly any steps: nothing was tested"
