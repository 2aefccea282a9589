"""Which member takes over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.cluster import Cluster, Member
from holdfast.core.gtid import Flavor
from holdfast.core.observed.applying import Applying
from holdfast.core.rules.election import WISHED, Elected, NobodyElected, elect, prefer_learner
from holdfast.core.settings import MemberSettings, Settings
from holdfast.core.view import MemberState, Replication, ServerStatus

ONE = "11111111-71ca-11e1-9e33-c80aa9429562"
TWO = "22222222-71ca-11e1-9e33-c80aa9429562"


def member(
    name: str,
    received: str,
    applied: str | None = None,
    flavor: Flavor = Flavor.MARIADB,
    applier: bool = True,
    error: str = "",
    lag: float | None = 0.0,
) -> MemberState:
    return MemberState(
        name,
        flavor,
        server=ServerStatus.UP,
        received=received,
        applied=received if applied is None else applied,
        replication=Replication(applier=applier, error=error, lag_seconds=lag),
    )


def cluster(**settings: MemberSettings) -> Cluster:
    members = tuple(Member(name, name, 3306) for name in "abcd")
    return Cluster("c", members, Settings(members=settings))


def choose(quorum: list[MemberState], **settings: MemberSettings) -> Elected | NobodyElected:
    return elect(quorum, cluster(**settings))


def test_the_one_that_received_everything() -> None:
    assert choose([member("a", "0-1-5"), member("b", "0-1-7"), member("c", "0-1-6")]) == Elected(
        member("b", "0-1-7"), drained=True
    )


def test_between_equals_the_one_that_has_applied_it_all() -> None:
    slow, quick = member("a", "0-1-7", "0-1-3"), member("b", "0-1-7")
    assert choose([slow, quick]) == Elected(quick, drained=True)


@pytest.mark.parametrize(("seconds", "wanted"), [(0.9, "a"), (1.0, "b")])
def test_one_whose_applier_is_held_up_is_passed_over_whatever_its_priority(
    seconds: float, wanted: str
) -> None:
    held = replace(member("a", "0-1-7", "0-1-3"), applying=Applying(stalled=seconds))
    free = member("b", "0-1-7", "0-1-5")
    first = {"a": MemberSettings(priority=200)}
    outcome = choose([held, free], **first)
    assert isinstance(outcome, Elected)
    assert outcome.state.name == wanted
    drained = replace(held, applied="0-1-7")
    outcome = choose([drained, free], **first)
    assert isinstance(outcome, Elected)
    assert outcome.state.name == "a", "nothing is left to apply"
    outcome = choose([held, free], a=MemberSettings(priority=WISHED))
    assert isinstance(outcome, Elected)
    assert outcome.state.name == "a", "an operator wants it"


def test_between_equals_that_are_drained_the_first() -> None:
    assert choose([member("a", "0-1-7"), member("b", "0-1-7")]) == Elected(
        member("a", "0-1-7"), drained=True
    )


def test_the_foremost_must_drain_before_it_is_named() -> None:
    foremost = member("b", "0-1-7", "0-1-2")
    assert choose([member("a", "0-1-5"), foremost]) == Elected(foremost, drained=False)


def test_what_a_lagging_applier_cannot_list_is_no_divergence() -> None:
    """MariaDB: b received 0-1-100 and 0-2-105, but its applier stands at 0-1-94."""
    foremost = member("b", "0-1-94,0-2-105", "0-1-94")
    assert choose([member("a", "0-1-100,0-2-104"), foremost]) == Elected(foremost, drained=False)


def test_divergence_shows_once_the_foremost_has_applied_everything() -> None:
    foremost = member("b", "0-1-94,0-2-105")
    outcome = choose([member("a", "0-1-100,0-2-104"), foremost])
    assert isinstance(outcome, NobodyElected)
    assert "a has 0-1-95..100 which b lacks" in outcome.reason


@pytest.mark.parametrize(
    ("flavor", "first", "second"),
    [
        (Flavor.MARIADB, "0-1-7", "0-2-7"),
        (Flavor.MYSQL, f"{ONE}:1-7", f"{ONE}:1-6,{TWO}:1"),
    ],
)
def test_diverged_candidates_are_refused(flavor: Flavor, first: str, second: str) -> None:
    outcome = choose([member("a", first, flavor=flavor), member("b", second, flavor=flavor)])
    assert isinstance(outcome, NobodyElected)
    assert outcome.reason.startswith("a (")
    assert "have diverged" in outcome.reason


def test_one_whose_applier_is_broken_is_passed_over() -> None:
    broken = member("a", "0-1-7", "0-1-3", applier=False, error="duplicate key")
    well = member("b", "0-1-7", "0-1-5")
    assert choose([broken, well]) == Elected(well, drained=False)


def test_nobody_when_the_foremost_cannot_apply() -> None:
    broken = member("a", "0-1-7", "0-1-3", applier=False, error="duplicate key")
    outcome = choose([broken, member("b", "0-1-6")])
    assert isinstance(outcome, NobodyElected)
    assert "a received everything but cannot apply it (duplicate key)" in outcome.reason


def preferred(quorum: list[MemberState], *learners: MemberState) -> Elected:
    outcome = choose(quorum)
    assert isinstance(outcome, Elected)
    return prefer_learner(outcome, learners, quorum, cluster())


def test_a_learner_that_received_more_goes_first() -> None:
    voters = [member("a", "0-1-5"), member("b", "0-1-7")]
    ahead = member("c", "0-1-9")
    assert preferred(voters, member("d", "0-1-6"), ahead) == Elected(ahead, drained=True)
    behind = member("c", "0-1-9", "0-1-4")
    assert preferred(voters, behind) == Elected(behind, drained=False)


def test_a_learner_that_is_level_or_cannot_apply_soon_does_not() -> None:
    voters = [member("a", "0-1-5"), member("b", "0-1-7")]
    chosen = Elected(voters[1], drained=True)
    assert preferred(voters, member("c", "0-1-7")) == chosen
    assert preferred(voters, member("c", "0-1-9", "0-1-4", applier=False)) == chosen
    assert preferred(voters, member("c", "0-1-9000", "0-1-4")) == chosen


def test_a_learner_that_lacks_what_a_voter_has_is_never_preferred() -> None:
    voters = [member("a", "0-1-5,0-2-7")]
    assert preferred(voters, member("c", "0-1-9")) == Elected(voters[0], drained=True)
    mysql = [member("a", f"{ONE}:1-7", flavor=Flavor.MYSQL)]
    errant = member("c", f"{ONE}:1-6,{TWO}:1-9", flavor=Flavor.MYSQL)
    assert preferred(mysql, errant) == Elected(mysql[0], drained=True)


def test_the_higher_priority_between_equals() -> None:
    level = [member("a", "0-1-7"), member("b", "0-1-7")]
    assert choose(level, b=MemberSettings(priority=200)) == Elected(level[1], drained=True)


def test_a_higher_priority_first_fetches_what_another_received() -> None:
    ahead, preferred = member("a", "0-1-9"), member("b", "0-1-7")
    outcome = choose([ahead, preferred], b=MemberSettings(priority=200))
    assert outcome == Elected(preferred, drained=False, fetch_from="a")


def test_only_what_is_applied_can_be_fetched() -> None:
    ahead, preferred = member("a", "0-1-9", "0-1-8"), member("b", "0-1-7")
    outcome = choose([ahead, preferred], b=MemberSettings(priority=200))
    assert outcome == Elected(ahead, drained=False)


def test_a_higher_priority_that_lacks_much_is_passed_over() -> None:
    ahead, far = member("a", "0-1-9000"), member("b", "0-1-7")
    assert choose([ahead, far], b=MemberSettings(priority=200)) == Elected(ahead, drained=True)


def test_priority_zero_is_never_primary_but_gives_what_it_has() -> None:
    ahead, other = member("a", "0-1-9000"), member("b", "0-1-7")
    never = MemberSettings(priority=0)
    assert choose([ahead, other], a=never) == Elected(other, drained=False, fetch_from="a")
    outcome = choose([ahead, other], a=never, b=never)
    assert isinstance(outcome, NobodyElected)
    assert "a: its priority is 0; b: its priority is 0" in outcome.reason


def test_a_learner_that_has_diverged_takes_over_for_nobody() -> None:
    """Otherwise it would have to fetch from the one voter what it lacks, and be refused there for ever."""
    settings = cluster(a=MemberSettings(priority=0))
    voter, level = member("a", "0-2-31,0-5-7001"), member("b", "0-2-31,0-5-6009")
    assert elect([voter], settings, [level]) == Elected(level, drained=False, fetch_from="a")
    diverged = member("b", "0-2-3043,0-1-4016")
    outcome = elect([voter], settings, [diverged])
    assert isinstance(outcome, NobodyElected)
    assert outcome.reason == "a: its priority is 0"


def test_an_applier_that_is_too_far_behind_is_passed_over_unless_that_is_ignored() -> None:
    late = member("a", "0-1-9", "0-1-3", lag=12.0)
    other = member("b", "0-1-7")
    ten = MemberSettings(max_lag_seconds=10.0)
    assert choose([late, other], a=ten) == Elected(late, drained=False)  # the others fetch from it
    assert choose([member("a", "0-1-9"), other], a=ten) == Elected(
        member("a", "0-1-9"), drained=True
    )
    outcome = choose([late], a=ten)
    assert isinstance(outcome, NobodyElected)
    assert "12 s behind, max_lag is 10 s" in outcome.reason
    assert choose([late], a=MemberSettings()) == Elected(late, drained=False)
