"""A local cluster of real servers: three members with their agents, and one manager, on loopback."""

from __future__ import annotations

import fcntl
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql

from holdfast.client import ManagerClient
from holdfast.core.gtid import Flavor
from holdfast.errors import BadInput, DeadlinePassed, HoldfastError, Refused, Unreachable
from holdfast.sandbox import trees
from holdfast.sandbox.accounts import cached_accounts
from holdfast.sandbox.daemons import Daemon, Spawner, tail
from holdfast.sandbox.files import write_files
from holdfast.sandbox.servers import end_server, server_of
from holdfast.sandbox.spec import (
    BASE_PORT,
    CLUSTER,
    HOST,
    Spec,
    new_spec,
    read_saved,
    refuse_taken_ports,
    saved_path,
    write_saved,
)
from holdfast.server.base import Account
from holdfast.server.process import Running

WHOLE_SECONDS = 60.0
POLL_SECONDS = 0.05
MANAGER = "manager"

Status = dict[str, Any]
Say = Callable[[str], None]


def quiet(line: str) -> None:
    """A place to say things where nobody listens."""


class Sandbox:
    """A sandbox in a folder; made with `create` or found with `open`."""

    def __init__(self, spec: Spec, daemons: dict[str, Daemon], say: Say = quiet) -> None:
        self.spec = spec
        self.accounts = cached_accounts()
        self._daemons = daemons
        self._say = say
        self._spawner = Spawner()
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
    ) -> Sandbox:
        """The sandbox in this folder, made now unless it is there, with the same settings.

        :raises BadInput: it is there with other settings, or the folder holds something else
        """
        flavor = Flavor(flavor)
        if saved_path(folder).exists():
            found = cls.open(folder, say)
            _refuse_other_settings(found.spec, flavor, members, base_port, binary)
            return found
        trees.find(flavor.value, binary)
        spec = new_spec(folder, flavor, members, base_port, binary)
        spec.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_saved(spec, {})
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
        :raises DeadlinePassed: not whole in time; everything is left running, to be looked at
        """
        with self._locked():
            running = self.running()
            if running:
                raise Refused(
                    f"the sandbox in {self.spec.dir} is running ({', '.join(running)}): "
                    "stop it with holdfast sandbox down"
                )
            refuse_taken_ports(self.spec.ports)
            self._say(f"preparing {self.spec.size} {self.spec.flavor.value} members")
            tree = trees.find(self.spec.flavor.value, self.spec.binary)
            write_files(self.spec, tree, self.accounts)
            self._say("starting agents and manager")
            for member in self.spec.members:
                self._spawn(member.name)
            self._spawn(MANAGER)
            self._save()
        return self.wait_whole(seconds)

    def down(self, remove: bool = False) -> None:
        """End every process of the sandbox, and forget its data if told so."""
        with self._locked():
            self._say("stopping the manager and the agents")
            for name in (MANAGER, *(member.name for member in self.spec.members)):
                self._end(name, gently=not remove)
            self._save()
            self._say("stopping the servers")
            with ThreadPoolExecutor(self.spec.size) as pool:
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

    def running(self) -> list[str]:
        """What of it runs now: names of daemons and servers."""
        found = [
            MANAGER if name == MANAGER else f"{name}'s agent"
            for name, daemon in self._daemons.items()
            if daemon.alive
        ]
        servers = [member.name for member in self.spec.members if server_of(member) is not None]
        return found + [f"{name}'s server" for name in servers]

    # -- looking --------------------------------------------------------------------------------

    def status(self) -> Status:
        """:raises Unreachable: the manager does not answer"""
        return self.manager.status(CLUSTER)

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

        :raises DeadlinePassed: says what the last status was
        """
        end = time.monotonic() + seconds
        last = "the manager never answered"
        while True:
            try:
                status = self.status()
                if predicate(status):
                    return status
                last = summary(status)
            except Unreachable as error:
                last = str(error)
            self._spawner.bury()
            if time.monotonic() > end:
                raise DeadlinePassed(f"waiting for {what} (last seen: {last})", seconds)
            time.sleep(POLL_SECONDS)

    def wait_whole(self, seconds: float = WHOLE_SECONDS) -> Status:
        """Wait until the manager says that the cluster is whole; say on the way what is missing.

        :raises Refused: a daemon ended; holds the end of its log
        :raises DeadlinePassed: holds the reason, and the ends of the logs
        """
        said = ""

        def whole(status: Status) -> bool:
            nonlocal said
            if status["reason"] != said and not status["whole"]:
                said = status["reason"]
                self._say(said)
            return bool(status["whole"] and status["writable"])

        end = time.monotonic() + seconds
        while True:
            try:
                return self.wait_until(whole, min(0.5, seconds), "the cluster to be whole")
            except DeadlinePassed as error:
                self._refuse_if_ended()
                if time.monotonic() > end:
                    raise Refused(f"{error} after {seconds:.0f} s\n{self.logs()}") from None

    def logs(self, lines: int = 6) -> str:
        """The ends of all logs."""
        parts = [f"{MANAGER}:\n{tail(self._log(MANAGER), lines)}"]
        for member in self.spec.members:
            parts.append(f"{member.name}, agent:\n{tail(self._log(member.name), lines)}")
            parts.append(f"{member.name}, server:\n{tail(member.error_log, lines)}")
        return "\n".join(parts)

    def connect(
        self, member: str, account: Account | None = None, **options: Any
    ) -> pymysql.Connection[Any]:
        """A connection to a member's server: as ``app``, unless told otherwise.

        The admin account goes over the socket. ``options`` are pymysql's.
        """
        spec = self.spec.member(member)
        who = account or self.accounts.app
        where: dict[str, Any] = {"host": HOST, "port": spec.port}
        if who == self.accounts.admin:
            where = {"unix_socket": str(spec.socket)}
        settings = {"connect_timeout": 5, "read_timeout": 30, "autocommit": True, **options}
        return pymysql.connect(user=who.user, password=who.password, **where, **settings)

    # -- doing harm, and undoing it -------------------------------------------------------------

    def kill_server(self, member: str = "primary") -> str:
        """SIGKILL to the server; returns the member's name, as soon as the signal is sent."""
        return self._signal(member, signal.SIGKILL)

    def stop(self, member: str = "primary") -> str:
        """SIGSTOP to the server: it keeps its connections and answers nobody."""
        return self._signal(member, signal.SIGSTOP)

    def cont(self, member: str) -> str:
        """SIGCONT to the server."""
        return self._signal(member, signal.SIGCONT)

    def kill_agent(self, member: str) -> None:
        """SIGKILL to the agent; its server is left alone."""
        self._kill_daemon(self.spec.member(member).name)

    def start_agent(self, member: str) -> None:
        """:raises Refused: it runs"""
        self._start_daemon(self.spec.member(member).name)

    start = start_agent

    def kill_manager(self) -> None:
        self._kill_daemon(MANAGER)

    def start_manager(self) -> None:
        """:raises Refused: it runs"""
        self._start_daemon(MANAGER)

    def server(self, member: str = "primary") -> Running:
        """The process of a member's server. To find it takes a while, to signal it does not.

        :raises Refused: it does not run
        """
        spec = self.spec.member(self.primary() if member == "primary" else member)
        server = server_of(spec)
        if server is None:
            raise Refused(f"the server of {spec.name} is not running")
        return server

    def _signal(self, member: str, number: signal.Signals) -> str:
        name = self.primary() if member == "primary" else self.spec.member(member).name
        server = self.server(name)
        try:
            signal.pidfd_send_signal(server.fd, number)
        except ProcessLookupError:
            raise Refused(f"the server of {name} is not running") from None
        return name

    # -- daemons --------------------------------------------------------------------------------

    def _spawn(self, name: str) -> None:
        config = (
            self.spec.manager_config if name == MANAGER else self.spec.member(name).agent_config
        )
        kind = MANAGER if name == MANAGER else "agent"
        self._daemons[name] = self._spawner.start(kind, config, self._log(name))

    def _end(self, name: str, gently: bool) -> None:
        daemon = self._daemons.get(name)
        if daemon is not None:
            if gently:
                daemon.end()
            else:
                daemon.end(0)
            self._spawner.bury()
            del self._daemons[name]

    def _kill_daemon(self, name: str) -> None:
        with self._locked():
            daemon = self._daemons.get(name)
            if daemon is None or not daemon.alive:
                raise Refused(f"the daemon of {name} is not running")
            self._end(name, gently=False)
            self._save()

    def _start_daemon(self, name: str) -> None:
        with self._locked():
            daemon = self._daemons.get(name)
            if daemon is not None and daemon.alive:
                raise Refused(f"the daemon of {name} is running")
            self._spawn(name)
            self._save()

    def _refuse_if_ended(self) -> None:
        for name, daemon in self._daemons.items():
            if not daemon.alive:
                kind = "the manager" if name == MANAGER else f"the agent of {name}"
                log = self._log(name)
                raise Refused(f"{kind} ended; the end of {log}:\n{tail(log)}")

    def _log(self, name: str) -> Path:
        if name == MANAGER:
            return self.spec.dir / "manager.log"
        return self.spec.member(name).folder / "agent.log"

    def _save(self) -> None:
        saved = {
            name: {"pid": daemon.pid, "started": daemon.started, "boot": daemon.boot}
            for name, daemon in self._daemons.items()
        }
        write_saved(self.spec, saved)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time; what another process has started meanwhile is taken over."""
        with (self.spec.dir / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused(
                    f"another command is at work on the sandbox in {self.spec.dir}"
                ) from None
            saved = read_saved(self.spec.dir)[1]
            self._daemons = {name: Daemon.of(each) for name, each in saved.items()}
            yield


def summary(status: Status) -> str:
    """A status in one line."""
    members = ", ".join(
        f"{each['name']} {each['role']} {each['state']}" for each in status["members"]
    )
    return f"{status['reason']} (term {status['term']}; {members})"


def _refuse_other_settings(
    spec: Spec, flavor: Flavor, members: int, base_port: int, binary: Path | None
) -> None:
    for key, has, wanted in (
        ("--server", spec.flavor.value, flavor.value),
        ("--members", spec.size, members),
        ("--base-port", spec.base_port, base_port),
        ("--server-binary", spec.binary, binary.absolute() if binary else spec.binary),
    ):
        if has != wanted:
            raise BadInput(
                key,
                f"the sandbox in {spec.dir} was made with {has}, not {wanted}: give it the same, "
                "choose another --dir, or remove it with holdfast sandbox down --remove",
            )


def remove_quietly(sandbox: Sandbox) -> None:
    """End it and forget it, whatever state it is in; for cleaning up on the way out."""
    for _ in range(3):
        try:
            sandbox.down(remove=True)
        except (HoldfastError, OSError):
            time.sleep(0.2)
        else:
            return
