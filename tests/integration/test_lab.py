"""In a lab of hosts every fault really happens, can be undone, and nothing of the lab stays on the machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pymysql
import pytest

from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput, DeadlinePassed, Refused
from holdfast.sandbox.lab.cells import Cells
from holdfast.sandbox.lab.lab import Lab
from holdfast.sandbox.lab.links.network import Network
from holdfast.sandbox.lab.plan import (
    AGENT_PORT,
    MANAGER_PORT,
    LabPlan,
    LabShape,
    read_saved,
    saved_path,
)
from holdfast.sandbox.lab.table import rows
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.sandbox.waiting import Status, remove_quietly

PORT = 5000
SO_RCVBUFFORCE = 33
"""Linux: root's option to exceed the machine's limit."""
MANAGERS = 3
SECONDS = 30.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """With one server: hosts, network and disks are the same with the other, which the chaos of ``tests.chaos`` and the
    tests of the virtual address have in a lab.
    """
    made = Lab.create(
        tmp_path_factory.mktemp("lab") / "lab", LabShape(Flavor.MARIADB, managers=MANAGERS)
    )
    try:
        made.up()
        yield made
    finally:
        made.down(remove=True)
    assert left_of(made.plan) == []


@pytest.fixture(autouse=True)
def sound(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undo what a test leaves: network faults always, the rest where it failed."""
    failed = request.session.testsfailed
    yield
    if "lab" in request.fixturenames:
        lab: Lab = request.getfixturevalue("lab")
        lab.heal()
        if request.session.testsfailed > failed:
            repair(lab)


def repair(lab: Lab) -> None:
    for host in lab.hosts():
        lab.thaw(host)
        lab.start_host(host)
    for member in lab.members():
        lab.disk_go(member.name)
        lab.disk_free(member.name)
        lab.thaw_server(member.name)
        lab.cont_agent(member.name)


def wait_whole(lab: Lab) -> None:
    """The manager may not have noticed a fault yet: so processes are checked, too."""

    def whole(status: Status) -> bool:
        runs = [set(lab.processes(member.name)) for member in lab.members()]
        return bool(status["whole"]) and all(each == {"agent", "server"} for each in runs)

    lab.wait_until(whole, 60, "the cluster to be whole")


# -- the network: what a datagram sees -----------------------------------------------------------


class Datagrams:
    """Between two hosts, both ways."""

    def __init__(self, lab: Lab, a: str, b: str, stack: ExitStack) -> None:
        self._ends = {}
        for host in (a, b):
            with lab.inside(host):
                end = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            end.bind((lab.address(host), PORT))
            end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
            self._ends[host] = end

    def arrived(self, source: str, target: str, count: int = 1, seconds: float = 0.3) -> int:
        """How many of so many arrive."""
        for number in range(count):
            self._ends[source].sendto(b"%d" % number, self._ends[target].getsockname())
        self._ends[target].settimeout(seconds)
        found = 0
        while found < count:
            try:
                self._ends[target].recv(100)
            except TimeoutError:
                break
            found += 1
        return found

    def milliseconds(self, source: str, target: str) -> float:
        """From sending to receiving."""
        begin = time.monotonic()
        assert self.arrived(source, target, seconds=5) == 1
        return (time.monotonic() - begin) * 1000


@contextmanager
def datagrams(lab: Lab, a: str = "client", b: str = "m3") -> Iterator[Datagrams]:
    with ExitStack() as stack:
        found = Datagrams(lab, a, b, stack)
        assert found.arrived(a, b) == found.arrived(b, a) == 1
        yield found


def test_a_cut_lets_nothing_through_until_it_is_healed(lab: Lab) -> None:
    with datagrams(lab) as between:
        lab.cut("client", "m3")
        assert between.arrived("client", "m3") == 0
        assert between.arrived("m3", "client") == 0
        lab.heal("m3", "client")
        assert between.arrived("client", "m3") == 1
        assert between.arrived("m3", "client") == 1


def test_a_cut_can_go_one_way(lab: Lab) -> None:
    with datagrams(lab) as between:
        lab.cut("m3", "client", one_way=True)
        assert between.arrived("client", "m3") == 1
        assert between.arrived("m3", "client") == 0


