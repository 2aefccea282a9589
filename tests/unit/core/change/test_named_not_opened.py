"""A primary that was named and still follows its predecessor: no session there can be barred, so it is opened first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.change.takeover import FailoverOrder, against
from holdfast.core.commands import Bar, Cut, Follow, Promote
from holdfast.core.decide import decide
from holdfast.core.decision import Save, Send
from holdfast.core.observed.lapse import Lapse
from holdfast.core.quorum import Configuration
from holdfast.core.record import Past
from holdfast.core.rules.diagnosis import Primary, diagnose
from holdfast.core.rules.pulse import OpeningPulse, opening
from holdfast.core.settings import Settings
from holdfast.core.transition import Failover, Instant, Step, Switchover
from holdfast.core.view import MemberState, Receiver, Replication, SemiSync
from tests.unit.looks import CLUSTER, NOW, RECORD, down, primary, replica, saved, unseen, view

NAMED = replace(RECORD, transition=Switchover(Step.OPEN, "m1"))
OFF = Replication("127.0.0.1:3301", Receiver.OFF, True)


@pytest.mark.parametrize("follows", [True, False])
def test_a_voter_that_does_not_acknowledge_is_barred_once_it_is_opened(follows: bool) -> None:
    source = Replication("127.0.0.1:3302", Receiver.ON, True) if follows else Replication()
    named = primary(
        writable=False, replication=source, semi_sync=SemiSync(source=not follows, acks=1)
    )
    lapses = {"m3": Lapse(9.0, "its receiver is not connected")}
    seen = view(named, replica("m2"), replica("m3", replication=OFF), lapses=lapses)
    sent = [s.command for s in decide(CLUSTER, NAMED, seen).steps if isinstance(s, Send)]
    assert any(isinstance(each, Bar) for each in sent) is not follows
    assert any(isinstance(each, Promote) for each in sent) is follows


FAILED_OVER = replace(RECORD, transition=Failover(Step.OPEN, "m1"))
CLOSED = primary(writable=False, semi_sync=SemiSync(source=True, acks=1))


def hears(name: str, unheard: float) -> MemberState:
    return replica(
        name, replication=Replication("127.0.0.1:3301", Receiver.ON, True, unheard=unheard)
    )


@pytest.mark.parametrize(
    ("opening", "unheard", "found"),
    [
        # its voters can acknowledge, and it is still not opened
        (9.0, (0.0, 0.0), Primary.CLOSED),
        (10.0, (0.0, 0.0), Primary.UNOPENED),
        # a single voter may itself be cut off; with both, one takes over, and the other acknowledges
        (5.0, (6.0, 0.0), Primary.CLOSED),
        (4.0, (6.0, 6.0), Primary.CLOSED),
        (5.0, (6.0, 6.0), Primary.UNOPENED),
        (5.0, (4.0, 6.0), Primary.CLOSED),
    ],
)
def test_a_primary_that_cannot_be_opened_counts_as_lost(
    opening: float, unheard: tuple[float, float], found: Primary
) -> None:
    seen = view(CLOSED, hears("m2", unheard[0]), hears("m3", unheard[1]), opening=opening)
    assert diagnose(CLUSTER, FAILED_OVER, seen).primary is found


def test_one_that_its_agent_cannot_look_into_is_not_opened_either() -> None:
    """Its password is a different one there, for instance."""
    locked = replace(CLOSED, unobserved="Access denied (1045)", unobserved_seconds=10.0)
    seen = view(locked, replica("m2"), replica("m3"), opening=10.0)
    assert diagnose(CLUSTER, FAILED_OVER, seen).primary is Primary.UNOPENED
    assert diagnose(CLUSTER, RECORD, replace(seen, opening=0.0)).primary is Primary.UNSEEN


def test_it_is_no_new_failover_for_the_limits() -> None:
    limited = replace(CLUSTER, settings=Settings(failover_interval=600.0, failovers_per_hour=1))
    lately = (Past(Instant("", NOW - 12.0), 0.0),)
    seen = view(CLOSED, replica("m2"), replica("m3"), opening=12.0)
    begun = saved(decide(limited, replace(FAILED_OVER, failovers=lately), seen))
    assert begun.electing
    assert begun.term == RECORD.term + 1
    off = replace(limited, settings=Settings(automatic_failover=False))
    assert not any(isinstance(s, Save) for s in decide(off, FAILED_OVER, seen).steps)


def test_an_operator_may_order_another() -> None:
    seen = view(CLOSED, replica("m2"), replica("m3"), opening=12.0)
    assert against(CLUSTER, FAILED_OVER, seen, FailoverOrder(to="m3")) == ()


def test_what_helps_a_primary_that_lives_and_takes_no_writes_is_said_beside_the_refusal() -> None:
    owes = Lapse(9.0, "its server does not answer")
    stuck = view(primary(), replica("m2"), replica("m3"), lapses={"m2": owes, "m3": owes})
    (refused,) = against(CLUSTER, RECORD, stuck, FailoverOrder())
    assert refused.startswith("commits on m1 are blocked (none of its voters can acknowledge")
    assert "when_alone serve" in refused
    (well,) = against(
        CLUSTER, RECORD, view(primary(), replica("m2"), replica("m3")), FailoverOrder()
    )
    assert well == "m1 is primary and takes writes: a failover needs a lost primary"


def test_who_does_not_follow_a_primary_that_is_not_seen_is_pointed_at_it() -> None:
    """Otherwise no voter would ever report that the primary's server is gone, too."""
    elsewhere = replica("m2", promised=4, replication=Replication("127.0.0.1:3309", Receiver.OFF))
    seen = view(("m1", unseen("m1")), elsewhere, replica("m3"), opening=0.2)
    told = {
        s.member: s.command for s in decide(CLUSTER, FAILED_OVER, seen).steps if isinstance(s, Send)
    }
    assert list(told) == ["m2"]
    assert isinstance(told["m2"], Follow)
    assert told["m2"].source == "m1"


@pytest.mark.parametrize(("opening", "started"), [(0.4, False), (0.6, True)])
def test_a_server_that_is_down_helps_where_those_that_live_do_not(
    opening: float, started: bool
) -> None:
    silent = replica("m2", silent_seconds=9.0)
    seen = view(CLOSED, silent, down("m3"), opening=opening)
    two = Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1)
    record = replace(FAILED_OVER, configurations=(two,))
    sent = [s.command for s in decide(CLUSTER, record, seen).steps if isinstance(s, Send)]
    assert any(isinstance(each, Cut) for each in sent) is started


def test_since_when_it_is_to_be_opened() -> None:
    closed = view(CLOSED, now=100.0)
    first = opening(None, FAILED_OVER, closed)
    assert first == OpeningPulse(4, "m1", 100.0)
    assert opening(first, FAILED_OVER, replace(closed, now=107.0)) == first
    later = replace(closed, now=109.0)
    assert opening(first, replace(FAILED_OVER, term=5), later) == OpeningPulse(5, "m1", 109.0)
    assert opening(first, RECORD, later) is None
    assert opening(first, FAILED_OVER, view(primary(), now=109.0)) is None
    assert opening(first, FAILED_OVER, view(("m1", unseen("m1")), now=109.0)) == first
