"""systemd's files and the process itself show what else may start a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.core.check.facts import Unit
from holdfast.server.process.units import find_units, supervisor

UNIT = "[Service]\nExecStart=/usr/sbin/mariadbd\nRestart=on-abnormal\n"


class Root:
    """A file system that contains only what a test puts there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def link(self, name: str, to: str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(to)

    def process(self, pid: int, group: str = "/", parent: int = 1) -> None:
        self.write(f"proc/{pid}/cgroup", f"0::{group}\n")
        self.write(f"proc/{pid}/stat", f"{pid} (a ) b) S {parent} 1 1")

    def only(self, pid: int | None = None) -> Unit:
        [unit] = find_units(self.path, pid)
        return unit


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def test_a_host_without_units_has_none(root: Root) -> None:
    assert find_units(root.path, None) == ()
    assert supervisor(root.path, 77) == ""


def test_a_unit_that_is_enabled(root: Root) -> None:
    root.write("lib/systemd/system/mariadb.service", UNIT)
    assert root.only() == Unit("mariadb.service", restart="on-abnormal")
    root.link(
        "etc/systemd/system/multi-user.target.wants/mariadb.service",
        "/lib/systemd/system/mariadb.service",
    )
    assert root.only().enabled


def test_a_unit_that_is_masked_starts_nothing(root: Root) -> None:
    root.write("lib/systemd/system/mysql.service", UNIT)
    root.link("etc/systemd/system/mysql.service", "/dev/null")
    assert root.only() == Unit("mysql.service", masked=True)


def test_drop_ins_change_what_a_unit_says(root: Root) -> None:
    root.write("lib/systemd/system/mariadb.service", UNIT)
    root.write("lib/systemd/system/mariadb.service.d/10.conf", "[Service]\nRestart=always\n")
    assert root.only().restart == "always"
    root.write("etc/systemd/system/mariadb.service.d/20.conf", "[Service]\nRestart=no\n")
    assert root.only().restart == "no"


def test_a_file_in_etc_hides_the_packages(root: Root) -> None:
    root.write("lib/systemd/system/mariadb.service", UNIT)
    root.write("etc/systemd/system/mariadb.service", "[Service]\nRestart = always\n")
    assert root.only().restart == "always"


def test_the_unit_to_which_the_server_belongs(root: Root) -> None:
    root.write("lib/systemd/system/mariadb.service", UNIT)
    root.process(5, "/system.slice/mariadb.service")
    assert root.only(5).runs_it
    root.process(6, "/system.slice/holdfast-agent.service")
    assert not root.only(6).runs_it


def test_an_instance_of_a_template(root: Root) -> None:
    root.write("lib/systemd/system/mariadb@.service", UNIT)
    assert find_units(root.path, None) == ()
    root.process(5, "/system.slice/system-mariadb.slice/mariadb@shop.service")
    assert root.only(5) == Unit("mariadb@shop.service", restart="on-abnormal", runs_it=True)


def test_other_services_are_none_of_ours(root: Root) -> None:
    root.write("lib/systemd/system/mysqld-exporter.service", UNIT)
    root.write("lib/systemd/system/nginx.service", UNIT)
    assert find_units(root.path, None) == ()


def test_a_script_that_waits_for_the_server(root: Root) -> None:
    root.process(5, parent=4)
    root.write("proc/4/cmdline", "/bin/sh\0/usr/bin/mysqld_safe\0--datadir=/d\0")
    assert supervisor(root.path, 5) == "mysqld_safe"
    root.write("proc/4/cmdline", "/sbin/init\0")
    assert supervisor(root.path, 5) == ""
