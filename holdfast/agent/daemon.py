"""Puts the agent together and runs it. It starts no server by itself, and leaves a running one running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import uvloop
from fastapi import FastAPI

from holdfast import log
from holdfast.agent import guards
from holdfast.agent.api.app import LongPoll, make_app
from holdfast.agent.api.blockers import add_blockers
from holdfast.agent.api.digests import add_digests
from holdfast.agent.api.facts import Inspector, add_inspection
from holdfast.agent.api.health_checks import make_checks
from holdfast.agent.api.identity import identity
from holdfast.agent.api.lease_api import add_lease
from holdfast.agent.api.verify_api import add_verify
from holdfast.agent.clone.clone import Cloning
from holdfast.agent.clone.donor import CopyGiver
from holdfast.agent.commands.execute import CommandExecutor
from holdfast.agent.commands.inventory import take_inventory
from holdfast.agent.commands.judge import Judging
from holdfast.agent.commands.queue import CommandQueue
from holdfast.agent.disk.datadir import mark_of
from holdfast.agent.disk.obeyed import Obeyed, own_identity
from holdfast.agent.disk.relaxed import RelaxedMarker
from holdfast.agent.disk.state_folder import held
from holdfast.agent.disk.term import TermFile
from holdfast.agent.lease.electorate import ElectorateFile
from holdfast.agent.lease.keeper import Keeper
from holdfast.agent.lease.peers import Peers
from holdfast.agent.lease.vouch import Vouch
from holdfast.agent.observe.observer import ServerObserver
from holdfast.agent.observe.room import room_of
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.observe.starts import Starts
from holdfast.agent.observe.write_probe import Prober
from holdfast.agent.promise.kept_settings import KeptSettings
from holdfast.agent.promise.pending_mark import PendingMark
from holdfast.agent.promise.receipts import Receipts
from holdfast.agent.promise.regained import Regained
from holdfast.agent.promise.releasing import Releases
from holdfast.agent.promise.strangers import Strangers
from holdfast.agent.promise.streams import KnownStreams
from holdfast.agent.rewind.applier_hold import ApplierHold
from holdfast.agent.rewind.compare import Comparing
from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.rewind.rewind import Rewinding
from holdfast.agent.rewind.settling import Settling
from holdfast.agent.rewind.verify import Verifying
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.job import Jobs
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.start.boot_check import BootCheck, Inputs
from holdfast.agent.start.limits import Limits
from holdfast.agent.upkeep import upkeep
from holdfast.config.load import account, agent_config
from holdfast.config.schema import AgentConfig
from holdfast.config.token import TokenFile
from holdfast.core.answers.access import AccessRole
from holdfast.core.view import MemberState
from holdfast.http.serving import HttpServer, listening
from holdfast.reloading import Reloading, Reloads, heed
from holdfast.server.adapter import adapter
from holdfast.server.base import Observation, Server
from holdfast.server.data.chunks import ChunkDigester
from holdfast.server.data.rewind import Rewinder
from holdfast.server.data.xa import PreparedTransactions
from holdfast.server.primary.probe import Probe
from holdfast.server.process.forced import command_line
from holdfast.server.process.last_words import log_of
from holdfast.server.process.process import ServerProcess, kernel_boot_id
from holdfast.tls import Certificates, Credentials, Needed

SWITCH_SECONDS = 0.0005
"""How long a thread may hold up the others: a tenth of Python's usual, for the sake of quick answers."""

STOP_SECONDS = 3.0
"""How long the end of a job that was called off is waited for."""

logger = logging.getLogger(__name__)


def run(config: AgentConfig, path: Path) -> None:
    """Run the agent until SIGTERM or SIGINT; upon SIGHUP its file ``path`` is read again.

    :raises BadInput: when a secret cannot be read
    :raises Fatal: when it cannot start: nothing was done
    """
    log.setup(config.log_format, config.log_level)
    sys.setswitchinterval(SWITCH_SECONDS)
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(config.state_dir))
        agent = Agent(config)
        listener = stack.enter_context(listening(config.listen))
        checks = stack.enter_context(listening(config.checks, "checks")) if config.checks else None
        log.say(logger, f"agent of {config.name} listens on {config.listen}")
        tokens = {"token_file": agent.token}
        reloading = Reloading(path, config, agent_config, tokens, agent.certificates)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(agent.serve(listener, checks, reloading))
    log.say(logger, f"agent of {config.name} ends; its server is left as it is")


