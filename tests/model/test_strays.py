"""A voter whose agent is silent follows the primary that was deposed, and acknowledges when that one is back."""

from __future__ import annotations

from holdfast.core.gtid import Flavor
from tests.model.manage import Run


def replicate(run: Run, *names: str) -> None:
    """Let only these receive and apply."""
    others = {n: h.receiving for n, h in run.world.hosts.items() if n not in names}
    for name in others:
        run.world.hosts[name].receiving = False
    for _ in range(200):
        run.world.replicate()
    for name, receiving in others.items():
        run.world.hosts[name].receiving = receiving


def settle(run: Run, rounds: int = 60) -> None:
    for _ in range(rounds):
        run.manage()
        for _ in range(20):
            run.world.replicate()
        run.check()


def until_open(run: Run, name: str) -> None:
    """Fail over to this member, and stop as soon as it takes writes."""
    for _ in range(200):
        run.manage()
        run.check()
        if run.world.hosts[name].writable and run.record and not run.record.transition:
            return
        for host in run.world.hosts.values():
            if host.up and host.source == f"{name}:3306" and host.relay:
                host.binlog.append(host.relay.pop(0))
        run.world.replicate()
    raise AssertionError(run.reason)


def test_its_acknowledgement_is_never_the_only_one() -> None:
    run = Run(1, 5, Flavor.MYSQL)
    hosts = run.world.hosts
    run.calm()
    hosts["m5"].agent_up = False
    hosts["m1"].crash()
    settle(run)
    assert run.record
    second = run.record.primary
    assert second != "m1"
    assert run.well or "m5" in run.reason
    assert hosts["m1"].up
    assert hosts["m5"].source == "m1:3306"
    hosts[second].crash()
    until_open(run, "m1")
    before = len(run.world.acknowledged)
    run.world.write()
    replicate(run, "m5")
    acknowledged = len(run.world.acknowledged) > before
    hosts["m1"].crash()
    settle(run)  # checks that no member opens without what was acknowledged
    assert not acknowledged or run.record.primary == "m1"
