"""The store is put back from a backup, or lost: no manager decides by its content before it agrees with the agents."""

from __future__ import annotations

import os

import pytest

from holdfast.core.gtid import Flavor
from tests.model.manage import Run

SEEDS = int(os.environ.get("HOLDFAST_MODEL_SEEDS", "25"))


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("members", [2, 3, 5])
def test_a_store_that_is_put_back_loses_nothing(flavor: Flavor, members: int) -> None:
    """A manager that hears only agents that are as old as the store continues from it. If other agents have obeyed a
    later record, the two lines are distinguished afterwards, and no repair chooses between them."""
    rollbacks = refusals = repairs = parted = 0
    for seed in range(SEEDS):
        run = Run(seed, members, flavor)
        run.rolls_back = True
        run.calm()
        for _ in range(600):
            run.storm()
            run.check()
        run.calm()
        world = run.world
        primary = next((h for h in world.hosts.values() if h.up and h.writable), None)
        if primary is None and run.parted:
            parted += 1
            continue
        assert primary, f"seed {seed}: nobody is open at the end: {run.reason}"
        assert set(world.acknowledged) <= set(primary.binlog), f"seed {seed}"
        rollbacks += run.rollbacks
        refusals += run.refusals
        repairs += run.repairs
    assert rollbacks > SEEDS, "the store was hardly ever put back"
    assert refusals > SEEDS // 4, "no manager noticed"
    assert repairs > SEEDS // 4, "nothing was repaired"
    assert parted <= 1 + SEEDS // 25, "too much is left to operators"
