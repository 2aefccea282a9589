"""Only the agent that saw a primary serve and end knows whether it came back with all that it had."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.agent.promise.regained import Regained
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, Replication, SemiSync
from holdfast.server.base import Deadline
from tests.unit.binlog.events.test_builder import Builder, gtid

SERVING = SemiSync(source=True, acks=1)


@dataclass
class Seen:
    """The part of a look that counts here."""

    semi_sync: SemiSync = field(default_factory=SemiSync)
    writable: bool = False
    replication: Replication = field(default_factory=Replication)


@dataclass
class Run:
    incarnation: str


class World:
    """A server's binlogs, and this part of its agent."""

    def __init__(self, flavor: Flavor, folder: Path) -> None:
        self.flavor = flavor
        self.folder = folder
        self.index = folder / "binlog.index"
        self.index.touch()
        self.number = self.runs = 0
        self.ours: Run | None = None
        self.new_agent()

    def new_agent(self) -> None:
        self.published = PublishedState(MemberState("m1", self.flavor))
        self.part = Regained(self.published, cast(Any, self), self.index)

    def started(self, running: Run) -> bool:
        return running is self.ours

    def end(self) -> None:
        self.part.ended()

    def killed_and_started(self, lost: int = 0) -> bool:
        self.end()
        return self.start(lost)

    def start(self, lost: int = 0, by_hand: bool = False) -> bool:
        """A run begins, and recovery takes ``lost`` bytes from the last binlog; returns whether all is known to be
        there."""
        if not by_hand:
            self.part.before_start()
        if lost:
            self.lose(lost)
        self.file()
        self.runs += 1
        run = Run(f"run {self.runs}")
        if not by_hand:
            self.ours = run
        self.published.change(incarnation=run.incarnation)
        for _ in range(2):
            self.part.answers(cast(Any, run), Deadline(1))
        return self.published.state.regained

    def file(self) -> None:
        self.number += 1
        Builder(self.flavor).write(self.last)
        with self.index.open("a") as index:
            index.write(f"./{self.last.name}\n")

    def rotate(self) -> None:
        raw = Builder(self.flavor)
        raw.data = bytearray(self.last.read_bytes())
        raw.rotate(f"binlog.{self.number + 1:06}").write(self.last)
        self.file()

    @property
    def last(self) -> Path:
        return self.folder / f"binlog.{self.number:06}"

    def serve(self, **seen: Any) -> None:
        """Commits, a look, and one more commit that no look has seen."""
        self.commit(1)
        self.part.looked(cast(Any, Seen(**(seen or {"semi_sync": SERVING}))))
        self.commit(2)

    def commit(self, number: int) -> None:
        raw = Builder(self.flavor)
        raw.data = bytearray(self.last.read_bytes())
        raw.transaction(gtid(self.flavor, number)).write(self.last)

    def lose(self, size: int) -> None:
        data = self.last.read_bytes()
        self.last.write_bytes(data[:-size])


@pytest.fixture(params=list(Flavor), ids=str)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    made = World(request.param, tmp_path)
    assert not made.start()  # nothing was known of what was there before
    return made


@pytest.mark.parametrize("rotated", [False, True])
def test_a_server_that_was_killed_has_all(world: World, rotated: bool) -> None:
    world.serve()
    if rotated:
        world.rotate()
    assert world.killed_and_started()
    assert world.killed_and_started()  # so has the next, although that one was no open primary
    world.serve()
    assert world.killed_and_started()


def test_a_recovery_that_cuts_the_binlog_is_noticed_and_not_forgotten(world: World) -> None:
    world.serve()
    assert not world.killed_and_started(lost=1)
    assert not world.killed_and_started()
    world.serve()  # its voters have been asked, and it was opened
    assert world.killed_and_started()


def test_data_that_was_put_back_while_it_was_down_is_noticed(world: World) -> None:
    world.serve()
    world.end()
    world.lose(1)
    assert not world.start()


def test_another_run_in_between_is_noticed(world: World) -> None:
    world.serve()
    world.end()
    world.file()  # of a server that somebody started, and that the agent has not seen
    assert not world.start()


def test_of_a_run_that_somebody_else_started_nothing_is_known(world: World) -> None:
    world.serve()
    world.end()
    assert not world.start(by_hand=True)
    assert not world.killed_and_started()


def test_binlogs_that_are_gone_tell_nothing(world: World) -> None:
    world.serve()
    world.last.unlink()
    world.index.write_text("")
    assert not world.killed_and_started()


def test_an_agent_that_was_started_since_knows_nothing(world: World) -> None:
    world.serve()
    world.new_agent()
    assert not world.killed_and_started()


def test_a_replica_is_known_for_nothing(world: World) -> None:
    world.serve()
    world.serve(replication=Replication(source="m2"))
    assert not world.killed_and_started()


def test_one_whose_end_was_not_noticed_is_known_for_nothing(world: World) -> None:
    world.serve()
    assert not world.start()
