"""The predicates of ``core.quorum``, exhausted."""

from __future__ import annotations

from itertools import chain, combinations, product

import pytest

from holdfast.core.gtid import Flavor
from holdfast.core.quorum import (
    Configuration,
    Voter,
    acks_for,
    acks_now,
    extendable,
    most_voters,
    recoverable,
    settled,
)
from holdfast.core.settings import Durability

PRIMARY = ("p", "1")


def subsets(items):  # type: ignore[no-untyped-def]
    items = sorted(items)
    return map(
        frozenset, chain.from_iterable(combinations(items, n) for n in range(len(items) + 1))
    )


def configuration(others, acks: int) -> Configuration:  # type: ignore[no-untyped-def]
    return Configuration(frozenset(others) | {PRIMARY}, acks)


def voters(count: int) -> frozenset[Voter]:
    return frozenset((f"v{i}", "1") for i in range(count))


@pytest.mark.parametrize("others", range(7))
def test_every_recovery_quorum_meets_every_set_that_can_have_acknowledged(others: int) -> None:
    for acks in range(others + 1):
        of = configuration(voters(others), acks)
        quorums = [r for r in subsets(voters(others)) if of.recoverable("p", r)]
        for acked in subsets(voters(others)):
            if len(acked) >= acks:
                assert all(acked & quorum for quorum in quorums)


@pytest.mark.parametrize("others", range(7))
def test_a_recovery_quorum_leaves_too_few_to_acknowledge_more(others: int) -> None:
    for acks in range(1, others + 1):
        of = configuration(voters(others), acks)
        for quorum in subsets(voters(others)):
            if of.recoverable("p", quorum):
                assert len(voters(others) - quorum) < acks


@pytest.mark.parametrize("others", range(1, 7))
@pytest.mark.parametrize("durability", list(Durability))
def test_a_cluster_can_be_recovered_as_long_as_fewer_than_k_others_are_lost(
    others: int, durability: Durability
) -> None:
    of = configuration(voters(others), acks_for(others + 1, durability))
    for alive in subsets(voters(others)):
        lost = others - len(alive)
        assert of.recoverable("p", alive) == (lost < of.acks)


def test_the_primary_and_another_run_of_a_voter_do_not_count() -> None:
    of = configuration(voters(2), 1)
    assert of.recoverable("p", voters(2))
    assert not of.recoverable("p", frozenset({PRIMARY, ("v0", "1")}))
    assert not of.recoverable("p", frozenset({("v0", "2"), ("v1", "1")}))
    assert not configuration((), 0).recoverable("p", frozenset({PRIMARY}))


@pytest.mark.parametrize("before", range(5))
@pytest.mark.parametrize("after", range(5))
def test_nothing_acknowledged_during_a_change_is_missed(before: int, after: int) -> None:
    """All changes that ``extendable`` allows: whatever acknowledges then meets each joint quorum."""
    people = sorted(voters(5))
    old_voters = frozenset(people[:before])
    for new_voters in (c for c in subsets(people) if len(c) == after):
        for dead in subsets(old_voters):
            for old_acks, new_acks in product(range(before + 1), range(after + 1)):
                old = configuration(old_voters, old_acks)
                new = configuration(new_voters, new_acks)
                if not extendable([old], new, "p", dead):
                    continue
                needed = acks_now([old, new])
                alive = (old_voters | new_voters) - dead
                quorums = [r for r in subsets(people) if recoverable([old, new], "p", r)]
                for acked in subsets(alive):
                    if len(acked) >= needed:
                        assert all(acked & quorum for quorum in quorums), (old, new, dead)


def test_a_live_voter_left_out_makes_a_change_unsafe() -> None:
    old, new = configuration(voters(2), 1), configuration({("v0", "1")}, 1)
    assert not extendable([old], new, "p", frozenset())
    assert extendable([old], new, "p", frozenset({("v1", "1")}))


@pytest.mark.parametrize("others", range(6))
def test_settled_means_that_every_quorum_has_one_that_holds_everything(others: int) -> None:
    for acks in range(others + 1):
        of = configuration(voters(others), acks)
        for holders in subsets(voters(others)):
            if settled(of, "p", holders):
                for quorum in subsets(voters(others)):
                    if of.recoverable("p", quorum):
                        assert holders & quorum


@pytest.mark.parametrize(
    ("count", "majority", "everyone"),
    [(1, 0, 0), (2, 1, 1), (3, 1, 2), (4, 2, 3), (5, 2, 4), (6, 3, 5), (7, 3, 6)],
)
def test_acks(count: int, majority: int, everyone: int) -> None:
    assert acks_for(count, Durability.MAJORITY) == majority
    assert acks_for(count, Durability.ALL) == everyone


@pytest.mark.parametrize("durability", list(Durability))
def test_mariadb_never_needs_more_than_one_acknowledgement(durability: Durability) -> None:
    most = most_voters(Flavor.MARIADB, durability)
    assert acks_for(most, durability) == 1
