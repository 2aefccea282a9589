"""Whether members accept each other's logins, and whether agents have the same administrator."""

from __future__ import annotations

from holdfast.core.check.findings import Level
from holdfast.core.check.reaching import barred_pairs, check_logins, refusals
from tests.unit.looks import CLUSTER, primary, replica, view

REACHED = {("m2", "m1"): "m1 does not let repl_m2 in", ("m3", "m1"): ""}


def test_one_that_is_not_let_in_is_wrong_and_the_mend_does_not_go_through_the_binlog() -> None:
    [finding] = check_logins(REACHED, (), {})
    assert (finding.key, finding.level) == ("logins", Level.WRONG)
    assert "from the host of m2" in finding.text
    assert "sql_log_bin = 0" in finding.mend


def test_one_that_holdfast_has_barred_is_no_finding() -> None:
    sees = view(primary(barred=("repl_m2",)), replica("m2"), replica("m3"))
    barred = barred_pairs(CLUSTER, sees)
    assert barred == {("m2", "m1")}
    assert refusals(REACHED, barred) == {}
    assert [each.level for each in check_logins(REACHED, barred, {})] == [Level.OK]


def test_agents_that_have_different_administrators_are_wrong() -> None:
    same = check_logins({}, (), {"m1": "a", "m2": "a"})
    assert [each.level for each in same] == [Level.OK]
    [finding] = check_logins({}, (), {"m1": "a", "m2": "b", "m3": "a"})
    assert (finding.key, finding.level) == ("administrators", Level.WRONG)
    assert "m1, m3; m2" in finding.text
