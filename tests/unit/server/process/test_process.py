"""The server's process: started once, found again, its end noticed, and never mistaken for another."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.errors import DeadlinePassed, Refused
from holdfast.server.process.process import Running, ServerProcess, kernel_boot_id

SLEEPER = "import sys, time; print('hello', flush=True); time.sleep(60)"


class Host:
    """A folder with a harmless "server", and everything started in it."""

    def __init__(self, folder: Path, code: str = SLEEPER) -> None:
        self.folder = folder
        self.program = folder / "server.py"
        self.program.write_text(code)
        self.option_file = folder / "my.cnf"
        self.option_file.write_text("[mysqld]\n")
        self.datadir = folder / "data"
        self.datadir.mkdir()
        self.others: list[subprocess.Popen[bytes]] = []

    def process(self) -> ServerProcess:
        """As a new agent would see it."""
        command = (sys.executable, str(self.program))
        out, socket = self.folder / "out", self.folder / "sock"
        return ServerProcess(command, self.option_file, self.datadir, out, socket=socket)

    def run(self, *argv: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        other = subprocess.Popen(argv, cwd=cwd)
        self.others.append(other)
        return other


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    for other in host.others:
        other.kill()
        other.wait()
    left = host.process().find()
    if left is not None:
        left.kill_and_wait(5)


def test_a_started_server_is_found_again_under_the_same_incarnation(host: Host) -> None:
    running = host.process().start()
    found = host.process().find()
    assert found is not None
    assert (found.pid, found.incarnation) == (running.pid, running.incarnation)
    assert running.incarnation.startswith(f"{kernel_boot_id()[:8]}-{running.pid}-")


def test_the_lock_of_a_dead_server_that_nobody_has_reaped_is_in_nobodys_way(host: Host) -> None:
    """MySQL would refuse to start: "Another process with pid … is using unix socket file"."""
    lock = host.folder / "sock.lock"
    dead = host.run("true")
    stat = Path(f"/proc/{dead.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    for pid, kept in ((os.getpid(), True), (dead.pid, False)):
        lock.write_text(f"{pid}\n")
        host.process().start().kill_and_wait(5)
        assert lock.exists() is kept


def test_every_run_is_another_incarnation(host: Host) -> None:
    first = host.process().start()
    first.kill_and_wait(5)
    assert host.process().start().incarnation != first.incarnation


def test_it_runs_in_a_session_of_its_own_with_nothing_of_ours_open(host: Host) -> None:
    with (host.folder / "lock").open("w") as ours:
        running = host.process().start()
        assert os.getsid(running.pid) == running.pid
        links = set()
        for path in Path(f"/proc/{running.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it begins, and has closed it again
                links.add(os.readlink(path))
        assert ours.name not in links
    assert os.readlink(f"/proc/{running.pid}/fd/0") == os.devnull


def test_a_second_start_is_refused(host: Host) -> None:
    host.process().start()
    with pytest.raises(Refused, match="running already"):
        host.process().start()


def test_of_many_starts_at_once_one_wins(host: Host) -> None:
    won: list[Running] = []
    refused: list[str] = []

    def start() -> None:
        try:
            won.append(host.process().start())
        except Refused as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(won), len(refused)) == (1, 5)


def test_its_death_is_seen_at_once_and_the_zombie_is_buried(host: Host) -> None:
    running = host.process().start()
    poll = select.poll()
    poll.register(running.fd, select.POLLIN)
    begun = time.monotonic()
    os.kill(running.pid, signal.SIGKILL)
    assert poll.poll(2000)
    assert time.monotonic() - begun < 1
    assert not running.alive
    assert host.process().find() is None
    assert running.ending().status == -signal.SIGKILL
    assert not Path(f"/proc/{running.pid}").exists()


def test_a_clean_end_is_told_from_a_crash(tmp_path: Path) -> None:
    for number, (code, clean) in enumerate({"pass": True, "raise SystemExit(3)": False}.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        running = Host(folder, code).process().start()
        assert running.wait(10)
        assert running.ending().clean is clean


def test_killing_a_dead_one_does_nothing(host: Host) -> None:
    running = host.process().start()
    running.kill_and_wait(5)
    running.kill()
    assert running.kill_and_wait(5).status == -signal.SIGKILL


class Undying(Running):
    """As one that hangs in the kernel."""

    def kill(self) -> None:
        pass


def test_a_kill_that_does_not_end_in_time_is_an_unknown_outcome(host: Host) -> None:
    running = host.process().start()
    hanging = Undying(running.pid, os.dup(running.fd), running.incarnation, running.child)
    with pytest.raises(DeadlinePassed, match="killing the server"):
        hanging.kill_and_wait(0)


def test_a_client_with_the_same_option_file_is_not_the_server(host: Host) -> None:
    host.run("/bin/sh", "-c", "sleep 60; :", f"--defaults-file={host.option_file}")
    time.sleep(0.1)
    assert host.process().find() is None


def test_a_server_started_by_hand_is_known_by_its_working_directory(host: Host) -> None:
    host.run(
        "/bin/sh", "-c", "sleep 60; :", f"--defaults-file={host.option_file}", cwd=host.datadir
    )
    time.sleep(0.1)
    found = host.process().find()
    assert found is not None
    assert found.pid == host.others[0].pid


def test_the_server_of_another_option_file_is_left_alone(host: Host) -> None:
    other = host.folder / "other.cnf"
    other.touch()
    host.run(sys.executable, str(host.program), f"--defaults-file={other}")
    time.sleep(0.1)
    assert host.process().find() is None


def server_program(host: Host, name: str, opens: Path) -> Path:
    """Like a server with a command line of its own: it works in its folder, with a file of it open."""
    program = host.folder / name
    program.write_text(f"exec 3<'{opens}'; sleep 60; :")
    return program


@pytest.mark.parametrize("name", ["mariadbd", "mysqld"])
def test_a_server_that_was_started_in_another_way_is_known_by_its_data(
    host: Host, name: str
) -> None:
    data = host.datadir / "ibdata1"
    data.touch()
    host.run("/bin/sh", str(server_program(host, name, data)), "--user=mysql", cwd=host.datadir)
    wait_for(lambda: host.process().find() is not None)
    found = host.process().find()
    assert found is not None
    assert found.pid == host.others[0].pid
    with pytest.raises(Refused, match="running already"):
        host.process().start()


def test_a_server_on_other_data_and_a_tool_on_ours_are_left_alone(host: Host) -> None:
    data = host.datadir / "ibdata1"
    data.touch()
    elsewhere = host.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "ibdata1").touch()
    other = server_program(host, "mysqld", elsewhere / "ibdata1")
    host.run("/bin/sh", str(other), cwd=elsewhere)
    idle = server_program(host, "mariadbd", Path("/dev/null"))  # such as mariadbd --help
    host.run("/bin/sh", str(idle), cwd=host.datadir)
    tool = server_program(host, "mariadb-backup", data)
    host.run("/bin/sh", str(tool), cwd=host.datadir)
    for each in host.others:
        wait_for(Path(f"/proc/{each.pid}/fd/3").exists)
    assert host.process().find() is None


def wait_for(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_servers_on_one_option_file_are_an_error(host: Host) -> None:
    for _ in range(2):
        host.run(sys.executable, str(host.program), f"--defaults-file={host.option_file}")
    time.sleep(0.1)
    with pytest.raises(Refused, match="stop all of them but one"):
        host.process().find()


def test_a_program_that_cannot_be_run_is_named(host: Host) -> None:
    process = ServerProcess(("/nowhere/mysqld",), host.option_file, host.datadir, host.folder / "o")
    with pytest.raises(Refused, match="cannot run /nowhere/mysqld: No such file"):
        process.start()


def test_what_it_said_last_can_be_told(host: Host) -> None:
    process = host.process()
    assert process.last_words() == ""
    process.start()
    for _ in range(200):
        if process.last_words():
            break
        time.sleep(0.02)
    assert process.last_words() == "hello"
