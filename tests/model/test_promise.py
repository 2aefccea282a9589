"""The promise, under random crashes of servers, agents and managers, at any step, with late and lost commands."""

from __future__ import annotations

import os

import pytest

from holdfast.core.gtid import Flavor
from tests.model.manage import Run

SEEDS = int(os.environ.get("HOLDFAST_MODEL_SEEDS", "25"))
"""Storms for each flavor and size; increase it for a long search."""


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("members", [2, 3, 5])
def test_nothing_acknowledged_is_lost_and_one_writes(flavor: Flavor, members: int) -> None:
    failovers = acknowledged = 0
    for seed in range(SEEDS):
        run = Run(seed, members, flavor)
        run.calm()
        for _ in range(1000):
            run.storm()
            run.check()
        run.calm()
        world = run.world
        primary = next((h for h in world.hosts.values() if h.up and h.writable), None)
        assert primary, f"seed {seed}: nobody is open at the end: {run.reason}"
        assert set(world.acknowledged) <= set(primary.binlog), f"seed {seed}"
        failovers += run.failovers
        acknowledged += len(world.acknowledged)
    assert failovers > SEEDS // 4, (
        "the storms did not make the cluster fail over: they prove nothing"
    )
    assert acknowledged > 20 * SEEDS, "too little was written for a loss to show"
