"""Members are forgotten whose hosts an operator says are destroyed: rightly, and by mistake."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.commands import Bar
from holdfast.core.gtid import Flavor
from holdfast.core.members import destroyed
from holdfast.core.settings import MemberSettings, WhenAlone
from holdfast.core.view import View
from tests.model.manage import Run
from tests.model.test_changing import FEW_SEEDS
from tests.model.test_promise import SEEDS
from tests.model.test_strays import settle


def lose(run: Run, name: str, is_destroyed: bool) -> None:
    """The member's host is destroyed; or it lives, and no manager reaches it any more."""
    host = run.world.hosts[name]
    if not is_destroyed:
        run.world.hidden.add(name)
        return
    host.crash()
    host.agent_up, host.held, host.under_way = False, None, None
    run.world.destroyed.add(name)


def forget(run: Run, name: str) -> bool:
    """As ``manager/people/members.py`` does it; whether the member is forgotten from now on."""
    world, record, mind = run.world, run.record, run.mind
    view = View(dict(mind.known), world.now)
    if record is None or not mind.begun or mind.refused or record.primary == name:
        return False
    if destroyed.signs_of_life(world.cluster, view, name):
        return False
    members = {**world.settings.members, name: MemberSettings(voter=False)}
    world.settings = replace(world.settings, members=members)
    if destroyed.lacks_lock(world.cluster, record, view, name) and not record.names(name):
        run.send(record.primary, record.term, Bar(f"repl_{name}"), False)
    if destroyed.waits(world.cluster, record, view, name):
        return False
    if not run.save(destroyed.forgotten(record, name)):
        return False
    world.forgotten.add(name)
    return True


@pytest.mark.parametrize("is_destroyed", [True, False], ids=["destroyed", "mistaken"])
@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("members", [2, 3, 5])
def test_nothing_acknowledged_is_lost_when_members_are_forgotten(
    flavor: Flavor, members: int, is_destroyed: bool
) -> None:
    forgotten = failovers = 0
    for seed in range(SEEDS // 3):
        run = Run(seed, members, flavor)
        run.world.settings = replace(run.world.settings, when_alone=WhenAlone.SERVE)
        run.calm()
        run.happens |= {"crash": 6, "manage": 60}
        for _ in range(100):
            run.storm()
            run.check()
        assert run.record
        others = sorted(set(run.world.hosts) - {run.record.primary})
        name = run.rng.choice(others)
        lose(run, name, is_destroyed)
        for _ in range(600):
            run.storm()
            run.check()
            if run.record.primary != name and name not in run.world.forgotten:
                forget(run, name)
        run.world.hidden.clear()
        for _ in range(300):
            run.storm()
            run.check()
        if name not in run.world.forgotten:
            continue
        forgotten += 1
        run.calm()
        primary = next((h for h in run.world.hosts.values() if h.up and h.writable), None)
        assert primary, f"seed {seed}: nobody is open at the end: {run.reason}"
        assert set(run.world.acknowledged) <= set(primary.binlog), f"seed {seed}"
        record = run.record
        assert record
        assert not any(stray.name == name for stray in record.strays)
        assert not record.names(name)
        assert run.well, f"seed {seed}: {run.reason}"
        failovers += run.failovers
    if SEEDS > FEW_SEEDS:
        assert forgotten > SEEDS // 12, "too few were forgotten"
        assert members < 5 or failovers, "no failover, no loss could show"


def test_one_that_was_forgotten_by_mistake_and_comes_back_is_a_stranger() -> None:
    """What it acknowledges is in doubt: if the primary dies then, no member that lacks it takes over."""
    run = Run(1, 5, Flavor.MYSQL)
    hosts = run.world.hosts
    run.calm()
    lose(run, "m3", is_destroyed=False)
    hosts["m1"].crash()
    settle(run)
    assert run.record
    second = run.record.primary
    assert second != "m1"
    assert hosts["m3"].source == "m1:3306"
    for _ in range(200):
        run.manage()
        if forget(run, "m3"):
            break
    else:
        raise AssertionError(run.reason)
    run.world.hidden.clear()  # it lives, and still follows m1
    for _ in range(200):
        if run.record.primary == "m1" and run.well:
            break
        if run.record.primary != "m1" and run.well:
            hosts[run.record.primary].crash()
        run.world.write()
        settle(run, 1)
    assert run.record.primary == "m1", run.reason
    assert run.world.back, "it acknowledged nothing"
    assert run.doubts, "nothing was in doubt"
    assert "repl_m3" in hosts["m1"].barred, "it is let in no more"
    settle(run)
    assert set(run.world.acknowledged) <= set(hosts["m1"].binlog)
    assert not run.record.doubt, run.reason
    assert run.well, run.reason
