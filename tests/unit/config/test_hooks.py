"""The user's executables: how they are run, what they get, and what is kept of their output."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from holdfast.config.hooks import HooksConfig, environment, missing
from holdfast.core.calls import HookOutcome, Phase
from holdfast.core.transition import TransitionKind
from holdfast.endpoint import contract
from holdfast.endpoint.contract import HookLogin, MemberPlace, PrimaryChange
from holdfast.endpoint.hooks import HEAD_BYTES, TAIL_BYTES, Execution, Hook
from holdfast.errors import BadInput
from holdfast.manager.listeners.hooks import verdict

LOGIN = HookLogin("root", "mha")
CHANGE = PrimaryChange(
    "shop",
    TransitionKind.FAILOVER,
    7,
    MemberPlace("m1", "db1", "10.0.0.1", 3306),
    MemberPlace("m2", "db2", "10.0.0.2", 3307),
    reachable=True,
)


def script(folder: Path, text: str, interpreter: str = "/bin/sh") -> Path:
    path = folder / "hook"
    path.write_text(f"#!{interpreter}\n{text}\n")
    path.chmod(0o755)
    return path


def hook(path: Path | str, *words: str, seconds: float = 20.0, **further: str) -> Hook:
    return Hook("failover", (str(path), *words), seconds, further)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_gets_its_arguments_and_the_event_and_is_no_shell_string(tmp_path: Path) -> None:
    path = script(tmp_path, 'echo "$#: $*"; cat')
    ran = Execution(hook(path, "a b")).run("stop", ["--command=stop", "$(touch x);"], b'{"a": 1}')
    assert (ran.code, ran.trouble) == (0, "")
    assert ran.output == '3: a b --command=stop $(touch x);\n{"a": 1}'


def test_it_does_not_inherit_the_environment_the_files_or_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_SECRET_OF_THE_MANAGER", "x")
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        text = "env; ls -l /proc/self/fd; echo sid $(cut -d' ' -f6 /proc/self/stat)"
        ran = Execution(hook(script(tmp_path, text), FURTHER="given")).run("stop", [], b"")
    assert "HOLDFAST_SECRET" not in ran.output
    assert "FURTHER=given" in ran.output
    found = {line.partition("=")[0] for line in ran.output.splitlines() if "=" in line}
    assert found <= {"PATH", "HOME", "USER", "LOGNAME", "LANG", "PWD", "FURTHER", "_", "OLDPWD"}
    assert "pipe:" in ran.output
    assert str(tmp_path / "open") not in ran.output
    assert int(ran.output.rpartition("sid ")[2]) != os.getsid(0)


@pytest.mark.parametrize(
    ("code", "outcome", "said"),
    [
        (0, HookOutcome.GOOD, ""),
        (10, HookOutcome.GOOD, "failover --command=stop warns (exit 10): no such address"),
        (1, HookOutcome.BAD, "failover --command=stop: exit 1: no such address"),
        (11, HookOutcome.BAD, "failover --command=stop: exit 11: no such address"),
        (255, HookOutcome.BAD, "failover --command=stop: exit 255: no such address"),
    ],
)
def test_exit_codes_mean_what_they_mean_to_mha(
    tmp_path: Path, code: int, outcome: HookOutcome, said: str
) -> None:
    path = script(tmp_path, f"echo first; echo no such address >&2; exit {code}")
    ran = Execution(hook(path)).run("stop", [], b"")
    assert ran.code == code
    assert verdict(ran) == (outcome, said)


def test_one_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    path = script(tmp_path, "sleep 600 & echo $!; echo $$; sleep 601")
    begun = time.monotonic()
    ran = Execution(hook(path, seconds=0.8)).run("stop", [], b"")
    assert time.monotonic() - begun < 10
    assert ran.code is None
    assert verdict(ran)[0] is HookOutcome.BAD
    assert "had not ended within 0.8 s" in ran.trouble
    pids = [int(line) for line in ran.output.split()]
    assert len(pids) == 2
    end = time.monotonic() + 5
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < end, "it lives on"
        time.sleep(0.01)


def test_one_that_ignores_every_signal_it_can_is_killed_too(tmp_path: Path) -> None:
    path = script(tmp_path, "trap '' TERM INT HUP; while :; do sleep 1; done")
    assert Execution(hook(path, seconds=0.5)).run("stop", [], b"").code is None


def test_what_it_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    path = script(tmp_path, "sleep 30 & echo $!; exit 0")
    begun = time.monotonic()
    ran = Execution(hook(path)).run("stop", [], b"")
    assert ran.code == 0
    assert time.monotonic() - begun < 15
    os.kill(int(ran.output), signal.SIGKILL)


def test_megabytes_are_read_and_both_ends_are_kept(tmp_path: Path) -> None:
    path = script(tmp_path, "echo begins; head -c 5000000 /dev/zero | tr '\\0' x; echo; echo ends")
    ran = Execution(hook(path, seconds=60)).run("stop", [], b"")
    assert ran.code == 0
    assert ran.output.startswith("begins\nxxx")
    assert ran.output.endswith("x\nends\n")
    assert f"{5_000_013 - HEAD_BYTES - TAIL_BYTES} bytes left out" in ran.output
    assert len(ran.output) < HEAD_BYTES + TAIL_BYTES + 100


def test_what_would_change_a_terminal_is_not_kept(tmp_path: Path) -> None:
    path = script(tmp_path, r"printf '\033[2Jgone\377\n'")
    assert (
        Execution(hook(path)).run("stop", [], b"").output == "?[2Jgone\N{REPLACEMENT CHARACTER}\n"
    )


@pytest.mark.parametrize("kind", ["missing", "not executable", "no interpreter"])
def test_one_that_cannot_be_run_says_so(tmp_path: Path, kind: str) -> None:
    path = script(tmp_path, "exit 0", "/no/such/perl" if kind == "no interpreter" else "/bin/sh")
    if kind == "missing":
        path.unlink()
    elif kind == "not executable":
        path.chmod(0o644)
    ran = Execution(hook(path)).run("stop", [], b"")
    outcome, text = verdict(ran)
    assert outcome is HookOutcome.BAD
    assert f"{path}, or what runs it, is not there or not executable" in text


def test_one_that_nobody_waits_for_any_more_is_ended(tmp_path: Path) -> None:
    execution = Execution(hook(script(tmp_path, "sleep 60")))
    threading.Timer(0.3, execution.kill).start()
    ran = execution.run("stop", [], b"")
    assert ran.code is None
    assert ran.seconds < 30


def test_one_that_is_ended_before_it_began_does_nothing_for_long(tmp_path: Path) -> None:
    execution = Execution(hook(script(tmp_path, "sleep 60")))
    execution.kill()
    assert execution.run("stop", [], b"").seconds < 30


def test_one_whose_manager_is_killed_ends_in_time_by_itself(tmp_path: Path) -> None:
    """No process is left that could end it: the backstop does."""
    mark = tmp_path / "pid"
    path = script(tmp_path, f"echo $$ > {mark}.new; mv {mark}.new {mark}; sleep 600")
    program = (
        "from holdfast.endpoint import hooks; hooks.BACKSTOP_SECONDS = 0.5\n"
        f"hooks.Execution(hooks.Hook('failover', ({str(path)!r},), 1.0)).run('stop', [], b'')"
    )
    manager = subprocess.Popen([sys.executable, "-c", program])
    end = time.monotonic() + 20
    while not mark.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    manager.kill()
    manager.wait()
    pid = int(mark.read_text())
    while alive(pid):
        assert time.monotonic() < end, "it lives on"
        time.sleep(0.02)


def test_secrets_of_its_environment_are_not_in_what_is_kept_of_it(tmp_path: Path) -> None:
    path = script(tmp_path, 'set -x; mysql() { :; }; mysql -p"$DB_PASSWORD"; echo "$PORT"')
    ran = Execution(hook(path, DB_PASSWORD="geheim77", PORT="3306")).run("stop", [], b"")
    assert "geheim77" not in ran.output
    assert "-p***" in ran.output
    assert "3306" in ran.output
    assert "geheim77" not in repr(hook(path, DB_PASSWORD="geheim77"))


def test_a_failover_gets_the_arguments_of_master_ip_failover_script() -> None:
    old = "--orig_master_host=db1 --orig_master_ip=10.0.0.1 --orig_master_port=3306"
    new = "--new_master_host=db2 --new_master_ip=10.0.0.2 --new_master_port=3307"

    def given(asked: str) -> str:
        return " ".join(contract.arguments("failover", asked, CHANGE, LOGIN))

    assert given("stop") == f"{old} --command=stop"
    assert given("stopssh") == f"{old} --command=stopssh --ssh_user=root"
    assert given("start") == f"--command=start --ssh_user=root {old} {new} --new_master_user=mha"
    assert given("status") == f"--command=status --ssh_user=root {old}"


def test_a_switchover_gets_the_arguments_of_master_ip_online_change_script() -> None:
    for asked in ("stop", "start"):
        given = contract.arguments("switchover", asked, CHANGE, LOGIN)
        assert given == [
            f"--command={asked}",
            "--orig_master_host=db1",
            "--orig_master_ip=10.0.0.1",
            "--orig_master_port=3306",
            "--orig_master_user=mha",
            "--new_master_host=db2",
            "--new_master_ip=10.0.0.2",
            "--new_master_port=3307",
            "--new_master_user=mha",
            "--orig_master_ssh_user=root",
            "--new_master_ssh_user=root",
            "--orig_master_is_new_slave",
        ]


def test_shutdown_gets_the_arguments_of_shutdown_script() -> None:
    given = contract.arguments("shutdown", "stopssh", CHANGE, LOGIN)
    host = ["--host=db1", "--ip=10.0.0.1", "--port=3306"]
    assert given == ["--command=stopssh", "--ssh_user=root", *host]
    assert contract.arguments("shutdown", "stop", CHANGE, LOGIN) == ["--command=stop", *host]


def test_stopssh_is_asked_where_the_old_primarys_agent_answers() -> None:
    silent = PrimaryChange("shop", TransitionKind.FAILOVER, 7, CHANGE.old)
    planned = PrimaryChange("shop", TransitionKind.SWITCHOVER, 7, CHANGE.old, reachable=True)
    assert contract.command(Phase.STOP, CHANGE) == "stopssh"
    assert contract.command(Phase.STOP, silent) == "stop"
    assert contract.command(Phase.STOP, planned) == "stop"
    assert contract.command(Phase.START, CHANGE) == "start"


OPTIONS = """
use strict; use warnings FATAL => 'all'; use Getopt::Long qw(:config no_pass_through);
my ($command, $ssh_user, $oh, $oi, $op, $nh, $ni, $np, $nu, $pw);
GetOptions('command=s' => \\$command, 'ssh_user=s' => \\$ssh_user, 'orig_master_host=s' => \\$oh,
  'orig_master_ip=s' => \\$oi, 'orig_master_port=i' => \\$op, 'new_master_host=s' => \\$nh,
  'new_master_ip=s' => \\$ni, 'new_master_port=i' => \\$np, 'new_master_user=s' => \\$nu,
  'new_master_password=s' => \\$pw, 'orig_master_password=s' => \\my $opw) or exit 2;
