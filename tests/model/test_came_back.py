"""The primary comes back with less than it acknowledged, while its voters are down."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import pytest

from holdfast.core.change.takeover import FailoverOrder, against, begun
from holdfast.core.gtid import Flavor
from holdfast.core.rules.returned import awaits
from holdfast.core.view import View
from tests.model.interrupting import interrupted, restart_in_place, whole, write
from tests.model.manage import Run

BOTH = pytest.mark.parametrize("flavor", list(Flavor))


def died(flavor: Flavor, members: int = 3, lost: int = 0, seed: int = 1) -> Run:
    """All servers were killed at once; the primary's disk has lost its last transactions.

    Its voters have received these, and not applied all of them.
    """
    run = Run(seed, members, flavor)
    run.calm()
    write(run, 6)
    hosts = run.world.hosts
    for name in sorted(hosts)[1:]:
        hosts[name].applying = False
    write(run, 4)
    for host in hosts.values():
        host.crash()
    if lost:
        primary = hosts["m1"]
        assert set(primary.binlog[-lost:]) & set(run.world.acknowledged)
        primary.binlog = primary.binlog[:-lost]
    return run


def managed(run: Run, rounds: int, over: Callable[[], bool] = lambda: False) -> None:
    for _ in range(rounds):
        run.manage()
        for _ in range(10):
            run.world.replicate()
        run.check()
        if over():
            return


@BOTH
@pytest.mark.parametrize("members", [2, 3, 5])
def test_one_that_has_less_than_its_voters_is_never_opened(flavor: Flavor, members: int) -> None:
    run = died(flavor, members, lost=2)
    managed(run, 40)
    hosts = run.world.hosts
    assert not any(host.writable for host in hosts.values())
    assert "came back without transactions that" in run.reason
    # and what they hold is kept: no other server was started or made to follow
    assert not any(host.up for name, host in hosts.items() if name != "m1")


@BOTH
@pytest.mark.parametrize("members", [2, 3, 5])
def test_one_that_has_all_is_opened_once_enough_were_asked(flavor: Flavor, members: int) -> None:
    run = died(flavor, members)
    hosts = run.world.hosts
    away = sorted(hosts)[1:]
    for name in away:
        hosts[name].agent_up = False
    hosts["m1"].begin_agent(run.world.now)  # it has not seen how its server ended
    managed(run, 20)
    assert not hosts["m1"].writable
    assert f"{away[0]} (its agent does not answer)" in run.reason
    # of five voters, a recovery quorum is three of the four others; of MariaDB's, three vote
    for name in away[: {2: 1, 3: 2, 5: 3 if flavor is Flavor.MYSQL else 2}[members]]:
        assert not hosts["m1"].writable
        hosts[name].begin_agent(run.world.now)
        managed(run, 10, lambda: hosts["m1"].writable)
    assert hosts["m1"].writable, run.reason
    run.mend()
    whole(run)


@BOTH
@pytest.mark.parametrize("lost", [0, 1])
def test_nobody_is_waited_for_where_its_agent_saw_that_nothing_is_missing(
    flavor: Flavor, lost: int
) -> None:
    run = died(flavor, 3, lost)
    hosts = run.world.hosts
    hosts["m2"].agent_up = hosts["m3"].agent_up = False
    managed(run, 20)
    if lost:
        assert "m2 (its agent does not answer), m3" in run.reason
        assert not hosts["m1"].source_on
        return
    assert "m1 is being opened" in run.reason  # its commits wait for one of the two
    assert hosts["m1"].source_on
    run.mend()
    whole(run)


@BOTH
def test_an_operator_opens_it_where_a_voter_is_gone_for_good(flavor: Flavor) -> None:
    run = died(flavor)
    hosts = run.world.hosts
    hosts["m3"].agent_up = False
    hosts["m1"].begin_agent(run.world.now)
    managed(run, 20)
    record, view = run.record, View(dict(run.mind.known), run.world.now)
    assert record
    assert awaits(record, view)
    cluster = run.world.cluster
    assert against(cluster, record, view, FailoverOrder("m2", accept_loss=True))
    (why,) = against(cluster, record, view, FailoverOrder("m1"))
    assert "m3 (its agent does not answer)" in why
    order = FailoverOrder("m1", accept_loss=True)
    assert against(cluster, record, view, order) == ()
    saved = begun(record, view, order)
    run.take(saved)
    managed(run, 20, lambda: hosts["m1"].writable)
    assert hosts["m1"].writable, run.reason
    run.mend()
    whole(run)
    assert run.record
    assert run.record.transition is None


@BOTH
@pytest.mark.parametrize("broken", ["before", "within", "after"])
def test_broken_off_anywhere_it_ends_well(flavor: Flavor, broken: str) -> None:
    for at in range(40):
        run = Run(at, 3, flavor)
        run.calm()
        restart_in_place(run)
        run.world.hosts["m3"].crash()
        if not interrupted(run, at, broken, attrgetter("well"), whole):
            return
    raise AssertionError("too many steps")
