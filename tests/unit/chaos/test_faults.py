"""The schedule of a chaos run: the same for the same seed, and no more faults at a time than the claims allow."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.chaos.faults import Fault, Harm, Lane, Role, schedule

SEEDS = range(40)
ALL = {Role.MEMBERS, Role.MANAGERS, Role.NODES}


def lanes(faults: tuple[Fault, ...]) -> dict[Lane, list[Fault]]:
    found: dict[Lane, list[Fault]] = {}
    for fault in faults:
        found.setdefault(fault.lane, []).append(fault)
    return found


def test_a_seed_gives_the_same_schedule_again() -> None:
    assert schedule("7/1", 120) == schedule("7/1", 120)
    assert schedule("7/1", 120) != schedule("7/2", 120)


def test_a_longer_run_begins_as_the_shorter_one() -> None:
    short = lanes(schedule(3, 60))
    longer = lanes(schedule(3, 120))
    for lane, faults in short.items():
        assert longer[lane][: len(faults)] == faults


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beyond", [False, True])
def test_within_a_lane_one_fault_is_over_before_the_next(seed: int, beyond: bool) -> None:
    faults = schedule(seed, 90, beyond=beyond)
    assert all(fault.at + fault.seconds <= 90 for fault in faults)
    for several in lanes(faults).values():
        for one, other in pairwise(several):
            assert one.at + one.seconds < other.at


@pytest.mark.parametrize("seed", SEEDS)
def test_all_of_something_are_hit_only_beyond_the_claim(seed: int) -> None:
    within = schedule(seed, 120)
    assert not ALL & {fault.role for fault in within}
    assert Lane.MORE_MEMBERS not in lanes(within)
    assert Lane.MORE_MEMBERS in lanes(schedule(seed, 120, beyond=True))


def test_every_harm_comes_up_and_all_of_something_too() -> None:
    found = [fault for seed in SEEDS for fault in schedule(seed, 300, beyond=True)]
    assert {fault.harm for fault in found} == set(Harm)
    assert {fault.role for fault in found} == set(Role)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_manager_is_never_cut_from_an_etcd_that_is_not_there(seed: int) -> None:
    faults = schedule(seed, 300, managers=1)
    assert Lane.ETCD not in lanes(faults)
    assert Harm.CUT_ETCD not in {fault.harm for fault in faults}
