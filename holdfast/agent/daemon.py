"""Builds the agent and runs it. The agent starts no server without a command, and does not end a running one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import uvloop
from fastapi import FastAPI

from holdfast import log
from holdfast.agent import guards
from holdfast.agent.api.health_checks import make_checks
from holdfast.agent.assembly import Assembly, Basics
from holdfast.agent.disk.obeyed import Obeyed, own_identity
from holdfast.agent.disk.state_folder import held
from holdfast.agent.disk.term import TermFile
from holdfast.agent.lease.electorate import ElectorateFile
from holdfast.agent.lease.vouch import Vouch
from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.config.load import account, agent_config
from holdfast.config.schema import AgentConfig
from holdfast.config.token import TokenFile
from holdfast.core.answers.access import AccessRole
from holdfast.core.view import MemberState
from holdfast.http.serving import HttpServer, listening
from holdfast.reloading import Reloading, Reloads, heed
from holdfast.server.assembly import local_server
from holdfast.server.base import Server
from holdfast.server.process.process import kernel_boot_id
from holdfast.tls import Certificates, Credentials, Needed

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the others from running: a tenth of Python's default, for quick answers."""

logger = logging.getLogger(__name__)


def run(config: AgentConfig, path: Path) -> None:
    """Run the agent until SIGTERM or SIGINT; on SIGHUP its file ``path`` is read again.

    :raises BadInput: when a secret cannot be read
    :raises Fatal: when it cannot start: nothing was done
    """
    log.setup(config.log_format, config.log_level)
    sys.setswitchinterval(SWITCH_SECONDS)
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(config.state_dir))
        agent = Agent(config, clock=SYSTEM_CLOCK)
        listener = stack.enter_context(listening(config.listen))
        checks = stack.enter_context(listening(config.checks, "checks")) if config.checks else None
        log.say(logger, f"agent of {config.name} listens on {config.listen}")
        tokens = {"token_file": agent.token}
        reloading = Reloading(path, config, agent_config, tokens, agent.certificates)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(agent.serve(listener, checks, reloading))
    log.say(logger, f"agent of {config.name} ends; its server is left as it is")


class Agent:
    """One agent: builds its parts and serves.

    :param server: instead of the one that the configuration names
    """

    def __init__(
        self,
        config: AgentConfig,
        server: Server | None = None,
        boot_id: Callable[[], str] = kernel_boot_id,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.token = TokenFile.at(config.token_file, "token_file")
        needed = Needed(AccessRole.AGENT, (config.cluster,))
        self.certificates = (
            Certificates(config.tls.files, needed=needed, expected=AccessRole.AGENT)
            if config.tls
            else None
        )
        context = self.certificates.client if self.certificates else None
        own = config.server
        admin = account(own.admin, "server.admin.password_file")
        replication = replace(
            account(config.replication, "replication.password_file"),
            tls=own.tls.files if own.tls else None,
        )
        term = TermFile(config.state_dir)
        state = MemberState(
            config.name,
            own.flavor,
            term=term.promised,
            leader=term.leader,
            account=replication.user,
            protections=guards.BY_ITSELF,
            identity=own_identity(config.state_dir),
        )
        self.published = published = PublishedState(state, clock)
        writer = BackgroundWriter()
        self._basics = Basics(
            config,
            server or local_server(own.flavor, own.socket, admin),
            boot_id,
            self.token,
            Credentials(self.token, context),
            admin,
            replication,
            published,
            term,
            Fitness(config.state_dir, published),
            writer,
            Obeyed(config.state_dir, term, published, writer, config.cluster),
            ElectorateFile(config.state_dir),
            Vouch(config.state_dir, published, writer),
        )
        self._on_stop: list[Callable[[], None]] = []

    async def serve(
        self,
        listener: socket.socket,
        checks: socket.socket | None = None,
        reloading: Reloads | None = None,
    ) -> None:
        """Serve until :meth:`stop`.

        :param checks: the socket of the health checks for load balancers
        :param reloading: called on SIGHUP; without it, signals are not handled
        """
        loop = asyncio.get_running_loop()
        if reloading is not None:
            heed(self.stop, reloading)
        certificates = self.certificates
        server = HttpServer(self.app(loop), certificates.server if certificates else None)
        self._on_stop.append(lambda: setattr(server, "should_exit", True))
        if certificates is not None:
            certificates.keep_fresh()
            self._on_stop.append(certificates.close)
        both = [server.serve(sockets=[listener])]
        if checks is not None:
            answering = HttpServer(
                make_checks(lambda: self.published.seen()[0], self.published.blocked)
            )
            self._on_stop.append(lambda: setattr(answering, "should_exit", True))
            both.append(answering.serve(sockets=[checks]))
        await asyncio.gather(*both)

    def app(self, loop: asyncio.AbstractEventLoop) -> FastAPI:
        """The HTTP application; the agent's threads run within its lifespan."""
        assembly = Assembly(self._basics, loop)
        self._on_stop.append(assembly.stop)

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            assembly.start()
            yield
            self.stop()
            await assembly.join()

        return assembly.app(lifespan)

    def stop(self) -> None:
        """Answer all waiting requests, and end."""
        for each in self._on_stop:
            each()
