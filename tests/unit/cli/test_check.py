"""The exit status of ``holdfast check``, and its output for operators."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.cli.show.check import exit_code, print_report


def report(*levels: str, unanswered: str = "") -> dict[str, Any]:
    findings = [{"key": f"k-{e}", "level": e, "text": "is so", "mend": "mend it"} for e in levels]
    return {
        "cluster": "c",
        "members": [
            {"member": "m1", "findings": findings, "unanswered": ""},
            {"member": "m2", "findings": [], "unanswered": unanswered},
        ],
    }


@pytest.mark.parametrize(
    ("levels", "unanswered", "strict", "code"),
    [
        (["ok"], "", True, 0),
        (["ok", "note", "warning"], "", False, 0),
        (["ok", "note"], "", True, 0),
        (["warning"], "", True, 1),
        (["wrong"], "", False, 1),
        (["ok"], "no answer", False, 3),
        (["wrong"], "no answer", False, 1),
    ],
)
def test_exit_status(levels: list[str], unanswered: str, strict: bool, code: int) -> None:
    assert exit_code(report(*levels, unanswered=unanswered), strict) == code


def test_what_is_worst_comes_first_with_its_mend(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report("ok", "note", "wrong", unanswered="connection refused"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "m1"
    assert lines[1].split() == ["wrong", "k-wrong:", "is", "so"]
    assert lines[2].strip() == "-> mend it"
    assert lines[3].split()[0] == "note"
    assert lines[5].split() == ["right", "k-ok"]
    assert "does not answer: connection refused" in lines[7]


def test_what_is_right_in_one_way_and_wrong_in_another_is_not_called_right(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = report("ok", "wrong")
    for each in shown["members"][0]["findings"]:
        each["key"] = "binlog"
    print_report(shown)
    assert "right" not in capsys.readouterr().out
