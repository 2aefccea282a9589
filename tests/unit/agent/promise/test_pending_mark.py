"""A mark by which a binlog may be cut counts only if all of it can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.promise.pending_mark import PendingMark, RunMark
from holdfast.binlog.files.run import Began
from holdfast.core.observed.tally import Tally

WRITTEN: dict[str, Any] = {
    "incarnation": "a",
    "began": {"file": "binlog.000007", "created": 1700000000},
    "acks": 1,
    "tally": {"acknowledged": 41, "let_through": 0, "switched_off": 2},
    "let_through": "",
    "unacknowledged": 3,
}
"""As the version before this one wrote it."""


def read(folder: Path, written: object) -> RunMark | None:
    path = folder / "pending"
    path.write_text(json.dumps(written))
    return PendingMark(path, folder / "binlog.index", lambda _: None).mark


def test_what_the_version_before_wrote_is_read(tmp_path: Path) -> None:
    began = Began("binlog.000007", 1700000000)
    assert read(tmp_path, WRITTEN) == RunMark("a", began, 1, Tally(41, 0, 2), "", 3)
    bare = {**WRITTEN, "began": None, "tally": None, "of": "a later version"}
    assert read(tmp_path, bare) == RunMark("a", None, 1, None, "", 3)


@pytest.mark.parametrize("key", WRITTEN)
def test_a_mark_that_lacks_anything_is_none(tmp_path: Path, key: str) -> None:
    assert read(tmp_path, {k: value for k, value in WRITTEN.items() if k != key}) is None


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        None,
        {**WRITTEN, "acks": None},
        {**WRITTEN, "began": {"file": "binlog.000007"}},
        {**WRITTEN, "tally": {"acknowledged": "many"}},
        {**WRITTEN, "let_through": None},
    ],
)
def test_a_damaged_mark_is_none(tmp_path: Path, wrong: object) -> None:
    assert read(tmp_path, wrong) is None
