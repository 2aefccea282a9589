"""If something has merely lasted longer, the reason is the same; every other change makes another reason."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.decide import decide
from holdfast.core.decision import Save
from holdfast.core.members.membership import lapsed
from holdfast.core.observed.blockers import Blocker, Holds
from holdfast.core.observed.lapse import Lapse
from holdfast.core.record import Past, Pause
from holdfast.core.rules.blocked import blocked
from holdfast.core.settings import MemberSettings, Settings
from holdfast.core.transition import Instant
from holdfast.core.view import MemberState, Receiver, Replication, ServerStatus
from holdfast.core.wording import Reason, capitalised, joined, key_of, lasting, once
from tests.unit.looks import CLUSTER, NOW, RECORD, VOTERS, down, primary, replica, view

LATE = MemberSettings(max_lag_seconds=1.0)
TEXTS = st.text(max_size=10)
REASONS = st.builds(Reason, TEXTS, TEXTS) | TEXTS


def said(state: MemberState, name: str) -> str:
    """The reason that is decided for it as replica ``name``, or as the primary."""
    members = {each: replica(each) for each in ("m2", "m3")}
    members[name] = state
    found = primary() if name != "m1" else members.pop("m1")
    return decide(CLUSTER, RECORD, view(found, *members.values())).reason


def deaf(name: str) -> MemberState:
    return replica(name, replication=Replication("127.0.0.1:3301", Receiver.CONNECTING, True))


def silent(seconds: float) -> str:
    return said(primary(silent_seconds=seconds, reason="something is amiss"), "m1")


def silent_and_deaf(seconds: float) -> str:
    hung = primary(silent_seconds=seconds)
    unheard = Replication("127.0.0.1:3301", Receiver.ON, True, unheard=9.0)
    others = (replica(name, replication=unheard, applied="0-1-8") for name in ("m2", "m3"))
    off = replace(CLUSTER, settings=Settings(automatic_failover=False))
    return decide(off, RECORD, view(hung, *others)).reason


def stuck(seconds: float) -> str:
    off = replace(CLUSTER, settings=Settings(automatic_failover=False))
    found = primary(stuck_seconds=seconds, stuck="a lock")
    return decide(off, RECORD, view(found, replica("m2"), replica("m3"))).reason


def held_back(seconds: float) -> str:
    lately = replace(RECORD, failovers=(Past(Instant("", NOW - seconds)),))
    limited = replace(CLUSTER, settings=Settings(failover_interval=600.0))
    hung = primary(silent_seconds=9.0)
    unheard = Replication("127.0.0.1:3301", Receiver.ON, True, unheard=9.0)
    others = (replica(name, replication=unheard) for name in ("m2", "m3"))
    return decide(limited, lately, view(hung, *others)).reason


def unopened(seconds: float) -> str:
    off = replace(CLUSTER, settings=Settings(automatic_failover=False))
    found = view(primary(writable=False), replica("m2"), replica("m3"), opening=seconds + 20)
    return decide(off, RECORD, found).reason


def paused(seconds: float) -> str:
    record = replace(RECORD, paused=Pause("disks"))
    found = view(primary(silent_seconds=seconds), replica("m2"), replica("m3"))
    return decide(CLUSTER, record, found).reason


def replica_silent(seconds: float) -> str:
    return said(replica("m2", silent_seconds=seconds), "m2")


def told_by_agent(seconds: float) -> str:
    return said(replica("m2", reason="no answer from the server", lasted=seconds), "m2")


def primary_told_by_agent(seconds: float) -> str:
    return said(primary(reason="no answer from the server", lasted=seconds), "m1")


def dying(seconds: float) -> str:
    """The reason of a voter that is removed."""
    record = replace(
        RECORD, configurations=(replace(VOTERS, voters=VOTERS.voters - {("m2", "a")}),)
    )
    state = down(
        "m2", server=ServerStatus.DYING, reason="no answer from the server", lasted=seconds
    )
    return decide(CLUSTER, record, view(primary(), state, replica("m3"))).reason


def too_far_behind(seconds: float) -> str:
    limited = replace(CLUSTER, settings=Settings(members=dict.fromkeys(("m2", "m3"), LATE)))
    behind = Replication("127.0.0.1:3301", Receiver.OFF, True, lag_seconds=seconds)
    others = (
        replica(name, replication=behind, applied="0-1-8", promised=4) for name in ("m2", "m3")
    )
    return decide(limited, RECORD, view(down("m1"), *others)).reason


def commits(**changes: object) -> Callable[[float], str]:
    def why(seconds: float) -> str:
        timed = {key: seconds if value is None else value for key, value in changes.items()}
        return blocked(CLUSTER, RECORD, view(primary(**timed), replica("m2"), replica("m3")))

    return why


def unacknowledged(seconds: float) -> str:
    found = view(primary(), replica("m2"), replica("m3"))
    return blocked(CLUSTER, RECORD, replace(found, lapses={"m1": Lapse(seconds, "it waits")}))


def owing(seconds: float) -> str:
    patient = replace(CLUSTER, settings=Settings(ack_patience=seconds))
    found = view(
        primary(), replica("m2"), replica("m3"), lapses={"m2": Lapse(60.0, "it owes some")}
    )
    state = found.state("m1")
    assert state is not None
    return lapsed(patient, found, state, "m2")


def blocker(seconds: float) -> str:
    return Blocker(17, "app", "web1", Holds.LOCK, seconds, "LOCK TABLES t WRITE").text("on m1")


EACH = [
    silent,
    silent_and_deaf,
    stuck,
    held_back,
    unopened,
    paused,
    replica_silent,
    told_by_agent,
    primary_told_by_agent,
    dying,
    too_far_behind,
    commits(silent_seconds=None),
    commits(stuck_seconds=None),
    commits(stuck_seconds=None, full="no space left in /data"),
    unacknowledged,
    owing,
    blocker,
]


@pytest.mark.parametrize("reason", EACH, ids=lambda each: each.__qualname__.partition(".")[0])
def test_the_seconds_alone_are_no_other_reason(reason: Callable[[float], str]) -> None:
    one, other = reason(12.0), reason(17.0)
    assert one != other, "both are shown as they are"
    assert re.sub(r"\d+(\.\d+)? s\b", "", one) == re.sub(r"\d+(\.\d+)? s\b", "", other)
    assert key_of(one) == key_of(other)
    assert key_of(one) != one


def test_anything_else_is_another_reason() -> None:
    assert key_of(silent(12.0)) != key_of(stuck(12.0))
    assert key_of(replica_silent(12.0)) != key_of(told_by_agent(12.0))


@given(st.lists(REASONS, max_size=5), TEXTS)
def test_put_together_it_reads_like_any_text_and_keeps_its_key(
    parts: list[str], separator: str
) -> None:
    whole = joined(separator, parts)
    assert whole == separator.join(map(str, parts))
    assert key_of(whole) == separator.join(map(key_of, parts))


@given(REASONS, TEXTS)
def test_it_stays_one_on_either_side_of_a_text(reason: str, text: str) -> None:
    for whole, key in (
        (reason + text, key_of(reason) + text),
        (text + reason, text + key_of(reason)),
    ):
        assert key_of(whole) == key
    assert key_of(once(["first", reason + "!"])) in (
        "first; " + key_of(reason) + "!",
        "first",
    )


def test_it_survives_a_copy_and_the_beginning_of_a_sentence() -> None:
    reason = "the server is silent for " + lasting(1.25, digits=1)
    for each in (copy.deepcopy(reason), capitalised(reason)):
        assert str(each).lower() == "the server is silent for 1.2 s"
        assert key_of(each).lower() == "the server is silent for "
    assert capitalised("m1 is silent") == "m1 is silent"


def test_only_what_is_shown_names_seconds_that_do_not_last() -> None:
    """A setting in a reason is no duration: another value is news."""
    held = [
        decide(
            replace(CLUSTER, settings=Settings(failover_interval=interval)),
            replace(RECORD, failovers=(Past(Instant("", NOW - 5.0)),)),
            view(down("m1"), replica("m2", promised=4), replica("m3", promised=4)),
        )
        for interval in (600.0, 700.0)
    ]
    assert not any(
        isinstance(step, Save) and step.record.term > 4 for each in held for step in each.steps
    )
    assert key_of(held[0].reason) != key_of(held[1].reason)
