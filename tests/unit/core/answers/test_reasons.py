"""What is wrong is shown once: in the reason for the cluster, beside the member, or as what its agent refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.answers.status import FailedCommand, Status, status
from holdfast.core.change.way_out import PATIENCE
from holdfast.core.decide import decide
from holdfast.core.observed.lapse import Lapse
from holdfast.core.record import Pause, Record
from holdfast.core.settings import Settings, WhenAlone
from holdfast.core.view import Tail, TailVerdict, View
from tests.unit.looks import CLUSTER, NOW, RECORD, down, primary, replica, unseen, view

ALONE = "holdfast config set when_alone serve"
SILENT = Lapse(2.0, "its server does not answer")


def shown(seen: View, record: Record = RECORD, *failures: FailedCommand) -> Status:
    decision = decide(CLUSTER, record, seen)
    return status(CLUSTER, record, seen, decision, failures={"m2": failures})


def test_what_clients_feel_is_not_said_twice() -> None:
    well = shown(view(primary(), replica("m2"), replica("m3")))
    assert well.headline == well.reason == "m1 is primary and takes writes; all members vote"
    away = shown(view(primary(), down("m2"), replica("m3")))
    assert away.headline == "takes writes; m2 no longer votes: its server ended"
    closed = shown(view(primary(writable=False), replica("m2"), replica("m3")))
    assert closed.headline.startswith("does not take writes; m1, the primary, is read-only")
    hidden = shown(view(("m1", unseen("m1")), replica("m2"), replica("m3")))
    assert hidden.headline.startswith("not known to take writes; the agent of m1, the primary, ")


def test_what_the_reason_for_the_whole_says_of_a_member_is_known() -> None:
    seen = view(primary(), replica("m2", reason="something is amiss"), replica("m3"))
    found = shown(seen)
    assert found.headline == "takes writes; m2: something is amiss"
    assert [each.told for each in found.members] == [True, True, True]
    paused = shown(seen, replace(RECORD, paused=Pause("disks")))
    assert [each.told for each in paused.members] == [True, False, True]
    amiss = shown(view(primary(reason="something is amiss"), replica("m2"), replica("m3")))
    assert "something is amiss" in amiss.headline
    assert amiss.members[0].told
    hidden = shown(view(("m1", unseen("m1")), replica("m2"), replica("m3")))
    assert hidden.members[0].told


def test_all_that_is_wrong_with_the_primary_is_told() -> None:
    troubled = primary(reason="something is amiss", full="no space is left in /data")
    found = shown(view(troubled, replica("m2"), replica("m3")))
    assert found.headline == (
        "takes writes; m1 is primary, but no space is left in /data; something is amiss"
    )
    assert found.members[0].told
    blocked = shown(view(replace(troubled, stuck_seconds=2.0), replica("m2"), replica("m3")))
    assert blocked.reason == (
        "commits on m1 are blocked: no space is left in /data, for 2 s; something is amiss"
    )


def test_the_way_out_is_told_once_where_a_clone_waits_for_it() -> None:
    torn = Tail(TailVerdict.UNSAFE, term=3, reason="its host was restarted")
    seen = view(primary(), down("m2", tail=torn), down("m3", tail=torn))
    assert ALONE in decide(CLUSTER, RECORD, seen).reason
    found = shown(seen)
    assert found.reason.startswith("commits on m1 are blocked: none of its voters can acknowledge")
    assert found.reason.count(ALONE) == 1


def test_the_cause_of_blocked_commits_leaves_no_second_word_on_its_members() -> None:
    members = replica("m2"), replica("m3")
    found = shown(replace(view(primary(), *members), lapses={"m2": SILENT, "m3": SILENT}))
    why = "(m2: its server does not answer; m3: its server does not answer)"
    assert found.reason.startswith(
        f"commits on m1 are blocked: none of its voters can acknowledge {why}; "
    )
    assert "for 1 s" not in found.reason
    assert found.reason.endswith("is lost if m1 is lost)")
    waits = shown(replace(view(primary(), *members), lapses={"m1": Lapse(3.4, "its commits wait")}))
    assert waits.reason == "commits on m1 are blocked: none has been acknowledged for 3 s"


def test_the_way_out_of_blocked_commits_stands_where_nobody_is_alone_by_choice() -> None:
    seen = view(primary(), *(("m2", unseen("m2")), ("m3", unseen("m3"))))
    seen = replace(seen, lapses={"m2": SILENT, "m3": SILENT}, now=NOW + PATIENCE - 1)
    assert shown(seen).reason.count(ALONE) == 1
    serve = replace(CLUSTER, settings=Settings(when_alone=WhenAlone.SERVE))
    assert ALONE not in status(serve, RECORD, seen, decide(serve, RECORD, seen)).reason


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ((), True),
        ((FailedCommand("start", "its server does not start: typo"),), True),
        ((FailedCommand("start", "its server does not start"),), False),
        (
            (
                FailedCommand("start", "its server does not start: typo"),
                FailedCommand("bar", "no answer in time"),
            ),
            False,
        ),
    ],
)
def test_what_an_agent_refuses_is_known_where_its_own_words_are_a_reason(
    failures: tuple[FailedCommand, ...], told: bool
) -> None:
    broken = down("m2", start_failed="its server does not start: typo")
    member = shown(view(primary(), broken, replica("m3")), RECORD, *failures).members[1]
    assert member.failed == "; ".join(f"{each.name}: {each.why}" for each in failures)
    assert member.failed_told is told
