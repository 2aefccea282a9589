"""What every store guarantees, tested with a SQLite file and with a real etcd."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event

import pytest

from holdfast.core.history.entry import LARGEST_BYTES
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.errors import Conflict, Refused
from holdfast.store.base import (
    ENTRIES_KEPT,
    LeadershipCandidate,
    Store,
    Stored,
    StoredEntry,
    StoredSettings,
)
from holdfast.store.etcd import EtcdStore
from holdfast.store.gateway import Etcd, Gateway
from holdfast.store.session import BELIEF_SECONDS, LEASE_SECONDS
from holdfast.store.sqlite import SqliteStore
from holdfast.store.wording import put
from tests.integration import etcd as real

RECORD = Record(1, "m1", 1, (Configuration(frozenset({("m1", "a")}), 0),), 1)
A, B = (
    LeadershipCandidate("a", "http://a:7400", "h1"),
    LeadershipCandidate("b", "http://b:7400", "h2"),
)

Open = Callable[[], Store]
Where = Path | Etcd


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.EtcdCluster]:
    made = real.make(tmp_path_factory.mktemp("etcd"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(params=["sqlite", "etcd"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """An unused store."""
    if request.param == "sqlite":
        return tmp_path / "store.db"
    made: real.EtcdCluster = request.getfixturevalue("node")
    return made.fresh()


def opened(where: Where) -> Store:
    return SqliteStore(where) if isinstance(where, Path) else EtcdStore(where)


@pytest.fixture
def open_store(where: Where) -> Iterator[Open]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(opened(where)))


def test_a_record_is_kept_and_another_manager_reads_it(open_store: Open) -> None:
    store, another = open_store(), open_store()
    assert store.load("c") == Stored(None, 0)
    with store.lead("c", A):
        assert store.replace("c", RECORD, 0) == 1
        assert store.replace("c", replace(RECORD, term=2), 1) == 2
    assert another.load("c") == Stored(replace(RECORD, term=2), 2)
    assert another.load("d") == Stored(None, 0)


@pytest.mark.parametrize("expected", [0, 2, 9])
def test_a_record_that_another_has_changed_is_not_replaced(open_store: Open, expected: int) -> None:
    store = open_store()
    with store.lead("c", A):
        store.replace("c", RECORD, 0)
        with pytest.raises(Conflict):
            store.replace("c", replace(RECORD, term=5), expected)
    assert store.load("c") == Stored(RECORD, 1)


def test_settings_are_kept_apart_from_the_record_and_changed_by_whoever_may(
    open_store: Open,
) -> None:
    store, another = open_store(), open_store()
    assert store.settings("c") == StoredSettings({}, 0)
    assert store.replace_settings("c", {"settings": {"mode": "async"}}, 0) == 1
    with store.lead("c", A):
        store.replace("c", RECORD, 0)
        assert another.replace_settings("c", {"a": "ü"}, 1) == 2
        for expected in (0, 1, 9):
            with pytest.raises(Conflict, match="settings of c"):
                store.replace_settings("c", {}, expected)
    assert store.settings("c") == StoredSettings({"a": "ü"}, 2)
    assert another.settings("d") == StoredSettings({}, 0)
    assert another.load("c") == Stored(RECORD, 1)


def test_entries_of_the_history_are_kept_by_number_and_changed_by_whoever_may(
    open_store: Open,
) -> None:
    store, another = open_store(), open_store()
    assert store.entries("c", 9) == ()
    assert store.entry("c", 1) is None
    assert store.write_entry("c", 1, "one", 0) == 1
    assert another.write_entry("c", 1, "ünö", 1) == 2
    assert another.write_entry("c", 2, "two", 0) == 1
    for number, expected in ((1, 0), (1, 1), (2, 0), (2, 9), (3, 1)):
        with pytest.raises(Conflict, match="history"):
            store.write_entry("c", number, "late", expected)
    assert store.entry("c", 1) == StoredEntry(1, "ünö", 2)
    assert store.entries("c", 9) == (StoredEntry(2, "two", 1), StoredEntry(1, "ünö", 2))
    assert store.entries("c", 1) == (StoredEntry(2, "two", 1),)
    assert store.entries("d", 9) == ()
    assert store.load("c") == Stored(None, 0)


def test_only_the_last_entries_are_kept_and_the_newest_come_first(open_store: Open) -> None:
    store = open_store()
    newest = ENTRIES_KEPT + 3
    store.write_entry("d", 1, "another cluster's", 0)
    for number in (1, 2, 3, 4, 5, 50, newest - 1, newest):
        assert store.write_entry("c", number, f"entry {number}", 0) == 1
    assert [each.number for each in store.entries("c", 99)] == [newest, newest - 1, 50, 5, 4]
    assert store.write_entry("c", 4, "completed later", 1) == 2
    assert store.entry("c", 4) == StoredEntry(4, "completed later", 2)
    assert store.entry("c", 3) is None
    with pytest.raises(Conflict):
        store.write_entry("c", 3, "of an entry that has gone", 1)
    assert store.entries("d", 9) == (StoredEntry(1, "another cluster's", 1),)


def test_many_large_entries_are_read_in_one_go(open_store: Open) -> None:
    store = open_store()
    for number in range(1, 46):
        store.write_entry("c", number, f"{number:02}" + "x" * LARGEST_BYTES, 0)
    found = store.entries("c", ENTRIES_KEPT)
    assert [int(each.body[:2]) for each in found] == list(range(45, 0, -1))


def test_one_leads_a_cluster_at_a_time_and_hands_it_on_at_once(open_store: Open) -> None:
    store, another = open_store(), open_store()
    assert store.leader("c") is None
    with store.lead("c", A) as first:
        assert first
        assert first.until > time.monotonic()
        with another.lead("c", B) as second, another.lead("d", B) as elsewhere:
            assert second is None
            assert elsewhere
        assert store.leader("c") == another.leader("c") == A
        assert A in another.candidates("c")
    with another.lead("c", B) as later:
        assert later
        assert later.alone_from < time.monotonic()
        assert store.leader("c") == B
    assert store.leader("c") is None


def test_one_manager_leads_the_same_cluster_again_and_again(open_store: Open) -> None:
    store = open_store()
    for version in range(4):
        with store.lead("c", A) as led:
            assert led
            assert store.replace("c", replace(RECORD, term=version + 1), version) == version + 1


def test_asking_who_leads_keeps_nobody_from_leading(open_store: Open) -> None:
    store, another = open_store(), open_store()
    stop = Event()

    def ask() -> int:
        asked = 0
        while not stop.is_set():
            another.leader("c")
            asked += 1
        return asked

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        for _ in range(30):
            with store.lead("c", A) as led:
                assert led
        stop.set()
        assert asking.result() > 0


def _lead_in_process(where: Where, tell: Connection) -> None:
    """Lead, and write the record whenever ordered to, reporting the result."""
    with closing(opened(where)) as store, store.lead("c", A) as led:
        tell.send(led is not None)
        while True:
            term, version = tell.recv()
            until = led.until if led else 0.0
            try:
                store.replace("c", replace(RECORD, term=term), version)
                tell.send(("done", until))
            except Conflict as error:
                tell.send((type(error).__name__, until))


@pytest.fixture
def leading_process(where: Where) -> Iterator[tuple[int, Connection]]:
    """A process that leads, and a pipe to have it write."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_lead_in_process, args=(where, theirs), daemon=True)
    process.start()
    assert process.pid
    assert ours.poll(30)
    assert ours.recv() is True
    yield process.pid, ours
    process.kill()
    process.join()
    ours.close()
    theirs.close()


