"""Disasters, a procedure that is interrupted after any of its steps, and the end state that every case must reach."""

from __future__ import annotations

from collections.abc import Callable

from tests.model.manage import Run

MENDED = 30
"""The round in which what is frozen or cut off recovers: what is done without it has ended long before, except for
commands that are repeated in vain in each round."""


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


def lost_primary(run: Run) -> None:
    """Only its clients reach the primary's host."""
    write(run, 6)
    run.world.part("m1")


def restart_in_place(run: Run) -> None:
    """The primary dies together with a voter: no member may take over."""
    write(run, 6)
    run.world.hosts["m1"].crash()
    run.world.hosts["m2"].crash()


def write(run: Run, count: int) -> None:
    for _ in range(count):
        run.world.write()
        for _ in range(6):
            run.world.replicate()


def interrupted(
    run: Run, at: int, broken: str, over: Callable[[Run], bool], ends: Callable[[Run], None]
) -> bool:
    """Interrupt before, within or after the step with this number; False if the procedure was over before it.

    :param ends: another manager completes the procedure, and this checks the end state
    """
    first = run.steps
    for round_number in range(600):
        if over(run) and run.steps > first:
            return False
        if round_number == MENDED:
            run.mend()
        run.world.pass_time(0.2)
        for name in run.world.hosts:
            run.look(name)
        for step in run.steps_now():
            if run.steps - first < at:
                run.take(step)
                continue
            if broken != "before":
                run.take(step, interrupted=broken == "within")
            run.new_manager()
            ends(run)
            return True
        run.world.replicate()
        run.check()
    raise AssertionError(f"it does not end: {run.reason}")


def whole(run: Run) -> None:
    """The end state that every disaster must reach, no matter where it was interrupted."""
    run.calm()
    assert run.well, run.reason
    write(run, 2)
    for _ in range(100 * len(run.world.hosts)):
        run.world.replicate()
    binlogs = {tuple(host.binlog) for host in run.world.hosts.values()}
    assert len(binlogs) == 1, "the members differ"
    assert set(run.world.acknowledged) <= set(*binlogs)
