"""When a primary is tested for whether it can commit, and what is reported of the result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.observe.write_probe import PAUSES, WRITE_SECONDS, Prober
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, Replication, SemiSync, ServerStatus
from holdfast.errors import Unreachable
from holdfast.server.base import Deadline
from holdfast.server.primary.probe import Activity, DiskFailed, WriteLocked
from tests.unit.hand_clock import HandClock

STEP = 0.25


class Server:
    """The prober's view of a server.

    :ivar busy: a session is at work; :ivar hangs: writes do not end; :ivar error: what they end with
    :ivar look_error: what a look ends with
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.busy = True
        self.attempts = 0
        self.hangs = False
        self.error: Exception | None = None
        self.look_error: Exception | None = None
        self.looks = 0
        self.writes: list[float] = []
        self.asked = threading.Event()
        self.goes_on = threading.Event()
        self.called_off = threading.Event()

    def activity(self, deadline: Deadline) -> Activity:
        self.looks += 1
        if self.look_error:
            raise self.look_error
        return Activity(self.attempts, frozenset({7} if self.busy else ()))

    def write(self, deadline: Deadline) -> bool:
        self.writes.append(self.now)
        self.asked.set()
        assert deadline.seconds == WRITE_SECONDS
        while self.hangs and not self.goes_on.wait(0.001):
            if deadline.cancelled():
                self.called_off.set()
                return False
        if self.error:
            raise self.error
        return True

    def close(self) -> None: ...


class Host:
    def __init__(self, folder: Path) -> None:
        self.server = Server()
        state = MemberState(
            "a",
            Flavor.MARIADB,
            server=ServerStatus.UP,
            incarnation="first",
            writable=True,
            applied="0-1-1",
            semi_sync=SemiSync(source=True, acks=1),
        )
        self.published = PublishedState(state, HandClock(lambda: self.server.now))
        self.prober = Prober(self.server, self.published, folder)

    def run(self, seconds: float) -> list[float]:
        """What is reported meanwhile."""
        told = []
        for _ in range(round(seconds / STEP)):
            self.server.now += STEP
            self.prober.step()
            write = self.prober._write
            if write is not None:
                assert self.server.asked.wait(5)
                if not self.server.hangs:
                    write._thread.join(5)  # one that does not hang ends at once
                    self.server.asked.clear()
            told.append(self.published.state.stuck_seconds)
        return told

    def commit(self) -> None:
        number = int(self.published.state.applied.rpartition("-")[2])
        self.published.change(applied=f"0-1-{number + 1}")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.server.hangs = False


def test_nothing_is_asked_and_nothing_written_while_commits_come_through(host: Host) -> None:
    for _ in range(40):
        host.commit()
        host.run(STEP)
    assert host.server.looks == 0
    assert host.server.writes == []


def test_a_lock_is_told_until_it_is_gone_and_says_nothing_about_the_disk(host: Host) -> None:
    host.server.error = WriteLocked("a session holds a lock")
    assert set(host.run(5)) == {0.0}
    assert 3 <= host.published.state.locked_seconds <= 5
    host.server.error = None
    host.run(1)
    assert host.published.state.locked_seconds == 0


def test_a_disk_that_fails_while_a_lock_is_held_is_noticed(host: Host) -> None:
    host.server.error = WriteLocked("a session holds a lock")
    host.run(5)
    host.server.hangs = True
    assert host.run(5)[-1] >= 3


def test_commits_that_come_through_show_that_there_is_no_lock(host: Host) -> None:
    host.server.error = WriteLocked("a session holds a lock")
    host.run(5)
    host.commit()
    host.run(STEP)
    assert host.published.state.locked_seconds == 0


def test_nothing_is_written_while_nobody_wants_to(host: Host) -> None:
    host.server.busy = False
    host.run(60)
    assert host.server.looks > 10
    assert host.server.writes == []


def test_a_write_that_somebody_tried_is_reason_enough(host: Host) -> None:
    host.server.busy = False
    host.run(3)
    host.server.attempts += 1
    host.run(1)
    assert len(host.server.writes) == 1


def test_a_long_query_is_not_accompanied_by_many_writes(host: Host) -> None:
    host.run(600)
    assert 20 < len(host.server.writes) < 30
    assert host.server.writes[-1] - host.server.writes[-2] <= PAUSES[1] + 1


def test_one_write_that_hangs_is_told_in_time_and_no_other_is_begun(host: Host) -> None:
    host.server.hangs = True
    told = host.run(8)
    assert len(host.server.writes) == 1
    assert told == sorted(told)
    since = host.server.now - host.server.writes[0]
    assert since - 0.5 <= told[-1] <= since
    assert told[-1] >= 5, "some 2 s after the last commit it is known"
    assert host.published.state.stuck == "the disk may not answer"
    host.server.goes_on.set()
    host.server.hangs = False
    assert host.run(0.5)[-1] == 0
    assert host.published.state.stuck == ""