@contextmanager
def gained(store: Store, seconds: float) -> Iterator[float]:
    """Campaign until it leads; yields after how long."""
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        with store.lead("c", B) as led:
            if led:
                yield time.monotonic() - begun
                return
        time.sleep(0.02)
    raise AssertionError("nobody could lead")


def test_a_leading_process_that_is_killed_makes_room(
    leading_process: tuple[int, Connection], open_store: Open
) -> None:
    pid, tell = leading_process
    store = open_store()
    tell.send((1, 0))
    assert tell.recv()[0] == "done"
    os.kill(pid, signal.SIGKILL)
    with gained(store, 5) as seconds:
        assert seconds < LEASE_SECONDS + 1.0
        assert store.leader("c") == B
        assert store.replace("c", replace(RECORD, term=2), 1) == 2


@pytest.mark.parametrize("where", ["etcd"], indirect=True)
def test_a_leading_process_that_was_stopped_wakes_up_and_is_refused(
    leading_process: tuple[int, Connection], open_store: Open
) -> None:
    pid, tell = leading_process
    tell.send((1, 0))
    assert tell.recv()[0] == "done"
    os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    store = open_store()
    with gained(store, 5):
        assert store.replace("c", replace(RECORD, term=2), 1) == 2
    tell.send((9, 2))
    os.kill(pid, signal.SIGCONT)
    outcome, until = tell.recv()
    assert outcome == "Deposed"
    # all processes of a machine have the same clock
    assert until < stopped + BELIEF_SECONDS
    assert store.load("c") == Stored(replace(RECORD, term=2), 2)


def test_who_takes_what_was_not_handed_on_knows_until_when_the_other_believed(
    node: real.EtcdCluster,
) -> None:
    where = node.fresh()
    with closing(EtcdStore(where)) as store, closing(EtcdStore(where)) as another:
        lost = Event()
        with store.lead("c", A, lost.set) as first:
            assert first
            # as etcd does when its leading member was stopped, and revokes what was renewed meanwhile
            raw(where, "kv/deleterange", key(where, "c/leader"))
            with another.lead("c", B) as second:
                assert second
                believed = first.until
                assert believed <= second.alone_from < math.inf
                with pytest.raises(Conflict):
                    store.replace("c", RECORD, 0)
                assert lost.wait(1.0)
                assert first.until < time.monotonic()
                assert another.replace("c", RECORD, 0) == 1
                with pytest.raises(Conflict, match="does not lead c any more"):
                    store.replace("c", RECORD, 1)
            assert another.leader("c") is None


