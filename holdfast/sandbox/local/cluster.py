"""A local cluster of real servers: members with their agents, and one manager, on loopback."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput, DeadlinePassed, HoldfastError, Refused, Unreachable
from holdfast.http.manager_client import ManagerClient
from holdfast.sandbox.local.accounts import cached_accounts
from holdfast.sandbox.local.crew import MANAGER, LocalCrew, dir_option, stopped, whose
from holdfast.sandbox.local.files import write_files, write_member
from holdfast.sandbox.local.haproxy import HAPROXY
from holdfast.sandbox.local.harm import SandboxHarm
from holdfast.sandbox.local.servers import end_server, server_of
from holdfast.sandbox.local.spec import (
    BASE_PORT,
    CLUSTER,
    HOST,
    MemberSpec,
    Spec,
    new_spec,
    read_saved,
    refuse_filled,
    refuse_other,
    refuse_taken_ports,
    saved_path,
    write_saved,
)
from holdfast.sandbox.servers import trees
from holdfast.sandbox.servers.daemons import Daemon, tail
from holdfast.sandbox.servers.template import copy_template, make_template
from holdfast.sandbox.waiting import POLL_SECONDS, Say, Status, first_status, is_whole, quiet
from holdfast.server.base import Account
from holdfast.server.connection.login import SafeLogin

WHOLE_SECONDS = 60.0
AGENT_SECONDS = 30.0
"""An agent is up after one second; a machine that others keep busy takes longer."""


class Sandbox(SandboxHarm):
    """A sandbox in a folder; made with `create` or found with `open`."""

    def __init__(self, spec: Spec, daemons: dict[str, Daemon], say: Say = quiet) -> None:
        self.accounts = cached_accounts()
        super().__init__(LocalCrew(spec, daemons))
        self._say = say
        self._client: ManagerClient | None = None

    @classmethod
    def create(
        cls,
        folder: Path,
        flavor: Flavor = Flavor.MARIADB,
        members: int = 3,
        base_port: int = BASE_PORT,
        binary: Path | None = None,
        say: Say = quiet,
        settings: Mapping[str, Any] | None = None,
    ) -> Sandbox:
        """The sandbox in this folder; made now unless one of the same shape is there.

        :param settings: of the manager's file, by dotted key; None: those of the existing sandbox
        :raises BadInput: the existing one has another shape, or the folder holds something else, or cannot be made
        :raises Refused: a port is taken
        """
        flavor = Flavor(flavor)
        if saved_path(folder).exists():
            found = cls.open(folder, say)
            refuse_other(found.spec, flavor, members, base_port, binary, settings)
            return found
        refuse_filled(folder)
        trees.find(flavor.value, binary)
        spec = new_spec(folder, flavor, members, base_port, binary, settings)
        refuse_taken_ports(spec.ports)  # before any file is kept
        try:
            spec.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_saved(spec, {})
        except OSError as error:
            raise BadInput("--dir", f"{folder} cannot be made: {error.strerror}") from error
        return cls(spec, {}, say)

    @classmethod
    def open(cls, folder: Path, say: Say = quiet) -> Sandbox:
        """:raises BadInput: there is none"""
        spec, saved = read_saved(folder)
        return cls(spec, {name: Daemon.of(each) for name, each in saved.items()}, say)

    @property
    def manager(self) -> ManagerClient:
        if self._client is None:
            try:
                token = self.spec.token_file.read_text().strip()
            except FileNotFoundError:
                raise Unreachable(f"the sandbox in {self.spec.dir} was never started") from None
            self._client = ManagerClient(self.spec.manager_url, token)
        return self._client

    # -- the whole ------------------------------------------------------------------------------

    def up(self, seconds: float = WHOLE_SECONDS) -> Status:
        """Start everything, and return the status once the cluster is whole.

        :raises Refused: it runs already, a port is taken, or something ended: holds the end of its log
        :raises DeadlinePassed: not whole in time; everything is left running, to be examined
        """
        with self._crew.locked():
            running = self.running()
            if running:
                raise Refused(
                    f"the sandbox in {self.spec.dir} is running ({', '.join(running)}): "
                    f"stop it with holdfast sandbox down{dir_option(self.spec.dir)}"
                )
            refuse_taken_ports(self.spec.ports)
            if self.spec.removed:
                names = ", ".join(self.spec.removed)
                self._say(f"{names}: removed from the cluster before, and left down")
            self._say(f"preparing {len(self.spec.present)} {self.spec.flavor.value} members")
            tree = trees.find(self.spec.flavor.value, self.spec.binary)
            write_files(self.spec, tree, self.accounts)
            self._say("starting agents and manager")
            try:
                self._crew.spawn_all()
            finally:
                self._crew.save()
        return self.wait_whole(seconds)

    def down(self, remove: bool = False) -> None:
        """End every process of the sandbox, and with ``remove`` delete its data."""
        with self._crew.locked():
            self._note_removed()
            self._say("stopping the manager and the agents")
            self._crew.end_all(gently=not remove)
            self._crew.save()
            self._say("stopping the servers")
            with ThreadPoolExecutor(len(self.spec.members)) as pool:
                ends = [
                    pool.submit(end_server, member, self.accounts.admin, not remove)
                    for member in self.spec.members
                ]
            for end in ends:
                end.result()
            shutil.rmtree(self.spec.sockets, ignore_errors=True)
        if self._client is not None:
            self._client.close()
            self._client = None
        if remove:
            shutil.rmtree(self.spec.dir)

    def _note_removed(self) -> None:
        """Record removed members, so that they are not started with the rest; unchanged if no manager answers."""
        if MANAGER not in self._crew.running():
            return
        try:
            names = {each["name"] for each in self.manager.members(CLUSTER)}
        except HoldfastError:
            return
        removed = tuple(each.name for each in self.spec.members if each.name not in names)
        self._crew.spec = replace(self.spec, removed=removed)

    def running(self) -> list[str]:
        """What runs now: names of daemons and servers."""
        found = [whose(name) for name in self._crew.running()]
        servers = [member.name for member in self.spec.members if server_of(member) is not None]
        return found + [f"{name}'s server" for name in servers]

    def endpoint(self, use: str = "write") -> tuple[str, int] | None:
        """Where HAProxy takes connections, if it runs.

        :param use: ``write`` or ``read``
        """
        port = {"write": self.spec.write_port, "read": self.spec.read_port}[use]
        return (HOST, port) if HAPROXY in self._crew.running() else None

    # -- looking --------------------------------------------------------------------------------

    def status(self) -> Status:
        """:raises Unreachable: the manager does not answer, or was stopped: says which"""
        try:
            return self.manager.status(CLUSTER)
        except Unreachable:
            if why := stopped(self.spec.dir):
                raise Unreachable(why) from None
            raise

    def primary(self) -> str:
        """:raises Refused: there is none yet"""
        name = self.status()["primary"]
        if not name:
            raise Refused("the cluster has no primary yet")
        return str(name)

    def wait_until(
        self, predicate: Callable[[Status], bool], seconds: float, what: str = "what was expected"
    ) -> Status:
        """The first status for which the predicate holds.

        :raises DeadlinePassed: holds the last status
        """
        return first_status(self.status, predicate, seconds, what, self._crew.bury)

    def wait_whole(self, seconds: float = WHOLE_SECONDS) -> Status:
        """Wait until the manager says that the cluster is whole; report meanwhile what is missing.

        :raises Refused: a daemon ended; holds the end of its log
        :raises DeadlinePassed: holds the reason, and the ends of the logs
        """
        whole = is_whole(self._say)
        end = time.monotonic() + seconds
        while True:
            try:
                return self.wait_until(whole, min(0.5, seconds), "the cluster to be whole")
            except DeadlinePassed as error:
                self._crew.refuse_if_ended()
                if time.monotonic() > end:
                    raise Refused(f"{error} after {seconds:.0f} s\n{self.logs()}") from None

    def logs(self, lines: int = 6) -> str:
        """The ends of all logs."""
        parts = [f"{MANAGER}:\n{tail(self._crew.log(MANAGER), lines)}"]
        for member in self.spec.members:
            parts.append(f"{member.name}, agent:\n{tail(self._crew.log(member.name), lines)}")
            parts.append(f"{member.name}, server:\n{tail(member.error_log, lines)}")
        return "\n".join(parts)

    def connect(self, member: str, account: Account | None = None, **options: Any) -> SafeLogin:
        """A connection to a member's server; by default as ``app``.

        The admin account uses the socket. ``options`` are pymysql's.
        """
        spec = self.spec.member(member)
        who = account or self.accounts.app
        where: dict[str, Any] = {"host": HOST, "port": spec.port}
        if who == self.accounts.admin:
            where = {"unix_socket": str(spec.socket)}
        settings = {"connect_timeout": 5, "read_timeout": 30, "autocommit": True, **options}
        return SafeLogin(
            asks_for_key=True, user=who.user, password=who.password, **where, **settings
        )

    # -- further members ------------------------------------------------------------------------

    def prepare_member(self, empty: bool = False) -> MemberSpec:
        """Make the files of one more member, and start its agent; the manager does not learn of it.

        :param empty: its data directory stays empty, to be filled by a clone
        :raises BadInput: there are as many as there can be
        """
        with self._crew.locked():
            spec = replace(self.spec, further=self.spec.further + 1)
            spec.check()
            member = spec.members[-1]
            refuse_taken_ports(
                {p: spec.ports[p] for p in (member.agent_port, member.port, member.checks_port)}
            )
            self._crew.spec = spec
            self._crew.save()
            tree = trees.find(spec.flavor.value, spec.binary)
            write_member(spec, member, tree, self.accounts)
            if empty:
                member.datadir.mkdir(mode=0o700)
            else:
                template = make_template(tree, self.accounts.statements(tree.flavor))
                copy_template(template, member.datadir)
            self._say(f"starting the agent of {member.name}")
            self._crew.spawn(member.name)
            self._crew.save()
        return member

    def add_member(self, empty: bool = False) -> str:
        """Make one more member, have the manager add it, and return its name; the manager then brings it in by itself.

        :raises Refused: the manager refuses
        :raises Unreachable: it does not run: nothing was made
        """
        self.status()
        member = self.prepare_member(empty)
        agent = f"http://{HOST}:{member.agent_port}"
        end = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                self.manager.add_member(CLUSTER, member.name, agent)
                return member.name
            except Unreachable:
                self._crew.refuse_if_ended()
                if time.monotonic() > end:
                    raise
                time.sleep(POLL_SECONDS)

    def remove_member(self, name: str, seconds: float = WHOLE_SECONDS) -> None:
        """Have the manager remove it; its agent and server are left as they are.

        :raises DeadlinePassed: it could not be done without in time
        """
        end = time.monotonic() + seconds
        while not (answer := self.manager.remove_member(CLUSTER, name))["removed"]:
            if time.monotonic() > end:
                raise DeadlinePassed(f"removing {name}: {answer['waiting']}", seconds)
            time.sleep(POLL_SECONDS)

    def members(self) -> tuple[MemberSpec, ...]:
        """The present members, by the manager's answer."""
        return tuple(self.spec.member(each["name"]) for each in self.status()["members"])
