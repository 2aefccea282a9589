"""The predicates of ``core.quorum``, exhausted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, combinations, product

import pytest

from holdfast.core.gtid import Flavor
from holdfast.core.quorum import (
    Configuration,
    Voter,
    acks_for,
    extendable,
    most_voters,
    recoverable,
    settled,
)
from holdfast.core.settings import Durability, Mode, Settings

PRIMARY = ("p", "1")


def subsets(items: Iterable[Voter]) -> Iterator[frozenset[Voter]]:
    items = sorted(items)
    return map(
        frozenset, chain.from_iterable(combinations(items, n) for n in range(len(items) + 1))
    )


def configuration(others: Iterable[Voter], acks: int) -> Configuration:
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
    settings = Settings(durability=durability)
    of = configuration(voters(others), acks_for(others + 1, settings, Flavor.MYSQL))
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
    """All changes that ``extendable`` allows. First the primary still waits as before, for the former voters; from then
    on for ``new.acks``, of any that can acknowledge. Everything that is acknowledged meets each joint quorum."""
    people = sorted(voters(5))
    old_voters = frozenset(people[:before])
    checked = 0
    for new_voters in (c for c in subsets(people) if len(c) == after):
        for unable in subsets(old_voters):
            for old_acks, new_acks in product(range(before + 1), range(after + 1)):
                old = configuration(old_voters, old_acks)
                new = configuration(new_voters, new_acks)
                if not extendable(new, "p", old_voters - unable):
                    continue
                quorums = [r for r in subsets(people) if recoverable([old, new], "p", r)]
                able = (old_voters | new_voters) - unable
                sets = [a for a in subsets(old_voters - unable) if len(a) >= old_acks]
                sets += [a for a in subsets(able) if len(a) >= new_acks]
                for acked in sets:
                    assert all(acked & quorum for quorum in quorums), (old, new, unable)
                    checked += bool(quorums)
    assert checked or not before or not after


def test_from_alone_a_voter_may_acknowledge_before_the_primary_waits() -> None:
    """With k = 0 in force the primary is never deposed, so it does not matter which servers acknowledge."""
    for old_voters, new_voters in product(subsets(voters(3)), subsets(voters(3))):
        for acks in range(len(new_voters) + 1):
            in_force = [configuration(old_voters, 0), configuration(new_voters, acks)]
            assert not any(recoverable(in_force, "p", r) for r in subsets(voters(3)))


def test_a_live_voter_left_out_makes_a_change_unsafe() -> None:
    new = configuration({("v0", "1")}, 1)
    assert not extendable(new, "p", voters(2))
    assert extendable(new, "p", voters(2) - {("v1", "1")})
    assert extendable(configuration((), 0), "p", voters(2))


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
    assert acks_for(count, Settings(), Flavor.MYSQL) == majority
    assert acks_for(count, Settings(durability=Durability.ALL), Flavor.MYSQL) == everyone
    assert acks_for(count, Settings(mode=Mode.ASYNC), Flavor.MYSQL) == 0


def test_more_acknowledgements_can_be_asked_for_as_far_as_there_are_voters() -> None:
    asked = Settings(ack_count=3)
    assert [acks_for(n, asked, Flavor.MYSQL) for n in range(1, 8)] == [0, 1, 2, 3, 3, 3, 3]


@pytest.mark.parametrize("durability", list(Durability))
def test_mariadb_never_needs_more_than_one_acknowledgement(durability: Durability) -> None:
    settings = Settings(durability=durability)
    most = most_voters(settings, Flavor.MARIADB)
    asked = most - 1 if durability is Durability.ALL else most // 2
    assert acks_for(most, settings, Flavor.MARIADB) == asked == 1
