"""The command line says in one line what is wrong, and its exit code says what kind of wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from holdfast.cli.main import app
from holdfast.cli.status import short_gtids

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


class _Manager(BaseHTTPRequestHandler):
    """Answers as a manager would."""

    status: ClassVar[dict[str, Any]] = STATUS
    clusters: ClassVar[list[str]] = ["shop"]

    def do_GET(self) -> None:
        answers = {
            "/v1/clusters": {"clusters": self.clusters},
            "/v1/clusters/shop/status": self.status,
        }
        if self.headers["Authorization"] != "Bearer s3cret":
            return self._answer(401, {"detail": "no"})
        if self.path not in answers:
            return self._answer(404, {"detail": f"no cluster {self.path}"})
        return self._answer(200, answers[self.path])

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, code: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The URL of a manager of one cluster, and a token for it in the environment."""
    (tmp_path / "token").write_text("s3cret\n")
    monkeypatch.setenv("HOLDFAST_TOKEN_FILE", str(tmp_path / "token"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Manager)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


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
        "takes writes; m1 takes writes; m2 is away",
        "m2: its server was killed",
    ]


def test_status_of_a_cluster_that_takes_no_writes_is_4(
    manager: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = {**STATUS, "writable": False, "reason": "no quorum"}
    monkeypatch.setattr(_Manager, "status", closed)
    assert exit_code("status", "--manager", manager, "--json") == 4
    assert json.loads(capsys.readouterr().out) == closed


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
    (tmp_path / "other").write_text("guess\n")
    other = str(tmp_path / "other")
    assert exit_code("status", "--manager", manager, "--token-file", other) == 1
    assert said(capsys).startswith("--token-file: ")


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
