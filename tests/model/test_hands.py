"""The promise while operators let commits through by hand: KILL, SET GLOBAL, a server started and written to by hand.

What completed without a voter may be lost. Nothing else may be, and no member may be the only one to keep it.
"""

from __future__ import annotations

from itertools import product

import pytest

from holdfast.core.gtid import Flavor
from tests.model.manage import Run
from tests.model.test_promise import SEEDS

HANDS = {"kill waiters": 8, "weaken": 5, "start by hand": 20, "agent": 2, "crash": 4, "part": 2}


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("blind", ["nobody", "engines", "agents"])
def test_nothing_else_is_lost_and_nobody_keeps_it_alone(flavor: Flavor, blind: str) -> None:
    let_through = lost = 0
    for members, seed in product((2, 3), range(SEEDS)):
        run = Run(seed, members, flavor)
        run.world.engines_tell = blind != "engines"
        run.world.agents_see = blind != "agents"
        run.calm()
        run.happens |= HANDS
        for _ in range(400):
            run.storm()
            run.check()
        run.calm()
        world = run.world
        primary = next((h for h in world.hosts.values() if h.up and h.writable), None)
        if primary is None:
            assert "came back without transactions" in run.reason, f"seed {seed}: {run.reason}"
            continue
        assert set(world.acknowledged) <= set(primary.binlog), f"seed {seed}"
        let_through += len(world.let_through)
        lost += len(set(world.let_through) - set(primary.binlog))
    assert let_through > SEEDS, "hands let nothing through: this proves nothing"
    assert lost, "nothing that was let through was ever lost: this proves nothing"
