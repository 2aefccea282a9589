"""Whether a process ends the server of a primary whose agent does not answer: what voters' reports prove, and what
not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from holdfast.cli.show.status import kept_by
from holdfast.core.answers.status import status
from holdfast.core.decide import decide
from holdfast.core.lease import Asked, Protection
from holdfast.core.record import from_json, to_json
from holdfast.core.rules.diagnosis import Primary, diagnose
from holdfast.core.rules.enforcement import Evidence, weighed
from holdfast.core.timing import relied_on
from holdfast.core.view import (
    MemberState,
    Receiver,
    Replication,
    Seen,
    Unseen,
    View,
)
from tests.unit.looks import CLUSTER, RECORD, primary, replica, saved

HERE = "127.0.0.1:3301"
DETECTION = CLUSTER.settings.timing.detection
LOST_AT = 100.0
OVER = 101.5
ON = Replication(HERE, Receiver.ON, True)
LONG_AGO = {"unvouched": 500.0}


def voter(name: str, replication: Replication = ON, **changes: Any) -> MemberState:
    return replica(name, replication=replication, **(LONG_AGO | changes))


def look(now: float, *voters: MemberState | Unseen, gone: bool = False, over: float = OVER) -> View:
    """m1's agent has not answered since LOST_AT."""
    lost = Unseen("no answer in time", LOST_AT, primary(), gone)
    seen = {
        f"m{i}": each if isinstance(each, Unseen) else Seen(each, now)
        for i, each in enumerate(voters, 2)
    }
    return View({"m1": lost, **seen}, now, leases={"m1": over})


def verdicts(views: Iterator[View]) -> list[bool | None]:
    known: Evidence | None = None
    found = []
    for view in views:
        known = weighed(known, CLUSTER, RECORD, view)
        found.append(known.enforced(DETECTION) if known else None)
    return found


def after(seconds: float, *voters: MemberState | Unseen, **changes: Any) -> bool | None:
    """The verdict after voters have reported the same for so long after the end of the lease."""
    begin = LOST_AT + 0.1
    steps = int((OVER + seconds - begin) / 0.2) + 1
    return verdicts(look(begin + 0.2 * i, *voters, **changes) for i in range(steps))[-1]


def test_a_server_that_is_heard_after_its_lease_is_held_to_it_by_nobody() -> None:
    assert after(DETECTION + 0.5, voter("m2"), voter("m3")) is False


def test_nothing_is_proven_while_its_lease_may_last() -> None:
    assert after(-0.1, voter("m2"), voter("m3")) is None
    assert after(60, voter("m2"), voter("m3"), over=1e9) is None


def test_nor_while_it_may_only_have_been_heard_for_a_moment() -> None:
    """As when a frozen host resumes, and its server is killed."""
    assert after(DETECTION - 0.3, voter("m2"), voter("m3")) is None
    silent = [voter(name, replace(ON, unheard=DETECTION + 0.1)) for name in ("m2", "m3")]
    times = (OVER + 0.1, OVER + 0.2, OVER + 2, OVER + 4)
    views = [look(at, *silent) for at in times]
    views[0] = look(OVER + 0.1, voter("m2"), voter("m3"))
    views[3] = look(OVER + 4, voter("m2"), voter("m3"))
    assert verdicts(iter(views)) == [None] * 4


def test_a_receiver_that_is_not_connected_or_follows_another_hears_nothing() -> None:
    for replication in (
        replace(ON, receiver=Receiver.CONNECTING),
        replace(ON, source="127.0.0.1:3309"),
    ):
        others = [voter(name, replication) for name in ("m2", "m3")]
        assert after(9, *others) is None
    assert after(9, voter("m2", silent_seconds=9.0), voter("m3", silent_seconds=9.0)) is None


@pytest.mark.parametrize("word", [{"vouched": 0.2, "unvouched": 0.0}, {"unvouched": 0.1}])
def test_one_that_a_voter_may_have_vouched_for_may_be_held_by_it(word: dict[str, float]) -> None:
    """The agent of that voter was restarted: it does not know whether it was asked."""
    behind = replace(ON, unheard=0.3)
    assert after(9, voter("m2", behind), voter("m3", behind, **word)) is None
    assert after(9, voter("m2", behind), Unseen("no answer", LOST_AT)) is None


def test_who_asks_a_voter_holds_it() -> None:
    asked = voter("m2", asked=Asked(HERE, 0.2), vouched=1.0, unvouched=0.0)
    assert after(9, asked, voter("m3")) is True
    other = voter("m2", asked=Asked("127.0.0.1:3309", 0.2), unvouched=5.0)
    assert after(9, other, voter("m3")) is False


def test_asked_before_it_was_lost_says_nothing() -> None:
    views = (
        look(at, voter("m2", asked=Asked(HERE, at - LOST_AT + 1)), voter("m3"))
        for at in (LOST_AT + 0.5, OVER)
    )
    assert verdicts(views) == [None, None]


def test_after_the_last_question_there_is_a_lease_more_and_then_nobody_holds_it() -> None:
    last = OVER + 5
    end = last + relied_on(RECORD.lease)

    def states(at: float) -> list[MemberState]:
        word: dict[str, Any] = {"asked": Asked(HERE, at - last), "unvouched": max(0.0, at - end)}
        return [voter(name, vouched=max(0.0, end - at), **word) for name in ("m2", "m3")]

    times = [last + 0.2 * i for i in range(30)]
    found = verdicts(look(at, *states(at)) for at in times)
    first = times[found.index(False)]
    assert end + DETECTION <= first < end + DETECTION + 0.5
    assert set(found[: found.index(False)]) == {True}


