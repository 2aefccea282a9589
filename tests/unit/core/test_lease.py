"""Which voters must confirm for a primary to continue without a manager: exhausted for up to seven voters."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest

from holdfast.config.settings import check, effective, layer
from holdfast.core.cluster import Cluster, Member
from holdfast.core.lease import Electorate, electorate, revoked, upheld
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.settings import PROFILES, Mode, Profile, Settings
from holdfast.core.timing import Timing, contradictions
from holdfast.errors import BadInput
from holdfast.manager.agents.leases import Leases
from tests.unit.hand_clock import HandClock

PRIMARY = "m1"


def cluster(members: int, **settings: Any) -> Cluster:
    named = [Member(f"m{i}", "h", 3306 + i, f"http://a{i}") for i in range(1, members + 1)]
    return Cluster("c", tuple(named), Settings(**settings))


def configuration(names: tuple[str, ...], acks: int) -> Configuration:
    return Configuration(frozenset((name, "a") for name in names), acks)


def record(*configurations: Configuration, mode: Mode = Mode.STRONG) -> Record:
    return Record(3, PRIMARY, 3, configurations, 7, mode=mode)


def subsets(names: tuple[str, ...]) -> Iterator[frozenset[str]]:
    for size in range(len(names) + 1):
        yield from (frozenset(each) for each in combinations(names, size))


def configurations(members: int) -> Iterator[Configuration]:
    others = tuple(f"m{i}" for i in range(2, members + 1))
    for chosen in subsets(others):
        for acks in range(len(chosen) + 1):
            yield configuration((PRIMARY, *chosen), acks)


@pytest.mark.parametrize("voters", range(1, 8))
def test_a_recovery_quorum_leaves_too_few_to_vouch(voters: int) -> None:
    others = tuple(f"m{i}" for i in range(2, voters + 1))
    deposable = 0
    for acks in range(voters):
        one = configuration((PRIMARY, *others), acks)
        known = electorate(cluster(voters), record(one))
        for promised in subsets(others):
            if not one.recoverable(PRIMARY, {(name, "a") for name in promised}):
                continue
            deposable += 1
            assert revoked(known, promised)
            for vouching in subsets(tuple(set(others) - promised)):
                assert not upheld(known, vouching)
    assert deposable == 0 if voters == 1 else deposable


def test_so_it_does_for_two_configurations_in_force() -> None:
    others = ("m2", "m3", "m4")
    seen = 0
    for one in configurations(4):
        for other in configurations(4):
            both = record(one, other)
            known = electorate(cluster(4), both)
            for promised in subsets(others):
                if both.recoverable({(name, "a") for name in promised}):
                    seen += 1
                    assert revoked(known, promised)
    assert seen


@pytest.mark.parametrize("members", range(2, 8))
def test_revoked_means_that_nobody_else_can_uphold_it(members: int) -> None:
    others = tuple(f"m{i}" for i in range(2, members + 1))
    for acks in range(members):
        known = electorate(cluster(members), record(configuration((PRIMARY, *others), acks)))
        for promised in subsets(others):
            rest = frozenset(others) - promised
            assert revoked(known, promised) == (not upheld(known, rest))


def test_who_serves_alone_needs_nobody_and_cannot_be_replaced() -> None:
    known = electorate(cluster(3), record(configuration((PRIMARY,), 0)))
    assert known.quorums == ()
    assert upheld(known, ())
    assert not revoked(known, {"m2", "m3"})


@pytest.mark.parametrize("members", range(2, 8))
def test_where_commits_wait_for_nobody_a_majority_of_all_members_decides(members: int) -> None:
    others = tuple(f"m{i}" for i in range(2, members + 1))
    known = electorate(cluster(members), record(configuration((PRIMARY,), 0), mode=Mode.ASYNC))
    for side in subsets(others):
        stays = upheld(known, side)
        assert stays == (len(side) + 1 > members / 2)
        assert not (stays and revoked(known, frozenset(others) - side))


def test_an_electorate_names_the_agents_and_the_address() -> None:
    known = electorate(cluster(3), record(configuration((PRIMARY, "m2"), 1)))
    assert known.agents == {"m2": "http://a2"}
    assert known.address == "h:3307"
    assert known.settled


def test_the_one_that_stands_alone_is_the_later_one() -> None:
    old, new = configuration((PRIMARY, "m2"), 1), configuration((PRIMARY, "m2", "m3"), 1)
    joint = electorate(cluster(3), record(old, new))
    alone = electorate(cluster(3), record(new))
    assert joint.age < alone.age


class TestTiming:
    def test_the_profiles_fit_together(self) -> None:
        for profile in Profile:
            assert contradictions(PROFILES[profile]) == []

    @pytest.mark.parametrize(
        ("timing", "key"),
        [
            (Timing(heartbeat=0.5, lease=1.2, detection=1.0), "lease"),
            (Timing(heartbeat=0.25, lease=1.2, detection=0.4), "detection"),
        ],
    )
    def test_what_contradicts_itself_is_named(self, timing: Timing, key: str) -> None:
        assert [each for each, _ in contradictions(timing)] == [key]

    def test_settings_that_contradict_each_other_are_refused(self) -> None:
        settings = effective([layer({"heartbeat": "1s"})], ["m1"])
        with pytest.raises(BadInput, match=r"lease: 1\.2 s is less than 3 heartbeats of 1 s"):
            check(settings, ["m1"])

    def test_a_profile_sets_what_is_not_set_itself(self) -> None:
        settings = effective([layer({"profile": "fast"}), layer({"lease": "2s"})], ["m1"])
        assert settings.timing == Timing(0.1, 2.0, 0.35)


class TestGrants:
    """What a manager has granted."""

    def setup_method(self) -> None:
        self.now = 100.0
        self.leases = Leases(HandClock(lambda: self.now))
        self.record = Record(3, PRIMARY, 3, (configuration((PRIMARY, "m2"), 1),), 7, lease=1.2)

    def known(self) -> Electorate:
        return electorate(cluster(2), self.record)

    def test_a_grant_is_counted_from_the_answer_that_it_is_based_on(self) -> None:
        self.leases.begin(0.0)
        self.leases.allow(cluster(2), self.record, 1000.0)
        assert self.leases.grant(PRIMARY) is None, "its clock is not known yet"
        self.leases.answered(PRIMARY, "r", 7.0)
        self.now = 100.9
        grant = self.leases.grant(PRIMARY)
        assert grant
        assert (grant.until, grant.run, grant.term) == (8.2, "r", 3)
        assert grant.electorate == self.known()
        assert 101.2 < self.leases.over([PRIMARY])[PRIMARY] < 101.3

    def test_nobody_else_is_granted_anything(self) -> None:
        self.leases.allow(cluster(2), self.record, 1000.0)
        self.leases.answered("m2", "r", 7.0)
        assert self.leases.grant("m2") is None

    def test_who_may_no_longer_lead_grants_nothing(self) -> None:
        self.leases.allow(cluster(2), self.record, 100.5)
        self.leases.answered(PRIMARY, "r", 7.0)
        assert self.leases.grant(PRIMARY)
        self.now = 100.5
        assert self.leases.grant(PRIMARY) is None

    def test_what_another_may_have_granted_counts_from_the_beginning(self) -> None:
        self.leases.begin(1.2)
        assert 101.2 < self.leases.over(["m9"])["m9"] < 101.3
