"""Which replicas may acknowledge, what is in doubt after a stranger did, and which member may take over then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.answers.status import status
from holdfast.core.change import takeover
from holdfast.core.commands import Bar, EndReplicas, Prove
from holdfast.core.decide import decide
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.gtid import Flavor, parse
from holdfast.core.lease import electorate
from holdfast.core.members.membership import acking_voters
from holdfast.core.observed.dumps import Acks, Doubt, Dump
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record, from_json, to_json
from holdfast.core.rules import ackers
from holdfast.core.rules.attachment import attached
from holdfast.core.transition import Failover, RestartInPlace, Step
from holdfast.core.view import MemberState, Receiver, Replication, SemiSync, Unseen, View
from tests.unit.looks import CLUSTER, NOW, RECORD, down, primary, replica, saved, unseen, view

ACCOUNTS = {"repl_m1", "repl_m2", "repl_m3"}
DOUBT = Doubt("0-1-9", 3, "server 99 acknowledged as cdc")
DOUBTED = replace(RECORD, doubt="0-1-9", serial=8)


def dump(account: str, acks: Acks = Acks.YES, session: int = 5, server: str = "") -> Dump:
    return Dump(session, account, "10.0.0.9", server, acks)


def voters(*more: Dump) -> tuple[Dump, ...]:
    return (dump("repl_m2", session=1, server="2"), dump("repl_m3", session=2, server="3"), *more)


def sent(decision: Decision) -> dict[str, object]:
    return {step.member: step.command for step in decision.steps if isinstance(step, Send)}


def test_one_that_acknowledges_is_a_stranger_by_its_account_alone() -> None:
    stranger, reader = dump("cdc"), dump("reports", Acks.NO, 6)
    assert ackers.strangers(voters(stranger, reader), 0, ACCOUNTS) == (stranger,)
    assert not ackers.strangers(voters(reader), 0, ACCOUNTS)
    assert not ackers.strangers((dump("repl_m2"), dump("repl_m2", session=6)), 0, ACCOUNTS)


@pytest.mark.parametrize(("clients", "suspected"), [(2, False), (3, True), (1, False)])
def test_where_it_is_not_shown_who_acknowledges_the_count_tells(
    clients: int, suspected: bool
) -> None:
    unknown = (
        dump("repl_m2", Acks.UNKNOWN, 1),
        dump("repl_m3", Acks.UNKNOWN, 2),
        dump("cdc", Acks.UNKNOWN, 3),
        dump("reports", Acks.UNKNOWN, 4),
    )
    found = ackers.strangers(unknown, clients, ACCOUNTS)
    assert found == (unknown[2:] if suspected else ())


def test_a_stranger_does_not_explain_the_count_for_another() -> None:
    certain, unknown = dump("cdc"), dump("reports", Acks.UNKNOWN, 6)
    assert ackers.strangers((certain, unknown), 2, ACCOUNTS) == (certain, unknown)
    assert ackers.strangers((certain, unknown), 1, ACCOUNTS) == (certain,)


def test_a_primary_is_told_the_accounts_of_all_who_may_connect() -> None:
    gone = Configuration(frozenset({("m1", "a"), ("m9", "a")}), 1)
    record = replace(RECORD, configurations=(gone, *RECORD.configurations))
    assert electorate(CLUSTER, record).accounts == ACCOUNTS | {"repl_m9"}


# -- members' accounts ----------------------------------------------------------------------------


def members(**of: object) -> View:
    return view(primary(server_id=1, **of), replica("m2", server_id=2), replica("m3", server_id=3))


def test_sessions_of_voters_are_left_alone() -> None:
    asking_again = dump("repl_m2", session=6, server=str(2 + ackers.ASKING_AGAIN))
    there = voters(asking_again, dump("cdc", Acks.NO, 7))
    seen = members(dumps=there)
    assert ackers.pretenders(CLUSTER, RECORD, seen, seen.state("m1") or primary()) is None
    assert decide(CLUSTER, RECORD, seen).well


def test_a_learner_that_acknowledges_is_ended() -> None:
    two = Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1)
    record = replace(RECORD, configurations=(two,))
    seen = members(dumps=voters())
    head = seen.state("m1")
    assert head is not None
    assert ackers.pretenders(CLUSTER, record, seen, head) == EndReplicas(
        (2,), "m3 acknowledged, but is no voter"
    )
    for left in (
        replica("m3", server_id=3, semi_sync=SemiSync()),  # its previous session is ending
        down("m3"),
        ("m3", unseen("m3")),
    ):
        sees = view(primary(dumps=voters()), replica("m2", server_id=2), left)
        assert ackers.pretenders(CLUSTER, record, sees, primary(dumps=voters())) is None
    barred = primary(dumps=voters(), barred=("repl_m3",))
    assert ackers.pretenders(CLUSTER, record, seen, barred) is None
    alone = replace(record, configurations=(Configuration(two.voters, 0),))
    assert ackers.pretenders(CLUSTER, alone, seen, primary(dumps=voters())) is None


def test_another_server_that_uses_a_voters_account_is_ended_and_named() -> None:
    seen = members(dumps=(dump("repl_m2", session=1, server="99"), dump("repl_m3", session=2)))
    decision = decide(CLUSTER, RECORD, seen)
    command = sent(decision)["m1"]
    assert isinstance(command, EndReplicas)
    assert command.sessions == (1,)
    assert "server 99 at 10.0.0.9 acknowledged as repl_m2, but is not m2" in decision.reason
    assert not decision.well


def test_a_member_that_follows_by_another_account_is_not_attached() -> None:
    follows = Replication("127.0.0.1:3301", Receiver.ON, True)
    for user, good in (("repl_m2", True), ("", True), ("cdc", False), ("repl_m3", False)):
        state = replica("m2", replication=replace(follows, user=user))
        assert attached(CLUSTER, RECORD, state) is good


@pytest.mark.parametrize("gone", [False, True])
def test_who_is_barred_may_acknowledge_by_another_account(gone: bool) -> None:
    lost = replica("m2", server_id=2)
    sees = view(primary(), replica("m3", server_id=3))
    sees = (
        replace(sees, members={**sees.members, "m2": Unseen("", NOW, lost)})
        if gone
        else view(primary(), lost, replica("m3", server_id=3))
    )
    barred = primary(barred=("repl_m2",))
    assert acking_voters(RECORD, sees, barred, CLUSTER) == {("m3", "a")}
    other = replace(barred, dumps=(dump("repl_m3", server="2"),))
    assert acking_voters(RECORD, sees, other, CLUSTER) == {("m2", "a"), ("m3", "a")}
    silent = replace(barred, dumps=(dump("reports", Acks.NO, server="2"),))
    assert acking_voters(RECORD, sees, silent, CLUSTER) == {("m3", "a")}


# -- doubt ----------------------------------------------------------------------------------------


def test_a_doubt_is_recorded_with_a_new_serial_and_said() -> None:
    decision = decide(CLUSTER, RECORD, members(doubt=DOUBT, proved=7))
    record = saved(decision)
    assert (record.doubt, record.serial) == ("0-1-9", 8)
    assert "3 transactions of m1 may have been acknowledged without a voter" in decision.reason
    assert from_json(to_json(record)) == record


def test_a_doubt_ends_with_a_row_that_was_committed_after_it() -> None:
    asked = decide(CLUSTER, DOUBTED, members(doubt=DOUBT, proved=7))
    assert sent(asked)["m1"] == Prove(8, electorate(CLUSTER, DOUBTED))
    assert DOUBT.why in asked.reason
    # a row from before the doubt proves nothing, and neither does the report of an agent that doubts
    for changes in ({"proved": 7}, {"proved": 8, "doubt": DOUBT}):
        assert not any(
            isinstance(step, Save) for step in decide(CLUSTER, DOUBTED, members(**changes)).steps
        )
    assert saved(decide(CLUSTER, DOUBTED, members(proved=8))).doubt == ""


def test_a_later_stranger_adds_to_the_doubt() -> None:
    more = Doubt("0-1-12", 5, "again")
    record = saved(decide(CLUSTER, DOUBTED, members(doubt=more)))
    assert (record.doubt, record.serial) == ("0-1-12", 9)


def dead(record: Record, *heirs: MemberState, doubt: Doubt | None = None) -> Decision:
    return decide(CLUSTER, record, view(down("m1", incarnation="", doubt=doubt), *heirs))


@pytest.mark.parametrize(
    ("record", "doubt"), [(DOUBTED, None), (RECORD, DOUBT)], ids=["recorded", "seen"]
)
def test_no_failover_passes_a_doubt(record: Record, doubt: Doubt | None) -> None:
    behind = [replica(name, received="0-1-7", applied="0-1-7") for name in ("m2", "m3")]
    decision = dead(record, *behind, doubt=doubt)
    assert "2 transactions of m1" in decision.reason
    assert "may have been acknowledged by a replica that is no voter" in decision.reason
    assert saved(decision).transition == RestartInPlace(Step.OPEN)


def test_one_that_has_what_is_in_doubt_takes_over() -> None:
    begun = saved(dead(DOUBTED, replica("m2"), replica("m3", received="0-1-7", applied="0-1-7")))
    assert begun.electing
    promised = [
        replica("m2", term=5, promised=5),
        replica("m3", term=5, promised=5, received="0-1-7", applied="0-1-7"),
    ]
    named = saved(dead(replace(begun, term=5), *promised))
    assert (named.primary, named.doubt) == ("m2", "")


def test_a_failover_under_way_is_given_up_when_nobody_has_it() -> None:
    electing = replace(DOUBTED, term=5, transition=Failover(Step.ELECT, "m1"))
    behind = [
        replica(name, term=5, promised=5, received="0-1-7", applied="0-1-7")
        for name in ("m2", "m3")
    ]
    given_up = saved(dead(electing, *behind))
    assert (given_up.primary, given_up.transition) == (
        "m1",
        RestartInPlace(Step.OPEN),
    )
    assert given_up.doubt == "0-1-9"


def test_an_operator_may_accept_the_loss() -> None:
    behind = [replica(name, received="0-1-7", applied="0-1-7") for name in ("m2", "m3")]
    seen = view(down("m1"), *behind)
    (why,) = takeover.against(CLUSTER, DOUBTED, seen, takeover.FailoverOrder())
    assert "no voter" in why
    order = takeover.FailoverOrder(accept_loss=True)
    assert not takeover.against(CLUSTER, DOUBTED, seen, order)
    begun = takeover.begun(DOUBTED, seen, order).record
    assert begun.electing
    assert begun.electing.lossy


def test_status_names_what_is_in_doubt() -> None:
    seen = members(doubt=DOUBT)
    told = status(CLUSTER, DOUBTED, seen, decide(CLUSTER, DOUBTED, seen))
    assert (told.doubt, told.whole) == ("0-1-9", False)
    assert status(CLUSTER, RECORD, members(), decide(CLUSTER, RECORD, members())).doubt == ""


def test_one_that_returns_says_what_it_had_let_through() -> None:
    deposed = replace(RECORD, primary="m2", elected=4)
    two = replica("m1", replication=Replication(), doubt=DOUBT, semi_sync=SemiSync())
    seen = view(two, primary(name="m2", origin="0-2"), replica("m3"))
    assert "3 transactions of m1 may have been" in decide(CLUSTER, deposed, seen).reason


def test_of_a_silent_primary_its_last_word_counts() -> None:
    last = primary(doubt=Doubt("0-1-12", 1, "again"))
    seen = replace(view(replica("m2")), members={"m1": Unseen("", NOW, last)})
    assert ackers.doubtful(DOUBTED, seen) == parse(Flavor.MARIADB, "0-1-12")
    assert ackers.doubtful(RECORD, replace(seen, members={})) is None


def test_barring_waits_for_a_session_by_another_account() -> None:
    """A voter that is to leave has connected by another member's account: both sessions are ended."""
    leaving = replace(CLUSTER.settings, members={"m2": replace(CLUSTER.setting("m2"), voter=False)})
    cluster = replace(CLUSTER, settings=leaving)
    there = (dump("repl_m3", session=9, server="2"), dump("repl_m3", session=2, server="3"))
    decision = decide(cluster, RECORD, members(barred=("repl_m2",), dumps=there))
    commands = [step.command for step in decision.steps if isinstance(step, Send)]
    assert Bar("repl_m2") in commands
    assert any(isinstance(each, EndReplicas) and each.sessions == (9,) for each in commands)
