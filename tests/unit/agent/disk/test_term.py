"""A promise survives everything, and a damaged one is never taken for none."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.agent.disk.term import TermFile
from holdfast.errors import Fatal, Refused


def test_a_new_agent_has_promised_nothing(tmp_path: Path) -> None:
    assert TermFile(tmp_path).promised == 0
    assert not list(tmp_path.iterdir())


def test_a_promise_is_found_again(tmp_path: Path) -> None:
    TermFile(tmp_path).raise_to(7)
    again = TermFile(tmp_path)
    assert again.promised == 7
    again.raise_to(1234567890123)
    assert TermFile(tmp_path).promised == 1234567890123
    assert [path.name for path in tmp_path.iterdir()] == ["term"]


def test_it_never_goes_back(tmp_path: Path) -> None:
    term = TermFile(tmp_path)
    term.raise_to(7)
    term.raise_to(3)
    assert term.promised == TermFile(tmp_path).promised == 7


@pytest.mark.parametrize(
    "damaged", [b"", b"term 12", b"12\n", b"\0" * 8, b"term -1\n", b"term 7\nterm 8\n", b"\xff\n"]
)
def test_a_damaged_file_stops_the_agent(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "term").write_bytes(damaged)
    with pytest.raises(Fatal, match="is damaged"):
        TermFile(tmp_path)


def test_a_file_that_cannot_be_read_stops_the_agent(tmp_path: Path) -> None:
    (tmp_path / "term").mkdir()
    with pytest.raises(Fatal, match="cannot read the promised term"):
        TermFile(tmp_path)


def test_on_a_full_disk_the_old_promise_stays(tmp_path: Path) -> None:
    term = TermFile(tmp_path)
    term.raise_to(7)
    (tmp_path / ".term.part").symlink_to("/dev/full")
    with pytest.raises(Refused, match=r"cannot write term 8.*No space left"):
        term.raise_to(8)
    assert term.promised == TermFile(tmp_path).promised == 7
    term.raise_to(8)
    assert TermFile(tmp_path).promised == 8
