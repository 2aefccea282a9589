"""Members that lost their vote: commands that they got before, and what they still hold."""

from __future__ import annotations

import pytest

from holdfast.core.commands import Bar, Follow, SetAcks
from holdfast.core.decision import Send
from holdfast.core.gtid import Flavor
from holdfast.core.settings import Settings, WhenAlone
from tests.model.manage import Run
from tests.model.test_strays import replicate


def managed(run: Run, rounds: int, *receiving: str) -> None:
    """Decide and act, while only these members receive."""
    for _ in range(rounds):
        run.manage()
        replicate(run, *receiving)
        run.check()


def survives_the_primary(run: Run) -> None:
    """The primary dies, and the member that takes over has everything that was acknowledged."""
    run.world.hosts["m1"].crash()
    for _ in range(60):
        run.manage()
        for _ in range(20):
            run.world.replicate()
        run.check()


@pytest.mark.parametrize("flavor", list(Flavor))
def test_an_order_of_before_its_eviction_does_not_make_it_acknowledge(flavor: Flavor) -> None:
    """A command to acknowledge lay in the frozen agent until the member had lost its vote again."""
    run = Run(1, 3, flavor)
    run.calm()
    world, late = run.world, run.world.hosts["m3"]
    late.crash()
    delayed = None
    for _ in range(200):
        for name in world.hosts:
            run.look(name)
        for step in run.steps_now():
            match step:
                case Send(member="m3", command=Follow(semi_sync=True) as command):
                    delayed = (run.record.term if run.record else 0, command)
                case _:
                    run.take(step)
        for _ in range(20):
            world.replicate()
        if delayed:
            break
    assert delayed, run.reason
    late.frozen = True
    world.write()
    for _ in range(40):
        run.manage()
        replicate(run, "m2")
    assert run.record
    assert run.record.target.incarnation("m3") is None, "it was not evicted"
    late.frozen = False
    managed(run, 12, "m2")
    late.receiving = True
    run.send("m3", *delayed, interrupted=False)
    before = len(world.acknowledged)
    world.write()
    replicate(run, "m3")
    assert not late.replica or len(world.acknowledged) == before
    survives_the_primary(run)


@pytest.mark.parametrize("flavor", list(Flavor))
def test_told_late_to_wait_for_nobody_a_primary_goes_on_waiting(flavor: Flavor) -> None:
    """The primary served alone, in this very term; a command from then was delayed in the network until another member
    voted."""
    run = Run(1, 2, flavor, Settings(when_alone=WhenAlone.SERVE))
    run.calm()
    world = run.world
    world.hosts["m2"].crash()
    late = None
    while late is None:
        run.world.pass_time(0.2)
        for name in world.hosts:
            run.look(name)
        for step in run.steps_now():
            if isinstance(step, Send) and step.command == SetAcks(0):
                late = (step.command, run.told("m1"))
            else:
                run.take(step)
    term = run.record.term if run.record else 0
    run.calm()
    assert run.record
    assert (run.record.term, run.record.acks, run.record.joint) == (term, 1, False), run.reason
    replicate(run, "m2")
    run.send("m1", term, late[0], interrupted=False, told=late[1])
    before = len(world.acknowledged)
    world.write()
    assert world.hosts["m1"].acks == 1
    assert len(world.acknowledged) == before, "nobody but the primary has it"


def test_what_a_diverged_voter_received_is_kept_until_others_have_it() -> None:
    """An administrator writes on it, and then it alone acknowledges a transaction, which a rewind would undo too."""
    run = Run(1, 3, Flavor.MYSQL)
    run.calm()
    world = run.world
    world.write_by_hand(world.hosts["m3"])
    world.write()
    replicate(run, "m3")
    assert world.acknowledged[-1] in world.hosts["m3"].binlog
    assert world.acknowledged[-1] not in world.hosts["m2"].binlog
    managed(run, 30, "m3")
    survives_the_primary(run)


def test_a_frozen_voter_is_barred_before_it_loses_its_vote() -> None:
    run = Run(1, 3, Flavor.MARIADB)
    run.calm()
    run.world.hosts["m3"].frozen = True
    order: list[str] = []
    for _ in range(20):
        for name in run.world.hosts:
            run.look(name)
        for step in run.steps_now():
            if isinstance(step, Send) and isinstance(step.command, Bar):
                order.append("barred")
            run.take(step)
        if run.record and run.record.joint:
            order.append("recorded")
        replicate(run, "m2")
    assert order[:2] == ["barred", "recorded"]
