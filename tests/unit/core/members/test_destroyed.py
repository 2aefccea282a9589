"""When a member may be forgotten whose host an operator says is destroyed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.members.destroyed import (
    SILENT_SECONDS,
    forgotten,
    lacks_lock,
    signs_of_life,
    waits,
)
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record, Stray
from holdfast.core.transition import Failover, Step
from holdfast.core.view import MemberState, Receiver, Replication, Unseen
from tests.unit.looks import CLUSTER, NOW, RECORD, primary, replica, view

GONE = ("m3", Unseen("no route to host", NOW - SILENT_SECONDS))
TWO = Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1)
STRAYS = frozenset({Stray("m3", "a", "m2"), Stray("m3", "b", "m1"), Stray("m2", "x", "m3")})
WITHOUT = replace(RECORD, configurations=(TWO,), strays=STRAYS)
LOCKED = primary(barred=(CLUSTER.account("m3"),))


def test_what_shows_that_it_lives_is_told() -> None:
    assert signs_of_life(CLUSTER, view(primary(), replica("m2"), GONE), "m3") == []
    (why,) = signs_of_life(CLUSTER, view(primary(), replica("m2"), replica("m3")), "m3")
    assert "its agent answers" in why
    (why,) = signs_of_life(CLUSTER, view(primary(), replica("m2")), "m3")
    assert "was not asked yet" in why
    lately = ("m3", Unseen("no route to host", NOW - SILENT_SECONDS + 4))
    (why,) = signs_of_life(CLUSTER, view(primary(), replica("m2"), lately), "m3")
    assert "ask again in 4 s" in why


@pytest.mark.parametrize(
    ("replication", "lives"),
    [
        (Replication("127.0.0.1:3303", Receiver.ON, True, unheard=0.2), True),
        (Replication("127.0.0.1:3303", Receiver.ON, True, unheard=SILENT_SECONDS), False),
        (Replication("127.0.0.1:3303", Receiver.CONNECTING, True), False),
        (Replication("127.0.0.1:3301", Receiver.ON, True), False),
    ],
)
def test_a_server_that_another_one_hears_lives(replication: Replication, lives: bool) -> None:
    found = view(primary(), replica("m2", replication=replication), GONE)
    assert bool(signs_of_life(CLUSTER, found, "m3")) == lives


@pytest.mark.parametrize(
    ("record", "head", "why"),
    [
        (WITHOUT, LOCKED, ""),
        (RECORD, LOCKED, "it votes still"),
        (replace(WITHOUT, configurations=(TWO, TWO)), LOCKED, "it votes still"),
        (replace(WITHOUT, configurations=(RECORD.target, TWO)), LOCKED, "it votes still"),
        (WITHOUT, primary(), "its account is to be locked on m1 first"),
        (
            replace(WITHOUT, transition=Failover(Step.OPEN, "m1")),
            LOCKED,
            "a failover is under way",
        ),
    ],
)
def test_it_is_forgotten_when_it_has_no_vote_and_the_primary_lets_it_in_no_more(
    record: Record, head: MemberState | tuple[str, Unseen], why: str
) -> None:
    found = view(head, replica("m2"), GONE)
    assert waits(CLUSTER, record, found, "m3") == why


def test_a_primary_that_is_not_seen_lets_everybody_in_as_far_as_is_known() -> None:
    found = view(("m1", Unseen("gone", NOW - 60, LOCKED)), replica("m2"), GONE)
    assert lacks_lock(CLUSTER, WITHOUT, found, "m3")


def test_nothing_else_is_forgotten_along_with_it() -> None:
    after = forgotten(WITHOUT, "m3")
    assert after == replace(WITHOUT, strays=frozenset({Stray("m2", "x", "m3")}))
