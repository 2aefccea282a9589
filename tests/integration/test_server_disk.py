"""A primary whose disk stalls or is full: what its agent reports, and that it can be fenced nevertheless."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pymysql
import pytest

from holdfast.core.commands import Cut, Fence, Promise, Promote, Start
from holdfast.core.gtid import Flavor
from holdfast.core.view import Receiver, ServerStatus
from holdfast.server.base import Deadline
from holdfast.server.primary.probe import Probe
from tests.integration import servers
from tests.integration.test_agent_real import Member

IMAGE_MB = 600
FILLER = "filler"


class Disk:
    """ext4 in a file, mounted where the server has its data; the agent's own files are elsewhere."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.folder = folder
        self.frozen = False
        folder.mkdir(parents=True)
        with image.open("wb") as file:
            file.truncate(IMAGE_MB << 20)
        run("mkfs.ext4", "-q", str(image))
        run("mount", "-o", "loop", str(image), str(folder))

    def stall(self) -> None:
        run("fsfreeze", "--freeze", str(self.folder))
        self.frozen = True

    def go_on(self) -> None:
        if self.frozen:
            run("fsfreeze", "--unfreeze", str(self.folder))
            self.frozen = False

    def fill(self) -> None:
        fill(self.folder)

    def free(self) -> None:
        (self.folder / FILLER).unlink(missing_ok=True)

    def remove(self) -> None:
        self.go_on()
        end = time.monotonic() + 10
        while os.path.ismount(self.folder):
            try:  # a server that has just been killed may still use it
                run("umount", str(self.folder))
            except subprocess.CalledProcessError:
                assert time.monotonic() < end
                time.sleep(0.1)


def fill(folder: Path) -> None:
    with (folder / FILLER).open("wb", buffering=0) as file:
        for block in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(block)):
                    pass


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def host(flavor: Flavor) -> Iterator[tuple[Member, Disk]]:
    """Its server is down at the beginning and at the end of each test."""
    folder = Path(tempfile.mkdtemp(prefix="hf"))
    member = Member(folder / "m1", flavor, 1)
    disk = None
    try:
        original = member.datadir.rename(folder / "data")
        disk = Disk(folder / "image", member.datadir)
        run("cp", "-a", f"{original}/.", str(member.datadir))
        yield member, disk
    finally:
        if disk is not None:
            disk.go_on()
        member.end()
        if disk is not None:
            disk.remove()
        shutil.rmtree(folder)


@contextmanager
def writing(member: Member) -> Iterator[None]:
    ended = threading.Event()

    def write() -> None:
        with suppress(pymysql.err.MySQLError), closing(member.client()) as client:
            cursor = client.cursor()
            while not ended.is_set():
                cursor.execute("INSERT INTO t VALUES ()")

    writers = [threading.Thread(target=write) for _ in range(2)]
    for each in writers:
        each.start()
    try:
        yield
    finally:
        ended.set()
        for each in writers:
            each.join(10)


@pytest.fixture(autouse=True)
def mended(host: tuple[Member, Disk]) -> Iterator[None]:
    yield
    host[1].go_on()


def serve_alone(member: Member, term: int) -> None:
    member.boot(term)
    member.do(term, Promote(acks=0, serial=1))
    with closing(member.client()) as client, client.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS t (n INT AUTO_INCREMENT PRIMARY KEY)")


def test_a_disk_that_stalls_is_told_and_the_killed_server_is_dying_until_it_answers(
    host: tuple[Member, Disk],
) -> None:
    member, disk = host
    serve_alone(member, 1)
    with writing(member):
        time.sleep(1)
        assert member.seen().state.stuck_seconds == 0, "commits come through"
        disk.stall()
        begun = time.monotonic()
        state = member.until(lambda state: state.stuck_seconds >= 2, 15)
        print(f"stuck for 2 s was told after {time.monotonic() - begun:.2f} s")
        assert time.monotonic() - begun < 6
        assert state.stuck == "the disk may not answer"
        assert state.up
        assert state.silent_seconds == 0, "it is not frozen: it answers"
        begun = time.monotonic()
        reply = member.do(2, Fence())
        print(f"fenced in {1000 * (time.monotonic() - begun):.0f} ms")
        assert time.monotonic() - begun < 1
        assert reply.state.server is ServerStatus.DYING
        assert "disk" in reply.state.reason
        for command in (Start(), Cut("m2", "")):
            refused = member.ask(2, command)
            assert refused.error == "Refused"
            assert "waits for a disk that does not answer" in refused.message
        member.do(2, Promise())
        assert member.seen().state.server is ServerStatus.DYING
        disk.go_on()
        member.until(lambda state: state.server is ServerStatus.DOWN, 5)


def test_a_full_disk_is_told_or_ends_the_server(host: tuple[Member, Disk], flavor: Flavor) -> None:
    member, disk = host
    serve_alone(member, 3)
    full = f"no space is left in {member.datadir}"
    disk.fill()  # no client writes: only DDL would fail
    begun = time.monotonic()
    state = member.until(lambda state: state.stuck_seconds >= 1, 10)
    print(f"full for 1 s was told after {time.monotonic() - begun:.2f} s")
    assert (state.full, state.stuck, state.concerns) == (full, full, (full,))
    disk.free()
    member.until(lambda state: not state.full and not state.stuck_seconds, 10)
    with writing(member):
        disk.fill()
        begun = time.monotonic()
        state = member.until(lambda state: state.stuck_seconds >= 2 or state.ended, 30)
        print(f"{state.server} after {time.monotonic() - begun:.2f} s: {state.stuck}")
        if flavor is Flavor.MARIADB:
            assert state.up
            assert state.stuck == f"no space is left in {member.datadir}"
            assert state.silent_seconds == 0
        begun = time.monotonic()
        reply = member.do(4, Fence())
        assert reply.state.ended
        assert time.monotonic() - begun < 1
    member.until(lambda state: state.server is ServerStatus.DOWN, 10)
    disk.free()


def test_a_full_folder_for_temporary_tables_stops_no_look(flavor: Flavor) -> None:
    with servers.bare_servers(flavor, 2) as (server, other):
        folder = server.option_file.with_name("tmp")
        server.kill()
        run("mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder))
        try:
            server.start()
            deadline = Deadline(20)
            for one, source in ((server, other), (other, server)):
                one.adapter.follow(source.source(one), False, deadline)
                deadline.wait_until("connected", partial(_connected, one, deadline))
            fill(folder)
            server.adapter.observe(deadline)
            assert server.adapter.receiver_thread(deadline) > 0
            assert server.adapter.dumps.look(deadline).dumps
            with closing(Probe(flavor, server.socket, servers.ADMIN)) as probe:
                assert probe.activity(deadline).attempts >= 0
            server.adapter.bar(servers.replication(other.number).user, deadline)
            assert not server.adapter.dumps.look(deadline).dumps
        finally:
            server.kill()
            run("umount", str(folder))


def _connected(server: servers.BareServer, deadline: Deadline) -> bool:
    return server.adapter.observe(deadline).replication.receiver is Receiver.ON
