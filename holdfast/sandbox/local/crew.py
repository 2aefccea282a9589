"""The daemons of one sandbox: which run, where they log; and a lock for one command at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.errors import Refused
from holdfast.sandbox.local import haproxy
from holdfast.sandbox.local.haproxy import HAPROXY
from holdfast.sandbox.local.spec import Spec, default_dir, read_saved, write_saved
from holdfast.sandbox.servers.daemons import Daemon, Spawner, tail

MANAGER = "manager"


class LocalCrew:
    """The manager and HAProxy, by these names, and the agents, by their members'."""

    def __init__(self, spec: Spec, daemons: dict[str, Daemon]) -> None:
        self.spec = spec
        self._daemons = daemons
        self._spawner = Spawner()

    def running(self) -> list[str]:
        return [name for name, daemon in self._daemons.items() if daemon.alive]

    def spawn_all(self) -> None:
        """HAProxy as well, if it has a file."""
        for member in self.spec.present:
            self.spawn(member.name)
        self.spawn(MANAGER)
        if self.spec.haproxy_config.exists():
            self.spawn(HAPROXY)

    def spawn(self, name: str) -> None:
        if name == HAPROXY:
            argv = haproxy.command(self.spec)
            self._daemons[name] = self._spawner.run(name, argv, self.spec.dir, self.log(name))
            return
        config = (
            self.spec.manager_config if name == MANAGER else self.spec.member(name).agent_config
        )
        kind = MANAGER if name == MANAGER else "agent"
        self._daemons[name] = self._spawner.start(kind, config, self.log(name))

    def end_all(self, gently: bool) -> None:
        """HAProxy, which has no server left then, is ended last, and at once."""
        for name in (MANAGER, *(member.name for member in self.spec.members)):
            self.end(name, gently)
        self.end(HAPROXY, gently=False)

    def start(self, name: str) -> None:
        """:raises Refused: it runs"""
        daemon = self._daemons.get(name)
        if daemon is not None and daemon.alive:
            raise Refused(f"the daemon of {name} is running")
        self.spawn(name)
        self.save()

    def end(self, name: str, gently: bool) -> None:
        daemon = self._daemons.get(name)
        if daemon is not None:
            if gently:
                daemon.end()
            else:
                daemon.end(0)
            self._spawner.bury()
            del self._daemons[name]

    def kill(self, name: str) -> None:
        """:raises Refused: it does not run"""
        daemon = self._daemons.get(name)
        if daemon is None or not daemon.alive:
            raise Refused(f"the daemon of {name} is not running")
        self.end(name, gently=False)
        self.save()

    def bury(self) -> None:
        """Reap the daemons that have ended."""
        self._spawner.bury()

    def refuse_if_ended(self) -> None:
        """:raises Refused: one that was started ended; holds the end of its log"""
        for name, daemon in self._daemons.items():
            if not daemon.alive:
                kind = f"the {whose(name)}"
                log = self.log(name)
                raise Refused(f"{kind} ended; the end of {log}:\n{tail(log)}")

    def log(self, name: str) -> Path:
        if name in (MANAGER, HAPROXY):
            return self.spec.dir / f"{name}.log"
        return self.spec.member(name).folder / "agent.log"

    def save(self) -> None:
        saved = {
            name: {"pid": daemon.pid, "started": daemon.started, "boot": daemon.boot}
            for name, daemon in self._daemons.items()
        }
        write_saved(self.spec, saved)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time; what another process has started meanwhile is taken over."""
        with (self.spec.dir / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refused(
                    f"another command is at work on the sandbox in {self.spec.dir}"
                ) from None
            self.spec, saved = read_saved(self.spec.dir)
            self._daemons = {name: Daemon.of(each) for name, each in saved.items()}
            yield


def whose(name: str) -> str:
    """A daemon, as text for people."""
    return name if name in (MANAGER, HAPROXY) else f"agent of {name}"


def stopped(folder: Path) -> str:
    """Why no manager answers for the sandbox in this folder, and what to do; "" where its manager runs."""
    _, saved = read_saved(folder)
    alive = [name for name, each in saved.items() if Daemon.of(each).alive]
    if MANAGER in alive:
        return ""
    if not alive:
        return f"the sandbox in {folder} is stopped: holdfast sandbox up{dir_option(folder)}"
    return f"the manager of the sandbox in {folder} has ended: holdfast sandbox start manager{dir_option(folder)}"


def dir_option(folder: Path) -> str:
    """The option that names the folder, where it is not the default one."""
    return "" if folder.absolute() == default_dir().absolute() else f" --dir {folder}"