def test_an_agent_that_ended_holds_nothing_and_what_asks_afterwards_does() -> None:
    assert after(-1, voter("m2"), voter("m3"), gone=True) is False
    asked = voter("m2", asked=Asked(HERE, 0.2), vouched=1.0, unvouched=0.0)
    assert after(3, asked, voter("m3"), gone=True) is True


def test_a_question_that_only_those_had_heard_that_were_restarted_since_proves_nothing() -> None:
    """Its keeper process released it when no agent of a voter ran."""
    asked = voter("m2", asked=Asked(HERE, 0.2), vouched=1.0, unvouched=0.0)
    fresh = voter("m2", vouched=1.0, unvouched=0.0)
    times = [LOST_AT + 0.2 * i for i in range(1, 20)]
    views = [look(at, asked, voter("m3"), gone=True) for at in times]
    views.append(look(times[-1] + 1, fresh, fresh, gone=True))
    assert verdicts(iter(views))[-2:] == [True, False]


def test_what_was_known_is_void_once_the_agent_answers() -> None:
    view = look(OVER, voter("m2"), voter("m3"))
    seen = replace(view, members={**view.members, "m1": Seen(primary(), OVER)})
    before = Evidence("m1", LOST_AT, nobody=OVER)
    assert weighed(before, CLUSTER, RECORD, seen) is None
    later = weighed(replace(before, since=LOST_AT - 9), CLUSTER, RECORD, view)
    assert later
    assert later.enforced(DETECTION) is None


@pytest.mark.parametrize(
    ("enforced", "gone", "found"),
    [
        (None, False, Primary.LOST),
        (True, False, Primary.LOST),
        (False, False, Primary.UNSEEN),
        (None, True, Primary.UNSEEN),
        (False, True, Primary.UNSEEN),
        (True, True, Primary.LOST),
    ],
)
def test_another_takes_over_only_from_one_that_may_have_been_ended(
    enforced: bool | None, gone: bool, found: Primary
) -> None:
    deaf = [voter(name, replace(ON, unheard=9.0)) for name in ("m2", "m3")]
    view = replace(look(OVER + 9, *deaf, gone=gone), enforced=enforced)
    diagnosis = diagnose(CLUSTER, RECORD, view)
    assert diagnosis.primary is found
    if found is Primary.UNSEEN:
        assert ("it had ended before" if gone else "it hung before") in diagnosis.reason
        assert "holdfast failover --accept-loss" in diagnosis.reason


def test_one_whose_server_is_known_to_be_gone_needs_nobody_to_end_it() -> None:
    refused = replace(ON, receiver=Receiver.CONNECTING, refused=True)
    view = replace(look(OVER + 9, voter("m2", refused), voter("m3", refused)), enforced=False)
    assert diagnose(CLUSTER, RECORD, view).primary is Primary.LOST


DEAF = tuple(voter(name, replace(ON, unheard=9.0)) for name in ("m2", "m3"))


def test_the_next_manager_finds_it_in_the_record() -> None:
    heard = replace(look(OVER + 9, voter("m2"), voter("m3")), enforced=False)
    noted = saved(decide(CLUSTER, RECORD, heard))
    assert noted == replace(RECORD, unkept="a")
    assert from_json(to_json(noted)) == noted
    assert not decide(CLUSTER, noted, heard).steps
    cut_off = look(OVER + 9, *DEAF)
    assert diagnose(CLUSTER, RECORD, cut_off).primary is Primary.LOST
    assert diagnose(CLUSTER, noted, cut_off).primary is Primary.UNSEEN
    assert not decide(CLUSTER, noted, cut_off).steps
    kept = replace(cut_off, enforced=True)
    assert diagnose(CLUSTER, noted, kept).primary is Primary.LOST
    other = replace(noted, unkept="another run")
    assert diagnose(CLUSTER, other, cut_off).primary is Primary.LOST


def test_it_is_forgotten_once_the_agent_answers() -> None:
    seen = View({"m1": Seen(primary(), OVER)}, OVER, leases={"m1": OVER})
    assert saved(decide(CLUSTER, replace(RECORD, unkept="a"), seen)) == RECORD


@pytest.mark.parametrize(
    ("enforced", "kept", "said"),
    [
        (True, "keeper (m1)", "keeps its lease"),
        (False, "nobody (m1)", "no process kills its server when the lease ends"),
    ],
)
def test_status_says_what_holds_each_member_to_its_lease(
    enforced: bool, kept: str, said: str
) -> None:
    both = (Protection.AGENT, Protection.KEEPER)
    voters = [voter(name, protections=both) for name in ("m2", "m3")]
    view = replace(look(OVER + 9, *voters), enforced=enforced)
    record = RECORD if enforced else replace(RECORD, unkept="a")
    shown = status(CLUSTER, record, view, decide(CLUSTER, record, view))
    assert said in shown.reason
    members = [{"name": each.name, "protections": each.protections} for each in shown.members]
    assert kept_by(members) == f"leases are kept by {kept}; agent, keeper (m2, m3)"
    assert kept_by(members[1:]) == "leases are kept by agent, keeper"
    assert kept_by([{"name": "m1", "protections": None}]) == ""
