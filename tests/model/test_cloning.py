"""Copies that take long, hang and fail: in the end all members are whole, with everything that was acknowledged."""

from __future__ import annotations

import pytest

from holdfast.core.gtid import Flavor
from holdfast.core.settings import Settings, WhenAlone
from tests.model.manage import STORM, Run
from tests.model.test_promise import SEEDS


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize("alone", list(WhenAlone))
def test_all_replicas_are_torn_while_commits_wait(
    flavor: Flavor, members: int, alone: WhenAlone
) -> None:
    """Each replica's host loses its power under load; sometimes one comes back much later."""
    for seed in range(SEEDS // 2):
        run = Run(seed, members, flavor, Settings(when_alone=alone))
        run.calm()
        world, record = run.world, run.record
        assert record
        for _ in range(run.rng.randint(0, 20)):
            world.write()
            world.replicate()
        replicas = [host for host in world.hosts.values() if host.name != record.primary]
        for host in replicas:
            host.tear()
        late = run.rng.choice([None, *replicas[1:]])
        if late:
            late.agent_up = False
        world.write()
        if late:
            for _ in range(300):  # a minute
                run.manage()
                world.replicate()
                run.check()
        run.calm()
        assert run.well, f"seed {seed}: {run.reason}"
        assert run.clones
        primary = world.hosts[record.primary]
        assert set(world.acknowledged) <= set(primary.binlog)
        written = len(world.acknowledged)
        world.write()
        run.calm()
        assert len(world.acknowledged) > written, f"seed {seed}: it takes no writes"


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("members", [2, 3, 5])
@pytest.mark.parametrize("alone", list(WhenAlone))
def test_power_fails_now_and_then(flavor: Flavor, members: int, alone: WhenAlone) -> None:
    clones = 0
    for seed in range(SEEDS // 2):
        run = Run(seed, members, flavor, Settings(when_alone=alone))
        # an agent that dies just after its host was cut off is a question of the lease
        run.happens = STORM | {"power": 2, "part": 0, "cut": 0}
        run.calm()
        for _ in range(400):
            run.storm()
            run.check()
        run.calm()
        world = run.world
        primary = next((h for h in world.hosts.values() if h.up and h.writable), None)
        assert primary, f"seed {seed}: nobody is open at the end: {run.reason}"
        assert set(world.acknowledged) <= set(primary.binlog), f"seed {seed}"
        clones += run.clones
    assert clones > SEEDS // 2, "too few were cloned for this to prove anything"
