"""SIGHUP: what can change while agent and manager run is taken over, what cannot is named, and no process ends."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from holdfast.agent.lease.keeper_process import Begin, KeeperProcess
from holdfast.agent.lease.second_keeper import keepers
from holdfast.agent.lease.words import LeaseWords
from holdfast.config.load import agent_config, manager_config
from holdfast.config.schema import AgentConfig, LogLevel, ManagerConfig
from holdfast.config.token import TokenFile
from holdfast.errors import BadInput
from holdfast.manager.daemon import _secrets
from holdfast.reloading import Reloading, differences
from holdfast.tls import Certificates, Credentials
from tests.unit.agent.test_daemon import Agent
from tests.unit.served import Authority


def until(reached: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def write(path: Path, *tokens: str) -> None:
    path.touch(mode=0o600)
    path.write_text("".join(f"{each}\n" for each in tokens))


# -- a token ---------------------------------------------------------------------------------------


def test_of_several_tokens_the_first_is_sent_and_each_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write(path, "new", "", "former")
    token = TokenFile(path, "token_file")
    assert (token.sent, token.accepted) == ("new", ("new", "former"))
    shown = Credentials(token)
    assert shown.headers == {"Authorization": "Bearer new"}
    told: list[str] = []
    token.renewed.append(lambda: told.append(token.sent))
    assert not token.take(token.read(path))
    write(path, "newest")
    assert token.take(token.read(path))
    assert shown.headers == {"Authorization": "Bearer newest"}
    assert told == ["newest"]


def test_a_token_that_everybody_can_read_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write(path, "one")
    token = TokenFile(path, "token_file")
    path.chmod(0o644)
    with pytest.raises(BadInput, match="token_file: every user of this host can read"):
        token.read(path)
    write(path)
    path.chmod(0o600)
    with pytest.raises(BadInput, match="is empty"):
        token.read(path)
    assert token.sent == "one"


# -- what differs ----------------------------------------------------------------------------------


def test_what_differs_is_called_by_its_keys_and_names() -> None:
    before = {
        "a": {"b": 1, "c": 2},
        "clusters": [{"name": "x", "n": 1}, {"name": "y", "n": 1}],
        "plain": [1, 2],
    }
    after = {
        "a": {"b": 1, "c": 3},
        "clusters": [{"name": "y", "n": 2}, {"name": "z", "n": 1}],
        "plain": [2, 1],
        "more": 1,
    }
    found = ["a.c", "clusters.x", "clusters.y.n", "clusters.z", "plain", "more"]
    assert list(differences(before, after)) == found
    assert not list(differences(before, before))


class File:
    """An agent's file, and the effects of reading it again."""

    def __init__(self, folder: Path, certificates: Certificates | None = None) -> None:
        self.agent = Agent(folder)
        self.path = folder / "agent.yaml"
        self.token_path = folder / "token"
        write(self.token_path, "first")
        self.write(token_file=str(self.token_path))
        config = agent_config(self.path)
        self.token = TokenFile(self.token_path, "token_file")
        self.reloading = Reloading(
            self.path, config, agent_config, {"token_file": self.token}, certificates
        )

    def write(self, **changes: Any) -> None:
        self.agent.config |= changes
        self.path.write_text(yaml.safe_dump(self.agent.config))


@pytest.fixture
def root_level() -> Iterator[None]:
    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.INFO)
    yield
    logging.getLogger().setLevel(before)


@pytest.mark.usefixtures("root_level")
def test_what_can_change_is_taken_over_and_the_rest_is_named(tmp_path: Path) -> None:
    file = File(tmp_path)
    said = file.reloading.reload
    assert said() == "SIGHUP: agent.yaml was read again: nothing is new"
    write(file.token_path, "second", "first")
    file.write(log_level="debug", lease={"keeper": False})
    assert said() == (
        "SIGHUP: agent.yaml was read again: token_file is renewed, log_level is debug; "
        "needs a restart: lease.keeper"
    )
    assert file.token.accepted == ("second", "first")
    assert logging.getLogger().level == logging.DEBUG
    assert said() == (
        "SIGHUP: agent.yaml was read again: nothing is new; needs a restart: lease.keeper"
    ), "it needs one still"
    file.write(lease={"keeper": True})
    assert said() == "SIGHUP: agent.yaml was read again: nothing is new"


