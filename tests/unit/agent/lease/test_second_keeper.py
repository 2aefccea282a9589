"""The keeper process: what it does while the agent lives, hangs, has been killed, or ends in order."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from holdfast.agent.lease.keeper_process import BEHIND_SECONDS, Begin
from holdfast.agent.lease.second_keeper import Helpers, SecondKeeper, keepers
from holdfast.agent.lease.words import LeaseWords
from holdfast.agent.runtime import boottime
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.core.timing import FENCE_SECONDS
from holdfast.server.process.process import Running

pytestmark = pytest.mark.alone

LEASE = 0.6
BUSY = 0.15
"""What the machine that runs the tests may add to a moment."""

AGENT = """
import json, os, sys, time
from pathlib import Path
from holdfast.agent.runtime import boottime
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.lease.keeper_process import Begin
from holdfast.agent.lease.second_keeper import SecondKeeper
from holdfast.core.lease import Electorate, Quorum
from holdfast.server.process.process import Running
folder, server, agents, lease = json.loads(sys.argv[1])
clerk = BackgroundWriter()
clerk.start()
def tell(*words):  # threads do: a line is one write
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def alarm(what, fault):
    tell("fault", what, fault)
second = SecondKeeper(Path(folder), Begin("m1"), clerk, alarm, True,
                      lambda helpers: tell("helpers", helpers.process))
def know(agents, serial):
    quorums = (Quorum(tuple(agents), 1),) if agents else ()
    second.know(Electorate("m1", 1, serial, quorums, agents, "h:1"), lease)
know(agents, 1)
second.start()
second.arm(Running(server, os.pidfd_open(server), "x", False), boottime.now() + lease)
second.ready(5)
until = 0
while True:
    for line in os.popen("cat " + folder + "/orders 2>/dev/null"):
        word, _, rest = line.strip().partition(" ")
        os.unlink(folder + "/orders")
        if word == "stop":
            second.stop(); second.join(5); sys.exit()
        if word == "know":
            know(json.loads(rest), 2)
    if not os.path.exists(folder + "/starve"):
        until = boottime.now() + lease
        second.extend(until)
    tell("until", until, second.until)
    time.sleep(lease / 10)
