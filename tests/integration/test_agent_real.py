"""The agent as a process, with real servers: restarts, death, and the pending tail of a dead primary."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pymysql
import pytest
import yaml

from holdfast.core.commands import (
    Command,
    Cut,
    Drain,
    Fence,
    Follow,
    Promise,
    Promote,
    Prove,
    Start,
)
from holdfast.core.gtid import Flavor
from holdfast.core.lease import Protection
from holdfast.core.view import MemberState, Receiver, ServerStatus, TailVerdict
from holdfast.http.wire import CommandReply, CommandRequest, StateReply
from holdfast.sandbox.local.files import write_secret
from holdfast.sandbox.servers import template, trees
from holdfast.sandbox.servers.frugal import frugal
from holdfast.server.process import optionfile
from holdfast.server.process.process import ServerProcess
from tests.integration import servers
from tests.integration.ports import free_ports

TOKEN = "t0ken-of-the-members"
SHOWN = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


class Member:
    """One host: a server's files, and its agent."""

    def __init__(self, folder: Path, flavor: Flavor, number: int) -> None:
        folder.mkdir()
        tree = trees.find(flavor.value)
        image = template.make_template(
            tree, [*servers.statements(), "CREATE DATABASE IF NOT EXISTS holdfast"]
        )
        self.number, self.flavor, self.folder = number, flavor, folder
        self.datadir = folder / "data"
        template.copy_template(image, self.datadir)
        self._ports = ExitStack()
        self.port, self.agent_port = self._ports.enter_context(free_ports(2))
        own = dict(word.removeprefix("--").split("=", 1) for word in tree.arguments)
        self.option_file = folder / "my.cnf"
        self.option_file.write_text(
            optionfile.ServerOptions(
                flavor=flavor,
                datadir=self.datadir,
                tmpdir=folder,
                socket=folder / "s",
                port=self.port,
                server_id=number,
                extra=frugal(flavor) | {n: value for n, value in own.items() if n != "mysqlx"},
            ).render()
        )
        self.command_line = tree.command
        replication = servers.replication(number)
        for name, secret in (
            ("admin", servers.ADMIN.password),
            ("repl", replication.password),
            ("token", TOKEN),
        ):
            write_secret(folder / name, secret)
        self.config = folder / "agent.yaml"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "listen": f"127.0.0.1:{self.agent_port}",
                    "token_file": str(folder / "token"),
                    "cluster": "c",
                    "name": f"m{number}",
                    "state_dir": str(folder / "state"),
                    "replication": {
                        "user": replication.user,
                        "password_file": str(folder / "repl"),
                    },
                    "server": {
                        "flavor": flavor.value,
                        "command": list(tree.command),
                        "option_file": str(self.option_file),
                        "datadir": str(self.datadir),
                        "socket": str(folder / "s"),
                        "binlog_index": str(self.datadir / f"{optionfile.BINLOG}.index"),
                        "admin": {
                            "user": servers.ADMIN.user,
                            "password_file": str(folder / "admin"),
                        },
                    },
                }
            )
        )
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.agent_port}", headers=SHOWN, timeout=90
        )
        self.agent: subprocess.Popen[bytes] | None = None
        self.start_agent()

    def start_agent(self) -> None:
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "holdfast.agent", str(self.config)], stderr=log
            )
        end = time.monotonic() + 20
        while True:
            try:
                self.http.get("/v1/health")
                return
            except httpx.TransportError:
                assert time.monotonic() < end, (self.folder / "agent.log").read_text()
                time.sleep(0.02)

    def kill_agent(self) -> None:
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait()
            self.agent = None

    def end(self) -> None:
        self.kill_agent()
        self.http.close()
        own = (self.command_line, self.option_file, self.datadir, self.folder / "out")
        left = ServerProcess(*own).find()
        if left is not None:
            left.kill_and_wait(10)
        self._ports.close()

    def seen(self, since: int | None = None, wait: float = 0) -> StateReply:
        query = {"wait": wait} if since is None else {"since": since, "wait": wait}
        return StateReply.model_validate_json(self.http.get("/v1/state", params=query).content)

    def until(self, what: Any, seconds: float = 30) -> MemberState:
        end = time.monotonic() + seconds
        while not what(state := self.seen().state):
            assert time.monotonic() < end, (state, (self.folder / "agent.log").read_text())
            time.sleep(0.01)
        return state

    def ask(self, term: int, command: Command) -> CommandReply:
        request = CommandRequest.of(term, command)
        answer = self.http.post("/v1/command", content=request.model_dump_json())
        return CommandReply.model_validate_json(answer.content)

    def do(self, term: int, command: Command) -> CommandReply:
        reply = self.ask(term, command)
        assert not reply.error, f"{type(command).__name__}: {reply.message}"
        return reply

    def boot(self, term: int) -> None:
        self.do(term, Start())
        self.until(lambda state: state.up)

    def follow(self, other: Member, semi_sync: bool = True) -> Follow:
        return Follow(f"m{other.number}", "127.0.0.1", other.port, semi_sync)

    def client(self) -> pymysql.Connection[Any]:
        account = servers.CLIENT
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=account.user,
            password=account.password,
            database="app",
            autocommit=True,
            connect_timeout=5,
        )


