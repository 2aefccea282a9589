"""An option file is read as the server reads it: groups, includes, spellings, persisted variables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.core.check.facts import Boot
from holdfast.core.gtid import Flavor
from holdfast.server.process import boot, optionfile


def read(folder: Path, text: str, flavor: Flavor = Flavor.MYSQL, version: str = "9.7.4") -> Boot:
    (folder / "my.cnf").write_text(text)
    return boot.read(folder / "my.cnf", flavor, version, folder)


def test_groups_of_the_server_and_of_its_series_count_and_the_last_one_wins(tmp_path: Path) -> None:
    text = "[client]\nport=1\n[mysqld]\nport=2\n[mysqld-8.4]\nport=3\n[mysqld-9.7]\nport=4\n"
    assert read(tmp_path, text).options["port"] == "4"
    assert read(tmp_path, "[mysqld]\nport=2\n[server]\nport=5").options["port"] == "5"
    text = "[mysqld]\nport=2\n[mariadb]\nport=6\n[mariadb-11.4]\nport=7"
    mariadb = read(tmp_path, text, Flavor.MARIADB, "10.11.19-MariaDB")
    assert mariadb.options["port"] == "6"
    assert read(tmp_path, text).options["port"] == "2"


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("skip-replica-start", "skip_replica_start", "ON"),
        ("skip_slave_start = 1", "skip_replica_start", "1"),
        ("log-slave-updates", "log_replica_updates", "ON"),
        ("skip-log-bin", "log_bin", "OFF"),
        ("disable-log-bin", "log_bin", "OFF"),
        ("loose-read-only", "read_only", "ON"),
        ("read_only=OFF # for now", "read_only", "OFF"),
        ("datadir = '/a b/c#d'", "datadir", "/a b/c#d"),
        ('socket = "/x"', "socket", "/x"),
        ("  Server-ID =  7  ", "server_id", "7"),
    ],
)
def test_spellings(tmp_path: Path, line: str, name: str, value: str) -> None:
    assert read(tmp_path, f"[mysqld]\n{line}\n").options[name] == value


def test_comments_and_empty_lines_are_no_options(tmp_path: Path) -> None:
    assert read(tmp_path, "# read_only\n\n[mysqld]\n;read_only\n#x\n").options == {}


def test_files_that_are_included_count_in_their_place(tmp_path: Path) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "b.cnf").write_text("[mysqld]\nport=2\nsocket=/b\n")
    (folder / "a.cnf").write_text("[mysqld]\nport=1\nbinlog-do-db=x\n")
    (folder / "c.txt").write_text("[mysqld]\nport=3\n")
    found = read(tmp_path, f"[mysqld]\nport=9\n!includedir {folder}\n[mysqld]\nsocket=/own\n")
    assert found.options["port"] == "2"
    assert found.options["socket"] == "/own"
    assert found.filters == ("binlog_do_db=x",)
    assert read(tmp_path, f"!include {folder}/a.cnf\n").options["port"] == "1"


def test_plugins_are_added_to_those_before(tmp_path: Path) -> None:
    text = "[mysqld]\nplugin-load-add = a.so\nplugin_load_add=b=b.so\n"
    assert read(tmp_path, text).options["plugin_load"] == "a.so;b=b.so"


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert "cannot read" in read(tmp_path, f"!include {tmp_path}/none.cnf").problem
    assert "cannot read" in read(tmp_path, f"!includedir {tmp_path}/none").problem
    assert "before any [group]" in read(tmp_path, "port=1").problem
    assert "too many files" in read(tmp_path, f"!include {tmp_path}/my.cnf").problem
    missing = boot.read(tmp_path / "none.cnf", Flavor.MYSQL, "", tmp_path)
    assert "cannot read" in missing.problem


def test_persisted_variables_win(tmp_path: Path) -> None:
    persisted = {
        "Version": 2,
        "mysql_dynamic_variables": {"read_only": {"Value": "OFF", "Metadata": {"User": "root"}}},
        "mysql_static_variables": {"gtid_mode": {"Value": "ON"}},
    }
    (tmp_path / "mysqld-auto.cnf").write_text(json.dumps(persisted))
    found = read(tmp_path, "[mysqld]\nread_only=ON\n")
    assert (found.options["read_only"], found.options["gtid_mode"]) == ("OFF", "ON")
    (tmp_path / "mysqld-auto.cnf").write_text("{")
    assert "mysqld-auto.cnf" in read(tmp_path, "[mysqld]\n").problem


@pytest.mark.parametrize("flavor", list(Flavor))
def test_our_own_option_file_is_read_as_it_was_meant(tmp_path: Path, flavor: Flavor) -> None:
    text = optionfile.ServerOptions(
        flavor=flavor,
        datadir=tmp_path,
        tmpdir=tmp_path,
        socket=tmp_path / "s",
        port=3307,
        server_id=3,
    ).render()
    found = read(tmp_path, text, flavor, "10.11.19" if flavor is Flavor.MARIADB else "9.7.4")
    assert found.problem == ""
    assert found.filters == ()
    assert (found.options["port"], found.options["read_only"]) == ("3307", "ON")
