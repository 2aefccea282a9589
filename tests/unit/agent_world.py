"""An agent with a server in memory whose process is a real, harmless one."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import httpx
import uvloop

from holdfast.agent.daemon import Agent
from holdfast.binlog.files.run import began
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.config.schema import AgentConfig
from holdfast.core.check.facts import Boot
from holdfast.core.commands import Command, Start
from holdfast.core.gtid import Flavor, parse
from holdfast.core.observed.blockers import Blocker
from holdfast.core.observed.dumps import Dump
from holdfast.core.settings import WaitPoint
from holdfast.core.view import MemberState, Receiver, Replication, SemiSync
from holdfast.errors import Unreachable
from holdfast.http.wire import CommandReply, CommandRequest, StateReply, Told
from holdfast.server.authentication import Login
from holdfast.server.base import Booted, Crowd, Deadline, DumpLook, Observation, Source
from holdfast.server.process.process import Running, ServerProcess, kernel_boot_id

SLEEPER = """
import sys, time
if "--bootstrap" not in sys.argv:  # asked what its engine has committed: see server/data/committed.py
    time.sleep(120)
"""
TOKEN = "t0ken-of-the-world"
FIRST_PORT, LAST_PORT = 27200, 27249


def do_now(work: Callable[[], object]) -> None:
    """Runs the work at once, in place of another thread."""
    work()


class MemoryDumps:
    """The replicas' sessions on a server in memory.

    :ivar there: the connected ones; :ivar locked: locked accounts
    """

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self.there: tuple[Dump, ...] = ()
        self.locked: set[str] = set()
        self.clients = 0

    def look(self, deadline: Deadline, fresh: bool = True) -> DumpLook:
        self._server.ping(deadline)
        return DumpLook(self.there, self.clients)

    def end(self, sessions: tuple[int, ...], deadline: Deadline) -> None:
        self.there = tuple(dump for dump in self.there if dump.session not in sessions)

    def shut_out(self, account: str, deadline: Deadline) -> bool:
        self.locked.add(account)
        return True

    def applied(self, deadline: Deadline) -> str:
        return self._server.now.applied


class MemoryServer:
    """A database server that follows the rules of ``server/base.py``, without a database.

    :ivar came_up: how, of a server that the agent starts
    :ivar stuck: names of the methods that do not end until their deadline, or until they are cancelled
    :ivar frozen: it answers nothing, and its state says so
    :ivar hangs: it answers nothing
    """

    flavor: ClassVar[Flavor] = Flavor.MARIADB

    def __init__(self) -> None:
        self.now = Observation(
            version="11.4.9",
            server_id=1,
            origin="0-1",
            writable=False,
            received="0-1-10",
            applied="0-1-10",
            replication=Replication(),
            semi_sync=SemiSync(),
        )
        self.calls: list[str] = []
        self.put: list[dict[str, int]] = []
        self.stuck: set[str] = set()
        self.frozen = False
        self.hangs = False
        self.closed = False
        self.ackers = 9
        self.receiver = 1
        self.came_up = Booted()
        self.dumps = MemoryDumps(self)

    def ping(self, deadline: Deadline) -> None:
        if self.frozen:
            raise Unreachable("no answer")
        deadline.wait_until("an answer", lambda: not self.hangs)

    def observe(self, deadline: Deadline) -> Observation:
        self.ping(deadline)
        return self.now

    def shut(self, deadline: Deadline) -> None:
        self._called("shut", deadline)
        self.now = replace(self.now, writable=False)

    def put_back(self, values: Mapping[str, int], deadline: Deadline) -> None:
        self._called("put_back", deadline)
        self.put.append(dict(values))
        names = {"innodb_flush_log_at_trx_commit": "redo_flush"}
        left = tuple(each for each in self.now.shutting_out if each not in values)
        flushing = {
            name: value for name, value in values.items() if name not in self.now.shutting_out
        }
        fields: dict[str, Any] = {names.get(name, name): value for name, value in flushing.items()}
        self.now = replace(self.now, shutting_out=left, **fields)

    def receiver_thread(self, deadline: Deadline) -> int:
        return self.receiver

    def stop_receiver(self, deadline: Deadline) -> None:
        self._called("stop_receiver", deadline)
        self._replicate(receiver=Receiver.OFF)

    def drain(self, deadline: Deadline, upto: str = "") -> None:
        self._called("drain", deadline)
        if upto:
            wanted = parse(self.flavor, upto)
            deadline.wait_until(
                "applied", lambda: parse(self.flavor, self.now.received).covers(wanted)
            )
        self.now = replace(self.now, applied=self.now.received)

    def resume_applier(self, deadline: Deadline) -> None:
        self._called("resume_applier", deadline)
        self._replicate(applier=True)

    def commit_empty(self, gtids: Sequence[str], deadline: Deadline) -> None:
        self._called("commit_empty", deadline)

    def hold_applier(self, deadline: Deadline) -> None:
        self._called("hold_applier", deadline)

    def follow(self, source: Source, semi_sync: bool, deadline: Deadline) -> None:
        self._called("follow", deadline)
        self._replicate(source=f"{source.host}:{source.port}", receiver=Receiver.ON, applier=True)
        self.now = replace(self.now, semi_sync=SemiSync(replica=semi_sync))

    def prepare_primary(
        self,
        acks: int,
        deadline: Deadline,
        timeout_seconds: float = 0.0,
        wait_point: WaitPoint = WaitPoint.AFTER_SYNC,
        following: bool = False,
        domains: frozenset[int] = frozenset(),
    ) -> None:
        self._called("prepare_primary", deadline)
        assert self.now.received == self.now.applied
        if not following:
            assert self.now.replication.receiver is Receiver.OFF
            self.now = replace(self.now, replication=Replication())
        self.set_acks(acks, deadline, timeout_seconds, wait_point)

    def wait_for_ackers(self, acks: int, deadline: Deadline) -> None:
        self._called("wait_for_ackers", deadline)
        deadline.wait_until("ackers", lambda: self.ackers >= acks)

    def set_acks(
        self,
        acks: int,
        deadline: Deadline,
        timeout_seconds: float = 0.0,
        wait_point: WaitPoint = WaitPoint.AFTER_SYNC,
        again: bool = False,
    ) -> None:
        self._called("set_acks", deadline)
        degraded = self.now.semi_sync.degraded and not again
        waits = SemiSync(
            True, acks, timeout_seconds=timeout_seconds, wait_point=wait_point, degraded=degraded
        )
        self.now = replace(self.now, semi_sync=waits if acks else SemiSync())

    def prove(
        self,
        term: int,
        serial: int,
        deadline: Deadline,
        insist: bool = True,
        following: bool = False,
    ) -> SemiSync:
        self._called("prove", deadline)
        assert following or not self.now.replication.source
        return self.now.semi_sync

    def bar(self, user: str, deadline: Deadline) -> None:
        self._called("bar", deadline)
        self.now = replace(self.now, barred=tuple(sorted({*self.now.barred, user})))

    def unbar(self, user: str, deadline: Deadline) -> None:
        self._called("unbar", deadline)
        self.now = replace(self.now, barred=tuple(set(self.now.barred) - {user}))

    def mend_account(self, user: str, login: Login, deadline: Deadline) -> None:
        self._called("mend_account", deadline)
        known = set(self.now.replicators or ())
        if user not in known:
            self.now = replace(self.now, barred=tuple(sorted({*self.now.barred, user})))
        self.now = replace(self.now, replicators=tuple(sorted(known | {user})))

    def quiesce(self, deadline: Deadline) -> None:
        self._called("quiesce", deadline)
        self.now = replace(self.now, writable=False)

    def part(self, deadline: Deadline) -> None:
        self._called("part", deadline)

    def open(self, deadline: Deadline, following: bool = False) -> None:
        self._called("open", deadline)
        assert following or not self.now.replication.source
        self.now = replace(self.now, writable=True)

    def leave(self, deadline: Deadline) -> None:
        self._called("leave", deadline)
        self.now = replace(self.now, replication=Replication())

    def freeze(
        self, deadline: Deadline, done: Callable[[str], None], stopped: Callable[[str], None]
    ) -> str:
        self._called("freeze", deadline)
        self.now = replace(self.now, writable=False)
        stopped(self.now.applied)
        deadline.wait_until("ending sessions", lambda: "end sessions" not in self.stuck)
        return self.now.applied

    def start_events(self, deadline: Deadline, failed: Callable[[str], None]) -> None:
        self._called("start_events", deadline)

    def stop_events(self, deadline: Deadline) -> None:
        self._called("stop_events", deadline)

    def leave_events(self, deadline: Deadline) -> None:
        """It has no events."""

    def booted(self, files: Boot, deadline: Deadline) -> Booted:
        return self.came_up

    def let_clients_in(self, files: Boot, deadline: Deadline) -> None:
        self._called("let_clients_in", deadline)
        self.came_up = replace(self.came_up, shut=False)

    def end_sessions(self, sessions: Sequence[int], deadline: Deadline) -> None:
        self._called("end_sessions", deadline)

    def keep_slot(self, given: int, promoting: bool, deadline: Deadline) -> Crowd:
        return Crowd(7, 151, 151)

    def free(self, deadline: Deadline, last_time: bool) -> Sequence[Blocker] | None:
        self._called("free", deadline)
        return None

    def blockers(self, seconds: float, deadline: Deadline) -> Sequence[Blocker]:
        self._called("blockers", deadline)
        return ()

    def close(self) -> None:
        self.closed = True

    def _called(self, name: str, deadline: Deadline) -> None:
        self.calls.append(name)
        if self.frozen:
            raise Unreachable("no answer")
        deadline.wait_until(name, lambda: name not in self.stuck)

    def _replicate(self, **fields: Any) -> None:
        self.now = replace(self.now, replication=replace(self.now.replication, **fields))


def engine_file(*commits: tuple[str, int]) -> bytes:
    """As MariaDB's: where in the binlog the last commits of its rollback segments end."""
    size = 16384

    def page(number: int, kind: int, at: int, body: bytes) -> bytes:
        head = bytes(4) + number.to_bytes(4, "big") + bytes(16) + kind.to_bytes(2, "big")
        return (head.ljust(at, b"\0") + body).ljust(size, b"\0")

    segments = b"".join(bytes(4) + (6 + n).to_bytes(4, "big") for n in range(len(commits)))
    pages = [page(n, 6, 0, b"") for n in range(5)]
    pages.append(page(5, 7, 56, segments.ljust(128 * 8, b"\xff")))
    for number, (file, end) in enumerate(commits, 6):
        pages.append(page(number, 6, 38 + 4138, end.to_bytes(8, "big") + file.encode()))
    return b"".join(pages)