def test_who_waits_for_voters_is_not_stuck(host: Host) -> None:
    host.published.change(semi_sync=SemiSync(source=True, acks=1, waiting=1))
    host.run(10)
    assert host.server.writes == []
    host.published.change(semi_sync=SemiSync(source=True, acks=1))
    host.server.hangs = True
    host.run(2)
    assert len(host.server.writes) == 1
    host.published.change(semi_sync=SemiSync(source=True, acks=1, waiting=2))
    assert set(host.run(10)[1:]) == {0}, "the write waits for voters as well"


def test_commits_of_others_prove_that_a_write_waits_for_something_else(host: Host) -> None:
    host.server.hangs = True
    host.run(3)
    for _ in range(40):
        host.commit()
        assert host.run(STEP) == [0]


def test_a_disk_that_answers_with_an_error_is_told_until_a_write_comes_through(host: Host) -> None:
    host.server.error = DiskFailed("error 1026: no space left")
    told = host.run(10)
    assert len(host.server.writes) > 8, "it is tried again and again"
    assert told[-1] >= 6
    assert host.published.state.stuck == "error 1026: no space left"
    host.server.error = None
    assert host.run(1)[-1] == 0


def test_no_room_is_told_without_a_write_and_though_nobody_tried(host: Host) -> None:
    host.server.busy = False
    host.published.change(full="no space is left in /data")
    told = host.run(7)
    assert host.server.writes == [], "it would hang, and is known not to come through"
    assert told[-1] >= 6, "and that is known at once"
    assert host.published.state.stuck == "no space is left in /data"
    host.published.change(full="")
    assert host.run(1)[-1] == 0


def test_no_room_and_commits_that_come_through_nevertheless(host: Host) -> None:
    host.published.change(full="no space is left in /data")
    for _ in range(40):
        host.commit()
        assert host.run(STEP) == [0]


def test_commits_that_wait_while_there_is_no_room_wait_for_room(host: Host) -> None:
    waits = SemiSync(source=True, acks=1, waiting=1)
    host.published.change(full="no space is left in /data", semi_sync=waits)
    assert host.run(7)[-1] >= 6


def test_a_look_that_needs_room_and_finds_none_is_reason_for_a_write(host: Host) -> None:
    host.server.look_error = DiskFailed("error 1021: disk full")
    host.server.hangs = True
    assert host.run(8)[-1] >= 5


def test_an_error_that_is_not_the_disks_says_nothing(host: Host) -> None:
    host.server.error = Unreachable("the connection was lost")
    assert set(host.run(20)) == {0}


@pytest.mark.parametrize(
    "change",
    [
        {"writable": False},
        {"busy": "restart"},
        {"busy": "promote"},
        {"replication": Replication(source="b:1")},
        {"server": ServerStatus.DOWN, "incarnation": ""},
    ],
    ids=str,
)
def test_only_an_open_primary_is_written_to(host: Host, change: dict[str, Any]) -> None:
    host.server.hangs = True
    assert host.run(6)[-1] > 0
    host.published.change(**change)
    assert host.run(5) == [0] * 20
    assert host.server.called_off.wait(5)
    assert len(host.server.writes) == 1


def test_a_server_that_is_silent_is_not_written_to(host: Host) -> None:
    host.published.change(silent_seconds=0.4)
    host.run(10)
    assert host.server.writes == []


def test_another_run_of_the_server_begins_anew(host: Host) -> None:
    host.server.hangs = True
    assert host.run(6)[-1] > 0
    host.published.change(incarnation="second", stuck_seconds=0.0)
    host.server.hangs = False
    assert set(host.run(5)) == {0}
    assert len(host.server.writes) > 1


def test_a_full_disk_is_named(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Full:
        f_flag, f_bavail = 0, 0

    monkeypatch.setattr("os.statvfs", lambda folder: Full)
    host.server.hangs = True
    host.run(6)
    assert host.published.state.stuck == f"no space is left in {tmp_path}"


def test_it_is_noted_for_how_long_commits_have_waited_for_voters(host: Host) -> None:
    def waits(**changes: Any) -> None:
        under = SemiSync(source=True, acks=1, clients=1)
        host.published.change(semi_sync=replace(under, **changes))

    waits()
    host.run(3)
    assert host.published.blocked() == 0.0
    waits(waiting=2)
    host.run(3)
    assert 2.5 <= host.published.blocked() <= 3.0
    host.published.change(applied="0-1-2")
    host.run(STEP)
    assert host.published.blocked() == 0.0
    waits(clients=0)  # no client writes, and a commit would wait
    host.run(2)
    assert 1.5 <= host.published.blocked() <= 2.0
    host.published.change(writable=False)
    host.run(STEP)
    assert host.published.blocked() == 0.0
