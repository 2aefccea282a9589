"""What is wrong with members' hosts, as a reason against a switchover to them."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.change.preflight import Objection, SwitchoverOrder, chosen, may_pass, objections
from holdfast.core.change.readiness import wrong
from holdfast.core.check.facts import Facts, Space, Unit
from holdfast.core.gtid import Flavor
from holdfast.core.view import Receiver
from tests.unit.core.check.test_check import BOTH, booting, good, running
from tests.unit.looks import CLUSTER, RECORD, primary, replica, view

ALL_WELL = view(primary(), replica("m2"), replica("m3"))
BY_STATEMENT = (
    "m2: binlog_format is STATEMENT now: statements give other rows elsewhere, and cannot be undone: "
    "SET GLOBAL binlog_format = ROW; clients connect anew"
)


def three(flavor: Flavor = Flavor.MARIADB) -> dict[str, Facts]:
    accounts = frozenset({"repl_m1", "repl_m2", "repl_m3"})
    return {
        f"m{n}": replace(good(flavor, n), replicators=accounts, backup_admins=accounts)
        for n in (1, 2, 3)
    }


def against(found: dict[str, Facts], name: str = "m2") -> list[str]:
    return [each.text for each in wrong("m1", found, {}).get(name, ())]


def statements(found: dict[str, Facts], *names: str) -> dict[str, Facts]:
    return found | {name: running(found[name], binlog_format="STATEMENT") for name in names}


@BOTH
def test_nothing_stands_against_members_that_are_as_they_should_be(flavor: Flavor) -> None:
    found = three(flavor)
    found["m2"] = running(found["m2"], binlog_checksum="NONE")  # a warning
    assert wrong("m1", found, {}) == {"m2": (), "m3": ()}


@BOTH
def test_what_is_wrong_with_a_candidate_is_named_with_its_mend(flavor: Flavor) -> None:
    found = statements(three(flavor), "m2")
    assert against(found) == [BY_STATEMENT]
    assert against(found, "m3") == []
    assert not any(each.passes for each in wrong("m1", found, {})["m2"])
    alone = {"m2": booting(good(flavor, 2), read_only="OFF")}
    assert "the option file says read_only = OFF" in against(alone)[0]


def test_what_is_wrong_with_the_primary_is_no_reason_to_stay_with_it() -> None:
    assert against(statements(three(), "m1")) == []
    assert against(statements(three(), "m1", "m2")) == [BY_STATEMENT]


def test_a_disk_that_fills_up_is_left_even_for_another_that_does() -> None:
    found = three()
    full = {
        name: replace(found[name], spaces=(Space("/data", 100, 2),), units=(Unit("mysql.service", enabled=True),))
        for name in ("m1", "m2")
    }  # fmt: skip
    assert against(found | full) == []
    only = against(found | {"m2": full["m2"]})
    assert [text.split(":")[1] for text in only] == [" mysql.service starts the server at boot", " /data"]  # fmt: skip
    del full["m1"], found["m1"]
    assert len(against(found | full)) == 2, "nothing is known of the primary"


def test_what_it_has_in_common_with_the_primary_must_not_be() -> None:
    found = three()
    found["m2"] = running(found["m2"], server_id="1", port="3306")
    found["m2"] = booting(found["m2"], server_id="1")
    found["m3"] = replace(found["m3"], replicators=frozenset({"repl_m2", "repl_m3"}))
    assert [text.split(":")[0] for text in against(found)] == ["m1, m2 have the same server_id (1)"]
    assert against(found, "m3") == [
        "m3 has no account repl_m1 that may replicate (REPLICATION SLAVE): where the cluster is managed Holdfast makes "
        "it within seconds; by hand, here: SET sql_log_bin = 0; CREATE USER …; GRANT REPLICATION SLAVE ON *.* TO …"
    ]


def test_what_nobody_could_be_asked_of_may_be_answered_later() -> None:
    found = three()
    found["m3"] = replace(found["m3"], problem="it is starting")
    silent = {"m1": "no answer in time", "m2": "no answer in time"}
    del found["m1"], found["m2"]
    said = wrong("m1", found, silent)
    assert said["m2"] == (
        Objection("m2: cannot tell whether it may take over: no answer in time", True, "m2"),
    )
    assert "its server cannot be queried: it is starting" in said["m3"][0].text
    assert said["m3"][0].passes
    assert "m1" not in said


def test_another_one_takes_over_unless_it_was_named() -> None:
    bad = wrong("m1", statements(three(), "m2"), {})
    assert chosen(CLUSTER, RECORD, ALL_WELL, SwitchoverOrder(), bad) == "m3"
    assert objections(CLUSTER, RECORD, ALL_WELL, SwitchoverOrder(), wrong=bad) == ()
    named = objections(CLUSTER, RECORD, ALL_WELL, SwitchoverOrder("m2"), wrong=bad)
    assert [each.text for each in named] == [BY_STATEMENT]
    both = wrong("m1", statements(three(), "m2", "m3"), {})
    assert chosen(CLUSTER, RECORD, ALL_WELL, SwitchoverOrder(), both) == ""
    said = objections(CLUSTER, RECORD, ALL_WELL, SwitchoverOrder(), wrong=both)
    assert [each.candidate for each in said] == ["m2", "m3"]
    assert not may_pass(said)


def test_it_is_said_beside_what_else_stands_against_it() -> None:
    off = replace(replica("m2").replication, receiver=Receiver.CONNECTING)
    found = view(primary(), replica("m2", replication=off), replica("m3"))
    bad = wrong("m1", statements(three(), "m2"), {})
    said = objections(CLUSTER, RECORD, found, SwitchoverOrder("m2"), wrong=bad)
    assert [each.text for each in said] == ["m2: it receives nothing from m1", BY_STATEMENT]


def test_it_is_worth_waiting_while_one_candidate_may_yet_do() -> None:
    hopeless = Objection("m2: its applier is stopped", candidate="m2")
    lags = Objection("m3: its applier is 5000 transactions behind", True, "m3")
    long = Objection("transaction of connection 17", True)
    assert may_pass([long])
    assert may_pass([hopeless, lags, long])
    assert not may_pass([hopeless, replace(lags, passes=False)])
    assert not may_pass([replace(lags, candidate="m2"), hopeless])
    assert not may_pass([Objection("m1, the primary, is read-only"), lags])


def test_what_the_primary_leaves_out_of_its_binlog_nobody_else_has() -> None:
    found = three()
    found["m1"] = replace(
        found["m1"], boot=replace(found["m1"].boot, filters=("binlog_do_db=app",))
    )
    assert (
        "m1 leaves something out of its binary log (binlog_do_db=app): m2 lacks it"
        in (against(found)[0])
    )
    found = three()
    found["m2"] = replace(
        found["m2"], boot=replace(found["m2"].boot, filters=("replicate_do_db=app",))
    )
    assert "something is left out of replication (replicate_do_db=app)" in against(found)[0]