@pytest.mark.usefixtures("root_level")
def test_a_token_may_come_from_another_file_and_not_from_none(tmp_path: Path) -> None:
    file = File(tmp_path)
    write(tmp_path / "other", "second")
    file.write(token_file=str(tmp_path / "other"))
    assert file.reloading.reload().endswith(": token_file is renewed")
    assert file.token.sent == "second"
    file.write(token_file=None, insecure_token=True)
    with pytest.raises(BadInput, match="token_file is required without tls"):
        file.reloading.reload()
    assert file.token.sent == "second"


@pytest.mark.usefixtures("root_level")
@pytest.mark.parametrize("broken", ["key", "yaml", "password", "token"])
def test_where_a_file_is_broken_nothing_changes(tmp_path: Path, broken: str) -> None:
    file = File(tmp_path)
    write(file.token_path, "second")
    file.write(log_level="debug")
    if broken == "key":
        file.write(log_levle="debug")
    elif broken == "yaml":
        file.path.write_text("a: [")
    elif broken == "password":
        (tmp_path / "secret").write_text("\n")
    else:
        file.token_path.chmod(0o644)
    named = {"key": "log_levle", "yaml": "YAML", "password": "password_file", "token": "token_file"}
    with pytest.raises(BadInput, match=named[broken]):
        file.reloading.reload()
    assert file.token.sent == "first"
    assert logging.getLogger().level == logging.INFO


@pytest.mark.usefixtures("root_level")
def test_certificates_are_renewed_at_once_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    files = authority.files("m1", "127.0.0.1")
    certificates = Certificates(files)
    file = File(tmp_path / "agent", certificates)
    before = certificates.server.newest
    authority.files("m1", "127.0.0.1", force=True)
    assert file.reloading.reload().endswith(": certificates are renewed")
    renewed = certificates.server.newest
    assert renewed is not before
    files.cert.write_text("nothing")
    write(file.token_path, "second")
    with pytest.raises(BadInput, match=r"tls\.cert"):
        file.reloading.reload()
    assert file.token.sent == "first"
    assert certificates.server.newest is renewed


# -- as processes ----------------------------------------------------------------------------------


class Log:
    """What a process writes to standard error, as it arrives."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.lines: list[str] = []
        stream = process.stderr
        threading.Thread(target=lambda: self.lines.extend(stream), daemon=True).start()

    def said(self, text: str) -> None:
        until(lambda: any(text in line for line in self.lines), f"{text!r}: {self.lines}")


def status(url: str, token: str) -> int:
    return httpx.get(url, headers={"Authorization": f"Bearer {token}"}).status_code


def test_an_agent_takes_over_what_it_can_and_runs_on(tmp_path: Path) -> None:
    agent = Agent(tmp_path, token_file=str(tmp_path / "token"))
    write(tmp_path / "token", "first")
    process = agent.start()
    log = Log(process)
    try:
        agent.answers()
        state = str((tmp_path / "state").absolute())
        until(lambda: "keeper" in protections(agent.url), "its keeper process is up")
        (keeper,) = _keepers(state)
        os.kill(keeper, signal.SIGHUP)  # as `systemctl kill` does with all of a unit

        write(tmp_path / "token", "second", "first")
        process.send_signal(signal.SIGHUP)
        log.said("SIGHUP: agent.yaml was read again: token_file is renewed")
        for each, wanted in (("second", 200), ("first", 200), ("third", 401)):
            assert status(f"{agent.url}/v1/state", each) == wanted

        write(tmp_path / "token", "second")
        agent.config["vip"] = {"address": "192.0.2.7/24", "interface": "none0"}
        agent.config["log_level"] = "debug"
        (tmp_path / "agent.yaml").write_text(yaml.safe_dump(agent.config))
        process.send_signal(signal.SIGHUP)
        log.said("token_file is renewed, log_level is debug; needs a restart: vip")
        assert status(f"{agent.url}/v1/state", "first") == 401

        (tmp_path / "agent.yaml").write_text("cluster: c\nnmae: a\n")
        process.send_signal(signal.SIGHUP)
        log.said("ERROR   SIGHUP: nothing is changed: agent.yaml: ")
        assert status(f"{agent.url}/v1/state", "second") == 200
        assert process.poll() is None
        assert _keepers(state) == [keeper]
    finally:
        process.terminate()
        process.wait(20)
        if process.stderr:
            process.stderr.close()
    assert process.returncode == 0


def protections(url: str) -> list[str]:
    headers = {"Authorization": "Bearer first"}
    return list(httpx.get(f"{url}/v1/state", headers=headers).json()["state"]["protections"])


def _keepers(state: str) -> list[int]:
    found = keepers(state)
    for _, fd in found:
        os.close(fd)
    return [pid for pid, _ in found]


def test_the_keeper_process_is_told_of_another_token() -> None:
    agent, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with agent, its:
        process = KeeperProcess(its, Begin("m1", token="first"), LeaseWords())
        agent.send(b"token second")
        assert process._heard()
        assert process._peers._shown.headers == {"Authorization": "Bearer second"}


class FakeAgent:
    """Refuses every request, and remembers the tokens that were sent."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.tokens.append(self.headers.get("Authorization", ""))
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


