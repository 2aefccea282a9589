"""If hosts are gone and nothing proceeds without help, the reason says what an operator can do, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.core.change.way_out import PATIENCE
from holdfast.core.cluster import Cluster
from holdfast.core.decide import decide
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.settings import Mode, WhenAlone
from holdfast.core.view import MemberState, Unseen, View
from tests.unit.looks import CLUSTER, NOW, RECORD, primary, replica, view

SERVE = "if m2, m3 will never return: holdfast config set when_alone serve"
ACCEPT = "if m1, m2 will never return: holdfast failover --accept-loss c"


def seen(*there: MemberState, since: float = PATIENCE) -> View:
    """These members answer, and the others have been silent for so long."""
    known = {each.name: each for each in there}
    lasts = {"m1": primary(), "m2": replica("m2"), "m3": replica("m3")}
    silent = {
        name: Unseen("no route to host", NOW - since, last)
        for name, last in lasts.items()
        if name not in known
    }
    found = view(*there)
    return replace(found, members={**found.members, **silent})


def reason(record: Record, found: View, cluster: Cluster = CLUSTER) -> str:
    return decide(cluster, record, found).reason


def test_a_primary_that_is_left_alone_may_be_told_to_serve() -> None:
    text = reason(RECORD, seen(primary()))
    assert text.endswith(f"{SERVE} (what m1 acknowledges alone is lost with it)")
    one_by_one = Configuration(frozenset({("m1", "a"), ("m3", "a")}), 1)
    assert SERVE in reason(replace(RECORD, configurations=(one_by_one,)), seen(primary()))


def test_one_that_is_left_of_three_may_be_told_to_take_over() -> None:
    text = reason(RECORD, seen(replica("m3")))
    assert text.endswith(f"{ACCEPT} (loses what no other member has)")


@pytest.mark.parametrize(
    ("there", "changed"),
    [
        ([primary(), replica("m2")], {}),
        ([replica("m2"), replica("m3")], {}),
        ([], {}),
        ([primary()], {"when_alone": WhenAlone.SERVE}),
        ([primary()], {"mode": Mode.ASYNC}),
    ],
    ids=["one is left", "a failover can begin", "nobody is there", "it serves", "async"],
)
def test_where_something_goes_on_or_nothing_can_no_way_out_is_told(
    there: list[MemberState], changed: dict[str, Any]
) -> None:
    cluster = replace(CLUSTER, settings=replace(CLUSTER.settings, **changed))
    assert "never return" not in reason(RECORD, seen(*there), cluster)


@pytest.mark.parametrize("there", [primary(), replica("m3")], ids=["primary", "replica"])
def test_hosts_that_may_be_restarting_are_not_called_gone(there: MemberState) -> None:
    assert "never return" not in reason(RECORD, seen(there, since=PATIENCE - 0.5))