@pytest.fixture(params=list(Flavor), ids=str)
def flavor(request: pytest.FixtureRequest) -> Flavor:
    flavor: Flavor = request.param
    return flavor


@contextmanager
def hosts(flavor: Flavor, count: int) -> Iterator[list[Member]]:
    """With their agents; no server runs yet."""
    with tempfile.TemporaryDirectory(prefix="hf") as folder:  # short: sockets live in it
        made: list[Member] = []
        try:
            for number in range(1, count + 1):
                made.append(Member(Path(folder) / f"m{number}", flavor, number))
            yield made
        finally:
            for each in made:
                each.end()


@pytest.fixture
def members(flavor: Flavor) -> Iterator[list[Member]]:
    with hosts(flavor, 3) as made:
        yield made


@pytest.fixture
def pair(flavor: Flavor) -> Iterator[list[Member]]:
    with hosts(flavor, 2) as made:
        yield made


@pytest.fixture
def member(flavor: Flavor) -> Iterator[Member]:
    with hosts(flavor, 1) as (made,):
        yield made


def one_primary(members: list[Member], term: int = 1) -> None:
    """m1 is primary with one ack; the others are voters."""
    first, *others = members
    for each in members:
        each.boot(term)
    for each in others:
        each.do(term, each.follow(first))
    first.do(term, Promote(acks=1, serial=1))
    with closing(first.client()) as client, client.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n INT PRIMARY KEY)")


def write(member: Member, *numbers: int) -> None:
    with closing(member.client()) as client, client.cursor() as cursor:
        for number in numbers:
            cursor.execute("INSERT INTO t VALUES (%s)", (number,))


def rows(member: Member) -> list[int]:
    with closing(member.client()) as client, client.cursor() as cursor:
        cursor.execute("SELECT n FROM t ORDER BY n")
        return [row[0] for row in cursor.fetchall()]


def test_a_failover_by_hand(members: list[Member], capsys: pytest.CaptureFixture[str]) -> None:
    one_primary(members)
    first, second, third = members
    write(first, 1, 2, 3)
    version = first.seen().version
    running = first.until(lambda state: state.up)
    pid = int(running.incarnation.split("-")[1])
    died: list[float] = []

    def kill() -> None:
        died.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(0.2, kill)
    timer.start()
    seen = first.seen(since=version, wait=30)
    while seen.state.up:  # sessions may break before the process has ended
        seen = first.seen(since=seen.version, wait=30)
    noticed = time.monotonic() - died[0]
    timer.join()
    # the kernel may take a while to take it down; nothing waits for that
    assert seen.state.server in (ServerStatus.DYING, ServerStatus.DOWN)
    first.until(lambda state: state.server is ServerStatus.DOWN)

    begun = time.monotonic()
    replies = [each.do(2, Promise()) for each in (second, third)]
    assert all(reply.state.replication.receiver is Receiver.OFF for reply in replies)
    promised = time.monotonic()
    replies.append(second.do(2, Drain()))
    drained = time.monotonic()
    following = threading.Thread(target=lambda: third.do(2, third.follow(second)))
    following.start()
    replies.append(second.do(2, Promote(acks=1, serial=2)))
    opened = time.monotonic()
    following.join()
    write(second, 4)
    assert rows(second) == [1, 2, 3, 4]
    assert replies[-1].state.proved == 2
    with capsys.disabled():
        print(f"\n{first.flavor}: death noticed after {noticed * 1000:.1f} ms")
        print(f"  two promises one after the other {(promised - begun) * 1000:.1f} ms")
        print(
            f"  drain {(drained - promised) * 1000:.1f}, promote {(opened - drained) * 1000:.1f} ms"
        )
        for reply in replies:
            print(f"  {reply.state.name}: {reply.steps}")


def test_what_was_never_acknowledged_is_cut(members: list[Member]) -> None:
    one_primary(members)
    first, second, third = members
    write(first, 1, 2, 3)
    for each in (second, third):
        each.do(2, Promise())
    old_uuid = _uuid(first)
    pending = threading.Thread(target=_lost_write, args=(first, 99))
    pending.start()
    before = first.until(lambda state: True)
    time.sleep(0.5)
    first.do(2, Fence())
    pending.join(10)

    second.do(2, Drain())
    third.do(2, third.follow(second))
    second.do(2, Promote(acks=1, serial=2))
    write(second, 4)
    present = second.until(lambda state: state.writable).applied
    reply = first.do(2, Cut("m2", present))
    tail = reply.state.tail
    assert tail.verdict is TailVerdict.CUT, tail
    assert tail.transactions == 1
    assert Path(tail.saved).stat().st_size > 100
    again = first.do(2, Cut("m2", present)).state.tail
    assert again == tail

    first.boot(2)
    first.do(2, first.follow(second))
    first.until(
        lambda state: not state.replication.error and state.replication.receiver is Receiver.ON
    )
    write(second, 5)
    first.until(lambda state: 5 in rows(first))
    assert rows(first) == rows(second) == [1, 2, 3, 4, 5]
    assert before.incarnation != first.seen().state.incarnation
    if first.flavor is Flavor.MYSQL:
        assert _uuid(first) != old_uuid


