"""Which members vote: number of voters, priorities, zones."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from holdfast.core.cluster import Cluster, Member
from holdfast.core.gtid import Flavor
from holdfast.core.quorum import acks_for
from holdfast.core.rules.seats import Candidate, chosen
from holdfast.core.settings import Durability, MemberSettings, Settings
from holdfast.core.view import MemberState


def names(
    flavor: Flavor, candidates: list[Candidate], primary: str = "m1", **settings: Any
) -> set[str]:
    members = tuple(Member(f"m{i}", "h", i) for i in range(1, 8))
    cluster = Cluster("c", members, Settings(**settings))
    return {name for name, _ in chosen(cluster, MemberState(primary, flavor), candidates)}


def people(*numbers: int, seated: tuple[int, ...] = ()) -> list[Candidate]:
    return [Candidate(f"m{i}", "1", i in seated) for i in numbers]


def test_mysql_has_seats_for_all_and_mariadb_for_three() -> None:
    assert len(names(Flavor.MYSQL, people(2, 3, 4, 5, 6, 7))) == 6
    assert names(Flavor.MARIADB, people(2, 3, 4, 5)) == {"m2", "m3"}
    assert names(Flavor.MARIADB, people(2, 3), durability=Durability.ALL) == {"m2"}


def test_those_that_vote_keep_their_seats_and_the_highest_priority_gets_a_free_one() -> None:
    high = {"m5": MemberSettings(priority=300), "m3": MemberSettings(priority=200)}
    assert names(Flavor.MARIADB, people(2, 3, 4, 5), members=high) == {"m3", "m5"}
    kept = people(2, 3, 4, 5, seated=(2, 4))
    assert names(Flavor.MARIADB, kept, members=high) == {"m2", "m4"}
    assert names(Flavor.MARIADB, people(2, 3, 5, seated=(2,)), members=high) == {"m2", "m5"}


ZONES = {
    f"m{i}": MemberSettings(zone=zone)
    for i, zone in enumerate(["a", "a", "a", "b", "b", "c", "c"], 1)
}


@pytest.mark.parametrize("flavor", list(Flavor))
def test_with_zones_no_set_that_acknowledges_is_in_the_primarys_zone_alone(flavor: Flavor) -> None:
    settings = Settings(durability=Durability.ZONES, members=ZONES)
    for size in range(1, 7):
        for there in combinations(range(2, 8), size):
            voters = names(flavor, people(*there), members=ZONES, durability=Durability.ZONES)
            near = sum(ZONES[name].zone == "a" for name in voters)
            acks = acks_for(len(voters) + 1, settings, flavor)
            assert near < acks or not voters
            away = [i for i in there if ZONES[f"m{i}"].zone != "a"]
            assert bool(voters) == bool(away), "somebody far away is a voter wherever there is one"
