"""A cluster of hosts on this machine, with faults that can be injected into hosts and their network.

    lab = Lab.create(folder, LabShape(Flavor.MARIADB))
    try:
        lab.up()
        lab.cut(lab.primary(), "all")
        lab.wait_until(lambda status: status["writable"], 10)
        lab.heal()
        lab.wait_whole(60)
    finally:
        lab.down(remove=True)

Hosts are ``m1``… (server and agent), ``manager1``…, ``etcd1``…, perhaps ``haproxy``, and ``client``, where nothing runs
by itself. Faults name their hosts; ``"m1,m2"`` is a group, ``"all"`` is every host (but the one on the other side).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from holdfast.errors import DeadlinePassed, Refused, Unreachable
from holdfast.http.manager_client import ManagerClient
from holdfast.sandbox.lab.asking import Asking
from holdfast.sandbox.lab.files import write_files
from holdfast.sandbox.lab.harm import LabHarm
from holdfast.sandbox.lab.plan import (
    HAPROXY,
    READ_PORT,
    WRITE_PORT,
    LabPlan,
    LabShape,
    new_plan,
    read_saved,
    refuse_other,
    saved_path,
    write_saved,
)
from holdfast.sandbox.lab.tools import refuse_without
from holdfast.sandbox.local.accounts import cached_accounts
from holdfast.sandbox.local.servers import end_server, server_of
from holdfast.sandbox.local.spec import MemberSpec, checked
from holdfast.sandbox.servers import trees
from holdfast.sandbox.servers.daemons import tail
from holdfast.sandbox.waiting import Say, Status, first_status, is_whole, quiet
from holdfast.server.base import Account
from holdfast.server.connection.login import SafeLogin

WHOLE_SECONDS = 60.0


class Lab(LabHarm):
    """A lab in a folder; made with `create` or found with `open`. Needs root.

    Several threads may use one, and other processes may `open` it at the same time. The faults are in `LabHarm`.

    :ivar plan: its shape and names
    :ivar accounts: ``accounts.app`` is the clients' account
    """

    def __init__(self, plan: LabPlan, say: Say = quiet) -> None:
        super().__init__(plan)
        self.accounts = cached_accounts()
        self._say = say
        self._asking = Asking(plan, self._network)

    @classmethod
    def create(cls, folder: Path, wanted: LabShape, say: Say = quiet) -> Lab:
        """The lab in this folder; made now unless one of the same shape is there. Starts nothing.

        :raises BadInput: the existing one has another shape, or the folder holds something else
        :raises Refused: root, ``ip`` or ``nft`` is missing; nothing was made
        """
        refuse_without()
        if saved_path(folder).exists():
            found = cls.open(folder, say)
            asked: dict[str, Any] = {"flavor": wanted.flavor, "size": wanted.size}
            asked |= {"manager_count": wanted.managers, "gate": wanted.gate}
            asked |= {"vip": wanted.vip, "haproxy": wanted.haproxy}
            asked |= {"binary": wanted.binary.absolute()} if wanted.binary else {}
            if wanted.settings is not None:
                asked["settings"] = checked(wanted.settings, wanted.size)
            refuse_other(found.plan, asked)
            return found
        trees.find(wanted.flavor.value, wanted.binary)
        plan = new_plan(folder, wanted)
        if plan.haproxy:
            trees.companion("haproxy")
        if plan.etcds:
            trees.companion("etcd")
        plan.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_saved(plan)
        return cls(plan, say)

    @classmethod
    def open(cls, folder: Path, say: Say = quiet) -> Lab:
        """:raises BadInput: there is none"""
        return cls(read_saved(folder), say)

    # -- the whole ------------------------------------------------------------------------------

    def up(self, seconds: float = WHOLE_SECONDS) -> Status:
        """Make the hosts, start everything, and return the status once the cluster is whole.

        :raises Refused: it runs already, or something ended: holds the end of its log
        :raises DeadlinePassed: not whole in time; everything is left running, to be examined
        """
        refuse_without()
        with self._locked():
            running = self.running()
            if running:
                raise Refused(
                    f"the lab in {self.plan.dir} is running ({', '.join(running)}): "
                    "stop it with holdfast sandbox down"
                )
            self._clear()  # what a killed command has left
            self._say(f"making {len(self.plan.hosts)} hosts")
            self._network.make()
            self._cells.make()
            write_files(self.plan, self.accounts, self._disks)
            self._say("starting etcd, managers and agents")
            for host in self._crew.hosts:
                self._crew.start(host)
        return self.wait_whole(seconds)

    def down(self, remove: bool = False) -> None:
        """Undo every fault, end every process, and remove every namespace, mount, loop device and cgroup.

        What was made only in part, or is gone already, is no error.

        :param remove: the folder as well
        """
        if not saved_path(self.plan.dir).exists():
            return
        with self._locked():
            if not remove:
                self._stop_gently()
            self._say("taking the hosts away")
            self._clear()
            self._asking.close()
            if remove:
                self._remove_folder()

    def running(self) -> list[str]:
        """What runs now: names of hosts with their daemons, and servers."""
        servers = [member.name for member in self.plan.members if server_of(member) is not None]
        daemons = [host for host in self._crew.hosts if self._crew.pid(host) is not None]
        return daemons + [f"{name}'s server" for name in servers]

    def processes(self, host: str) -> dict[str, int]:
        """Pids on a host: its daemon's and its server's, by kind; without a host, that of the relay."""
        found: dict[str, int] = {}
        if not host:
            pids = self._cells.pids()
            return {"relay": pids[0]} if pids else {}
        if host in self._crew.hosts and (pid := self._crew.pid(host)) is not None:
            members = [member.name for member in self.plan.members]
            found["agent" if host in members else host.rstrip("0123456789")] = pid
        if host in [member.name for member in self.plan.members]:
            server = server_of(self.plan.member(host))
            if server is not None:
                found["server"] = server.pid
        return found

    def _stop_gently(self) -> None:
        """End everything in order; what does not end by itself is left to `_clear`."""
        self._release()
        if self._network.found():
            self._set_links({})
        self._say("stopping managers, agents and servers")
        members = self.plan.members
        for group in (self.plan.managers, tuple(member.name for member in members)):
            with ThreadPoolExecutor(len(group)) as pool:
                list(pool.map(self._stop, group))
        with ThreadPoolExecutor(len(members)) as pool:
            list(pool.map(lambda each: end_server(each, self.accounts.admin, True), members))
        for node in self.plan.etcds:
            self._stop(node)

    def _stop(self, host: str) -> None:
        with suppress(Refused):  # it does not run
            self._crew.stop(host)

    def _release(self) -> None:
        """Thaw and release everything that stands still: nothing can be killed or unmounted before."""
        for member in self.plan.members:
            self._disks.go(member.name)
        for host in self.plan.hosts:
            self._cells.thaw(host)
        for member in self.plan.members:
            with suppress(Refused):
                self.thaw_server(member.name)

    def _clear(self) -> None:
        """Leave no process, mount, loop device, cgroup or namespace."""
        self._release()
        for host in (*self.plan.hosts, ""):
            self._cells.kill(host)
        self._crew.bury()
        for member in self.plan.members:
            self._disks.remove(member.name)
        self._cells.remove()
        self._network.remove()
        shutil.rmtree(self.plan.sockets, ignore_errors=True)
        self.forget_faults()

    def _remove_folder(self) -> None:
        """Remove the folder; the file that names everything is removed last."""
        last = saved_path(self.plan.dir)
        for path in self.plan.dir.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != last:
                path.unlink()
        last.unlink()
        self.plan.dir.rmdir()

    def hosts(self) -> tuple[str, ...]:
        return self.plan.hosts

    def address(self, host: str) -> str:
        """Its IPv4 address; ports are the constants of `plan`."""
        return self.plan.address(host)

    def endpoint(self, use: str = "write") -> tuple[str, int] | None:
        """Where HAProxy takes connections, in a lab that has it.

        :param use: ``write`` or ``read``
        """
        if not self.plan.haproxy:
            return None
        return self.address(HAPROXY), {"write": WRITE_PORT, "read": READ_PORT}[use]

    def members(self) -> tuple[MemberSpec, ...]:
        """``name``, ``host`` (an address), ``port`` of each server, and where its files are."""
        return self.plan.members

    # -- looking: from beside the bridge, where no cut reaches -------------------------------------

    def manager(self, name: str = "") -> ManagerClient:
        """A client of the manager of that name, or of the leading one; to be used within `inside`.

        :raises Refused: none leads
        """
        if not name and not (name := self.leader()):
            raise Refused("no manager leads")
        return self._asking.client(self.plan.check_host(name, self.plan.managers))

    def status(self) -> Status:
        """The leading manager's status.

        :raises Unreachable: none leads, or it does not answer
        """
        return self._asking.status()[1]

    def leader(self) -> str:
        """The name of the leading manager, by its own answer; "" when none leads."""
        try:
            return self._asking.status()[0]
        except Unreachable:
            return ""

    def primary(self) -> str:
        """The primary that the record names.

        :raises Refused: there is none yet
        """
        name = self.status()["primary"]
        if not name:
            raise Refused("the cluster has no primary yet")
        return str(name)

    def wait_until(
        self, predicate: Callable[[Status], bool], seconds: float, what: str = "what was expected"
    ) -> Status:
        """:raises DeadlinePassed: holds the last status"""
        return first_status(self.status, predicate, seconds, what)

    def wait_whole(self, seconds: float = WHOLE_SECONDS) -> Status:
        """:raises DeadlinePassed: holds the reason, and the ends of the logs"""
        try:
            return self.wait_until(is_whole(self._say), seconds, "the cluster to be whole")
        except DeadlinePassed as error:
            raise DeadlinePassed(f"{error.what}\n{self.logs()}", seconds) from None

    def logs(self, lines: int = 6) -> str:
        """The ends of all logs."""
        parts = [f"{host}:\n{tail(self.plan.log(host), lines)}" for host in self._crew.hosts]
        parts += [f"{m.name}, server:\n{tail(m.error_log, lines)}" for m in self.plan.members]
        return "\n".join(parts)

    # -- being on a host --------------------------------------------------------------------------

    @contextmanager
    def inside(self, host: str = "") -> Iterator[None]:
        """Within the block this thread, and no other, is in the host's network.

        A socket that is made inside stays there for good, in every thread that uses it; so does a thread or process
        that is started inside. Without a host: beside the bridge, where no cut, loss or delay applies.

        :raises Refused: the lab is down
        """
        with self._network.inside(host and self.plan.check_host(host)):
            yield

    def command(self, host: str, argv: Sequence[str]) -> list[str]:
        """The command that runs ``argv`` on that host; its process then belongs to the host, and shares its faults."""
        return self._cells.command(self.plan.check_host(host), argv)

    def connect(
        self, member: str, account: Account | None = None, at: str = "client", **options: Any
    ) -> SafeLogin:
        """A connection from a host to a member's server; by default as ``app``.

        The admin account uses the socket. ``options`` are pymysql's.
        """
        spec = self.plan.member(member)
        who = account or self.accounts.app
        where: dict[str, Any] = {"host": spec.host, "port": spec.port}
        if who == self.accounts.admin:
            where = {"unix_socket": str(spec.socket)}
        settings = {"connect_timeout": 5, "read_timeout": 30, "autocommit": True, **options}
        with self.inside(at):
            return SafeLogin(
                asks_for_key=True, user=who.user, password=who.password, **where, **settings
            )
