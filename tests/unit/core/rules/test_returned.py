"""A primary that came back in place is compared with its voters before it opens: which are asked, and waited for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.commands import Inventory, Promote, Start
from holdfast.core.decide import decide
from holdfast.core.decision import Decision, Send
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.rules.returned import doubt
from holdfast.core.transition import RestartInPlace, Step
from holdfast.core.view import MemberState, SemiSync, ServerStatus, Unseen, View
from tests.unit.looks import CLUSTER, RECORD, VOTERS, down, primary, replica, unseen, view

RESTART = replace(RECORD, transition=RestartInPlace(Step.OPEN))
OPENED = replace(RECORD, transition=RestartInPlace(Step.OPEN, lossy=True, ordered=True))
"""An operator has ordered that it opens with what it has."""
BACK = primary(incarnation="b", writable=False, semi_sync=SemiSync())
ALL = "0-1-9"
MORE = "0-1-10"


def decided(seen: View, record: Record = RESTART) -> Decision:
    return decide(CLUSTER, record, seen)


def promotes(decision: Decision) -> bool:
    return any(isinstance(s, Send) and isinstance(s.command, Promote) for s in decision.steps)


def test_voters_that_are_down_are_asked_what_their_files_hold_and_nothing_else_is_done() -> None:
    decision = decided(view(BACK, down("m2"), down("m3")))
    assert decision.steps == (Send("m2", Inventory()), Send("m3", Inventory()))
    assert decision.reason == (
        "m1 stays closed until it is known that it has all that its voters have received: waiting for "
        "m2 (its files are being read), m3 (its files are being read)"
    )


def test_it_is_opened_once_they_hold_nothing_that_it_lacks() -> None:
    assert promotes(decided(view(BACK, down("m2", kept=ALL), down("m3", kept=""))))


@pytest.mark.parametrize("holder", [down("m2", kept=MORE), replica("m2", received=MORE)])
def test_it_stays_closed_where_a_voter_holds_more(holder: MemberState) -> None:
    for record in (RESTART, OPENED):
        decision = decided(view(BACK, holder, down("m3", kept=ALL)), record)
        assert not decision.steps
        assert "came back without transactions that m2 has received (0-1-10)" in decision.reason


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        (("m3", unseen("m3")), "m3 (its agent does not answer)"),
        (replica("m3", server=ServerStatus.STARTING), "m3 (its server is starting)"),
        (down("m3", server=ServerStatus.DYING), "m3 (its server was killed, and hangs"),
    ],
)
def test_who_cannot_be_asked_is_waited_for(
    missing: MemberState | tuple[str, Unseen], why: str
) -> None:
    decision = decided(view(BACK, replica("m2"), missing))
    assert not decision.steps
    assert why in decision.reason


def test_nobody_is_waited_for_where_it_is_known_to_have_all_that_it_had() -> None:
    """Otherwise a host that is gone would keep the primary closed, although another voter could acknowledge."""
    for regained in (False, True):
        back = replace(BACK, regained=regained)
        assert promotes(decided(view(back, replica("m2"), ("m3", unseen("m3", 0))))) is regained
    # what that member holds was never acknowledged
    assert promotes(decided(view(back, replica("m2", received=MORE), ("m3", unseen("m3")))))


def test_an_operator_has_it_opened_where_a_voter_is_gone_for_good() -> None:
    decision = decided(view(BACK, replica("m2"), ("m3", unseen("m3"))), OPENED)
    assert promotes(decision)


def test_a_recovery_quorum_of_each_configuration_in_force_is_enough() -> None:
    four = Configuration(frozenset({("m1", "a"), ("m2", "a"), ("m3", "a")}), 2)
    seen = view(BACK, replica("m2"), ("m3", unseen("m3")))
    assert doubt(replace(RESTART, configurations=(four,)), seen, BACK) is None
    joint = replace(RESTART, configurations=(four, VOTERS))
    assert doubt(joint, seen, BACK) is not None


def test_where_nobody_had_to_hold_anything_nobody_is_waited_for() -> None:
    alone = replace(RESTART, configurations=(Configuration(VOTERS.voters, 0),))
    seen = view(BACK, ("m2", unseen("m2")), down("m3"))
    assert doubt(alone, seen, BACK) is None
    ahead = view(BACK, replica("m2", received=MORE), down("m3"))
    assert doubt(alone, ahead, BACK) is not None


def test_what_a_voter_has_issued_itself_says_nothing() -> None:
    """It was the primary before, or something was written there by hand."""
    seen = view(BACK, replica("m2", received=f"{ALL},0-2-77,5-2-3"), down("m3", kept=ALL))
    assert doubt(RESTART, seen, BACK) is None


@pytest.mark.parametrize("accepted", [{"semi_sync": SemiSync(source=True)}, {"writable": True}])
def test_one_that_is_being_opened_commits_and_is_not_compared(accepted: dict[str, object]) -> None:
    opening = primary(incarnation="b", **accepted)
    seen = view(opening, replica("m2", received=MORE), down("m3"))
    assert doubt(RESTART, seen, opening) is None


def test_a_voter_that_nobody_sees_is_none_that_can_acknowledge() -> None:
    """Otherwise the one that is down would not be started, and the primary would wait for ever."""
    two = Configuration(frozenset({("m1", "b"), ("m3", "a")}), 1)
    opened = replace(OPENED, configurations=(two,))
    decision = decided(view(BACK, down("m2", kept=ALL), ("m3", unseen("m3"))), opened)
    assert promotes(decision)
    assert any(isinstance(s, Send) and s.member == "m2" for s in decision.steps)


def test_an_operators_word_outlives_another_end_of_the_primary() -> None:
    decision = decided(view(down("m1"), down("m2"), ("m3", unseen("m3", 0))), OPENED)
    assert decision.steps == (Send("m1", Start()),)
