"""What an agent removes or makes survives a loss of power, once its folder was flushed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.agent.clone.clone_marker import CloneMarker
from holdfast.agent.disk import datadir
from holdfast.agent.disk.datadir import mark_of
from holdfast.agent.disk.marker import Marker
from holdfast.agent.disk.relaxed import RelaxedMarker
from holdfast.agent.disk.state_folder import held
from holdfast.agent.disk.term import make_folder, remove_durably
from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState


class Disk:
    """Remembers which names each folder had when it was last flushed."""

    def __init__(self) -> None:
        self.names: dict[Path, set[str]] = {}
        self.flushes = 0
        self._fsync = os.fsync

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        self.flushes += 1
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if path.is_dir():
            self.names[path] = set(os.listdir(path))

    def has(self, path: Path) -> bool:
        """Whether the file would be there after a loss of power."""
        return path.name in self.names[path.parent.resolve()]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "fsync", made.fsync)
    return made


def marker(folder: Path) -> tuple[Path, Callable[[], None], Callable[[], None]]:
    each = Marker(folder / "primary")
    return folder / "primary", each.mark, each.clear


def relaxed(folder: Path) -> tuple[Path, Callable[[], None], Callable[[], None]]:
    (folder / "binlog.000001").touch()
    (folder / "binlog.index").write_text("./binlog.000001\n")
    each = RelaxedMarker(folder, folder / "binlog.index", lambda: "this boot")
    return each.path, each.mark, each._clear


def test_it_is_remembered_whose_data_ran_relaxed(tmp_path: Path) -> None:
    (tmp_path / "binlog.index").touch()
    boots, data = ["before"], [""]
    each = RelaxedMarker(tmp_path, tmp_path / "binlog.index", lambda: boots[-1], lambda: data[-1])
    each.mark()
    boots.append("after a loss of power")
    assert each.verdict()
    assert not each.of_this_cluster()  # nothing identified the data then
    data.append("the cluster's")
    assert not each.of_this_cluster()
    boots.append("before")
    each.mark()
    assert not each.of_this_cluster()  # nothing was lost
    boots.append("after a loss of power")
    assert each.of_this_cluster()
    data.append("put in its place by an operator")
    assert not each.of_this_cluster()


@pytest.mark.parametrize("flavor", list(Flavor), ids=str)
def test_data_of_another_cluster_has_another_mark(tmp_path: Path, flavor: Flavor) -> None:
    name = "auto.cnf" if flavor is Flavor.MYSQL else "holdfast/proof.frm"
    marks = {mark_of(tmp_path, flavor)}
    assert marks == {""}
    for number in range(2):
        path = tmp_path / str(number) / name
        path.parent.mkdir(parents=True)
        path.write_text(f"an id: {number}")
        marks.add(mark_of(tmp_path / str(number), flavor))
    assert len(marks) == 3


def of_a_former_boot(folder: Path) -> tuple[Path, Callable[[], None], Callable[[], None]]:
    boots = ["before"]
    each = RelaxedMarker(folder, folder / "binlog.index", lambda: boots[-1])

    def forget() -> None:
        boots.append("now")
        each.forget_former_boot()

    return each.path, each.mark, forget


def fitness(folder: Path) -> tuple[Path, Callable[[], None], Callable[[], None]]:
    each = Fitness(folder, PublishedState(MemberState("m1", Flavor.MARIADB)))
    return each.path, lambda: each.declare_unfit("torn"), each.forget


def cloning(folder: Path) -> tuple[Path, Callable[[], None], Callable[[], None]]:
    each = CloneMarker(folder)
    return folder / "cloning", lambda: each.mark("m2"), each.clear


def a_file(folder: Path) -> tuple[Path, Callable[[], None], Callable[[], None]]:
    path = folder / "boots_open"

    def make() -> None:
        path.touch()
        datadir.sync(folder)

    return path, make, lambda: remove_durably(path)


@pytest.mark.parametrize(
    "kind",
    [marker, relaxed, of_a_former_boot, fitness, cloning, a_file],
    ids=lambda each: each.__name__,
)
def test_what_was_cleared_does_not_come_back(
    kind: Callable[[Path], tuple[Path, Callable[[], None], Callable[[], None]]],
    tmp_path: Path,
    disk: Disk,
) -> None:
    path, mark, clear = kind(tmp_path)
    mark()
    assert disk.has(path)
    clear()
    assert not path.exists()
    assert not disk.has(path)
    flushes = disk.flushes
    if kind in (marker, a_file):
        clear()  # checked at every look: there is nothing to be flushed
        assert disk.flushes == flushes


def test_an_agent_flushes_what_one_that_was_killed_had_just_removed(
    tmp_path: Path, disk: Disk
) -> None:
    state_dir = tmp_path / "state"
    with held(state_dir):
        assert disk.has(state_dir)
    path = state_dir / "primary"
    Marker(path).mark()
    path.unlink()
    assert disk.has(path)
    with held(state_dir):
        assert not disk.has(path)


def test_binlogs_elsewhere_do_not_come_back_beside_new_data(tmp_path: Path, disk: Disk) -> None:
    data, logs = tmp_path / "data", tmp_path / "logs"
    for folder in (data, logs):
        make_folder(folder)
        assert disk.has(folder)
    (logs / "binlog.000001").touch()
    (logs / "binlog.index").write_text("./binlog.000001\n")
    datadir.sync(logs)
    datadir.remove_old(data, logs / "binlog.index")
    assert not disk.has(logs / "binlog.000001")
    assert not disk.has(logs / "binlog.index")