def test_a_cut_is_between_those_that_were_named(lab: Lab) -> None:
    lab.cut("client", "m1,m2")
    with datagrams(lab) as between:
        assert between.arrived("client", "m3") == 1
    with pytest.raises(pymysql.err.OperationalError):
        lab.connect("m1", connect_timeout=1)
    with closing(lab.connect("m3")):
        pass
    with pytest.raises(BadInput, match="there is no 'm9'"):
        lab.cut("client", "m9")


def test_who_is_cut_off_from_all_reaches_nobody_and_the_lab_still_sees_it(lab: Lab) -> None:
    lab.cut("client", "all")
    with lab.inside("client"), pytest.raises(TimeoutError):
        socket.create_connection((lab.address("manager1"), MANAGER_PORT), 0.3)
    with pytest.raises(pymysql.err.OperationalError):
        lab.connect("m3", connect_timeout=1)
    with closing(lab.connect("m3", at="")):
        pass


def test_an_open_connection_hangs_and_goes_on(lab: Lab) -> None:
    with closing(lab.connect("m3", read_timeout=SECONDS)) as connection:
        lab.cut("client", "m3")
        threading.Timer(0.5, lab.heal).start()
        begin = time.monotonic()
        connection.query("SELECT 1")
        assert time.monotonic() - begin > 0.4


def test_packets_are_lost_by_chance(lab: Lab) -> None:
    with datagrams(lab) as between:
        lab.loss("client", "m3", 0.3)
        assert 600 < between.arrived("client", "m3", 1000) < 800
        assert 600 < between.arrived("m3", "client", 1000) < 800
        lab.loss("client", "m3", 0, one_way=True)
        assert between.arrived("client", "m3", 1000) == 1000


