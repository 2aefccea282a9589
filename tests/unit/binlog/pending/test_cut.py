"""Cutting a pending tail: interrupted after any step and repeated, the result is the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.binlog.pending.cut import STEPS, cut
from holdfast.binlog.pending.tail import Clean, Pending, inspect
from holdfast.core.gtid import Flavor
from holdfast.errors import Refused
from tests.unit.binlog.events.test_builder import Builder, gtid, mariadb
from tests.unit.binlog.pending.test_tail import has, with_transactions


def crashed(folder: Path, flavor: Flavor) -> Path:
    """A folder with a pending tail; on MariaDB it reaches over two rotations."""
    folder.mkdir()
    if flavor is Flavor.MARIADB:
        first = with_transactions(flavor, 1, 2).transaction(mariadb(3)).rotate()
        second = Builder(flavor).transaction(mariadb(4)).rotate()
        files = [first, second, Builder(flavor).checkpoint("binlog.000001")]
        (folder / "binlog.000001.idx").write_bytes(b"lookup")
        (folder / "binlog.000002.idx").write_bytes(b"lookup")
        (folder / "binlog.state").write_bytes(b"0-7-1\n")
    else:
        files = [with_transactions(flavor, 1).rotate(), with_transactions(flavor, 2, 3, 4)]
    for number, builder in enumerate(files, 1):
        builder.write(folder / f"binlog.{number:06d}").chmod(0o640)
    (folder / "binlog.000009").write_bytes(b"never came into the index")
    (folder / "relay-bin.000005").write_bytes(b"of another log")
    index = folder / "binlog.index"
    index.write_text("".join(f"./binlog.{number:06d}\n" for number in range(1, len(files) + 1)))
    index.chmod(0o640)
    return index


def contents(folder: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """The content, mode and owner of each file."""
    found = {}
    for path in folder.iterdir():
        status = path.stat()
        found[path.name] = (path.read_bytes(), status.st_mode, status.st_uid, status.st_gid)
    return found


def pending(index: Path) -> Pending:
    tail = inspect(index, has(2))
    assert isinstance(tail, Pending)
    return tail


@pytest.mark.parametrize("flavor", Flavor)
def test_a_cut_leaves_what_the_new_primary_has(tmp_path: Path, flavor: Flavor) -> None:
    index = crashed(tmp_path / "data", flavor)
    tail = pending(index)
    cut(tail)

    last = tail.start.file
    assert last.stat().st_size == tail.start.offset
    assert last.read_bytes()[21] & 1
    assert index.read_text().splitlines()[-1] == f"./{last.name}"
    assert inspect(index, has(2)) == Clean()
    names = set(contents(index.parent))
    kept = {"binlog.000001", "binlog.index", "relay-bin.000005"}
    assert names == kept | ({"binlog.000002"} if flavor is Flavor.MYSQL else set())
    assert {path.stat().st_mode & 0o777 for path in (last, index)} == {0o640}


@pytest.mark.parametrize("flavor", Flavor)
def test_files_stay_the_servers_own(tmp_path: Path, flavor: Flavor) -> None:
    index = crashed(tmp_path / "data", flavor)
    owner = (1234, 4321) if os.geteuid() == 0 else (os.geteuid(), os.getgroups()[-1])
    for path in index.parent.iterdir():
        os.chown(path, *owner)
    cut(pending(index))
    assert {content[2:] for content in contents(index.parent).values()} == {owner}


@pytest.mark.parametrize("flavor", Flavor)
@pytest.mark.parametrize("afresh", [False, True], ids=["same tail", "inspected again"])
@pytest.mark.parametrize("done", range(len(STEPS) + 1))
def test_an_interrupted_cut_can_be_repeated(
    tmp_path: Path, flavor: Flavor, done: int, afresh: bool
) -> None:
    uninterrupted = crashed(tmp_path / "a", flavor)
    cut(pending(uninterrupted))

    index = crashed(tmp_path / "b", flavor)
    tail = pending(index)
    for step in STEPS[:done]:
        step(tail)
    again = inspect(index, has(2)) if afresh else tail
    if isinstance(again, Pending):
        cut(again)
    else:
        assert again == Clean()

    assert contents(index.parent) == contents(uninterrupted.parent)


@pytest.mark.parametrize("flavor", Flavor)
def test_a_cut_half_through_its_removals_can_be_repeated(tmp_path: Path, flavor: Flavor) -> None:
    uninterrupted = crashed(tmp_path / "a", flavor)
    cut(pending(uninterrupted))
    index = crashed(tmp_path / "b", flavor)
    tail = pending(index)
    for step in STEPS[:2]:
        step(tail)
    (index.parent / "binlog.000009").unlink()
    (index.parent / "binlog.index.holdfast").write_text("left by an agent that died")
    index_again = inspect(index, has(2))
    assert isinstance(index_again, Pending)
    cut(index_again)
    left = contents(index.parent)
    left.pop("binlog.index.holdfast", None)
    assert left == contents(uninterrupted.parent)


@pytest.mark.parametrize("flavor", Flavor)
def test_an_old_cut_does_nothing_to_a_server_that_went_on(tmp_path: Path, flavor: Flavor) -> None:
    index = crashed(tmp_path / "data", flavor)
    tail = pending(index)
    cut(tail)
    with_transactions(flavor, 5).write(index.parent / "binlog.000003")
    index.write_text(index.read_text() + "./binlog.000003\n")
    before = contents(index.parent)
    cut(tail)
    assert contents(index.parent) == before


def test_a_file_that_has_shrunk_is_refused(tmp_path: Path) -> None:
    tail = pending(crashed(tmp_path / "data", Flavor.MYSQL))
    os.truncate(tail.start.file, tail.start.offset - 1)
    with pytest.raises(Refused, match="inspect the binlogs again"):
        cut(tail)
    assert gtid(Flavor.MYSQL, 3) == tail.summary.first
