"""The agent as a process: its message when it cannot start, and what it leaves when it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from holdfast.server.process.process import ServerProcess
from tests.unit.agent_world import SLEEPER

SHOWN = {"Authorization": "Bearer secret"}


class Agent:
    """``python -m holdfast.agent`` with a configuration of its own."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        (folder / "data" / "mysql").mkdir(parents=True)
        (folder / "my.cnf").touch()
        (folder / "server.py").write_text(SLEEPER)
        (folder / "secret").touch(mode=0o600)
        (folder / "secret").write_text("secret\n")
        account = {"user": "holdfast", "password_file": str(folder / "secret")}
        self.config: dict[str, Any] = {
            "listen": self.url.removeprefix("http://"),
            "token_file": str(folder / "secret"),
            "cluster": "c",
            "name": "a",
            "state_dir": str(folder / "state"),
            "replication": account,
            "server": {
                "flavor": "mariadb",
                "command": [sys.executable, str(folder / "server.py")],
                "option_file": str(folder / "my.cnf"),
                "datadir": str(folder / "data"),
                "socket": str(folder / "sock"),
                "binlog_index": str(folder / "data" / "binlog.index"),
                "admin": account,
            },
            **changes,
        }
        self.running: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        path = self.folder / "agent.yaml"
        path.write_text(yaml.safe_dump(self.config))
        self.running.append(
            subprocess.Popen(
                [sys.executable, "-m", "holdfast.agent", str(path)],
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return self.running[-1]

    def answers(self) -> None:
        end = time.monotonic() + 40
        while True:
            try:
                httpx.get(f"{self.url}/v1/health")
                return
            except httpx.TransportError:
                assert time.monotonic() < end
                time.sleep(0.05)

    def command(self, term: int, name: str) -> Any:
        body = {"term": term, "command": name}
        return httpx.post(f"{self.url}/v1/command", json=body, headers=SHOWN, timeout=20).json()

    def state(self) -> Any:
        return httpx.get(f"{self.url}/v1/state", headers=SHOWN, timeout=20).json()["state"]

    def server(self) -> ServerProcess:
        command = (sys.executable, str(self.folder / "server.py"))
        return ServerProcess(
            command, self.folder / "my.cnf", self.folder / "data", self.folder / "out"
        )


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    for each in agent.running:
        each.kill()
        each.communicate()
    left = agent.server().find()
    if left is not None:
        left.kill_and_wait(5)


def failure(process: subprocess.Popen[str]) -> str:
    said = process.communicate(timeout=40)[1]
    assert process.returncode == 1
    assert said.count("\n") == 1, said
    return said


def test_a_port_in_use_is_told_in_one_line(agent: Agent) -> None:
    host, _, port = agent.config["listen"].rpartition(":")
    with socket.create_server((host, int(port))):
        assert "cannot listen on 127.0.0.1:" in (said := failure(agent.start()))
        assert "Address already in use" in said


def test_a_state_directory_that_cannot_be_written_is_told_in_one_line(agent: Agent) -> None:
    (agent.folder / "state").touch()
    assert "state_dir: cannot write in" in failure(agent.start())


def test_a_damaged_promise_is_told_in_one_line(agent: Agent) -> None:
    (agent.folder / "state").mkdir()
    (agent.folder / "state" / "term").write_text("12")
    assert "is damaged" in failure(agent.start())


def test_a_second_agent_on_one_state_directory_is_refused(agent: Agent) -> None:
    agent.start()
    agent.answers()
    assert "another agent runs with" in failure(agent.start())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_server_outlives_the_agent(agent: Agent, number: signal.Signals) -> None:
    process = agent.start()
    agent.answers()
    assert agent.command(3, "start")["error"] == ""
    before = agent.state()
    os.kill(process.pid, number)
    process.communicate(timeout=20)
    assert process.returncode == (-9 if number == signal.SIGKILL else 0)
    found = agent.server().find()
    assert found is not None
    assert found.incarnation == before["incarnation"]
    agent.start()
    agent.answers()
    after = agent.state()
    assert (after["incarnation"], after["term"]) == (before["incarnation"], 3)
    assert agent.command(2, "fence")["promised"] == 3
    assert agent.command(3, "fence")["state"]["server"] == "down"


def test_a_log_for_machines_is_json_line_by_line(agent: Agent) -> None:
    agent.config["log_format"] = "json"
    process = agent.start()
    agent.answers()
    agent.command(1, "promise")
    time.sleep(0.6)
    process.terminate()
    lines = [json.loads(line) for line in process.communicate(timeout=20)[1].splitlines()]
    messages = [line["message"] for line in lines]
    assert len(messages) == 4, messages
    assert messages[1].startswith("promise of term 1: done in ")