def test_etcd_itself_refuses_a_manager_that_does_not_know_yet_that_it_was_deposed(
    node: real.EtcdCluster,
) -> None:
    where = node.fresh()
    with closing(EtcdStore(where)) as store, store.lead("c", A) as led:
        assert store.replace("c", RECORD, 0) == 1
        raw(where, "kv/deleterange", key(where, "c/leader"))
        assert led
        assert led.until > time.monotonic()
        with pytest.raises(Conflict, match="does not lead c any more"):
            store.replace("c", replace(RECORD, term=2), 1)
        assert store.load("c") == Stored(RECORD, 1)


def test_the_leadership_goes_on_for_as_long_as_it_is_held(node: real.EtcdCluster) -> None:
    lost = Event()
    with closing(EtcdStore(node.fresh())) as store, store.lead("c", A, lost.set) as led:
        assert led
        end = time.monotonic() + 1.5 * LEASE_SECONDS
        while time.monotonic() < end:
            assert led.until > time.monotonic()
            time.sleep(0.02)
        assert store.replace("c", RECORD, 0) == 1
    assert not lost.is_set()


def test_a_watch_tells_of_the_record_the_settings_and_who_leads(node: real.EtcdCluster) -> None:
    where = node.fresh()
    told = Event()

    def is_told(within: float = 1.0) -> bool:
        if not told.wait(within):
            return False
        time.sleep(0.05)
        told.clear()
        return True

    with (
        closing(EtcdStore(where)) as store,
        closing(EtcdStore(where)) as another,
        store.watch("c", told.set),
    ):
        assert is_told(3.0), "something may have been missed before"
        with another.lead("c", B):
            assert is_told()
            another.replace("c", RECORD, 0)
            assert is_told()
            another.replace_settings("c", {}, 0)
            assert is_told()
            another.replace_settings("d", {}, 0)
            assert not is_told(0.2)
            another.write_entry("c", 1, "{}", 0)
            assert not is_told(0.2), "nobody waits for the history"
        assert is_told()


@pytest.mark.parametrize("value", ["{", "[]", "3", '{"term": 1}'])
def test_what_cannot_be_read_is_refused_and_says_what_to_do(
    node: real.EtcdCluster, value: str
) -> None:
    where = node.fresh()
    put_raw(where, "c/record", value)
    put_raw(where, "d/settings", value if value != '{"term": 1}' else "{")
    with closing(EtcdStore(where)) as store:
        with pytest.raises(Refused, match=r"c/record in etcd cannot be read .* etcdctl"):
            store.load("c")
        with pytest.raises(Refused, match=r"d/settings in etcd cannot be read .* etcdctl"):
            store.settings("d")


def test_a_record_of_a_later_version_is_refused_and_says_what_to_do(
    node: real.EtcdCluster,
) -> None:
    where = node.fresh()
    put_raw(where, "c/record", '{"format": 99}')
    with (
        closing(EtcdStore(where)) as store,
        pytest.raises(
            Refused, match=r"c/record in etcd .* has format 99, .* install a later version"
        ),
    ):
        store.load("c")


def test_a_leader_of_another_version_has_a_name_all_the_same(node: real.EtcdCluster) -> None:
    where = node.fresh()
    put_raw(where, "c/leader", json.dumps({"name": "x", "colour": "red"}))
    with closing(EtcdStore(where)) as store:
        assert store.leader("c") == LeadershipCandidate("leader")
        with store.lead("c", A) as led:
            assert led is None


def test_two_managers_of_one_name_do_not_take_each_other_for_themselves(
    node: real.EtcdCluster,
) -> None:
    where = node.fresh()
    with closing(EtcdStore(where)) as store, closing(EtcdStore(where)) as namesake:
        with store.lead("c", A):
            pass
        twin = replace(A, url="http://elsewhere:7400")
        with pytest.raises(Refused, match="another manager is named a, too"):
            namesake.lead("c", twin).__enter__()
        with namesake.lead("c", A) as again:
            assert again, "it was started anew"


def raw(where: Etcd, method: str, body: dict[str, object]) -> None:
    with closing(Gateway(where)) as gateway:
        gateway.ask(method, body)


def key(where: Etcd, name: str) -> dict[str, object]:
    return {"key": put(where.prefix + name, "")["key"]}


def put_raw(where: Etcd, name: str, value: str) -> None:
    raw(where, "kv/put", put(where.prefix + name, value))