def test_packets_are_late_and_all_arrive(lab: Lab) -> None:
    with datagrams(lab) as between:
        lab.delay("client", "m3", 200)
        assert between.milliseconds("client", "m3") >= 200
        assert between.milliseconds("m3", "client") >= 200
        assert between.arrived("client", "m3", 1000, seconds=2) == 1000
        lab.delay("client", "m3", 0, one_way=True)
        assert between.milliseconds("client", "m3") < 200
        lab.heal()
        assert between.milliseconds("m3", "client") < 200
    # and whole connections work through it
    lab.delay("client", "m3", 20, jitter_ms=10)
    with closing(lab.connect("m3")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT REPEAT('x', 1000000)")
        assert len((cursor.fetchone() or [""])[0]) == 1_000_000


def test_what_is_late_is_lost_without_the_relay_and_the_next_delay_starts_it(lab: Lab) -> None:
    with datagrams(lab) as between:
        lab.delay("client", "m3", 30)
        os.kill(lab.processes("")["relay"], signal.SIGKILL)
        wait_for(lambda: not lab.processes(""))
        assert between.arrived("client", "m3") == 0
        lab.delay("client", "m3", 40)
        assert between.milliseconds("client", "m3") >= 40


# -- hosts that hang, and that die ---------------------------------------------------------------


@contextmanager
def counting(lab: Lab, host: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of that host that counts into a file, and so does its child."""
    code = (
        "import itertools, os, sys, time\n"
        "path = sys.argv[1] + ('.child' if os.fork() == 0 else '')\n"
        "for n in itertools.count():\n"
        "    open(path, 'w').write(str(n)); time.sleep(0.01)\n"
    )
    process = subprocess.Popen(lab.command(host, [sys.executable, "-c", code, str(path)]))
    try:
        wait_for(lambda: path.exists() and path.with_name(path.name + ".child").exists())
        yield process
    finally:
        lab.kill_host(host)
        lab.start_host(host)
        process.wait(SECONDS)


def wait_for(said: Callable[[], bool], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < end, "it has not happened in time"
        time.sleep(0.01)


def wait_written(path: Path) -> None:
    then = path.stat().st_mtime_ns
    wait_for(lambda: path.stat().st_mtime_ns > then)


def goes_on(path: Path) -> None:
    """The process that counts into it runs, and so does its child."""
    for each in (path, path.with_name(path.name + ".child")):
        wait_written(each)


def stands_still(path: Path) -> None:
    both = (path, path.with_name(path.name + ".child"))
    before = [each.stat().st_mtime_ns for each in both]
    time.sleep(0.2)
    assert [each.stat().st_mtime_ns for each in both] == before


def test_a_frozen_host_stands_still_with_all_its_processes(lab: Lab, tmp_path: Path) -> None:
    with counting(lab, "client", tmp_path / "count"):
        goes_on(tmp_path / "count")
        lab.freeze("client")
        assert lab.frozen("client")
        stands_still(tmp_path / "count")
        lab.thaw("client")
        assert not lab.frozen("client")
        goes_on(tmp_path / "count")


def test_without_the_freezer_each_process_is_stopped(lab: Lab, tmp_path: Path) -> None:
    cells = Cells(lab.plan, Network(lab.plan), freezer=tmp_path)
    with counting(lab, "client", tmp_path / "count"):
        cells.freeze("client")
        assert cells.frozen("client")
        stands_still(tmp_path / "count")
        cells.thaw("client")
        assert not cells.frozen("client")
        goes_on(tmp_path / "count")
        cells.freeze("client")
        cells.kill("client")
        assert cells.pids("client") == []


def wait_grown(path: Path) -> None:
    before = path.stat().st_size
    wait_for(lambda: path.stat().st_size > before)


def test_without_the_freezer_who_is_forked_meanwhile_is_stopped_too(
    lab: Lab, tmp_path: Path
) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "while True:\n"
        "    if os.fork() == 0:\n"
        "        for _ in range(10): os.write(1, b'.'); time.sleep(0.002)\n"
        "        os._exit(0)\n"
        "    time.sleep(0.001)\n"
    )
    cells = Cells(lab.plan, Network(lab.plan), freezer=tmp_path)
    path = tmp_path / "dots"
    with path.open("wb") as output:
        process = subprocess.Popen(
            lab.command("client", [sys.executable, "-c", code]), stdout=output
        )
    try:
        for _ in range(10):
            wait_grown(path)
            cells.freeze("client")
            assert cells.frozen("client")
            before = path.stat().st_size
            time.sleep(0.02)
            assert path.stat().st_size == before
            cells.thaw("client")
    finally:
        lab.kill_host("client")
        lab.start_host("client")
        process.wait(SECONDS)


def test_a_killed_host_has_no_process_left_even_if_it_was_frozen(lab: Lab, tmp_path: Path) -> None:
    for frozen in (False, True):
        with counting(lab, "client", tmp_path / "count") as process:
            if frozen:
                lab.freeze("client")
            lab.kill_host("client")
            assert process.wait(1) == -signal.SIGKILL
            stands_still(tmp_path / "count")


def test_a_frozen_member_answers_nobody_and_comes_back(lab: Lab) -> None:
    lab.freeze("m3")
    with pytest.raises(pymysql.err.OperationalError):
        lab.connect("m3", connect_timeout=1, read_timeout=1)
    lab.thaw("m3")
    wait_whole(lab)


def test_a_frozen_server_has_an_agent_that_answers(lab: Lab) -> None:
    lab.freeze_server("m3")
    with pytest.raises(pymysql.err.OperationalError):
        lab.connect("m3", connect_timeout=1, read_timeout=1)
    with (
        lab.inside("client"),
        closing(socket.create_connection((lab.address("m3"), AGENT_PORT), 1)),
    ):
        pass
    lab.thaw_server("m3")
    wait_whole(lab)


def test_a_member_host_dies_without_a_last_word_and_is_started(lab: Lab) -> None:
    connection = lab.connect("m3")
    lab.kill_host("m3")
    assert lab.is_off("m3")
    assert lab.processes("m3") == {}
    # its kernel has closed the connection, and this side has not received that
    connection._sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        connection._sock.recv(1)
    connection._force_close()
    with pytest.raises(Refused, match="is not running"):
        lab.kill_agent("m3")
    lab.start_host("m3")
    wait_whole(lab)


def test_a_power_cut_takes_what_was_not_flushed_and_the_member_is_cloned(lab: Lab) -> None:
    """Replicas flush when they like: tables and binlog may each have lost a different end."""
    folder = lab.plan.member("m3").folder
    kept, lost = folder / "kept", folder / "lost"
    with kept.open("wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        os.fsync(file.fileno())
    lost.write_bytes(b"x" * 100_000)
    lab.cut_power("m3")
    assert lab.is_off("m3")
    lab.start_host("m3")
    assert kept.read_bytes() == b"x" * 100_000
    assert not lost.exists() or lost.read_bytes() != b"x" * 100_000
    lab.wait_until(
        lambda status: "the host went down" in str(status["members"][2]), SECONDS, "its verdict"
    )
    wait_whole(lab)


def test_an_agent_that_hangs_lives_and_a_clock_is_stepped_while_it_goes(lab: Lab) -> None:
    before = lab.processes("m3")
    lab.hang_agent("m3")
    lab.set_clock("m3", -3600)
    lab.set_clock(leader := lab.leader(), 86400)
    assert lab.processes("m3") == before
    with (
        lab.inside("client"),
        closing(socket.create_connection((lab.address("m3"), AGENT_PORT), 1)) as asked,
    ):
        asked.sendall(b"GET / HTTP/1.0\r\n\r\n")
        asked.settimeout(0.5)
        with pytest.raises(TimeoutError):
            asked.recv(1)
    faults = {row["host"]: row["faults"] for row in rows(lab)}
    assert faults["m3"] == ["clock -3600 s", "agent hangs"]
    assert faults[leader] == ["clock +86400 s"]
    lab.cont_agent("m3")
    with lab.inside():
        told = lab.manager(leader).events(CLUSTER, 0, 0.0)
    assert all(each["at"] < time.time() + 3600 for each in told)
    lab.kill_agent("m3")
    lab.start_agent("m3")
    wait_whole(lab)
    with lab.inside():
        told = lab.manager(leader).events(CLUSTER, 0, 0.0)
    assert told[-1]["at"] > time.time() + 80000
    for host in ("m3", leader):
        lab.set_clock(host, 0)


def test_each_process_dies_alone(lab: Lab) -> None:
    before = lab.processes("m3")
    lab.kill_agent("m3")
    assert lab.processes("m3") == {"server": before["server"]}
    lab.start_agent("m3")
    with pytest.raises(Refused, match="is running"):
        lab.start_agent("m3")
    wait_whole(lab)
    server = lab.server("m3")
    lab.kill_server("m3")
    assert server.wait(SECONDS)
    wait_whole(lab)


def test_another_manager_leads_when_the_leading_one_dies_and_it_comes_back(lab: Lab) -> None:
    name = lab.leader()
    lab.kill_manager(name)
    assert lab.processes(name) == {}
    wait_for(lambda: lab.leader() not in ("", name))
    lab.start_manager(name)
    other = lab.leader()
    lab.stop_manager(other)
    assert lab.processes(other) == {}
    wait_for(lambda: lab.leader() not in ("", other))
    lab.start_host(other)
    lab.start_host(other)
    assert set(lab.processes(other)) == {"manager"}
    wait_whole(lab)


def test_an_etcd_node_dies_and_is_started(lab: Lab) -> None:
    lab.kill_etcd("etcd1")
    assert lab.processes("etcd1") == {}
    wait_whole(lab)
    lab.start_etcd("etcd1")
    assert set(lab.processes("etcd1")) == {"etcd"}


def wait_until_it_hangs(process: subprocess.Popen[bytes]) -> None:
    """Wait until it hangs in the kernel, and not for a moment only."""
    stat = Path(f"/proc/{process.pid}/stat")

    def hangs() -> bool:
        for _ in range(10):
            if stat.read_text().rpartition(")")[2].split()[0] != "D":
                return False
            time.sleep(0.01)
        return True

    wait_for(hangs)


# -- disks ---------------------------------------------------------------------------------------


def test_a_full_disk_takes_nothing_more(lab: Lab) -> None:
    file = lab.members()[2].folder / "more"
    lab.disk_full("m3")
    assert lab.disk_is_full("m3")
    with pytest.raises(OSError, match="No space left"):
        file.write_bytes(b"x" * 100_000)
    lab.disk_free("m3")
    assert not lab.disk_is_full("m3")
    assert file.write_bytes(b"x" * 100_000) == 100_000
    file.unlink()
    wait_whole(lab)


def test_who_writes_to_a_stalled_disk_hangs_and_cannot_be_killed(lab: Lab) -> None:
    file = lab.members()[2].folder / "more"
    lab.disk_stall("m3")
    writer = subprocess.Popen(lab.command("m3", ["sh", "-c", f"echo x >{file}"]))
    wait_until_it_hangs(writer)
    writer.kill()
    with pytest.raises(subprocess.TimeoutExpired):
        writer.wait(0.3)
    assert lab.stalled() == {"m3"}
    with pytest.raises(Refused):
        lab.disk_stall("m3")
    lab.disk_go("m3")
    lab.disk_go("m3")
    assert writer.wait(SECONDS) == -signal.SIGKILL
    assert lab.stalled() == set()
    wait_whole(lab)


# -- the command line ----------------------------------------------------------------------------


def holdfast(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "holdfast.cli.main", "sandbox", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def test_the_command_line_harms_and_heals_and_shows_it(lab: Lab) -> None:
    where = ("--dir", str(lab.plan.dir))
    assert holdfast("cut", "client", "m1,m2", *where).returncode == 0
    lab.loss("m3", "client", 0.25, one_way=True)
    lab.freeze("client")
    shown = holdfast("hosts", *where, "--json")
    faults = {row["host"]: row["faults"] for row in json.loads(shown.stdout)}
    assert faults["client"] == ["frozen", "to m1, m2: cut"]
    assert faults["m3"] == ["to client: loses 25%"]
    lab.thaw("client")
    assert holdfast("heal", *where).returncode == 0
    assert lab.links() == {}
    ran = holdfast("run", *where, "client", "ip", "-4", "-br", "addr", "show", "eth0")
    assert lab.address("client") in ran.stdout
    wrong = holdfast("cut", "m1", "m9", *where)
    assert (wrong.returncode, wrong.stderr[:19]) == (1, "holdfast: host: the")


# -- what stays on the machine -------------------------------------------------------------------


def left_of(plan: LabPlan) -> list[str]:
    """Everything whose name contains the lab's: namespaces, mounts, loop devices, cgroups, processes, files."""
    loops = subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout
    mounts = Path("/proc/self/mountinfo").read_text()
    found = [line for line in (loops + mounts).splitlines() if f"{plan.dir}/" in line]
    found += [line for line in mounts.splitlines() if plan.cell_root in line]
    for folder in ("/run/netns", "/sys/fs/cgroup/freezer", "/tmp"):
        names = [path.name for path in Path(folder).iterdir()] if Path(folder).is_dir() else []
        found += [f"{folder}/{name}" for name in names if plan.id in name]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if plan.cell_root.encode() in line or f"{plan.dir}/".encode() in line:
            found.append(line.decode(errors="replace"))
    return found


def test_a_lab_with_every_fault_is_taken_down(lab: Lab, tmp_path: Path) -> None:
    """Not the shared one: this one is small, and need not be whole."""
    small = Lab.create(tmp_path / "lab", LabShape(lab.plan.flavor, 1, 1))
    try:
        with pytest.raises(DeadlinePassed):
            small.up(seconds=0)
        small.cut("m1", "all")
        small.delay("m1", "client", 50)
        small.disk_stall("m1")
        writer = subprocess.Popen(
            small.command("m1", ["sh", "-c", f"echo x >{small.members()[0].folder}/more"])
        )
        wait_until_it_hangs(writer)
        small.freeze("m1")
        small.freeze("manager1")
        small.down()
        assert left_of(small.plan) == []
        small.down()
        with pytest.raises(Refused, match="is down"):
            small.status()
        # its disks stay, and work again
        with pytest.raises(DeadlinePassed):
            small.up(seconds=0)
        assert (small.members()[0].folder / "more").exists()
        with pytest.raises(Refused, match="is running"):
            small.up()
        small.down(remove=True)
        small.down(remove=True)
    finally:
        remove_quietly(small)
    assert not small.plan.dir.exists()
    writer.wait(1)


@pytest.mark.parametrize("done", ["lab.json", "disks", "logs/m1.log"])
def test_a_lab_whose_making_was_killed_is_taken_down(lab: Lab, tmp_path: Path, done: str) -> None:
    folder = tmp_path / "lab"
    command = [sys.executable, "-m", "holdfast.cli.main", "sandbox", "up", "--hosts"]
    command += ["--server", lab.plan.flavor.value, "--dir", str(folder), "--managers", "1"]
    making = subprocess.Popen([*command, "--members", "1"], stderr=subprocess.DEVNULL)
    try:
        wait_for((folder / done).exists)
    finally:
        making.kill()
        making.wait()
        plan = read_saved(folder)
        taken = holdfast("down", "--remove", "--dir", str(folder))
    assert taken.returncode == 0, taken.stderr
    assert left_of(plan) == []
    assert not saved_path(folder).exists()
    assert not folder.exists()
