"""What may be given up: no data goes that only this server has, unless it was saved or an operator ordered it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from holdfast.agent.clone.unique import Holdings, judge
from holdfast.binlog.files.history import GTID_LIST, PREVIOUS_GTIDS
from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.errors import DeadlinePassed
from tests.unit.binlog.events.test_builder import Builder, gtid


@dataclass
class Host:
    """A data directory, and binlogs in it."""

    flavor: Flavor
    datadir: Path
    files: list[str] = field(default_factory=list)

    def server(self, *tables: str) -> Host:
        """A server has run here; ``tables`` as ``schema/table``."""
        for name in ("mysql/user.frm", "ibdata1", *tables):
            path = self.datadir / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.touch()
        return self

    def binlog(self, *numbers: int, before: int = 0) -> Host:
        """One more file, with these transactions, begun when those up to ``before`` had been logged."""
        name = f"binlog.{len(self.files) + 1:06}"
        log = Builder(self.flavor)
        kind, body = (
            (GTID_LIST, _gtid_list(before))
            if self.flavor is Flavor.MARIADB
            else (PREVIOUS_GTIDS, _previous(before))
        )
        log.event(kind, body)
        for number in numbers:
            log.transaction(gtid(self.flavor, number))
        log.write(self.datadir / name)
        self.files.append(name)
        self.index.write_text("".join(f"./{each}\n" for each in self.files))
        return self

    @property
    def index(self) -> Path:
        return self.datadir / "binlog.index"

    def judged(
        self,
        present: int,
        executed: int | None = None,
        copied: int = 0,
        check: Callable[[], None] = lambda: None,
        ours: bool = False,
    ) -> Holdings:
        """The primary has everything up to ``present``."""
        return judge(
            self.flavor,
            self.datadir,
            self.index,
            self.set(present),
            None if executed is None else self.set(executed),
            self.set(copied),
            check,
            ours,
        )

    def set(self, last: int) -> GtidSet:
        return parse(self.flavor, _up_to(self.flavor, last))


def _up_to(flavor: Flavor, last: int) -> str:
    if not last:
        return ""
    one = gtid(flavor, last)
    return str(one) if flavor is Flavor.MARIADB else f"{one.stream}:1-{last}"


def _gtid_list(last: int) -> bytes:
    if not last:
        return struct.pack("<I", 0)
    domain, server = map(int, gtid(Flavor.MARIADB, last).stream.split("-"))
    return struct.pack("<IIIQ", 1, domain, server, last)


def _previous(last: int) -> bytes:
    if not last:
        return struct.pack("<Q", 0)
    uuid = UUID(gtid(Flavor.MYSQL, 1).stream)
    return struct.pack("<Q", 1) + uuid.bytes + struct.pack("<Qqq", 1, 1, last + 1)


@pytest.fixture(params=list(Flavor), ids=str)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return Host(request.param, tmp_path / "data")


NOTHING = Holdings()
DATA = ("holdfast/proof.ibd", "shop/orders.ibd")


def test_a_data_directory_that_is_missing_or_empty_goes(host: Host) -> None:
    assert host.judged(present=9) == NOTHING
    (host.datadir / "lost+found").mkdir(parents=True)
    (host.datadir / "error.log").touch()
    assert host.judged(present=9) == NOTHING


def test_an_empty_one_whose_binlogs_lie_elsewhere_is_judged_by_them(host: Host) -> None:
    host.datadir.mkdir()
    host.binlog(1, 2, 3)
    for path in host.datadir.glob("mysql*"):
        path.unlink()
    assert host.judged(present=3) == NOTHING
    assert host.judged(present=2).unique


def test_a_new_server_without_user_data_goes(host: Host) -> None:
    host.server("shop/db.opt")
    assert host.judged(present=9) == NOTHING


def test_data_without_binlogs_stays(host: Host) -> None:
    host.server(*DATA)
    assert "no binlogs" in host.judged(present=9).obstacle
    host.binlog(1, 2)
    host.index.unlink()
    assert "is not known" in host.judged(present=9).obstacle


def test_what_the_primary_has_too_goes(host: Host) -> None:
    host.server(*DATA).binlog(1, 2).binlog(3, 4, before=2)
    assert host.judged(present=4) == NOTHING
    assert host.judged(present=9, executed=4) == NOTHING


def test_what_it_has_alone_is_saved_first(host: Host) -> None:
    host.server(*DATA).binlog(1, 2).binlog(3, 4, before=2)
    for executed in (None, 4):
        assert host.judged(present=3, executed=executed) == Holdings(unique=True)
        assert host.judged(present=1, executed=executed) == Holdings(unique=True)


def test_what_it_has_alone_and_has_purged_stays(host: Host) -> None:
    host.server(*DATA).binlog(5, 6, before=4)
    found = host.judged(present=3)
    assert "its binlogs do not hold" in found.obstacle
    assert found.unique
    host.files.clear()
    host.binlog()  # as after a reset: the file does not show it
    assert host.judged(present=3, executed=5).obstacle


def test_another_clusters_data_stays(host: Host) -> None:
    host.server(*DATA).binlog(1, 2, 3)
    assert "nothing in common" in host.judged(present=0).obstacle
    assert "nothing in common" in host.judged(present=0, executed=3).obstacle
    host.server()
    for path in (host.datadir / "shop").iterdir():
        path.unlink()
    assert host.judged(present=0) == Holdings(unique=True)


def test_equal_gtids_prove_nothing_on_mariadb(tmp_path: Path) -> None:
    for flavor, obstacle in ((Flavor.MARIADB, "holdfast.proof"), (Flavor.MYSQL, "")):
        host = Host(flavor, tmp_path / flavor).server("shop/orders.ibd").binlog(1, 2)
        found = host.judged(present=5)
        assert obstacle in found.obstacle
        assert bool(found.obstacle) == bool(obstacle)


def test_what_was_copied_here_counts_as_common(tmp_path: Path) -> None:
    """MySQL's binlogs do not contain what a clone brought."""
    host = Host(Flavor.MYSQL, tmp_path / "data").server(*DATA).binlog()
    assert "nothing in common" in host.judged(present=5).obstacle
    assert host.judged(present=5, copied=4) == NOTHING