def test_an_agent_that_was_killed_finds_its_server(member: Member) -> None:
    first = member
    first.boot(3)

    def settled(state: MemberState) -> bool:
        return state.up and Protection.KEEPER in state.protections

    before = first.until(settled)
    for _ in range(3):
        first.kill_agent()
        first.start_agent()
        after = first.until(settled)
        assert after.incarnation == before.incarnation
        assert after.term == 3
    assert first.ask(2, Fence()).promised == 3
    assert first.ask(3, Start()).error == "Refused"
    # the agent does not remember its confirmations, and assumes the longest possible
    word: dict[str, Any] = {"vouched": 0.0, "unvouched": 0.0}
    assert asdict(replace(after, **word)) == asdict(replace(before, **word))


def test_how_long_an_observation_and_a_promise_take(
    members: list[Member], capsys: pytest.CaptureFixture[str]
) -> None:
    one_primary(members)
    second = members[1]
    whole, parts = [], []
    for term in range(10, 30):
        begun = time.monotonic()
        reply = second.do(term, Promise())
        whole.append((time.monotonic() - begun) * 1000)
        parts.append(reply.steps)
        second.do(term, second.follow(members[0]))
    with capsys.disabled():
        medians = {
            name: round(statistics.median(part[name] for part in parts), 2) for name in parts[0]
        }
        print(f"\n{second.flavor}: promise {statistics.median(whole):.1f} ms, of which {medians}")


def test_a_newer_term_does_not_wait_behind_a_commit_that_hangs(members: list[Member]) -> None:
    one_primary(members)
    first, second, third = members
    for each in (second, third):
        each.do(2, Promise())  # no voter acknowledges any more
    hanging: list[CommandReply] = []
    thread = threading.Thread(target=lambda: hanging.append(first.ask(2, Prove(7))))
    thread.start()
    time.sleep(0.5)
    begun = time.monotonic()
    reply = CommandReply.model_validate_json(
        httpx.post(
            f"{first.http.base_url}/v1/command",
            content=CommandRequest.of(3, Promise()).model_dump_json(),
            headers=SHOWN,
            timeout=30,
        ).content
    )
    assert time.monotonic() - begun < 3
    assert reply.error == ""
    thread.join(20)
    assert hanging[0].error
    assert hanging[0].state.proved == 1


def test_a_frozen_server_is_told_from_a_dead_one_and_can_be_fenced(member: Member) -> None:
    first = member
    first.boot(1)
    pid = int(first.until(lambda state: state.up).incarnation.split("-")[1])
    os.kill(pid, signal.SIGSTOP)
    frozen = first.until(lambda state: state.reason != "")
    assert frozen.server is ServerStatus.UP
    assert frozen.reason.startswith("no answer from the server")
    failed = first.ask(2, Promise())
    assert failed.error
    assert failed.state.term == 2
    begun = time.monotonic()
    first.do(2, Fence())
    assert time.monotonic() - begun < 2
    # a killed server answers nothing; it has ended when the kernel has freed its memory
    fenced = first.until(lambda state: state.server is not ServerStatus.DYING)
    assert (fenced.server, fenced.reason) == (ServerStatus.DOWN, "fenced by term 2")


def test_a_host_that_went_down_in_order_is_trusted_and_one_that_crashed_is_not(
    pair: list[Member],
) -> None:
    first, second = pair
    for each in (first, second):
        each.boot(1)
    first.do(1, Promote(acks=0, serial=1))
    for stop, trusted in ((signal.SIGTERM, True), (signal.SIGKILL, False)):
        second.do(1, second.follow(first))
        marker = second.folder / "state" / "relaxed"
        assert marker.exists()
        incarnation = second.until(lambda state: state.up).incarnation
        # an agent that did not start it learns nothing from how it ends
        second.kill_agent()
        second.start_agent()
        second.until(lambda state: state.up)
        os.kill(int(incarnation.split("-")[1]), stop)
        second.until(lambda state: state.server is ServerStatus.DOWN)
        marker.write_text("the boot before\n")
        reply = second.ask(1, Start())
        assert (reply.error == "") is trusted, reply.message
        assert (reply.state.tail.verdict is TailVerdict.UNSAFE) is not trusted
        if trusted:
            second.until(lambda state: state.up)


def _lost_write(member: Member, number: int) -> None:
    try:
        write(member, number)
    except pymysql.err.Error:
        return
    raise AssertionError("the write was acknowledged although nobody was there to receive it")


def _uuid(member: Member) -> str:
    path = member.datadir / "auto.cnf"
    return path.read_text() if path.exists() else ""
