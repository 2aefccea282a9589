"""Replication accounts that were dropped, locked or changed by hand are repaired, and no server gains access that must
not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.core.commands import Command, MendAccount, Promote, Unbar
from holdfast.core.decide import decide
from holdfast.core.members.accounts import mends, needed
from holdfast.core.observed.logins import Logins
from holdfast.core.record import Record
from holdfast.core.rules.election import Elected, elect
from holdfast.core.transition import Bootstrap, Failover, Step, Transition
from holdfast.core.view import MemberState, Receiver, View
from tests.unit.looks import CLUSTER, RECORD, commands, primary, replica, unseen, view

ALL = ("repl_m1", "repl_m2", "repl_m3")
DENIED = Logins(denied="error 1045")


def seen(head: MemberState, *others: MemberState) -> View:
    return view(head, *(others or (replica("m2", replicators=ALL), replica("m3", replicators=ALL))))


def sent(sees: View, head: MemberState, record: Record = RECORD, ready: int = 2) -> list[Command]:
    return [each.step.command for each in mends(CLUSTER, record, sees, head, ready)]


def mend(name: str, logged: bool) -> MendAccount:
    return MendAccount(f"repl_{name}", name, "", logged)


def test_nothing_is_done_where_all_is_there_or_nothing_is_known() -> None:
    for known in (ALL, None):
        head = primary(replicators=known)
        assert sent(seen(head), head) == []


def test_a_missing_account_is_made_and_not_through_the_binlog() -> None:
    head = primary(replicators=("repl_m1", "repl_m3"))
    assert sent(seen(head), head) == [mend("m2", logged=False)]
    decision = decide(CLUSTER, RECORD, seen(head))
    assert commands(decision)[0] == mend("m2", logged=False)
    assert "m1 has no account repl_m2" in decision.reason


def test_one_whose_agent_does_not_answer_cannot_be_mended() -> None:
    head = primary(replicators=("repl_m1",))
    sees = view(head, ("m2", unseen("m2")), replica("m3", replicators=ALL))
    assert sent(sees, head) == [mend("m3", logged=False)]


@pytest.mark.parametrize(
    ("ready", "waiting", "logged"), [(2, 0, True), (0, 0, False), (2, 3, False)]
)
def test_a_wrong_password_is_mended_through_the_binlog_where_that_does_not_wait(
    ready: int, waiting: int, logged: bool
) -> None:
    head = primary(replicators=ALL)
    head = replace(head, semi_sync=replace(head.semi_sync, waiting=waiting))
    sees = seen(head, replica("m2", logins=DENIED), replica("m3"))
    assert sent(sees, head, ready=ready) == [mend("m2", logged=logged)]


def test_a_receiver_that_is_not_let_in_is_mended() -> None:
    head = primary(replicators=ALL)
    away = replica("m2")
    away = replace(
        away,
        replication=replace(
            away.replication, receiver=Receiver.CONNECTING, denied=True, error="Access denied"
        ),
    )
    assert sent(seen(head, away, replica("m3")), head) == [mend("m2", logged=True)]
    connected = replace(away, replication=replace(away.replication, receiver=Receiver.ON))
    assert sent(seen(head, connected, replica("m3")), head) == [], "of the last attempt"


def test_what_another_source_said_is_not_mended_on_the_primary() -> None:
    head = primary(replicators=ALL)
    astray = replica("m2", logins=DENIED)
    astray = replace(astray, replication=replace(astray.replication, source="127.0.0.1:1"))
    assert sent(seen(head, astray, replica("m3")), head) == []


def test_one_that_is_barred_is_not_mended_and_one_that_was_just_mended_not_again() -> None:
    denied = replica("m2", logins=DENIED)
    for head in (
        primary(replicators=ALL, barred=("repl_m2",)),
        primary(replicators=ALL, logins=Logins(mended=("repl_m2",))),
    ):
        assert sent(seen(head, denied, replica("m3", replicators=ALL)), head) == []


def test_replicas_get_it_as_soon_as_commits_flow_but_not_that_of_one_that_is_barred() -> None:
    lacking = replica("m3", replicators=("repl_m1", "repl_m3"))
    head = primary(replicators=ALL)
    sees = seen(head, replica("m2", replicators=ALL), lacking)
    assert sent(sees, head) == [mend("m2", logged=True)]
    assert sent(sees, head, ready=0) == []
    barred = primary(replicators=ALL, barred=("repl_m2",))
    assert sent(sees, barred) == []
    owed = primary(replicators=ALL, logins=Logins(mended=("repl_m2",), owed=("repl_m2",)))
    assert sent(seen(owed), owed) == [mend("m2", logged=True)]


def test_the_primary_s_own_is_made_elsewhere_though_nobody_opens_it_there() -> None:
    head = primary(replicators=ALL, barred=("repl_m1",), logins=Logins(owed=("repl_m1",)))
    assert sent(seen(head), head) == [mend("m1", logged=True)]


@pytest.mark.parametrize("opening", [Failover(Step.OPEN, "m2"), Bootstrap()])
def test_a_new_primary_that_lacks_its_voters_accounts_gets_them_before_it_waits_for_them(
    opening: Transition,
) -> None:
    """At a bootstrap of servers that were initialised by hand, they do not exist yet."""
    record = replace(RECORD, transition=opening, serial=8, primary="m1")
    head = primary(writable=False, replicators=("repl_m1",))
    assert [each.account for each in needed(CLUSTER, record, seen(head), head)] == [
        "repl_m2",
        "repl_m3",
    ]
    asked = commands(decide(CLUSTER, record, seen(head)))
    assert mend("m2", logged=False) in asked
    assert not any(isinstance(each, Promote) for each in asked)
    # created, and locked: the rule that knows which members may acknowledge opens it
    made = replace(head, replicators=ALL, barred=("repl_m2",))
    assert Unbar("repl_m2") in commands(decide(CLUSTER, record, seen(made)))


def test_one_whose_agent_is_shut_out_takes_over_only_where_nobody_else_can() -> None:
    out = replica("m2", logins=Logins(shut_out="error 1045"))
    chosen = elect([out, replica("m3")], CLUSTER)
    assert isinstance(chosen, Elected)
    assert chosen.state.name == "m3"
    both = [out, replica("m3", logins=Logins(shut_out="error 1045"))]
    chosen = elect(both, CLUSTER)
    assert isinstance(chosen, Elected)
    assert chosen.state.name == "m2"
