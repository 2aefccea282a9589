"""Replicas that are no voters acknowledge: what the record has heard of is kept like what voters acknowledged."""

from __future__ import annotations

import pytest

from holdfast.core.gtid import Flavor
from tests.model.manage import Run
from tests.model.test_promise import SEEDS


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("members", [2, 3, 5])
def test_what_a_stranger_acknowledged_is_kept_once_it_is_recorded(
    flavor: Flavor, members: int
) -> None:
    failovers = doubts = 0
    for seed in range(SEEDS):
        run = Run(seed, members, flavor)
        run.calm()
        run.happens |= {"stranger": 3, "crash": 6, "manage": 60}
        for _ in range(800):
            run.storm()
            run.check()
        run.calm()
        world = run.world
        primary = next((h for h in world.hosts.values() if h.up and h.writable), None)
        assert primary, f"seed {seed}: nobody is open at the end: {run.reason}"
        assert set(world.acknowledged) <= set(primary.binlog), f"seed {seed}"
        assert not (run.record and run.record.doubt), f"seed {seed}: {run.reason}"
        failovers += run.failovers
        doubts += run.doubts
    assert failovers > SEEDS // 8, "there were too few failovers for a loss to show"
    assert doubts > SEEDS, "too little was in doubt for a loss to show"
