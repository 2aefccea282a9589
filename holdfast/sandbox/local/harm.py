"""The faults that can be injected into a sandbox, and their removal."""

from __future__ import annotations

import signal

from holdfast.errors import Refused
from holdfast.sandbox.local.crew import MANAGER, LocalCrew
from holdfast.sandbox.local.servers import server_of
from holdfast.sandbox.local.spec import Spec
from holdfast.server.process.process import Running


class SandboxHarm:
    """The part of a sandbox that injects faults."""

    def __init__(self, crew: LocalCrew) -> None:
        self._crew = crew

    @property
    def spec(self) -> Spec:
        return self._crew.spec

    def primary(self) -> str:
        """:raises Refused: there is none yet"""
        raise NotImplementedError

    def kill_server(self, member: str = "primary") -> str:
        """SIGKILL to the server; returns the member's name, as soon as the signal is sent."""
        return self._signal(member, signal.SIGKILL)

    def stop(self, member: str = "primary") -> str:
        """SIGSTOP to the server: it keeps its connections and answers nothing."""
        return self._signal(member, signal.SIGSTOP)

    def cont(self, member: str) -> str:
        """SIGCONT to the server."""
        return self._signal(member, signal.SIGCONT)

    def kill_agent(self, member: str) -> None:
        """SIGKILL to the agent; its server keeps running."""
        self._kill_daemon(self.spec.member(member).name)

    def start_agent(self, member: str) -> None:
        """:raises Refused: it runs"""
        self._start_daemon(self.spec.member(member).name)

    def start(self, name: str) -> None:
        """Start a member's agent, or the manager.

        :raises Refused: it runs
        """
        if name == MANAGER:
            self.start_manager()
        else:
            self.start_agent(name)

    def kill_manager(self) -> None:
        self._kill_daemon(MANAGER)

    def start_manager(self) -> None:
        """:raises Refused: it runs"""
        self._start_daemon(MANAGER)

    def server(self, member: str = "primary") -> Running:
        """The process of a member's server. Finding it takes a while, signalling it does not.

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

    def _kill_daemon(self, name: str) -> None:
        with self._crew.locked():
            self._crew.kill(name)

    def _start_daemon(self, name: str) -> None:
        with self._crew.locked():
            self._crew.start(name)
