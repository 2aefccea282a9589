"""Entries are written to the store, where other managers write, too."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.core.history.entry import (
    Entry,
)
from holdfast.errors import Conflict, Refused
from holdfast.manager.listeners.archive import Archive, Put
from holdfast.store.base import ENTRIES_KEPT, StoredEntry
from holdfast.store.sqlite import SqliteStore
from tests.unit.core.history.test_entry import ENTRY


def test_entries_get_the_next_number_and_only_the_last_are_kept(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        archive = Archive(store, "c")
        for number in range(1, ENTRIES_KEPT + 3):
            entry = replace(ENTRY, begun=float(number))
            assert archive.put(entry, 0) == Put(number, 1)
        found = archive.newest(ENTRIES_KEPT)
        assert len(found) == ENTRIES_KEPT
        assert found[-1][0].number == 3
        assert archive.get(2) is None


def test_an_entry_whose_answer_was_lost_is_not_written_twice(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        archive = Archive(store, "c")
        assert archive.put(ENTRY, 0) == Put(1, 1)
        later = replace(ENTRY, why="later")
        assert archive.put(later, 0) == Put(1, 2), "as if nobody knew of the first"
        numbered = replace(later, number=1)
        assert archive.put(replace(numbered, why="latest"), 1) == Put(1, 3)
        assert len(archive.newest(9)) == 1


def test_an_entry_that_another_manager_goes_on_with_is_left_to_it(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        archive = Archive(store, "c")
        mine = replace(ENTRY, managers=("mgr1",), number=1)
        archive.put(mine, 0)
        archive.put(replace(mine, managers=("mgr1", "mgr2")), 1)
        with pytest.raises(Conflict):
            archive.put(replace(mine, why="late"), 1)


def test_of_two_managers_that_write_of_the_same_at_once_there_is_one_entry(tmp_path: Path) -> None:
    first = replace(ENTRY, managers=("mgr1",))
    second = replace(ENTRY, managers=("mgr2",), term=8, begun=1001.0, cause="not known")
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        assert Archive(store, "c").put(first, 0) == Put(1, 1)
        late = Archive(store, "c").put(second, 0, taken_over=True)
        assert late == Put(1, 1, replace(first, number=1))
        assert Archive(store, "c").put(second, 0) == Put(2, 1), "another one, which it began itself"
        assert Archive(store, "d").put(second, 0, taken_over=True) == Put(1, 1)
        with pytest.raises(Conflict):
            Archive(store, "d").put(first, 0)


def test_an_entry_that_cannot_be_read_is_listed_and_refused(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "s.db")) as store:
        archive = Archive(store, "c")
        store.write_entry("c", 1, '{"format": 2}', 0)
        assert archive.put(ENTRY, 0) == Put(2, 1)
        (_, entry), (stored, reason) = archive.newest(9)
        assert isinstance(entry, Entry)
        assert stored == StoredEntry(1, '{"format": 2}', 1)
        assert isinstance(reason, str)
        with pytest.raises(Refused, match=re.escape("entry 1 of the history of c cannot be read")):
            archive.get(1)
