"""The agent makes a data directory where there is none, and nowhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.agent.clone.clone import EMPTY
from holdfast.agent.member import LocalMember
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.start import founding
from holdfast.agent.start.founding import Founding
from holdfast.core.commands import Initialise, Start
from holdfast.core.gtid import Flavor
from holdfast.core.observed.data_state import Data
from holdfast.core.view import MemberState
from holdfast.errors import Refused
from holdfast.http.wire import AccountReply
from holdfast.server.base import Account, Deadline
from holdfast.tls import Credentials
from tests.unit.agent_world import World

SERVER = """
import os, sys
folder = next(a.partition("=")[2] for a in sys.argv if a.startswith("--datadir="))
os.mkdir(folder + "/mysql"); open(folder + "/ibdata1", "w").close(); open(folder + "/auto.cnf", "w").close()
said = next(a.partition("=")[2] for a in sys.argv if a.startswith("--init-file="))
open(folder + "/mysql/made.txt", "w").write(open(said).read())
if os.path.exists(os.path.dirname(os.path.abspath(sys.argv[0])) + "/breaks"):
    sys.exit("out of room")
"""
COMMAND = Initialise((("m1", "http://m1"), ("m2", "http://m2")))


class Host:
    """:ivar obeyed: the agent has been in a cluster; :ivar running: its server"""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.datadir, self.state_dir = folder / "data", folder / "state"
        self.datadir.mkdir()
        self.state_dir.mkdir()
        (folder / "server.py").write_text(SERVER)
        self.options = folder / "my.cnf"
        self.options.write_text("[mysqld]\n")
        self.fstab = folder / "fstab"
        self.obeyed = False
        self.running: object | None = None
        self.published = PublishedState(MemberState("m1", Flavor.MYSQL))
        own: Any = SimpleNamespace(
            flavor=Flavor.MYSQL,
            command=(sys.executable, str(folder / "server.py")),
            option_file=self.options,
            datadir=self.datadir,
            binlog_index=folder / "logs" / "binlog.index",
            tls=None,
        )
        server_run: Any = SimpleNamespace(look=lambda: self.running)
        monkeypatch.setattr(
            founding,
            "fetch_account",
            lambda member, *_: AccountReply(
                user=f"repl_{member}", authentication="$A$005$" + "s" * 20 + "d" * 43
            ),
        )
        nothing: Any = None
        member = LocalMember(
            self.published,
            server_run,
            nothing,
            own,
            Account("holdfast", "it's"),
            Account("repl_m1", "p"),
            Credentials(),
            self.state_dir,
            nothing,
        )
        self.founding = Founding(member, lambda: self.obeyed, self.fstab)

    def make(self) -> None:
        self.founding.perform(COMMAND, Deadline(10), lambda _: None)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def refused(host: Host) -> str:
    before = sorted(str(each) for each in host.datadir.rglob("*"))
    with pytest.raises(Refused) as error:
        host.make()
    assert sorted(str(each) for each in host.datadir.rglob("*")) == before, "nothing is touched"
    return str(error.value)


def test_an_empty_one_is_made_with_all_accounts_and_counts_as_new(host: Host) -> None:
    assert host.founding.data() is Data.EMPTY
    host.make()
    said = (host.datadir / "mysql" / "made.txt").read_text()
    for user in ("'holdfast'@'localhost'", "'repl_m1'@'%'", "'repl_m2'@'%'"):
        assert f"CREATE USER {user}" in said
    assert "BACKUP_ADMIN ON *.* TO 'repl_m2'@'%'" in said
    assert "ALTER USER 'root'@'localhost' ACCOUNT LOCK" in said
    assert "holdfast.proof" in said
    assert not (host.datadir / "auto.cnf").exists(), "each has a server_uuid of its own"
    assert host.published.state.data is Data.NEW
    host.make()  # ordered again
    host.obeyed = True
    assert host.founding.data() is Data.USED


def test_what_may_be_data_is_not_touched(host: Host) -> None:
    (host.datadir / "shop").mkdir()
    (host.datadir / "shop" / "orders.ibd").write_text("x")
    assert host.founding.data() is Data.USED
    assert "is not empty" in refused(host)


def test_one_whose_binary_log_is_elsewhere_is_not_empty(host: Host) -> None:
    (host.folder / "logs").mkdir()
    (host.folder / "logs" / "binlog.000007").write_text("x")
    assert "is not empty" in refused(host)


def test_who_has_obeyed_anybody_makes_nothing(host: Host) -> None:
    host.obeyed = True
    assert "has been in a cluster" in refused(host)


def test_while_a_server_runs_nothing_is_made(host: Host) -> None:
    host.running = object()
    assert "the server of m1" in refused(host)


def test_a_mount_point_on_which_nothing_is_mounted_is_not_empty(host: Host) -> None:
    host.fstab.write_text(f"# disks\nUUID=1 {host.datadir} xfs defaults 0 0\n")
    assert host.founding.data() is Data.USED
    assert "nothing is mounted there" in refused(host)
    host.fstab.write_text(f"UUID=1 {host.folder}/other xfs defaults 0 0\n")
    assert host.founding.data() is Data.EMPTY


def test_innodb_s_files_elsewhere_are_not_known_to_be_empty(host: Host) -> None:
    host.options.write_text("[mysqld]\ninnodb_log_group_home_dir = /var/redo\n")
    assert "innodb_log_group_home_dir = /var/redo" in refused(host)


def test_half_of_one_is_made_anew_and_what_was_put_there_since_is_kept(host: Host) -> None:
    (host.folder / "breaks").touch()
    assert "out of room" in refused(host)
    assert "out of room" in host.published.state.reason, "said in the status"
    # the agent was killed while the new data directory took its place
    (host.datadir / "mysql").mkdir()
    assert host.founding.data() is Data.EMPTY
    (host.datadir / "shop").mkdir()
    (host.datadir / "shop" / "orders.ibd").write_text("x")
    assert host.founding.data() is Data.USED
    (host.datadir / "shop" / "orders.ibd").unlink()
    (host.folder / "breaks").unlink()
    host.make()
    assert host.published.state.data is Data.NEW
    assert host.published.state.reason == ""


def test_other_files_in_the_place_of_those_that_were_made_are_data(host: Host) -> None:
    host.make()
    (host.datadir / "ibdata1").rename(host.folder / "kept")
    (host.datadir / "ibdata1").write_text("another server's")
    assert host.founding.data() is Data.USED


def test_a_server_that_runs_has_data_whatever_was_said_before_it_was_started(
    tmp_path: Path,
) -> None:
    """It was a donor that "has no data to copy", long after an operator had given it data."""
    world = World(tmp_path)
    try:
        agent = world._agent
        assert agent is not None
        agent.published.change(unfit=EMPTY)
        assert world.command(1, Start()).error == ""
        until(lambda: agent.published.state.up, "it is up")
        until(lambda: agent.published.state.unfit == "", "it is no reason any more")
    finally:
        world.end()


def until(reached: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < end, what
        time.sleep(0.01)
