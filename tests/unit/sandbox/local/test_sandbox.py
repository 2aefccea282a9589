"""A sandbox's files are what the daemons accept; it ends only its own processes; its journal is correct."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from holdfast.config.load import agent_config, manager_config
from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput, Refused
from holdfast.sandbox import demo
from holdfast.sandbox.load.crash import Crash
from holdfast.sandbox.load.events import SeenEvent
from holdfast.sandbox.load.journal import Gap, Journal, WriteReport
from holdfast.sandbox.load.timeline import line
from holdfast.sandbox.load.verification import MemberCheck, WriteVerification
from holdfast.sandbox.local import files, haproxy
from holdfast.sandbox.local.accounts import Accounts, cached_accounts
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.crew import stopped
from holdfast.sandbox.local.spec import (
    Spec,
    free_base_port,
    new_spec,
    read_saved,
    refuse_taken_ports,
    write_saved,
)
from holdfast.sandbox.servers import trees
from holdfast.sandbox.servers.daemons import Daemon
from holdfast.sandbox.servers.trees import ServerTree
from holdfast.server.process.process import kernel_boot_id


@pytest.fixture
def spec(tmp_path: Path) -> Iterator[Spec]:
    made = new_spec(tmp_path / "cluster", Flavor.MARIADB, 3, 27380)
    made.dir.mkdir()
    yield made
    for left in made.sockets.iterdir():
        left.unlink()
    made.sockets.rmdir()


@pytest.fixture
def tree(tmp_path: Path) -> ServerTree:
    return ServerTree(
        flavor="mariadb",
        binary=tmp_path / "mariadbd",
        command=("loader", str(tmp_path / "mariadbd")),
        loader=("loader",),
        basedir=tmp_path,
        share_dir=tmp_path / "share",
        plugin_dir=None,
        version=(10, 11, 19),
        version_text="10.11.19",
    )


def test_daemons_accept_the_files_that_a_sandbox_writes(spec: Spec, tree: ServerTree) -> None:
    accounts = Accounts(b"secret")
    for member in spec.members:
        member.datadir.mkdir(parents=True)
    files.write_files(spec, tree, accounts)
    manager = manager_config(spec.manager_config)
    agents = [agent_config(member.agent_config) for member in spec.members]
    assert [each.name for each in manager.clusters[0].members] == [each.name for each in agents]
    assert [each.agent for each in manager.clusters[0].members] == [
        f"http://{each.listen}" for each in agents
    ]
    assert {each.server.command for each in agents} == {tree.command}
    assert [each.replication.user for each in agents] == ["repl_m1", "repl_m2", "repl_m3"]
    options = spec.members[1].option_file.read_text()
    assert f"lc_messages_dir = {tree.share_dir}" in options
    assert "port = 27392" in options


def test_what_is_secret_can_be_read_by_its_owner_alone(spec: Spec, tree: ServerTree) -> None:
    for member in spec.members:
        member.datadir.mkdir(parents=True)
    files.write_files(spec, tree, Accounts(b"secret"))
    secrets = [spec.token_file, spec.dir / "app.password", *spec.dir.glob("m*/*.password")]
    assert len(secrets) == 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


def test_sockets_have_short_paths_however_deep_the_folder(tmp_path: Path) -> None:
    spec = new_spec(tmp_path / ("deep" * 40), Flavor.MYSQL, 7, 27380)
    assert max(len(str(member.socket)) for member in spec.members) < 100
    spec.sockets.rmdir()


def test_settings_survive_in_the_folder(spec: Spec) -> None:
    daemon = {"manager": {"pid": 1, "started": 2, "boot": "x"}}
    for each in (spec, replace(spec, binary=Path("/usr/sbin/mariadbd"))):
        write_saved(each, daemon)
        assert read_saved(spec.dir) == (each, daemon)


@pytest.mark.parametrize("text", ["", "{}", '{"flavor": "oracle"}', "[]"])
def test_a_damaged_sandbox_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "sandbox.json").write_text(text)
    with pytest.raises(BadInput, match=r"sandbox\.json"):
        read_saved(tmp_path)


@pytest.mark.parametrize(
    ("members", "base", "key"), [(0, 7400, "--members"), (8, 7400, "--members"), (3, 80, "--base")]
)
def test_numbers_out_of_bounds_are_refused(
    tmp_path: Path, members: int, base: int, key: str
) -> None:
    with pytest.raises(BadInput, match=key):
        new_spec(tmp_path / "cluster", Flavor.MARIADB, members, base)


def test_a_port_in_use_is_named(spec: Spec) -> None:
    base = free_base_port()
    taken = replace(spec, base_port=base)
    refuse_taken_ports(taken.ports)
    with (
        closing(socket.create_server(("127.0.0.1", base + 2))),
        pytest.raises(Refused, match=f"port {base + 2}, for m2's agent, is in use"),
    ):
        refuse_taken_ports(taken.ports)


def test_what_is_refused_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with the ports in it would refuse other ones afterwards."""
    monkeypatch.setattr(trees, "find", lambda name, binary: None)
    base, folder = free_base_port(), tmp_path / "cluster"
    with (
        closing(socket.create_server(("127.0.0.1", base))),
        pytest.raises(Refused, match=f"port {base}, for the manager, is in use"),
    ):
        Sandbox.create(folder, Flavor.MARIADB, 3, base)
    assert not folder.exists()
    with pytest.raises(BadInput, match="--dir: /proc/x cannot be made: No such file"):
        Sandbox.create(Path("/proc/x"), Flavor.MARIADB, 3, base)
    assert Sandbox.create(folder, Flavor.MARIADB, 3, base).spec.base_port == base