class World:
    """A host with one agent, which can be restarted again and again.

    :param token: for requests that pass none; "": another token, which every request passes
    :ivar boot: the kernel's boot id; :ivar clock: of the next agent
    """

    def __init__(self, folder: Path, token: str = "", keeper: bool = False) -> None:
        """:param keeper: with a keeper process"""
        self.folder = folder
        self._headers = {} if token else {"Authorization": f"Bearer {TOKEN}"}
        self.server = MemoryServer()
        self.boot = kernel_boot_id()
        self.clock: Clock = SYSTEM_CLOCK
        self.state_dir = folder / "state"
        self.state_dir.mkdir()
        self.port, self._listener = _listen()
        (folder / "server.py").write_text(SLEEPER)
        (folder / "my.cnf").touch()
        (folder / "data" / "mysql").mkdir(parents=True)
        (folder / "data" / "ibdata1").write_bytes(engine_file())
        (folder / "secret").write_text("secret\n")
        (folder / "token").touch(mode=0o600)
        (folder / "token").write_text((token or TOKEN) + "\n")
        account = {"user": "holdfast", "password_file": folder / "secret"}
        self.config = AgentConfig.model_validate(
            {
                "listen": f"127.0.0.1:{self.port}",
                "token_file": folder / "token",
                "cluster": "c",
                "name": "a",
                "state_dir": self.state_dir,
                "replication": account,
                "lease": {"keeper": keeper},
                "server": {
                    "flavor": "mariadb",
                    "command": (sys.executable, str(folder / "server.py")),
                    "option_file": folder / "my.cnf",
                    "datadir": folder / "data",
                    "socket": folder / "sock",
                    "binlog_index": folder / "data" / "binlog.index",
                    "admin": account,
                },
            }
        )
        self.http = self._client(30)
        self._agent: Agent | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.start_agent()

    def start_agent(self) -> None:
        ready = threading.Event()

        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._agent = Agent(self.config, self.server, lambda: self.boot, self.clock)
            ready.set()
            await self._agent.serve(self._listener.dup())

        def run() -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert ready.wait(5)
        assert self.http.get("/v1/health").status_code == 200

    def stop_agent(self) -> None:
        assert self._loop is not None
        assert self._agent is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._agent.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def restart_agent(self) -> None:
        self.stop_agent()
        self.start_agent()

    def was_primary(self, **fields: object) -> None:
        """The agent's files while all commits of its server wait; for the next run of the agent."""
        found = began(self.folder / "data" / "binlog.index")
        assert found
        run = {"file": found.file, "created": found.created}
        mark = {"incarnation": "x", "began": run, "acks": 1, "tally": None, "let_through": ""}
        text = json.dumps({**mark, "unacknowledged": 0, **fields})
        (self.state_dir / "primary").write_text(text)
        self.restart_agent()

    def end(self) -> None:
        self.http.close()
        self.stop_agent()
        self._listener.close()
        running = self.process()
        if running is not None:
            running.kill_and_wait(5)

    def process(self) -> Running | None:
        own = self.config.server
        return ServerProcess(own.command, own.option_file, own.datadir, Path("/dev/null")).find()

    def state(self, since: int | None = None, wait: float = 0) -> StateReply:
        query = {"wait": wait} if since is None else {"since": since, "wait": wait}
        answer = self.http.get("/v1/state", params=query)
        assert answer.status_code == 200, answer.text
        return StateReply.model_validate_json(answer.content)

    def command(
        self,
        term: int,
        command: Command,
        told: Told | None = None,
        sent: threading.Event | None = None,
    ) -> CommandReply:
        """:param sent: set once the request has left"""

        def trace(event: str, _: object) -> None:
            if event == "http11.send_request_body.complete" and sent:
                sent.set()

        request = CommandRequest.of(term, command, told=told).model_dump_json()
        # a separate connection: commands may be sent from several threads
        with self._client(30) as http:
            answer = http.post("/v1/command", content=request, extensions={"trace": trace})
        assert answer.status_code == 200, answer.text
        return CommandReply.model_validate_json(answer.content)

    def _client(self, seconds: float) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Content-Type": "application/json", **self._headers},
            timeout=seconds,
        )

    def done(self, term: int, command: Command, told: Told | None = None) -> CommandReply:
        reply = self.command(term, command, told)
        assert reply.error == "", reply.message
        return reply

    def in_background(self, term: int, command: Command) -> Background:
        return Background(self, term, command)

    def until(self, reached: Any, seconds: float = 5) -> MemberState:
        end = time.monotonic() + seconds
        while not reached(state := self.state().state):
            assert time.monotonic() < end, state
            time.sleep(0.01)
        return state


@contextmanager
def running(folder: Path) -> Iterator[World]:
    """A world whose server is up."""
    world = World(folder)
    try:
        world.done(1, Start())
        world.until(lambda state: state.up)
        yield world
    finally:
        world.server.stuck.clear()
        world.end()


class Background:
    """A command that was sent and whose answer is awaited; the agent has it when this is made."""

    def __init__(self, world: World, term: int, command: Command) -> None:
        self._replies: list[CommandReply] = []
        self._thread = threading.Thread(
            target=lambda: self._replies.append(world.command(term, command, sent=sent))
        )
        sent = threading.Event()
        self._thread.start()
        assert sent.wait(10)
        for _ in range(10):  # each is a turn of the agent's loop, which has the request before it
            world.state()

    def reply(self) -> CommandReply:
        self._thread.join(20)
        return self._replies[0]


def _listen() -> tuple[int, socket.socket]:
    for port in range(FIRST_PORT, LAST_PORT + 1):
        try:
            return port, socket.create_server(("127.0.0.1", port))
        except OSError:
            continue
    raise AssertionError(f"no port is free in {FIRST_PORT}-{LAST_PORT}")