class Agent:
    """The parts of one agent.

    :param server: instead of the one that the configuration names
    """

    def __init__(
        self,
        config: AgentConfig,
        server: Server | None = None,
        boot_id: Callable[[], str] = kernel_boot_id,
    ) -> None:
        self._config = config
        self.token = TokenFile.at(config.token_file, "token_file")
        needed = Needed(AccessRole.AGENT, (config.cluster,))
        self.certificates = (
            Certificates(config.tls.files, needed=needed, expected=AccessRole.AGENT)
            if config.tls
            else None
        )
        context = self.certificates.client if self.certificates else None
        self._shown = Credentials(self.token, context)
        self._replication = replace(
            account(config.replication, "replication.password_file"),
            tls=config.server.tls.files if config.server.tls else None,
        )
        own = config.server
        admin = account(own.admin, "server.admin.password_file")
        self._server = server or adapter(own.flavor, own.socket, admin)
        self._boot_id = boot_id
        self._term = TermFile(config.state_dir)
        state = MemberState(
            config.name,
            config.server.flavor,
            term=self._term.promised,
            leader=self._term.leader,
            account=self._replication.user,
            protections=guards.BY_ITSELF,
            identity=own_identity(config.state_dir),
        )
        self.board = PublishedState(state)
        self._fitness = Fitness(config.state_dir, self.board)
        self._clerk = BackgroundWriter()
        self._obeyed = Obeyed(config.state_dir, self._term, self.board, self._clerk, config.cluster)
        self._electorate = ElectorateFile(config.state_dir)
        self._vouching = Vouch(config.state_dir, self.board, self._clerk)
        self._on_stop: list[Callable[[], None]] = []

    async def serve(
        self,
        listener: socket.socket,
        checks: socket.socket | None = None,
        reloading: Reloads | None = None,
    ) -> None:
        """Serve until :meth:`stop`.

        :param checks: where load balancers ask
        :param reloading: signals are heeded, and by SIGHUP this is asked
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
            answering = HttpServer(make_checks(lambda: self.board.seen()[0], self.board.blocked))
            self._on_stop.append(lambda: setattr(answering, "should_exit", True))
            both.append(answering.serve(sockets=[checks]))
        await asyncio.gather(*both)

    def app(self, loop: asyncio.AbstractEventLoop) -> FastAPI:
        """The HTTP application; the agent's threads run within its lifespan.

        A server that runs is known from here on: the agent must not answer "down" first and then find it.
        """
        config, own = self._config, self._config.server
        folder = config.state_dir
        process = ServerProcess(
            *(own.command, own.option_file, own.datadir),
            config.state_dir.absolute() / "server.out",
            self._boot_id,
            own.socket,
            lambda: command_line(own.flavor, own.option_file, own.datadir),
            lambda: log_of(own.flavor, own.option_file, own.datadir),
        )
        watch = ServerRun(process, self.board, loop)
        observer = ServerObserver(self._server, watch, self.board, own.binlog_index)
        data = partial(mark_of, own.datadir, own.flavor)
        marker = RelaxedMarker(folder, own.binlog_index, self._boot_id, data)
        watch.on_appeared = observer.appeared

        admin = account(own.admin, "server.admin.password_file")
        jobs = Jobs(self.board)
        cloning = Cloning(
            *(self.board, jobs, watch, self._server, own, admin, self._replication),
            *(config.state_dir.absolute(), self._shown, marker),
            lambda: self._fitness.was_reset,
            observer.look,
        )
        kept_up = upkeep(
            *(config, self._server, watch, self.board, marker, self._shown),
            *(admin, self._replication, lambda: self._obeyed.anybody or cloning.half),
        )
        inputs = Inputs(own.command, own.option_file, own.datadir)
        boot_check = BootCheck(self._server, watch, self.board, inputs, folder)
        regained = Regained(self.board, watch, own.binlog_index)
        starts = Starts(self.board, inputs.fingerprint, self._fitness.declare_unfit)
        watch.on_end, watch.on_failed = regained.ended, starts.failed
        watch.before_start += [boot_check.may_start, starts.before_start, regained.before_start]
        observer.on_answer += [boot_check.first_contact, regained.answers]
        observer.on_down += [boot_check.look_again, starts.look_again]
        for each in (cloning, kept_up.founding):
            observer.on_down.append(each.publish)
            each.publish()  # before anybody asks
        prober = Prober(
            Probe(own.flavor, own.socket, admin), self.board, own.binlog_index.absolute().parent
        )
        room = room_of(own, folder, self.board, starts.at_once)
        digester = ChunkDigester(own.flavor, own.socket, admin)
        hold = ApplierHold(self._server, digester, observer.look, folder)
        comparing = Comparing(jobs, hold, digester, self._fitness, self._shown)
        verifying = Verifying(self.board, jobs, hold, digester, self._fitness, self._shown, folder)
        peers = Peers(self._shown)
        second = guards.second_keeper(config, self.token, self._clerk, self.board)
        held_by = (second,) if second else guards.alone(config, self._clerk, self.board)
        addresses = guards.addresses(config, self._clerk, self.board, second)
        keeper = Keeper(
            self.board,
            watch,
            self._term.refuses,
            self._electorate,
            peers,
            self._clerk,
            (*held_by, *addresses),
            second=second,
        )
        strangers = Strangers(self._server.dumps, self.board, lambda: keeper.accounts, folder)
        vouching = self._vouching
        self.board.as_of_now = lambda state: vouching.seen(keeper.seen(state))
        mark = PendingMark(folder / "primary", own.binlog_index, self._clerk.do)
        opened = self._electorate.has_opened
        releases = Releases(self._server, self.board, mark, own.socket, opened, watch.kill)
        rewinder = Rewinder(own.flavor, own.socket, admin)
        rewinding = Rewinding(
            self.board,
            watch,
            rewinder,
            self._fitness,
            Settling(
                self.board,
                self._fitness,
                PreparedTransactions(own.flavor, own.socket, admin),
                own.binlog_index,
                lambda: bool(self._electorate.kept.incarnation),
            ),
            own.binlog_index,
            own.datadir,
            folder / "pending",
        )
        unfit = self._fitness.declare_unfit
        streams = KnownStreams(self.board, folder, self._clerk.do, unfit, watch.kill, data)
        receipts = Receipts(self._server, watch, folder, streams.unfit, opened, self._term)
        kept = KeptSettings(self._server, self.board, marker, folder, opened, unfit)
        duties = CommandExecutor(
            self._server,
            watch,
            self.board,
            marker,
            self._replication,
            *(folder, own.datadir, own.binlog_index),
            kept_up.accounts,
            cloning,
            rewinding,
            Judging(
                self.board,
                self._server,
                rewinder,
                rewinding,
                own.binlog_index,
                receipts.forgetting,
            ),
            *(comparing, verifying, releases),
            *(keeper, vouching, strangers),
            *(observer.look, observer.note),
            lambda deadline: take_inventory(own, folder, deadline),
        )
        cloning.forget += [self._fitness.forget, verifying.forget, releases.end]
        cloning.forget += [starts.at_once, streams.forget, kept.ended, observer.appliers.replaced]
        observer.holds_applier = lambda: hold.held

        def compared(found: Observation, _: float) -> None:
            if self.board.state.term:  # before it is adopted nothing is done to it
                receipts.seen(found, self.board.state.incarnation)
                streams.seen(found, self.board.state.incarnation)

        # what was let through is noted before the server is killed
        files = Limits(watch, self.board)
        observer.on_look += [lambda found, _: starts.came_up(), lambda found, _: files.looked()]
        observer.on_look += [releases.seen, compared, lambda found, _: regained.looked(found)]
        observer.on_look.append(lambda found, _: cloning.came_up())
        observer.on_look.append(lambda found, _: kept.seen(found))
        watch.before_start.append(kept.before_start)
        watch.on_clean_end += [releases.ended, marker.clear_in_background, kept.ended]
        observer.on_lost = releases.lost
        lane = CommandQueue(duties, self._term, self._obeyed, watch, observer, self.board, vouching)
        lane.steering = receipts.steering
        poll = LongPoll(self.board, loop, keeper.run)
        watch.look()
        cloning.publish()
        self._on_stop += [poll.close, lane.stop, jobs.stop, keeper.stop, peers.stop, room.stop]
        self._on_stop += [guard.stop for guard in (*held_by, *addresses)]
        self.board.heeding += [each.changed for each in addresses]

        @contextlib.asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            self._clerk.start()
            peers.start()
            for guard in held_by:
                guard.start()
            keeper.start()
            for each in addresses:
                each.start()
            observer.start()
            prober.start()
            for thread in (room, strangers, kept_up.logins, lane):
                thread.start()
            yield
            self.stop()
            await asyncio.to_thread(jobs.wait, STOP_SECONDS)
            await asyncio.to_thread(observer.stop)
            await asyncio.to_thread(prober.stop, 1.0)
            for watched in (strangers, kept_up.logins):
                await asyncio.to_thread(watched.stop, 1.0)
            for part in (keeper, *held_by, *addresses):
                await asyncio.to_thread(part.join, 1.0)
            await asyncio.to_thread(self._clerk.stop, 1.0)
            self._server.close()
            kept_up.accounts.close()

        app = make_app(
            self.board,
            lane,
            poll,
            self.token,
            keeper.granted,
            lifespan,
            identity(config),
            config.cluster,
            config.hosts,
        )
        add_lease(
            app,
            poll,
            keeper,
            vouching,
            self._obeyed,
            lambda every: setattr(observer, "every_seconds", every),
        )
        inspected = watch.look, self._members, self._obeyed.obeys
        add_inspection(app, Inspector(config, self._replication, *inspected))
        add_digests(app, digester)
        add_verify(app, digester, verifying)
        add_blockers(app, self._server)
        donor = CopyGiver(self.board, own, admin, config.state_dir.absolute(), cloning.unfit)
        app.include_router(donor.router())
        return app

    def _members(self) -> set[str]:
        """Addresses of servers that this one has to do with: the primary's, and its source's."""
        known = self._electorate.kept.electorate
        source = self.board.seen()[0].replication.source
        return {each for each in (known.address if known else "", source) if each}

    def stop(self) -> None:
        """Answer everybody who waits, and end."""
        for each in self._on_stop:
            each()