@pytest.mark.parametrize("words", [("--seconds", "-1"), ("--rate", "0"), ("--rate", "fast")])
def test_the_demo_refuses_what_is_no_number_above_0(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        demo.main(list(words))
    assert ended.value.code == 2
    assert f"argument {words[0]}: must be a number above 0" in capsys.readouterr().err


def test_passwords_stay_the_same_for_a_cache_and_differ_between_caches(tmp_path: Path) -> None:
    first, again = cached_accounts(tmp_path / "a"), cached_accounts(tmp_path / "a")
    other = cached_accounts(tmp_path / "b")
    assert first.statements("mysql") == again.statements("mysql")
    assert first.app.password != other.app.password
    assert first.app.password != first.admin.password
    assert stat.S_IMODE((tmp_path / "a" / "sandbox-secret").stat().st_mode) == 0o600


def test_a_cache_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        BadInput, match=r"HOLDFAST_CACHE: .*/file/a cannot be used: Not a directory"
    ):
        cached_accounts(tmp_path / "file" / "a")
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / ("x" * 300)))
    monkeypatch.setattr(trees, "on_path", lambda flavor: None)
    with pytest.raises(BadInput, match=r"HOLDFAST_CACHE: cannot read .*: File name too long"):
        trees.find("mariadb")


def test_a_sandbox_that_was_stopped_says_so(
    spec: Spec, monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]
) -> None:
    write_saved(spec, {})
    text = f"the sandbox in {spec.dir} is stopped: holdfast sandbox up"
    assert stopped(spec.dir) == f"{text} --dir {spec.dir}"
    monkeypatch.setattr("holdfast.sandbox.local.crew.default_dir", lambda: spec.dir)
    assert stopped(spec.dir) == text
    alive = asdict(Daemon(sleeper.pid, started(sleeper.pid), kernel_boot_id()))
    write_saved(spec, {"m1": alive})
    assert stopped(spec.dir).endswith("has ended: holdfast sandbox start manager")
    write_saved(spec, {"m1": alive, "manager": alive})
    assert stopped(spec.dir) == ""


