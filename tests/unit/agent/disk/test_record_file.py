"""The two files of the record: whatever tears one, the other holds what was remembered before."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.agent.disk.record_file import RecordFile

TEXTS = ["the first, which is the longest of all", "second", "a third"]


def kept(folder: Path) -> str:
    return RecordFile(folder).text


def test_what_was_written_last_is_found_also_where_it_is_shorter(tmp_path: Path) -> None:
    assert kept(tmp_path) == ""
    file = RecordFile(tmp_path)
    for text in [*TEXTS, *reversed(TEXTS), "ä" * 20_000, ""]:
        file.write(text)
        assert file.text == text == kept(tmp_path)
        file = RecordFile(tmp_path)
    file.sync()


@pytest.mark.parametrize("before", [0, 1, 2])
def test_one_that_is_torn_counts_as_none(before: int, tmp_path: Path) -> None:
    """In place: the beginning of the new one, then what was there."""
    file = RecordFile(tmp_path)
    former = dict.fromkeys((tmp_path / "record.0", tmp_path / "record.1"), b"")
    for text in TEXTS[: before + 1]:
        former = {path: path.read_bytes() if path.exists() else b"" for path in former}
        file.write(text)
    after = {path: path.read_bytes() for path in former if path.exists()}
    (torn,) = [path for path in after if after[path] != former[path]]
    was = TEXTS[before - 1] if before else ""
    for end in range(len(TEXTS[before])):
        torn.write_bytes(after[torn][:end] + former[torn][end:])
        assert kept(tmp_path) == was
        torn.write_bytes(after[torn][:end])
        assert kept(tmp_path) == was
        again = RecordFile(tmp_path)
        again.write("anew")
        assert kept(tmp_path) == "anew"
        for path in former:
            path.unlink(missing_ok=True)
        for path, data in after.items():
            path.write_bytes(data)
    torn.write_bytes(after[torn].replace(TEXTS[before][:4].encode(), b"????"))
    assert kept(tmp_path) == was


def test_where_it_cannot_be_written_what_was_written_before_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RecordFile(tmp_path)
    file.write(TEXTS[0])
    written = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return written(fd, data[: len(data) // 2])

    for _ in range(3):
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space"):
                file.write(TEXTS[1])
        assert file.text == kept(tmp_path) == TEXTS[0]
    file.write(TEXTS[1])
    assert file.text == kept(tmp_path) == TEXTS[1]


def test_at_any_moment_one_of_both_has_come_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def named(what: str, real: Callable[..., object]) -> object:
        def call(fd: int, *rest: bytes) -> object:
            path = os.readlink(f"/proc/self/fd/{fd}")
            calls.append(f"{what} {Path(path).name}")
            return real(fd, *rest)

        return call

    for what in ("write", "fdatasync", "fsync"):
        monkeypatch.setattr(os, what, named(what, getattr(os, what)))
    file = RecordFile(tmp_path)
    for text in TEXTS:
        file.write(text)
    file.sync()
    file.sync()
    made = f"fsync {tmp_path.name}"
    assert calls == [
        *("write record.1", "fdatasync record.1", made),
        *("write record.0", "fdatasync record.0", made),
        *("write record.1", "fdatasync record.1"),
    ]
