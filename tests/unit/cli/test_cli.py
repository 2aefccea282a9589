"""The command line reports an error in one line, and its exit code gives the kind of the error."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import Any, ClassVar

import pytest

from holdfast.cli.main import app
from holdfast.cli.show.status import _head, short_gtids
from holdfast.cli.switchover import moment
from holdfast.errors import BadInput

STATUS: dict[str, Any] = {
    "cluster": "shop",
    "term": 7,
    "mode": "strong",
    "acks": 1,
    "primary": "m1",
    "writable": True,
    "whole": False,
    "reason": "m1 takes writes; m2 is away",
    "members": [
        {
            "name": "m1", "host": "db1", "port": 3306, "role": "primary", "state": "open",
            "received": "0-1-9", "applied": "0-1-9", "lag_seconds": None, "incarnation": "a",
            "reason": "",
        },
        {
            "name": "m2", "host": "db2", "port": 3306, "role": "out", "state": "down",
            "received": "", "applied": "", "lag_seconds": None, "incarnation": "",
            "reason": "its server was killed",
        },
    ],
}  # fmt: skip


SETTINGS: dict[str, Any] = {
    "version": 4,
    "settings": [
        {"key": "mode", "value": "async", "text": "async", "source": "store", "meaning": "how"},
        {"key": "ack_patience", "value": 0.5, "text": "500ms", "source": "store", "meaning": "p"},
        {"key": "members.m1.zone", "value": "", "text": "", "source": "default", "meaning": "z"},
        {"key": "members.m2.zone", "value": "b", "text": "b", "source": "file", "meaning": "z"},
    ],
}
MEMBERS = [
    {"name": "m1", "host": "db1", "port": 3306, "agent": "http://db1:7401"},
    {"name": "m22", "host": "db22", "port": 3307, "agent": "http://db22:7401"},
]


def bad_input(key: str, wrong: str) -> dict[str, str]:
    return {"error": "BadInput", "message": f"{key}: {wrong}", "key": key, "wrong": wrong}


class _Manager(BaseHTTPRequestHandler):
    """Answers as a manager would."""

    status: ClassVar[dict[str, Any]] = STATUS
    clusters: ClassVar[list[str]] = ["shop"]
    leader: ClassVar[dict[str, Any]] = {"leads": True, "name": "a", "url": ""}
    settings: ClassVar[dict[str, Any]] = SETTINGS
    posts: ClassVar[dict[str, list[tuple[int, Any]]]] = {}
    asked: ClassVar[list[tuple[str, Any]]] = []

    def do_GET(self) -> None:
        answers = {
            "/v1/clusters": {"clusters": self.clusters},
            "/v1/clusters/shop/leader": self.leader,
            "/v1/clusters/shop/status": self.status,
            "/v1/clusters/shop/settings": self.settings,
            "/v1/clusters/shop/members": {"members": MEMBERS},
        }
        if self.headers["Authorization"] != "Bearer s3cret":
            return self._answer(401, {"detail": "no"})
        if self.path not in answers:
            return self._answer(404, {"detail": f"no cluster {self.path}"})
        return self._answer(200, answers[self.path])

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.asked.append((self.path, json.loads(self.rfile.read(length))))
        code, body = self.posts[self.path].pop(0)
        return self._answer(code, body)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, code: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(handler: type[_Manager]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The URL of a manager of one cluster, and a token for it in the environment."""
    (tmp_path / "token").touch(0o600)
    (tmp_path / "token").write_text("s3cret\n")
    monkeypatch.setenv("HOLDFAST_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setattr(_Manager, "asked", [])
    with serving(_Manager) as url:
        yield url


@pytest.fixture(autouse=True)
def nobody_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("HOLDFAST_MANAGER", raising=False)
    monkeypatch.delenv("HOLDFAST_TOKEN_FILE", raising=False)


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        app(list(arguments))
    return int(ended.value.code or 0)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("holdfast: ")
    assert captured.err.count("\n") == 1
    return captured.err.removeprefix("holdfast: ")


@pytest.mark.parametrize("command", ["agent", "manager"])
@pytest.mark.parametrize(
    ("text", "key"),
    [
        (None, "--config: cannot read"),
        ("nonsense", "f.yaml: must be a mapping"),
        ("listen: 127.0.0.1:1\nlisten: 127.0.0.1:2\n", "f.yaml: not valid YAML"),
        ("listen: 5\n", "f.yaml: listen: "),
    ],
)
def test_bad_configuration_names_the_key_and_starts_nothing(
    command: str, text: str | None, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "f.yaml"
    if text is not None:
        path.write_text(text)
    assert exit_code(command, "--config", str(path)) == 1
    assert key in said(capsys)


@pytest.mark.parametrize("wrong", [["no-such"], ["status", "--no-such"], ["agent"]])
def test_wrong_usage_is_2(wrong: list[str]) -> None:
    assert exit_code(*wrong) == 2


@pytest.mark.parametrize("text", ["25:99", "24:00", "-5:00", "tomorrow"])
def test_what_is_no_time_of_day_is_no_time(text: str) -> None:
    with pytest.raises(BadInput, match="is no time"):
        moment(text)


def test_without_manager_or_sandbox_status_says_what_to_give(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code("status") == 1
    assert said(capsys).startswith("--manager: ")


def test_a_manager_that_does_not_answer_is_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("status", "--manager", "http://127.0.0.1:9") == 3
    assert "does not answer" in said(capsys)


def test_no_sandbox_is_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for command in (["down"], ["status"], ["kill", "m1"], ["cont", "m1"]):
        assert exit_code("sandbox", *command, "--dir", str(tmp_path)) == 1
        assert said(capsys).startswith("--dir: there is no sandbox")


def test_a_folder_with_other_things_is_no_sandbox(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "letters").touch()
    assert exit_code("sandbox", "up", "--dir", str(tmp_path)) == 1
    assert "holds no sandbox" in said(capsys)
    assert [each.name for each in tmp_path.iterdir()] == ["letters"]


def test_status_shows_the_members_and_why_one_is_not_well(
    manager: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("status", "--manager", manager) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "shop: term 7, strong, 1 ack"
    assert lines[1].split() == ["member", "address", "role", "state", "received", "lag"]
    assert lines[2].split() == ["m1", "db1:3306", "primary", "open", "0-1-9", "-"]
    assert lines[3].split() == ["m2", "db2:3306", "out", "down", "-"]
    assert lines[4:] == [
        "m1 takes writes; m2 is away",
        "m2: its server was killed",
    ]


def test_status_says_once_what_the_manager_has_told(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    m1, m2 = STATUS["members"]
    told = {**m2, "told": True, "failed": "clone: no", "failed_told": True}
    for member, lines in (
        (told, []),
        ({**told, "told": False}, ["m2: its server was killed"]),
        ({**told, "failed_told": False}, ["m2: refused or failed: clone: no"]),
    ):
        shown = {**STATUS, "headline": "takes writes; m2 is away", "members": [m1, member]}
        monkeypatch.setattr(_Manager, "status", shown)
        assert exit_code("status", "--manager", manager) == 0
        assert capsys.readouterr().out.splitlines()[4:] == ["takes writes; m2 is away", *lines]


def test_status_of_a_cluster_that_takes_no_writes_is_4(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = {**STATUS, "writable": False, "reason": "no quorum"}
    monkeypatch.setattr(_Manager, "status", closed)
    assert exit_code("status", "--manager", manager, "--json") == 4
    assert json.loads(capsys.readouterr().out) == closed | {"leader": _Manager.leader}


def test_several_clusters_need_a_name(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Manager, "clusters", ["shop", "mail"])
    assert exit_code("status", "--manager", manager) == 1
    assert said(capsys).startswith("--cluster: is needed: the manager has shop, mail")
    assert exit_code("status", "--manager", manager, "--cluster", "news") == 1
    assert "404" in said(capsys)
    assert exit_code("status", "--manager", manager, "--cluster", "shop") == 0


def test_a_wrong_token_is_bad_input(
    manager: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "other").touch(0o600)
    (tmp_path / "other").write_text("guess\n")
    other = str(tmp_path / "other")
    assert exit_code("status", "--manager", manager, "--token-file", other) == 1
    assert "does not accept the token" in (told := said(capsys))
    assert told.startswith("--token-file: ")


def test_no_token_at_all_is_told_from_a_wrong_one(
    manager: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HOLDFAST_TOKEN_FILE")
    assert exit_code("status", "--manager", manager) == 1
    assert "wants a token, and none was given" in said(capsys)


def test_a_token_that_others_can_read_is_warned_of(
    manager: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "token").chmod(0o640)
    assert exit_code("status", "--manager", manager, "--json") == 0
    assert "users other than its owner can read this token (0640)" in capsys.readouterr().err
    (tmp_path / "token").chmod(0o600)
    assert exit_code("status", "--manager", manager, "--json") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("0-1-5,0-2-9", "0-1-5, 0-2-9"),
        ("77dc4e75-e541-11f1-a0ba-02fc00000001:1-2,\n77dc4e75-e541-11f1-a0ba-02fc00000001:1-3",
         "77dc…0001:1-3"),
        (",".join(f"0-{server}-100000" for server in range(1, 7)), "0-1-100000, 0-2-100000 +4"),
    ],
)  # fmt: skip
def test_gtids_are_shortened_for_people(text: str, shown: str) -> None:
    assert short_gtids(text, 30) == shown


def test_config_show_says_where_each_value_comes_from(
    manager: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("config", "show", "--manager", manager) == 0
    assert capsys.readouterr().out.splitlines() == [
        "key              value  from     meaning",
        "mode             async  store    how",
        "ack_patience     500ms  store    p",
        "members.m1.zone  -      default  z",
        "members.m2.zone  b      file",
    ]
    assert exit_code("config", "show", "--manager", manager, "--json") == 0
    assert json.loads(capsys.readouterr().out) == SETTINGS


def test_config_set_sends_all_at_once_and_tells_what_is_given_up(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/v1/clusters/shop/settings"
    posts = {path: [(200, {"version": 5, "notes": ["mode: it gives something up"]})]}
    monkeypatch.setattr(_Manager, "posts", posts)
    assert exit_code("config", "set", "mode", "async", "a", "b", "--manager", manager) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["mode = async", "a = b"]
    assert said.err == "note: mode: it gives something up\n"
    sent: dict[str, Any] = {"set": {"mode": "async", "a": "b"}, "unset": [], "expected": None}
    assert _Manager.asked == [(path, sent)]


def test_a_value_that_begins_with_a_dash_is_no_option(
    manager: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/v1/clusters/shop/settings"
    refusal = bad_input("semi_sync_timeout", "must be greater than 0")
    monkeypatch.setattr(_Manager, "posts", {path: [(400, refusal)]})
    assert exit_code("config", "set", "semi_sync_timeout", "-1", "--manager", manager) == 1
    assert said(capsys) == "semi_sync_timeout: must be greater than 0\n"
    assert _Manager.asked[0][1]["set"] == {"semi_sync_timeout": "-1"}


@pytest.mark.parametrize("wrong", [["--jsn", "mode", "async"], ["mode", "--jsn"], ["-x", "1"]])
def test_a_mistyped_option_is_no_key_and_no_value(
    wrong: list[str], manager: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("config", "set", *wrong, "--manager", manager) == 2
    assert "no such option" in capsys.readouterr().err
    assert not _Manager.asked


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (["switchover", "--timeout", "-1s"], "must not be below 0"),
        (["switchover", "--timeout", "0"], "must be more than 0"),
        (["switchover", "--kill-long", "soon"], "must be a duration"),
        (["failover", "--timeout", "5 minutes"], "must be a duration"),
        (["member", "remove", "m2", "--timeout", "x"], "must be a duration"),
        (["restart", "--all", "--timeout", "x"], "must be a duration"),
        (["adopt", "--timeout", "x"], "must be a duration"),
        (["pause", "--reason", "x", "--for", "0"], "must be more than 0"),
    ],
)
def test_every_duration_takes_units_and_says_what_is_none(
    wrong: list[str], why: str, manager: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*wrong, "--manager", manager) == 2
    assert why in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not _Manager.asked


def test_durations_reach_the_manager_as_seconds_and_its_errors_name_the_option(
    manager: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/v1/clusters/shop/switchover"
    refusal = bad_input("seconds", "must be less than or equal to 3600")
    monkeypatch.setattr(_Manager, "posts", {path: [(400, refusal)]})
    given = ["--timeout", "2h", "--kill-long", "1.5m", "--old", "500ms", "--manager", manager]
    assert exit_code("switchover", *given) == 1
    assert said(capsys) == "--timeout: must be less than or equal to 3600\n"
    asked = _Manager.asked[0][1]
    assert (asked["seconds"], asked["kill_after"], asked["old"]) == (7200.0, 90.0, 0.5)
    assert asked["wait"], "--kill-long waits"


def test_a_failover_to_one_that_did_not_take_over_is_no_success(
    manager: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, lost = "/v1/clusters/shop/failover", STATUS | {"writable": False, "under_way": ""}

    def begins(self: _Manager) -> None:
        type(self).status = STATUS | {"primary": "m2", "under_way": ""}
        _Manager.do_POST(self)

    failing = type("Failing", (_Manager,), {"status": lost, "do_POST": begins})
    monkeypatch.setattr(_Manager, "posts", {path: [(200, {"done": "it has begun"})]})
    with serving(failing) as url:
        assert exit_code("failover", "--to", "m3", "--manager", url) == 1
    assert "m2 is primary and takes writes, not m3" in capsys.readouterr().err


def test_an_interrupted_order_says_what_becomes_of_it(
    manager: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, done = "/v1/clusters/shop/failover", (200, {"done": "it has begun"})
    monkeypatch.setattr(_Manager, "posts", {path: [done]})
    monkeypatch.setattr(_Manager, "status", STATUS | {"writable": False, "under_way": ""})

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("holdfast.cli.failover.until_open", interrupted)
    assert exit_code("failover", "--manager", manager) == 130
    assert "the failover has begun and continues" in capsys.readouterr().err


def test_a_switchover_that_is_interrupted_while_it_waits_is_called_off(
    manager: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, left = Event(), Event()

    def waits(self: _Manager) -> None:
        asked.set()
        left.wait(10)

    def calls_off(self: _Manager) -> None:
        left.set()
        self._answer(200, {"done": f"{self.path} is called off before it began"})

    def shown(self: _Manager) -> None:
        if asked.is_set() and self.path.endswith("/status"):
            os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does, to the main thread
        _Manager.do_GET(self)

    methods = {"do_POST": waits, "do_DELETE": calls_off, "do_GET": shown}
    with serving(type("Waiting", (_Manager,), methods)) as url:
        assert exit_code("switchover", "--wait", "--manager", url) == 130
    assert left.is_set()
    told = capsys.readouterr().err
    assert "/v1/clusters/shop/switchover?waiting=true is called off before it began" in told


def test_a_pause_says_until_when_and_what_it_replaces(
    manager: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/v1/clusters/shop/pause"
    replaces = {"reason": "a new switch", "until": 1.0}
    answers = [
        {"done": "", "until": 100.0, "replaces": None},
        {"done": "", "until": None, "replaces": replaces},
    ]
    monkeypatch.setattr(_Manager, "posts", {path: [(200, each) for each in answers]})
    assert exit_code("pause", "--reason", "disks", "--for", "2m", "--manager", manager) == 0
    assert capsys.readouterr().out.startswith("paused until 1970-01-01 ")
    assert _Manager.asked[0][1] == {"reason": "disks", "seconds": 120.0}
    assert exit_code("pause", "--reason", "disks", "--manager", manager) == 0
    captured = capsys.readouterr()
    assert captured.out == "paused until it is resumed: disks\n"
    assert "it replaces the pause until 1970-01-01 " in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mode",), "mode: needs a value"),
        (("mode", "async", "mode", "strong"), "config set: a key is given twice"),
        (("mode=async", "mode=strong"), "config set: a key is given twice"),
        (("mode=async", "mode", "x"), "x: needs a value"),
    ],
)
def test_config_set_without_pairs_is_refused_here(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("config", "set", *arguments) == 1
    assert said(capsys).startswith(message)


@pytest.mark.parametrize(
    ("code", "error", "exits"),
    [
        (400, bad_input("mode", "must be something"), 1),
        (400, {"error": "BadInput", "message": "of an earlier version: no key"}, 1),
        (409, {"error": "Refused", "message": "no"}, 1),
        (503, {"error": "Unreachable", "message": "it does not lead"}, 3),
        (504, {"error": "OutcomeUnknown", "message": "perhaps"}, 3),
    ],
)
def test_what_the_manager_refuses_has_its_consequence_here(
    manager: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    error: dict[str, str],
    exits: int,
) -> None:
    monkeypatch.setattr(_Manager, "posts", {"/v1/clusters/shop/settings": [(code, error)]})
    assert exit_code("config", "set", "mode", "x", "--manager", manager) == exits
    assert said(capsys).strip() == error["message"]


def editor(folder: Path, *steps: str) -> str:
    """An editor that does one of these to the file each time: python, with the text as ``t``."""
    script = folder / "editor.py"
    (folder / "steps").write_text(json.dumps(steps))
    script.write_text(f"""
import json, pathlib, sys
steps = pathlib.Path({str(folder / "steps")!r})
first, *rest = json.loads(steps.read_text())
steps.write_text(json.dumps(rest))
path = pathlib.Path(sys.argv[1])
t = path.read_text()
(pathlib.Path({str(folder)!r}) / "offered").write_text(t)
path.write_text(eval(first))
""")
    return f"{sys.executable} {script}"


def test_config_edit_changes_what_was_edited(
    manager: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = "/v1/clusters/shop/settings"
    monkeypatch.setattr(_Manager, "posts", {path: [(200, {"version": 5, "notes": []})]})
    change = "t.replace('ack_patience: 500ms', 'when_alone: serve')"
    monkeypatch.setenv("VISUAL", editor(tmp_path, change))
    assert exit_code("config", "edit", "--manager", manager) == 0
    offered = (tmp_path / "offered").read_text()
    assert "#   members.m2.zone: b" in offered
    assert offered.endswith("mode: async\nack_patience: 500ms\n")
    sent = {
        "set": {"mode": "async", "when_alone": "serve"},
        "unset": ["ack_patience"],
        "expected": 4,
    }
    assert _Manager.asked == [(path, sent)]
    assert "ack_patience is taken out" in capsys.readouterr().out


def test_config_edit_without_a_change_asks_for_nothing(
    manager: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("VISUAL", editor(tmp_path, "t + '# a thought\\n'"))
    assert exit_code("config", "edit", "--manager", manager) == 0
    assert capsys.readouterr().out == "nothing was changed\n"
    assert _Manager.asked == []


def test_config_edit_offers_what_was_refused_again_with_the_reason(
    manager: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = "/v1/clusters/shop/settings"
    refusal = bad_input("mode", "no")
    done = {"version": 5, "notes": []}
    monkeypatch.setattr(_Manager, "posts", {path: [(400, refusal), (200, done)]})
    add, mend = "t + 'mod: async\\n'", "t.replace('mod: async', 'when_alone: serve')"
    monkeypatch.setenv("VISUAL", editor(tmp_path, add, mend, "t + 'wait_point: after_sync\\n'"))
    monkeypatch.setattr("holdfast.cli.config._again", lambda: True)
    assert exit_code("config", "edit", "--manager", manager) == 0
    err = capsys.readouterr().err.splitlines()
    assert err == ["holdfast: mod: unknown key; did you mean mode?", "holdfast: mode: no"]
    assert (tmp_path / "offered").read_text().startswith("# Refused: mode: no\n# Settings of shop")
    assert len(_Manager.asked) == 2


def test_config_edit_with_an_editor_that_fails_changes_nothing(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "/no/such/editor")
    assert exit_code("config", "edit", "--manager", manager) == 1
    assert "nothing was changed" in said(capsys)


def test_config_edit_without_a_terminal_starts_no_editor(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    assert exit_code("config", "edit", "--manager", manager) == 1
    assert "needs a terminal" in said(capsys)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"holdfast {version('holdfast')}\n"


def test_members_are_listed_in_columns(manager: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("member", "list", "--manager", manager) == 0
    assert capsys.readouterr().out.splitlines() == [
        "m1   db1:3306   http://db1:7401",
        "m22  db22:3307  http://db22:7401",
    ]


def test_member_remove_asks_until_it_is_removed(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/v1/clusters/shop/members/m2/remove"
    waits = (200, {"removed": False, "waiting": "it votes until then"})
    gone = (200, {"removed": True, "waiting": "", "notes": ["a note"]})
    monkeypatch.setattr(_Manager, "posts", {path: [waits, waits, gone]})
    assert exit_code("member", "remove", "m2", "--manager", manager) == 0
    told = capsys.readouterr()
    assert told.out == "m2 is no longer a member\n"
    assert told.err.splitlines() == ["  m2: it votes until then", "note: a note"]
    monkeypatch.setattr(_Manager, "posts", {path: [waits, waits]})
    assert exit_code("member", "remove", "m2", "--timeout", "0", "--manager", manager) == 3
    assert "ask again to go on, or" in capsys.readouterr().err


def test_member_clone_says_that_it_has_begun(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/v1/clusters/shop/members/m2/clone"
    monkeypatch.setattr(_Manager, "posts", {path: [(200, {"done": "m2 is being cloned"})]})
    options = ("--from", "m1", "--discard", "--json", "--manager", manager)
    assert exit_code("member", "clone", "m2", *options) == 0
    assert json.loads(capsys.readouterr().out)["done"] == "m2 is being cloned"
    assert _Manager.asked == [(path, {"donor": "m1", "discard": True})]


def test_restart_all_wants_to_be_told_so_and_a_whole_cluster(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exit_code("restart", "--manager", manager) == 1
    assert said(capsys).startswith("--all: is needed")
    assert exit_code("restart", "--all", "--manager", manager) == 1
    assert "nothing was restarted: m1 takes writes; m2 is away" in said(capsys)
    monkeypatch.setattr(_Manager, "status", {**STATUS, "whole": True})
    assert exit_code("restart", "--all", "--manager", manager) == 1
    assert "while m1, the primary, restarts: add --yes" in said(capsys)
    assert _Manager.asked == []


def test_status_shows_what_is_out_of_the_ordinary_and_nothing_else(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = STATUS["members"]
    quiet = {"stage": "", "bytes_behind": None, "eta_seconds": None, "zone": "", "priority": 100}
    copying = {"what": "cloning from m1", "done": 2**30, "total": 2**32, "rate": 2.0**26}
    learner = {
        **quiet,
        "role": "learner",
        "stage": "catching up",
        "bytes_behind": 300 * 2**20,
        "eta_seconds": 75.0,
        "priority": 0,
        "progress": copying,
    }
    members = [{**one, **quiet}, {**two, **learner}]
    answer = {**STATUS, "mode": "semi-sync", "degraded": True, "members": members}
    monkeypatch.setattr(_Manager, "status", answer)
    assert exit_code("status", "--manager", manager) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "shop: term 7, semi-sync (degraded: commits do not wait now), 1 ack"
    assert lines[1].split() == [
        "member", "address", "role", "stage", "behind", "priority", "state", "received", "lag",
    ]  # fmt: skip
    assert "catching up" in lines[3]
    assert "300 MB, 75 s left" in lines[3]
    assert lines[4] == "m2: cloning from m1: 1.0 GB of 4.0 GB (25 %), 64 MB/s, 48 s left"
    monkeypatch.setattr(_Manager, "status", {**STATUS, "doubt": "0-1-9"})
    assert exit_code("status", "--manager", manager) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "strong (in doubt: a replica that is no voter acknowledged)" in first


def test_status_of_a_learner_far_behind_says_how_far_and_how_long(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = STATUS["members"]
    place = {"zone": "", "priority": 100}
    learner = {"role": "learner", "stage": "learner", "bytes_behind": 2**29, "eta_seconds": 130.0}
    members = [
        {**one, **place, "stage": "", "bytes_behind": None, "eta_seconds": None},
        {**two, **place, **learner},
    ]
    monkeypatch.setattr(_Manager, "status", {**STATUS, "members": members})
    assert exit_code("status", "--manager", manager) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "512 MB, 2 min left" in lines[3]
    assert lines[3].count("learner") == 1


@pytest.mark.parametrize("wrong", [["a"], ["a=1", "b"]])
def test_sandbox_settings_are_key_and_value(
    wrong: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = [each for pair in wrong for each in ("--set", pair)]
    assert exit_code("sandbox", "up", "--dir", str(tmp_path / "x"), *options) == 1
    assert said(capsys).startswith("--set: must be KEY=VALUE, not")


class _Follower(_Manager):
    """A manager that does not lead."""

    leader: ClassVar[dict[str, Any]] = {"leads": False, "name": "a", "url": "http://db1:7400"}
    status: ClassVar[dict[str, Any]] = STATUS | {"primary": "", "writable": False}


def test_of_several_managers_the_one_that_leads_is_asked_and_dead_ones_cost_a_second_at_most(
    manager: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(_Follower) as follower, closing(socket.create_server(("127.0.0.1", 0))) as silent:
        hung = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        several = f"http://127.0.0.1:9, {hung},{follower},{manager}"
        assert exit_code("status", "--manager", several) == 0
        assert time.monotonic() - begun < 2
    assert "m1 takes writes" in capsys.readouterr().out


def test_a_manager_that_does_not_lead_names_the_one_that_does(
    manager: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(_Follower) as follower:
        assert exit_code("status", "--manager", follower) == 4
        assert "led by a (http://db1:7400)" in capsys.readouterr().out
        assert exit_code("status", "--manager", f"{follower},http://127.0.0.1:9", "--json") == 4
        assert json.loads(capsys.readouterr().out)["leader"]["name"] == "a"


def test_of_several_managers_none_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("status", "--manager", "http://127.0.0.1:9,http://127.0.0.1:8") == 3
    text = said(capsys)
    assert "127.0.0.1:9" in text
    assert "127.0.0.1:8" in text
    assert exit_code("status", "--manager", " , ") == 1
    assert said(capsys).startswith("--manager: ")


def test_several_managers_that_refuse_the_token_say_so(
    manager: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HOLDFAST_TOKEN_FILE")
    assert exit_code("status", "--manager", f"{manager},http://127.0.0.1:9") == 1
    assert said(capsys).startswith("--token-file: ")


def test_a_repair_of_the_store_tells_what_is_not_known(
    manager: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/v1/clusters/shop/store/repair"
    doubt = "m3 may remember a later record (no answer in time)"
    reply = {"cluster": "shop", "term": 9, "primary": "m1", "source": "m2", "doubts": [doubt]}
    answers = [(200, reply | {"done": False}), (200, reply | {"done": True})]
    monkeypatch.setattr(_Manager, "posts", {path: answers})
    order = ("store", "repair", "shop", "--manager", manager)
    assert exit_code(*order, "--dry-run") == 0
    looked = capsys.readouterr()
    assert looked.out == "shop would be rebuilt from what m2 remembers: m1 is primary, term 9\n"
    assert looked.err == f"not known: {doubt}\n"
    assert exit_code(*order, "--accept-loss", "shop", "--from", "m2") == 0
    assert "shop is rebuilt from what m2 remembers" in capsys.readouterr().out
    assert [asked for _, asked in _Manager.asked] == [
        {"dry_run": True, "accept_loss": "", "source": ""},
        {"dry_run": False, "accept_loss": "shop", "source": "m2"},
    ]


def test_a_store_that_needs_no_repair_is_no_failure_of_a_dry_run(
    manager: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/v1/clusters/shop/store/repair"
    found: dict[str, Any] = {
        "cluster": "shop",
        "term": 7,
        "primary": "m1",
        "source": "",
        "doubts": [],
        "done": False,
    }
    needless = found | {"needless": "the record of shop agrees: there is nothing to repair"}
    monkeypatch.setattr(_Manager, "posts", {path: [(200, needless)]})
    assert exit_code("store", "repair", "shop", "--dry-run", "--manager", manager) == 0
    assert capsys.readouterr().out == needless["needless"] + "\n"


def test_an_agent_is_confirmed(
    manager: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = "/v1/clusters/shop/members/m2/confirm"
    monkeypatch.setattr(_Manager, "posts", {path: [(200, {"done": "it is m2's from now on"})]})
    assert exit_code("member", "confirm", "m2", "--manager", manager) == 0
    assert capsys.readouterr().out == "it is m2's from now on\n"


def test_status_shows_an_order_that_waits_also_where_all_is_well(
    manager: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "the switchover to m2 that was ordered by alice at 192.0.2.7 waits, 30 s at most: lag"
    monkeypatch.setattr(_Manager, "status", STATUS | {"whole": True, "waiting": text})
    assert exit_code("status", "--manager", manager) == 0
    assert f"{text} (holdfast switchover --cancel calls it off)" in capsys.readouterr().out


def test_a_pause_says_until_when() -> None:
    answer = {
        "cluster": "c",
        "term": 1,
        "mode": "strong",
        "acks": 1,
        "paused": "disks",
        "paused_until": 86400.0,
    }
    assert re.search(r", PAUSED until 1970-01-0\d \d\d:\d\d:\d\d \S+$", _head(answer))
    assert _head({**answer, "paused_until": None}).endswith(", PAUSED")
