"""Free space: what is full, what is nearly so, and the consequences."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.observe import room as rooms
from holdfast.agent.observe.room import Folders, Room, can_take, folders
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.check.facts import Boot
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState


class Disks:
    """File systems by folder: bytes in all and free, and how many a test write may take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **free: int) -> None:
        self.total, self.free = 100 << 30, dict(free)
        self.may_take = dict(free)
        monkeypatch.setattr(os, "statvfs", self._statvfs)
        monkeypatch.setattr(rooms, "can_take", lambda path, size: self.may_take[path.name] >= size)
        monkeypatch.setattr(Path, "stat", lambda path: self._stat(path))

    def have(self, name: str, free: int) -> None:
        self.free[name] = self.may_take[name] = free

    def _statvfs(self, path: Path) -> os.statvfs_result:
        blocks = (4096, 4096, self.total >> 12, 0, self.free[path.name] >> 12, 0, 0, 0, 0, 255)
        return os.statvfs_result(blocks)

    def _stat(self, path: Path) -> os.stat_result:
        if path.name not in self.free:
            raise FileNotFoundError(path)
        device = sorted(self.free).index(path.name)
        return os.stat_result((0, 0, device, 0, 0, 0, 0, 0, 0, 0))


PLENTY = 50 << 30
Watched = tuple[Room, PublishedState, Disks]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    published = PublishedState(MemberState("m1", Flavor.MARIADB))
    where = Folders((Path("/data"), Path("/binlog")), (Path("/tmp"),))
    disks = Disks(monkeypatch, data=PLENTY, binlog=PLENTY, tmp=PLENTY)
    return Room(lambda: where, published), published, disks


def test_plenty_is_no_word(watched: Watched) -> None:
    room, published, _ = watched
    room.look()
    assert (published.state.full, published.state.concerns) == ("", ())


def test_nearly_full_is_warned_of_before_it_is_full(watched: Watched) -> None:
    room, published, disks = watched
    disks.have("binlog", (4 << 30) - 4096)
    room.look()
    assert published.state.full == ""
    assert "less than 5% is free in /binlog" in published.state.concerns[0]
    disks.have("binlog", 5 << 30)
    room.look()
    assert published.state.concerns == ()


def test_full_is_what_nothing_can_be_written_to(watched: Watched) -> None:
    room, published, disks = watched
    disks.free["data"] = 0
    disks.may_take["data"] = PLENTY  # blocks that are reserved for this user
    room.look()
    assert published.state.full == ""
    disks.have("data", 60 << 10)
    room.look()
    assert published.state.full == "no space is left in /data"


def test_it_has_room_again_once_there_is_enough(watched: Watched) -> None:
    room, published, disks = watched
    told: list[str] = []
    room.on_room = lambda: told.append("room")
    disks.have("data", 0)
    room.look()
    disks.have("data", 1 << 20)
    room.look()
    assert published.state.full
    disks.have("data", 8 << 20)
    room.look()
    assert (published.state.full, told) == ("", ["room"])


def test_a_full_folder_that_no_commit_needs_is_named_and_stops_nobody(watched: Watched) -> None:
    room, published, disks = watched
    disks.have("tmp", 0)
    room.look()
    assert published.state.full == ""
    assert published.state.concerns == ("no space is left in /tmp",)


def test_which_folders_count() -> None:
    options = {"tmpdir": "/t:/u", "innodb_log_group_home_dir": "redo", "relay_log": "/r/relay"}
    found = folders(Boot("my.cnf", options), Path("/d"), Path("/b/binlog.index"), Path("/s"))
    assert found == Folders(
        (Path("/d"), Path("/b"), Path("/d/redo"), Path("/r")), (Path("/t"), Path("/s"))
    )


@pytest.mark.parametrize(
    ("number", "can"), [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EOPNOTSUPP, True)]
)
def test_a_trial_says_no_only_where_there_is_no_room(
    number: int, can: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert can_take(tmp_path, 4096)
    fail: Callable[..., Any] = lambda *_: (_ for _ in ()).throw(OSError(number, "no"))  # noqa: E731
    monkeypatch.setattr(os, "posix_fallocate", fail)
    assert can_take(tmp_path, 4096) is can
    assert [*tmp_path.iterdir()] == []
    assert can_take(tmp_path / "gone", 4096), "nothing can be told of it"


def test_a_concern_is_told_once(watched: Watched) -> None:
    room, published, disks = watched
    disks.have("tmp", 0)
    room.look()
    version = published.version
    room.look()
    assert published.version == version
    assert replace(published.state, concerns=()).concerns == ()
