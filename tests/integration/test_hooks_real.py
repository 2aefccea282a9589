"""Hooks on real servers: a script of MHA's kind moves an address, whatever happens to primary and manager."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from holdfast.cli.main import app
from holdfast.sandbox.local.cluster import Sandbox
from tests.integration.cluster import events, wait_failed_over, writing

PASSWORD = "quite-a-secret-77"

SCRIPT = r"""#!/usr/bin/env perl
use strict; use warnings FATAL => 'all'; use Getopt::Long;
my %o;
GetOptions(\%o, "orig_master_is_new_slave", map { "$_=s" } qw(command ssh_user orig_master_host
  orig_master_ip orig_master_port new_master_host new_master_ip new_master_port orig_master_user
  new_master_user orig_master_ssh_user new_master_ssh_user)) or exit 2;
my $dir = "FOLDER";
open(my $log, '>>', "$dir/called") or die $!;
print $log "$o{command} $o{orig_master_port} ", $o{new_master_port} // "-", "\n"; close $log;
print "password is $ENV{DB_PASSWORD}\n";
sleep 60 if -e "$dir/hang-$o{command}";
if ($o{command} =~ /^stop/) { unlink "$dir/vip"; exit(-e "$dir/refuse" ? 1 : 0); }
if ($o{command} eq "start") {
  open(my $vip, '>', "$dir/vip.new") or die $!; print $vip $o{new_master_port}; close $vip;
  rename "$dir/vip.new", "$dir/vip" or die $!;
  exit 10;
}
exit 0;
"""


class Outside:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def calls(self) -> list[list[str]]:
        path = self.folder / "called"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def address(self) -> int:
        """The port that the address leads to; 0 for nowhere."""
        path = self.folder / "vip"
        return int(path.read_text()) if path.exists() else 0

    @contextmanager
    def having(self, name: str) -> Iterator[None]:
        (self.folder / name).touch()
        try:
            yield
        finally:
            (self.folder / name).unlink()


@pytest.fixture
def outside(cluster: Sandbox, tmp_path: Path) -> Iterator[Outside]:
    """The cluster's manager has hooks, for the time of a test."""
    made = Outside(tmp_path)
    hook = tmp_path / "master_ip_failover"
    hook.write_text(SCRIPT.replace("FOLDER", str(tmp_path)))
    hook.chmod(0o755)
    (tmp_path / "env").write_text(f"DB_PASSWORD={PASSWORD}\n")
    (tmp_path / "vip").write_text(str(port(cluster, cluster.primary())))
    config = cluster.spec.manager_config
    before = config.read_text()
    with_hooks = yaml.safe_load(before)
    with_hooks["clusters"][0]["hooks"] = {
        "failover": str(hook),
        "switchover": str(hook),
        "environment_file": str(tmp_path / "env"),
        "user": "mha",
        "timeout": "30s",
    }
    config.write_text(yaml.safe_dump(with_hooks))
    another_manager(cluster)
    try:
        cluster.wait_whole(30)
        yield made
    finally:
        config.write_text(before)
        another_manager(cluster)


def another_manager(sandbox: Sandbox) -> None:
    sandbox.kill_manager()
    sandbox.start_manager()


def port(sandbox: Sandbox, member: str) -> int:
    return sandbox.spec.member(member).port


def wait_for_address(sandbox: Sandbox, outside: Outside) -> None:
    ports = {member.name: member.port for member in sandbox.spec.members}
    sandbox.wait_until(
        lambda s: outside.address == ports.get(s["primary"]), 60, "the address to be there"
    )


def test_a_failover_is_held_up_by_a_refusing_hook_and_a_killed_manager_does_not_forget_to_start(
    cluster: Sandbox, outside: Outside, run: int
) -> None:
    old = cluster.primary()
    with writing(cluster, run) as writers:
        with outside.having("refuse"), outside.having("hang-start"):
            cluster.kill_server("primary")
            held = cluster.wait_until(lambda s: "held up" in s["reason"], 20, "the refusal")
            assert held["primary"] == old
            assert not held["writable"]
            assert "failover --command=stopssh: exit 1" in held["reason"]
            cluster.manager.fail_over(held["cluster"], skip_stop_hook=True)
            new = wait_failed_over(cluster, old)
            cluster.wait_until(lambda _: outside.calls()[-1][0] == "start", 20, "the call")
            log = cluster.logs(400)
            cluster.kill_manager()
        cluster.start_manager()
        wait_for_address(cluster, outside)
        writers.wait_for(50)
        writers.check()
    assert outside.address == port(cluster, new)
    ports = [str(port(cluster, old)), str(port(cluster, new))]
    *stops, first, second = outside.calls()
    assert {tuple(stop) for stop in stops} == {("stopssh", ports[0], "-")}
    assert (first, second) == (["start", *ports], ["start", *ports])
    log += cluster.logs(400)
    assert "hook failover printed: password is ***" in log
    assert PASSWORD not in log
    cluster.wait_until(
        lambda _: any("--command=start warns (exit 10)" in text for text in events(cluster)),
        10,
        "the warning",
    )
    assert PASSWORD not in json.dumps(cluster.manager.history(held["cluster"], 5))


def test_a_switchover_calls_both_and_they_are_checked_beforehand(
    cluster: Sandbox, outside: Outside, run: int
) -> None:
    old = cluster.primary()
    check(cluster, outside)
    with writing(cluster, run) as writers:
        begun: dict[str, Any] = cluster.manager.switch_over(cluster.status()["cluster"])
        new = wait_failed_over(cluster, old)
        assert new == begun["to"]
        wait_for_address(cluster, outside)
        writers.wait_for(50)
        writers.check()
    ports = [str(port(cluster, old)), str(port(cluster, new))]
    assert outside.calls()[2:] == [["stop", *ports], ["start", *ports]]


def check(cluster: Sandbox, outside: Outside) -> None:
    """``holdfast hooks check`` asks for the status of both, and names one that is missing."""
    spec = cluster.spec
    asked = ["hooks", "check", "--config", str(spec.manager_config), "--json"]
    asked += ["--manager", spec.manager_url, "--token-file", str(spec.token_file)]
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    called = [(hook["hook"], hook["code"]) for hook in told["hooks"]]
    assert called == [("failover", 0), ("switchover", 0)]
    assert PASSWORD not in found.output
    primary = str(port(cluster, cluster.primary()))
    assert [call[:2] for call in outside.calls()] == [["status", primary], ["status", primary]]
    script = outside.folder / "master_ip_failover"
    script.chmod(0o644)
    locked = CliRunner().invoke(app, asked)
    script.chmod(0o755)
    assert locked.exit_code != 0
    assert "clusters.0.hooks.failover" in str(locked.exception)
    assert "chmod +x" in str(locked.exception)