def test_haproxys_file_needs_no_other_one_when_members_come(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart would end all sessions."""
    monkeypatch.setattr(haproxy, "command", lambda spec: ["haproxy"])
    said = haproxy.prepare(spec)
    before = spec.haproxy_config.read_text()
    assert all(f"server m{number} 127.0.0.1:" in before for number in range(1, 8))
    assert set(said["endpoints"]["checks"]) == {"m1", "m2", "m3"}, "the manager's members"
    haproxy.prepare(replace(spec, further=4))
    assert spec.haproxy_config.read_text() == before


def test_members_that_were_removed_are_kept_in_mind(spec: Spec) -> None:
    write_saved(replace(spec, removed=("m2",)), {})
    found = read_saved(spec.dir)[0]
    assert [each.name for each in found.present] == ["m1", "m3"]
    assert len(found.members) == 3


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ignores SIGTERM once it has said so."""
    code = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_only_the_very_process_that_was_started_is_ended(sleeper: subprocess.Popen[bytes]) -> None:
    own = Daemon(sleeper.pid, started(sleeper.pid), kernel_boot_id())
    for other in (replace(own, started=own.started + 1), replace(own, boot="another")):
        assert not other.alive
        other.end(0)
        assert sleeper.poll() is None
    assert own.alive
    own.end(seconds=0.1)
    assert sleeper.wait(5) == -signal.SIGKILL
    assert not own.alive
    own.end()


def test_a_daemon_that_waits_to_be_buried_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    daemon = Daemon(child.pid, started(child.pid), kernel_boot_id())
    assert child.stdin
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not daemon.alive
    child.wait()


def journal(*times: float) -> Journal:
    made = Journal(1)
    for number, at in enumerate(times, 1):
        made.acknowledge(number, at)
    return made


def test_gaps_are_between_writes_of_anybody() -> None:
    report = WriteReport(1, [journal(1.0, 1.5, 4.0), journal(1.75, 3.0)])
    assert report.acknowledged == 5
    assert report.gaps_after(1.6) == [Gap(1.75, 3.0), Gap(3.0, 4.0), Gap(1.5, 1.75)]


def test_a_failed_write_is_unknown_and_never_counted() -> None:
    made = journal(1.0)
    made.fail(2, 1290)
    report = WriteReport(1, [made])
    assert (report.acknowledged, report.unknown, report.errors) == (1, 1, {1290: 1})
    assert list(report.acknowledged_rows()) == [(1, 1)]


def test_one_row_missing_anywhere_is_lost() -> None:
    whole = MemberCheck("m1", (), 2, (("writes", 5),))
    assert WriteVerification((whole, whole)).good
    missing = replace(whole, lost=((1, 7),))
    assert WriteVerification((whole, missing)).lost == 1
    assert not WriteVerification((whole, missing)).good
    other = WriteVerification((whole, replace(whole, checksums=(("writes", 6),))))
    assert not other.identical
    assert not other.good


def test_steps_of_a_failover_are_those_before_its_first_write() -> None:
    events = (
        SeenEvent(10.02, "detected", "gone", "m1"),
        SeenEvent(10.05, "command", "one", "m2", {"receiver stopped": 4.0}, 20.0, "promise"),
        SeenEvent(10.06, "command", "two", "m3", {"receiver stopped": 9.0}, 15.0, "promise"),
        SeenEvent(10.90, "command", "three", "m1", {}, 500.0, "start"),
    )
    crash = Crash(
        "m1", "m2", 10.0, WriteReport(1, ()), Gap(9.9, 10.2), None, 1000.0, "", events, None
    )  # fmt: skip
    assert crash.first_write_ms == pytest.approx(200)
    assert crash.step_times() == pytest.approx(
        {"detected": 20.0, "promise": 20.0, "promise.receiver stopped": 9.0}
    )
    assert not crash.good


def test_a_timeline_says_when_what_who_and_where_the_time_went() -> None:
    steps = {"receiver stopped": 4.2}
    event = SeenEvent(10.05, "command", "any words", "m2", steps, 20.0, "promise")
    assert line(event, 10.0) == (
        "  +    50 ms  promise    m2   promised the term, receiver stopped: 20 ms (receiver stopped 4)"
    )


def test_option_files_take_the_options_of_a_private_tree(spec: Spec, tree: ServerTree) -> None:
    text = yaml.safe_dump(files.agent_settings(spec, spec.members[0], tree, *[
        Accounts(b"x").admin, Accounts(b"x").replication("m1")
    ]))  # fmt: skip
    assert "password: " not in text
    assert "basedir = " in files.option_file(spec, spec.members[0], tree)
