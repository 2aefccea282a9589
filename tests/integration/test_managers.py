"""Three manager processes and a real etcd of three: which one leads when another dies, is stopped, or ends on
SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from holdfast.sandbox.local.files import write_secret
from holdfast.store.session import LEASE_SECONDS
from tests.integration import etcd as real
from tests.integration.ports import keep_ports

SECONDS = 15.0
TOKEN = "t0ken-of-the-managers"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Manager:
    name: str
    port: int
    config: Path
    log: Path
    http: httpx.Client
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "holdfast.cli.main",
            "manager",
            "--config",
            str(self.config),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def says(self) -> dict[str, object]:
        """Its answer on who leads, or {} while it does not answer."""
        try:
            return dict(self.http.get(f"{self.url}/v1/clusters/c/leader").json())
        except httpx.TransportError:
            return {}

    @property
    def leads(self) -> bool:
        return bool(self.says().get("leads"))

    def send(self, number: int) -> None:
        assert self.process
        os.kill(self.process.pid, number)

    def end(self, number: int = signal.SIGKILL) -> None:
        if self.process:
            self.send(number)
            self.process.wait(10)
            self.process = None


@dataclass
class Managers:
    etcd: real.EtcdCluster
    all: list[Manager]

    def leader(self, among: list[Manager] | None = None) -> Manager:
        """The one that leads, when one does and the others know it."""
        end = time.monotonic() + SECONDS
        running = among or [each for each in self.all if each.process]
        while time.monotonic() < end:
            leading = [each for each in running if each.leads]
            if len(leading) == 1 and all(e.says().get("name") == leading[0].name for e in running):
                return leading[0]
            time.sleep(0.01)
        raise AssertionError("nobody leads")

    def others(self, one: Manager) -> list[Manager]:
        return [each for each in self.all if each is not one]

    def whole(self) -> Manager:
        """All run, and one leads."""
        for each in self.all:
            if each.process is None:
                each.start()
        return self.leader()


@pytest.fixture(scope="module")
def managers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managers]:
    folder = tmp_path_factory.mktemp("managers")
    etcd = real.make(folder / "etcd", 3)
    made = Managers(etcd, [])
    write_secret(folder / "token", TOKEN)
    with httpx.Client(headers=BEARER, timeout=1.0, trust_env=False) as http:
        try:
            etcd.start()
            for name, port in zip("abc", keep_ports(3), strict=True):
                config = folder / f"{name}.yaml"
                config.write_text(yaml.safe_dump(settings(name, port, etcd, folder / "token")))
                made.all.append(Manager(name, port, config, folder / f"{name}.log", http))
            yield made
        finally:
            for each in made.all:
                each.end()
            etcd.stop()


def settings(name: str, port: int, etcd: real.EtcdCluster, token: Path) -> dict[str, object]:
    """Of a manager whose only member's agent does not answer: only managers are tested."""
    member = {"name": "m1", "agent": "http://127.0.0.1:9", "host": "127.0.0.9", "port": 3306}
    return {
        "name": name,
        "listen": f"127.0.0.1:{port}",
        "token_file": str(token),
        "store": {"endpoints": list(etcd.etcd.endpoints)},
        "clusters": [{"name": "c", "members": [member]}],
    }


def until(reached: Callable[[], object], seconds: float = SECONDS) -> float:
    begun = time.monotonic()
    while not reached():
        assert time.monotonic() < begun + seconds
        time.sleep(0.01)
    return time.monotonic() - begun


def test_one_of_three_leads_and_the_others_name_it(managers: Managers) -> None:
    leading = managers.whole()
    for each in managers.others(leading):
        assert each.says() == {"leads": False, "name": leading.name, "url": leading.url}
        answer = each.http.post(f"{each.url}/v1/clusters/c/members/m1/clone", json={})
        assert answer.status_code == 503
        assert leading.url in answer.json()["message"]
        status = each.http.get(f"{each.url}/v1/clusters/c/status").json()
        assert leading.url in status["reason"]


@pytest.mark.alone
def test_a_leading_manager_that_is_killed_is_replaced_within_three_seconds(
    managers: Managers,
) -> None:
    leading = managers.whole()
    others = managers.others(leading)
    leading.end()
    took = until(lambda: any(each.leads for each in others))
    print(f"killed: another leads after {took:.2f} s")
    assert took < 3.0


@pytest.mark.alone
def test_a_leading_manager_that_is_told_to_end_hands_on_at_once(managers: Managers) -> None:
    leading = managers.whole()
    others = managers.others(leading)
    # a client that waits for events, and would continue to wait
    with (
        httpx.Client(headers=BEARER, trust_env=False) as http,
        http.stream("GET", f"{leading.url}/v1/clusters/c/events?since=99999&wait=0.1"),
    ):
        leading.send(signal.SIGTERM)
        took = until(lambda: any(each.leads for each in others))
    print(f"told to end: another leads after {took:.2f} s")
    assert took < 0.6
    leading.end(signal.SIGTERM) if leading.process and leading.process.poll() is None else None
    assert leading.process is None or leading.process.wait(5) == 0
    leading.process = None


def test_a_leading_manager_that_was_stopped_follows_when_it_wakes_up(managers: Managers) -> None:
    leading = managers.whole()
    others = managers.others(leading)
    leading.send(signal.SIGSTOP)
    try:
        took = until(lambda: any(each.leads for each in others))
    finally:
        leading.send(signal.SIGCONT)
    print(f"stopped: another leads after {took:.2f} s")
    assert not leading.leads
    successor = managers.leader()
    assert successor is not leading
    assert "no longer leads" in leading.log.read_text()


def test_when_etcd_is_gone_nobody_leads_and_one_line_says_so_and_it_comes_back(
    managers: Managers,
) -> None:
    leading = managers.whole()
    before = leading.log.read_text()
    for node in managers.etcd.nodes[:2]:
        node.kill()
    took = until(lambda: not any(each.leads for each in managers.all))
    assert took < LEASE_SECONDS
    time.sleep(2)
    told = leading.log.read_text().removeprefix(before).splitlines()
    assert len([line for line in told if "no longer leads" in line]) == 1
    assert 1 <= len([line for line in told if "etcd" in line]) <= 3, told
    for node in managers.etcd.nodes[:2]:
        node.start(managers.etcd.initial)
    managers.etcd.wait()
    managers.leader()
    assert all(each.process and each.process.poll() is None for each in managers.all)
