"""The SQLite store: compare-and-set, one leader, readable errors; the integration tests have what every store
guarantees."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.errors import Conflict, Fatal, OutcomeUnknown, Refused
from holdfast.store.base import LeadershipCandidate, Stored, StoredSettings
from holdfast.store.sqlite import SqliteStore

RECORD = Record(1, "m1", 1, (Configuration(frozenset({("m1", "a")}), 0),), 1)

A, B = (
    LeadershipCandidate("a", "http://a:7400"),
    LeadershipCandidate("a longer name", "http://b:7400", "h"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as opened:
        yield opened


def test_a_record_is_kept(store: SqliteStore, path: Path) -> None:
    assert store.load("c") == Stored(None, 0)
    assert store.replace("c", RECORD, 0) == 1
    assert store.replace("c", replace(RECORD, term=2), 1) == 2
    with closing(SqliteStore(path)) as another:
        assert another.load("c") == Stored(replace(RECORD, term=2), 2)
        assert another.load("d") == Stored(None, 0)


@pytest.mark.parametrize("expected", [0, 2, 9])
def test_a_record_that_another_has_changed_is_not_replaced(
    store: SqliteStore, expected: int
) -> None:
    store.replace("c", RECORD, 0)
    with pytest.raises(Conflict):
        store.replace("c", replace(RECORD, term=5), expected)
    assert store.load("c") == Stored(RECORD, 1)


def test_one_leads_a_cluster_at_a_time_and_others_see_who(store: SqliteStore, path: Path) -> None:
    with closing(SqliteStore(path)) as another:
        with store.lead("c", A) as first:
            assert first
            assert first.until == math.inf
            with another.lead("c", B) as second, another.lead("d", B) as elsewhere:
                assert second is None
                assert elsewhere
            assert another.leader("c") == A
        assert another.leader("c") is None
        with another.lead("c", B) as later:
            assert later
            assert store.leader("c") == B


def test_a_record_that_cannot_be_read_is_refused(store: SqliteStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("insert into record values ('c', 3, '{\"term\": 1}')")
    with pytest.raises(Refused, match=r"the record of c in .* cannot be read"):
        store.load("c")


def test_a_record_of_a_later_version_is_refused_and_says_what_to_do(
    store: SqliteStore, path: Path
) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("insert into record values ('c', 3, '{\"format\": 99}')")
    with pytest.raises(
        Refused, match=r"record of c in .* has format 99, .* install a later version"
    ) as refused:
        store.load("c")
    assert "from a copy" not in str(refused.value)


def test_a_file_that_is_no_store(path: Path) -> None:
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(Fatal, match="store: cannot use"):
        SqliteStore(path)


def test_settings_are_kept_apart_from_the_record(store: SqliteStore, path: Path) -> None:
    assert store.settings("c") == StoredSettings({}, 0)
    assert store.replace_settings("c", {"settings": {"mode": "async"}}, 0) == 1
    assert store.replace("c", RECORD, 0) == 1
    assert store.replace_settings("c", {"settings": {"ack_patience": 0.5}}, 1) == 2
    with closing(SqliteStore(path)) as another:
        assert another.settings("c") == StoredSettings({"settings": {"ack_patience": 0.5}}, 2)
        assert another.settings("d") == StoredSettings({}, 0)
        assert another.load("c") == Stored(RECORD, 1)


@pytest.mark.parametrize("expected", [0, 2, 9])
def test_settings_that_another_has_changed_are_not_replaced(
    store: SqliteStore, expected: int
) -> None:
    store.replace_settings("c", {"a": 1}, 0)
    with pytest.raises(Conflict, match="settings of c"):
        store.replace_settings("c", {"a": 2}, expected)
    assert store.settings("c") == StoredSettings({"a": 1}, 1)


def test_a_store_from_before_there_were_settings_opens(path: Path) -> None:
    with closing(SqliteStore(path)) as first:
        first.replace("c", RECORD, 0)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("drop table settings")
    with closing(SqliteStore(path)) as later:
        assert later.load("c") == Stored(RECORD, 1)
        assert later.settings("c").version == 0
        assert later.replace_settings("c", {}, 0) == 1


@pytest.mark.parametrize("body", ["{", "[]", "3"])
def test_settings_that_cannot_be_read_are_refused(
    store: SqliteStore, path: Path, body: str
) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("insert into settings values ('c', 3, ?)", (body,))
    with pytest.raises(Refused, match=r"the settings of c in .* cannot be read"):
        store.settings("c")


def test_a_history_that_cannot_be_kept_stops_nobody(path: Path) -> None:
    path.with_name("store.db.history").write_text("no database " * 100)
    with closing(SqliteStore(path)) as store:
        assert store.replace("c", RECORD, 0) == 1
        with pytest.raises(Refused, match=r"the history of c in .*store\.db\.history: file is not"):
            store.entries("c", 1)
        with pytest.raises(OutcomeUnknown, match="the history of c"):
            store.write_entry("c", 1, "{}", 0)


def test_a_write_of_the_record_does_not_wait_for_the_history(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.write_entry("c", 1, "{}", 0)
        with closing(sqlite3.connect(path.with_name("store.db.history"))) as other:
            other.execute("begin exclusive")
            begun = time.monotonic()
            assert store.replace("c", RECORD, 0) == 1
            assert time.monotonic() - begun < 1.0


def test_a_store_that_was_closed_keeps_no_history(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    with pytest.raises(Refused, match="it is closed"):
        store.entries("c", 1)


def test_a_store_that_is_closed_while_another_thread_writes_refuses_it(tmp_path: Path) -> None:
    for number in range(20):
        store = SqliteStore(tmp_path / f"store{number}")
        refused: list[str] = []
        begun = threading.Event()

        def write(store: SqliteStore = store, begun: threading.Event = begun) -> None:
            version = 0
            while True:
                version = store.replace_settings("c", {"a": version}, version)
                begun.set()

        def until_closed(write: Callable[[], None] = write, told: list[str] = refused) -> None:
            with pytest.raises(OutcomeUnknown) as found:
                write()
            told.append(str(found.value))

        thread = threading.Thread(target=until_closed)
        thread.start()
        assert begun.wait(10)
        store.close()
        thread.join(10)
        assert "closed" in refused[0]