exit &main();
sub main {
  if ($command eq "stop" || $command eq "stopssh") { print "Disabling the VIP on $oh\\n"; return 0; }
  if ($command eq "start") { print "Enabling the VIP on $nh:$np for $nu", $pw ? " who may" : "", "\\n"; return 0; }
  if ($command eq "status") { print "OK\\n"; return 0; }
  return 1;
}
"""


def test_a_script_of_mhas_kind_works_unchanged(tmp_path: Path) -> None:
    path = script(tmp_path, OPTIONS, "/usr/bin/env perl")
    for asked, said in [
        ("stop", "Disabling the VIP on db1\n"),
        ("stopssh", "Disabling the VIP on db1\n"),
        ("start", "Enabling the VIP on db2:3307 for mha\n"),
        ("status", "OK\n"),
    ]:
        arguments = contract.arguments("failover", asked, CHANGE, LOGIN)
        ran = Execution(hook(path)).run(asked, arguments, b"{}")
        assert (ran.code, ran.output) == (0, said)


def test_a_script_that_wants_its_password_as_an_argument_gets_it_within_perl(
    tmp_path: Path,
) -> None:
    """As docs/hooks.md describes: the script is unchanged, and the list of processes does not show the password."""
    listing = "tr '\\\\000' '\\\\n' < /proc/$$/cmdline | grep -ae --new_master_"
    path = script(tmp_path, OPTIONS.replace("exit &main()", f"system({listing!r}); exit &main()"))
    words = (
        "-e",
        'push @ARGV, map { "--${_}_master_password=$ENV{DB_PASSWORD}" } qw(orig new); do shift; die $@',
        str(path),
    )
    command = Hook("failover", ("/usr/bin/perl", *words), 20.0, {"DB_PASSWORD": "geheim77"})
    arguments = contract.arguments("failover", "start", CHANGE, LOGIN)
    ran = Execution(command).run("start", arguments, b"{}")
    assert ran.code == 0, ran.output
    assert "Enabling the VIP on db2:3307 for mha who may" in ran.output
    assert "--new_master_host=db2" in ran.output
    assert "***" not in ran.output


def test_the_document_says_the_same_to_all() -> None:
    told = json.loads(contract.document("start", CHANGE, 1.5))
    assert told == {
        "version": 1,
        "id": "shop-7-failover-start",
        "event": "failover",
        "command": "start",
        "cluster": "shop",
        "term": 7,
        "at": 1.5,
        "reason": "",
        "old_primary": {
            "name": "m1",
            "host": "db1",
            "ip": "10.0.0.1",
            "port": 3306,
            "reachable": True,
        },
        "new_primary": {"name": "m2", "host": "db2", "ip": "10.0.0.2", "port": 3307},
        "replicas": [],
        "hooks": [],
    }


def test_a_string_is_split_as_a_shell_would_split_it() -> None:
    config = HooksConfig.model_validate({"failover": "/opt/my\\ hook --vip '10.0.0.9 b'"})
    assert config.failover == ("/opt/my hook", "--vip", "10.0.0.9 b")
    assert HooksConfig.model_validate({"failover": ["/a", "b c"]}).failover == ("/a", "b c")


@pytest.mark.parametrize(
    "wrong",
    [
        {"failover": "hook.sh"},
        {"failover": "/a 'b"},
        {"timeout": "0s"},
        {"timeout": "1h"},
        {"webhooks": [{"url": "ftp://x"}]},
        {"webhooks": [{"url": "https://x:99999/"}]},
        {"webhooks": [{"url": "https://x/a b"}]},
        {"report": ["/bin/true", "a\0b"]},
        {"webhooks": [{"url": "https://user:pw@x/"}]},
        {"start": "/a"},
    ],
)
def test_what_is_wrong_in_the_file_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        HooksConfig.model_validate(wrong)


def test_a_missing_or_locked_executable_is_named_with_its_key(tmp_path: Path) -> None:
    locked = script(tmp_path, "exit 0")
    locked.chmod(stat.S_IRUSR)
    config = HooksConfig(
        failover=("/no/such/hook",), report=(str(locked),), switchover=("/bin/sh",)
    )
    first, second = (str(error) for error in missing(config, "clusters.0.hooks"))
    assert first == "clusters.0.hooks.failover: /no/such/hook is not there"
    assert second.startswith(f"clusters.0.hooks.report: {locked} is not executable: chmod +x")


def test_an_environment_file_is_read_and_a_wrong_line_is_named_without_what_it_holds(
    tmp_path: Path,
) -> None:
    path = tmp_path / "env"
    path.write_text("# for hooks\nDB_PASSWORD=a=b c\n\nOTHER = 'x y'\n")
    assert environment(path, "k") == {"DB_PASSWORD": "a=b c", "OTHER": "x y"}
    path.write_text("A=1\nsecret\n")
    with pytest.raises(BadInput) as refused:
        environment(path, "k")
    assert "line 2" in str(refused.value)
    assert "secret" not in str(refused.value)
