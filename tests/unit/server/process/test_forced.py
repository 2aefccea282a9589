"""What an agent puts on its server's command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.core.check.facts import Boot
from holdfast.core.check.variables import PERSISTED
from holdfast.core.gtid import Flavor
from holdfast.server.process import boot, optionfile
from holdfast.server.process.forced import command_line, contradictions, forced


def given(folder: Path, flavor: Flavor, lines: str = "", **persisted: str) -> tuple[str, ...]:
    text = optionfile.ServerOptions(
        flavor=flavor, datadir=folder, tmpdir=folder, socket=folder / "s", port=3307, server_id=3
    ).render()
    (folder / "my.cnf").write_text(f"{text}{lines}\n")
    kept = {name.replace("__", "."): {"Value": value} for name, value in persisted.items()}
    if persisted:
        (folder / PERSISTED).write_text(json.dumps({"Version": 2, "mysql_dynamic_variables": kept}))
    return command_line(flavor, folder / "my.cnf", folder)


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_server_starts_closed_whatever_its_files_say(tmp_path: Path, flavor: Flavor) -> None:
    line = given(tmp_path, flavor)
    assert {"--read-only=ON", "--event-scheduler=OFF", "--init-file=/dev/null"} <= set(line)
    own = {
        Flavor.MARIADB: {"--init-rpl-role=MASTER", "--skip-slave-start=ON"},
        Flavor.MYSQL: {"--relay-log-recovery=OFF", "--skip-replica-start=ON", "--offline-mode=ON"},
    }
    assert own[flavor] <= set(line)
    assert not any("persisted" in each for each in line)
    assert line == given(tmp_path, flavor, "read_only = OFF\nevent_scheduler = ON\ninit_file = /x")


def test_a_scheduler_that_is_disabled_for_good_stays_so(tmp_path: Path) -> None:
    line = given(tmp_path, Flavor.MARIADB, "event_scheduler = disabled")
    assert "--event-scheduler=DISABLED" in line


def test_persisted_variables_that_contradict_are_not_loaded_and_the_others_are_handed_over(
    tmp_path: Path,
) -> None:
    agreeing = given(tmp_path, Flavor.MYSQL, read_only="1", max_connections="77")
    assert not any("max_connections" in each or "persisted" in each for each in agreeing)
    line = given(
        tmp_path,
        Flavor.MYSQL,
        read_only="ON",
        skip_slave_start="OFF",  # by its old name
        max_connections="77",
        validate_password__policy="LOW",
    )
    assert line[0] == "--persisted-globals-load=OFF"
    assert {"--loose-max_connections=77", "--loose-validate_password.policy=LOW"} <= set(line)
    assert not any("skip_slave_start" in each for each in line)
    # what is forced comes last, and so it counts
    assert line.index("--read-only=ON") > line.index("--loose-max_connections=77")


@pytest.mark.parametrize("flavor", list(Flavor))
def test_what_contradicts_is_told(flavor: Flavor) -> None:
    files = Boot("/my.cnf")
    as_told = {each.name: each.value for each in forced(flavor, files)}
    assert list(contradictions(flavor, files, as_told)) == []
    assert list(contradictions(flavor, files, {"event_scheduler": "DISABLED"})) == []
    assert list(contradictions(flavor, files, {"log_bin": "OFF"})) == [("log_bin", "OFF")]
    for name, value in as_told.items():
        other = {"ON": "OFF", "OFF": "ON"}.get(value, "7")
        assert list(contradictions(flavor, files, {**as_told, name: other})) == [(name, other)]


def test_what_a_server_boots_with_has_a_fingerprint(tmp_path: Path) -> None:
    file, extra = tmp_path / "my.cnf", tmp_path / "extra.cnf"
    extra.write_text("[mysqld]\nread_only = OFF\n")
    file.write_text(f"[mysqld]\n!include {extra}\n")
    seen = {boot.fingerprint(file, tmp_path)}
    extra.write_text("[mysqld]\nread_only = ON\n")
    seen.add(boot.fingerprint(file, tmp_path))
    (tmp_path / PERSISTED).write_text("{}")
    seen.add(boot.fingerprint(file, tmp_path))
    file.write_text(f"[mysqld]\n!include {tmp_path}/none.cnf\n")
    seen.add(boot.fingerprint(file, tmp_path))
    assert len(seen) == 4
