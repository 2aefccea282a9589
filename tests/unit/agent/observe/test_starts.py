"""A server that does not come up: how often it is started again, what is reported, and when it must be cloned."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.agent.observe.starts import LONGEST_PAUSE, SOON_SECONDS, Failure, Starts
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.check.unusable import unusable
from holdfast.core.commands import Start
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, ServerStatus
from holdfast.errors import Refused
from tests.unit.agent_world import World
from tests.unit.hand_clock import HandClock

TYPO = Failure(False, 0.2, 7, "exit status 7", "unknown variable 'typo=1'", ("unknown variable",))
REDO = "Server was killed when InnoDB redo logging was disabled. Data files could be corrupt."
DAMAGED = replace(TYPO, said=REDO, errors=(REDO, "Plugin initialization aborted"))


class Host:
    def __init__(self) -> None:
        self.now = 100.0
        self.booted_with = "a"
        self.unfit: list[str] = []
        self.published = PublishedState(
            MemberState("m1", Flavor.MYSQL), HandClock(lambda: self.now)
        )
        self.starts = Starts(self.published, lambda: self.booted_with, self.unfit.append)

    def pauses(self, failure: Failure, count: int) -> list[float]:
        """How long it is not started after each of so many failures."""
        found = []
        for _ in range(count):
            self.starts.failed(failure)
            begun = self.now
            while self.resting():
                self.now += 0.5
            found.append(self.now - begun)
        return found

    def resting(self) -> bool:
        why = self.published.state.start_failed
        try:
            self.starts.before_start()
        except Refused as refused:
            return str(refused) == why
        return False


def test_it_is_started_again_at_once_and_then_ever_more_rarely() -> None:
    host = Host()
    assert host.pauses(TYPO, 8) == [0, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE]
    assert (
        "its server does not start: unknown variable 'typo=1'" in host.published.state.start_failed
    )


def test_what_is_said_of_it_stays_the_same_from_the_second_time_on() -> None:
    host = Host()
    host.pauses(TYPO, 2)
    said = host.published.state.start_failed
    host.pauses(TYPO, 3)
    assert host.published.state.start_failed == said


def test_what_it_boots_with_was_changed_so_it_is_started_at_once() -> None:
    host = Host()
    host.pauses(TYPO, 3)
    host.starts.failed(TYPO)
    assert host.resting()
    host.booted_with = "b"
    host.starts.look_again()
    assert not host.published.state.resting
    assert not host.resting()


def test_there_is_room_again_so_it_is_started_at_once() -> None:
    host = Host()
    host.pauses(TYPO, 3)
    host.starts.failed(TYPO)
    host.starts.at_once()
    assert not host.resting()
    assert not host.published.state.start_failed


def test_one_that_was_killed_when_it_was_up_is_none_that_does_not_start() -> None:
    host = Host()
    for status in (-signal.SIGKILL, -signal.SIGTERM, 0, None):
        assert host.pauses(replace(TYPO, came_up=True, status=status), 3) == [0, 0, 0]
    crash = replace(TYPO, came_up=True, status=-signal.SIGSEGV)
    assert host.pauses(replace(crash, lived=SOON_SECONDS), 3) == [0, 0, 0]
    assert host.pauses(crash, 3) == [0, 2, 4]
    assert "crashes soon after its start" in host.published.state.start_failed
    host.starts.came_up()
    assert not host.published.state.start_failed
    assert host.pauses(crash, 1) == [8], "it came up, and crashed once more"


def test_damaged_data_twice_in_a_row_is_unfit_and_once_is_not() -> None:
    host = Host()
    host.starts.failed(DAMAGED)
    host.starts.failed(TYPO)
    host.starts.failed(DAMAGED)
    assert host.unfit == []
    host.starts.failed(DAMAGED)
    assert host.unfit == [f"its server cannot use its data files: {REDO}"]


def test_while_it_is_cloned_nothing_is_said_of_it() -> None:
    host = Host()
    host.published.change(cloning="m2")
    host.starts.failed(DAMAGED)
    host.starts.failed(DAMAGED)
    assert host.unfit == []
    assert not host.resting()


@pytest.mark.parametrize(
    "error",
    [
        "unknown variable 'no_such=1'",
        "InnoDB: Unable to lock ./ibdata1 error: 11",
        "Can't start server: Bind on TCP/IP port. Got error: 98: Address already in use",
        "Disk is full writing './binlog.000003'",
        "Invalid MySQL server downgrade: Cannot downgrade from 90700 to 80400",
        "Assertion failure: row0sel.cc:4421 thread 140646264338112",
        "The innodb_system data file 'ibdata1' must be writable",
    ],
)
def test_what_has_another_cause_costs_no_data(error: str) -> None:
    assert not unusable([error])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.end()


def test_the_agent_keeps_the_error_and_is_told_of_each_end(world: World) -> None:
    world.server.frozen = True
    (world.folder / "server.py").write_text(
        "import sys\nprint('[ERROR] unknown variable typo', flush=True)\nsys.exit(7)\n"
    )
    for _ in range(2):
        world.command(1, Start())
        world.until(
            lambda state: state.server is ServerStatus.DOWN and "unknown" in state.start_failed
        )
    assert world.until(lambda state: state.resting).start_failed.startswith(
        "its server does not start: unknown variable typo; it is started again when"
    )
    refused = world.command(1, Start())
    assert (refused.error, "unknown variable typo" in refused.message) == ("Refused", True)