"""


class Voter:
    """An agent that is asked to vouch.

    :ivar answer: its answer; None: it does not answer
    """

    def __init__(self) -> None:
        self.answer: bool | None = True
        self.asked = 0
        voter = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                voter.asked += 1
                if voter.answer is None:
                    time.sleep(2 * LEASE)
                    return
                body = json.dumps({"vouched": voter.answer, "reason": ""}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def end(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Agent:
    """A process that does what an agent does with its second keeper, and a server that sleeps."""

    def __init__(self, folder: Path, voters: dict[str, str]) -> None:
        self.folder = folder
        self.server = subprocess.Popen((sys.executable, "-c", "import time; time.sleep(600)"))
        self.lines: list[str] = []
        self.start(voters)

    def start(self, voters: dict[str, str]) -> None:
        told = json.dumps([str(self.folder), self.server.pid, voters, LEASE])
        self.process = subprocess.Popen(
            (sys.executable, "-c", AGENT, told), stdout=subprocess.PIPE, start_new_session=True
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        until(lambda: "helpers True\n" in self.lines, 30)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line.decode())

    @property
    def keepers(self) -> list[int]:
        found = keepers(str(self.folder.absolute()))
        for _, fd in found:
            os.close(fd)
        return [pid for pid, _ in found if state(pid) != "Z"]

    @property
    def lives(self) -> bool:
        return self.server.poll() is None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def order(self, text: str) -> None:
        (self.folder / "new").write_text(text)
        (self.folder / "new").rename(self.folder / "orders")

    def starve(self) -> float:
        """Stop renewing the lease; returns when it ends."""
        (self.folder / "starve").touch()
        time.sleep(LEASE / 4)
        return max(float(line.split()[1]) for line in self.lines if line.startswith("until"))

    def died_at(self) -> float:
        self.server.wait(10)
        return boottime.now()

    def end(self) -> None:
        for each in (self.process, self.server):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
            each.wait()
        self._reader.join()
        until(lambda: not self.keepers)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def until(reached: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def voters() -> Iterator[list[Voter]]:
    made = [Voter(), Voter()]
    yield made
    for each in made:
        each.end()


@pytest.fixture
def agent(tmp_path: Path, voters: list[Voter]) -> Iterator[Agent]:
    made = Agent(tmp_path, {f"m{i}": each.url for i, each in enumerate(voters, 2)})
    yield made
    made.end()


def test_words_never_go_back_and_are_read_by_another() -> None:
    words = LeaseWords()
    words.agent_until = 2.5
    words.agent_until = 1.5
    words.keeper_until = 7.0
    other = LeaseWords(os.dup(words.fd))
    assert (other.agent_until, other.keeper_until) == (2.5, 7.0)
    other.looked_at = 9.0
    assert words.looked_at == 9.0


def test_while_the_agent_renews_nobody_is_asked_and_nobody_dies(
    agent: Agent, voters: list[Voter]
) -> None:
    time.sleep(3 * LEASE)
    assert agent.lives
    assert [each.asked for each in voters] == [0, 0]


def test_an_agent_that_hangs_costs_nothing_while_a_voter_vouches(
    agent: Agent, voters: list[Voter]
) -> None:
    voters[0].answer = None
    agent.signal(signal.SIGSTOP)
    time.sleep(5 * LEASE)
    assert agent.lives
    assert voters[1].asked > 3
    agent.signal(signal.SIGCONT)
    seen = len(agent.lines)
    until(lambda: len(agent.lines) > seen + 3)
    _, _, upheld = agent.lines[seen].split()
    assert float(upheld) > boottime.now() - LEASE, "it would kill a server that has a lease"
    assert agent.lives


def test_without_an_agent_and_a_voter_it_kills_when_the_lease_is_over(
    agent: Agent, voters: list[Voter]
) -> None:
    voters[0].answer, voters[1].answer = False, None
    over = agent.starve()
    agent.signal(signal.SIGSTOP)
    late = agent.died_at() - over
    assert BEHIND_SECONDS - 0.001 <= late < FENCE_SECONDS + BUSY


@pytest.mark.parametrize("silent", [True, False])
def test_one_whose_agent_was_killed_lives_as_long_as_its_voters_vouch(
    agent: Agent, voters: list[Voter], silent: bool
) -> None:
    agent.signal(signal.SIGKILL)
    time.sleep(4 * LEASE)
    assert agent.lives
    voters[0].end()
    voters[1].answer = None if silent else False
    before = boottime.now()
    assert agent.died_at() < before + LEASE + FENCE_SECONDS + BUSY


def test_where_all_agents_have_ended_the_server_is_left_alone(
    agent: Agent, voters: list[Voter]
) -> None:
    agent.signal(signal.SIGKILL)
    time.sleep(LEASE)
    for each in voters:
        each.end()
    until(lambda: not agent.keepers)
    assert agent.lives


def test_an_agent_that_ends_in_order_leaves_the_server_alone(agent: Agent) -> None:
    agent.order("stop")
    agent.process.wait(10)
    until(lambda: not agent.keepers)
    time.sleep(2 * LEASE)
    assert agent.lives


def test_those_who_voted_before_count_no_more(agent: Agent, voters: list[Voter]) -> None:
    voters[1].answer = False
    agent.order(f"know {json.dumps({'m3': voters[1].url})}")
    until(lambda: not (agent.folder / "orders").exists())
    over = agent.starve()
    assert agent.died_at() - over < FENCE_SECONDS + BUSY
    assert voters[0].asked == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_keeper_process_that_ends_or_hangs_is_replaced(
    agent: Agent, number: signal.Signals
) -> None:
    (first,) = agent.keepers
    os.kill(first, number)
    until(lambda: agent.lines.count("helpers True\n") == 2)
    assert any(line.startswith("fault keeper the process that") for line in agent.lines)
    (second,) = agent.keepers
    assert second != first
    assert agent.lives
    over = agent.starve()
    agent.signal(signal.SIGKILL)  # its voters vouch
    time.sleep(max(0.0, over - boottime.now()) + LEASE)
    assert agent.lives


def test_the_next_agent_ends_the_keeper_process_of_the_one_before(
    agent: Agent, voters: list[Voter]
) -> None:
    (first,) = agent.keepers
    agent.signal(signal.SIGKILL)
    agent.process.wait()
    agent.lines.clear()
    agent.start({"m2": voters[0].url})
    (second,) = agent.keepers
    assert second != first
    for each in voters:
        each.answer = False
    time.sleep(2 * LEASE)
    assert agent.lives


def test_a_gate_is_told_of_once_it_was_tried(tmp_path: Path) -> None:
    """A status that names it earlier shows a protection that may not exist."""
    told: list[Helpers] = []
    faults: list[tuple[str, str]] = []
    writer = BackgroundWriter()
    writer.start()
    begin = Begin("m1", gate=("/nowhere/nft",), table="holdfast_t")
    second = SecondKeeper(
        tmp_path, begin, writer, lambda *fault: faults.append(fault), True, told.append
    )
    second.start()
    sleeps = subprocess.Popen((sys.executable, "-c", "import time; time.sleep(600)"))
    server = Running(sleeps.pid, os.pidfd_open(sleeps.pid), "x", False)
    try:
        second.arm(server, boottime.now() + 60)
        until(lambda: any(what == "gate" for what, _ in faults), 30)
        assert Helpers(True) in told
        assert not [each for each in told if each.gate or each.watchdog]
    finally:
        second.stop()
        second.join(5)
        writer.stop(5)
        sleeps.kill()
        sleeps.wait()


def test_a_thread_that_is_woken_all_the_time_does_not_spin() -> None:
    alarm = boottime.Alarm()
    begun, rounds = time.monotonic(), 0
    while time.monotonic() < begun + 0.2:
        alarm.sleep(0.0)
        rounds += 1
    alarm.close()
    assert rounds < 0.2 / boottime.FLOOR_SECONDS + 2