def test_a_manager_takes_over_what_it_can_and_runs_on(tmp_path: Path) -> None:
    fake = FakeAgent()
    for name in ("token", "agents"):
        write(tmp_path / name, f"first of {name}")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    member = {"name": "m1", "agent": fake.url, "host": "h", "port": 1}
    config: dict[str, Any] = {
        "listen": f"127.0.0.1:{port}",
        "token_file": str(tmp_path / "token"),
        "agent_token_file": str(tmp_path / "agents"),
        "store": str(tmp_path / "store.db"),
        "clusters": [{"name": "c", "members": [member]}],
    }
    path = tmp_path / "manager.yaml"
    path.write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast.cli.main", "manager", "--config", str(path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    log = Log(process)
    url = f"http://127.0.0.1:{port}/v1/clusters"
    try:
        log.said("listens on")
        until(lambda: "Bearer first of agents" in fake.tokens, "the agent is asked")
        write(tmp_path / "token", "second")
        write(tmp_path / "agents", "second of agents")
        config["clusters"][0]["endpoints"] = {"checks_port": 1}
        path.write_text(yaml.safe_dump(config))
        process.send_signal(signal.SIGHUP)
        log.said("token_file is renewed, agent_token_file is renewed; needs a restart: ")
        log.said("clusters.c.endpoints.checks_port")
        until(lambda: fake.tokens[-1] == "Bearer second of agents", "it sends the other token")
        assert status(url, "second") == 200
        assert status(url, "first of token") == 401

        (tmp_path / "token").write_text("")
        process.send_signal(signal.SIGHUP)
        log.said("ERROR   SIGHUP: nothing is changed: token_file: ")
        assert status(url, "second") == 200
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(20)
        fake.server.shutdown()
        fake.server.server_close()
        if process.stderr:
            process.stderr.close()
    assert process.returncode == 0


def test_a_secret_that_is_read_at_the_start_alone_needs_a_restart(tmp_path: Path) -> None:
    write(tmp_path / "token", "t")
    write(tmp_path / "etcd", "one")
    path = tmp_path / "manager.yaml"
    config = {
        "listen": "127.0.0.1:1",
        "token_file": str(tmp_path / "token"),
        "store": {
            "endpoints": ["http://h:1"],
            "user": "u",
            "password_file": str(tmp_path / "etcd"),
        },
        "clusters": [
            {
                "name": "c",
                "members": [{"name": "m1", "agent": "http://h:2", "host": "h", "port": 1}],
            }
        ],
    }
    path.write_text(yaml.safe_dump(config))
    running: ManagerConfig = manager_config(path)
    reloading = Reloading(path, running, manager_config, {}, None, _secrets)
    write(tmp_path / "etcd", "two")
    assert reloading.reload() == (
        "SIGHUP: manager.yaml was read again: nothing is new; "
        "needs a restart: store.password_file (its content)"
    )


def test_each_level_is_one_of_the_log_s() -> None:
    assert [each.number for each in LogLevel] == [10, 20, 30, 40]
    assert AgentConfig.model_fields["log_level"].default is LogLevel.INFO