def test_a_damaged_binlog_and_files_of_something_else_stay(host: Host) -> None:
    host.server(*DATA).binlog(*range(1, 30))
    path = host.datadir / "binlog.000001"
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] + b"\xff" * 40 + raw[len(raw) // 2 + 40 :])
    assert "is not known" in host.judged(present=9).obstacle
    other = Host(host.flavor, host.datadir.parent / "other")
    (other.datadir / "photos").mkdir(parents=True)
    assert "none of a database server" in other.judged(present=9).obstacle


def test_a_file_that_was_just_begun_when_the_server_died_is_passed_over(host: Host) -> None:
    host.server(*DATA).binlog(1, 2)
    (host.datadir / "binlog.000002").write_bytes(b"\xfebin")
    host.index.write_text("./binlog.000001\n./binlog.000002\n")
    assert host.judged(present=2) == NOTHING
    assert host.judged(present=1) == Holdings(unique=True)


def test_what_a_loss_of_power_took_from_this_clusters_data_is_no_obstacle(host: Host) -> None:
    host.server(*DATA)
    assert host.judged(present=9, ours=True) == NOTHING  # no binlog was on disk yet
    host.binlog(1, 2)
    host.index.unlink()
    assert host.judged(present=9, ours=True) == NOTHING
    host.binlog()  # the only one was begun anew
    assert host.judged(present=9, ours=True) == NOTHING
    host.binlog(10)
    assert host.judged(present=9, ours=True) == Holdings(unique=True)
    host.files.clear()
    host.binlog(5, 6, before=4)
    assert "its binlogs do not hold" in host.judged(present=3, ours=True).obstacle


def test_it_ends_when_there_is_no_time_left(host: Host) -> None:
    host.server(*DATA).binlog(1, 2)

    def late() -> None:
        raise DeadlinePassed("reading", 1)

    with pytest.raises(DeadlinePassed):
        host.judged(present=2, check=late)
