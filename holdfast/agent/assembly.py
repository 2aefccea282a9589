"""The agent's parts: built first, then subscribed to each other's events, then run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI

from holdfast.agent import guards
from holdfast.agent.api.app import Entrance, Lifespan, LongPoll, make_app
from holdfast.agent.api.blockers import add_blockers
from holdfast.agent.api.digests import add_digests
from holdfast.agent.api.facts import Inspector, add_inspection
from holdfast.agent.api.identity import identity
from holdfast.agent.api.lease_api import add_lease
from holdfast.agent.api.verify_api import add_verify
from holdfast.agent.clone.clone import Cloning
from holdfast.agent.clone.donor import CopyGiver
from holdfast.agent.commands.execute import CommandExecutor, Parts
from holdfast.agent.commands.judge import Judging
from holdfast.agent.commands.queue import CommandQueue
from holdfast.agent.disk.datadir import mark_of
from holdfast.agent.disk.obeyed import Obeyed
from holdfast.agent.disk.relaxed import RelaxedMarker
from holdfast.agent.disk.term import TermFile
from holdfast.agent.lease.electorate import ElectorateFile
from holdfast.agent.lease.gate import Gate
from holdfast.agent.lease.keeper import Keeper, Upholders
from holdfast.agent.lease.peers import Peers
from holdfast.agent.lease.second_keeper import SecondKeeper
from holdfast.agent.lease.vouch import Vouch
from holdfast.agent.lease.watchdog import Watchdog
from holdfast.agent.member import LocalMember
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
from holdfast.agent.vip.supervisor import Address
from holdfast.config.schema import AgentConfig
from holdfast.config.token import TokenFile
from holdfast.server.base import Account, Observation, Server
from holdfast.server.data.chunks import ChunkDigester
from holdfast.server.data.digest import Digester
from holdfast.server.data.rewind import Rewinder
from holdfast.server.data.xa import PreparedTransactions
from holdfast.server.primary.probe import Probe
from holdfast.server.process.forced import command_line
from holdfast.server.process.last_words import log_of
from holdfast.server.process.process import ServerProcess
from holdfast.tls import Credentials

STOP_SECONDS = 3.0
"""How long the end of a cancelled job is awaited."""


@dataclass(frozen=True, slots=True)
class Basics:
    """What an agent has before it looks for its server.

    :ivar boot_id: of the kernel; :ivar admin: the account by which the agent logs in; :ivar replication: the account by
        which the server replicates
    """

    config: AgentConfig
    server: Server
    boot_id: Callable[[], str]
    token: TokenFile | None
    shown: Credentials
    admin: Account
    replication: Account
    published: PublishedState
    term: TermFile
    fitness: Fitness
    writer: BackgroundWriter
    obeyed: Obeyed
    electorate: ElectorateFile
    vouch: Vouch


class Assembly:
    """All parts of an agent. It knows a running server from its construction on: the agent must not answer "down" first
    and find the server later."""

    def __init__(self, basics: Basics, loop: asyncio.AbstractEventLoop) -> None:
        self._basics = basics
        config, own, published = basics.config, basics.config.server, basics.published
        self._member = member = self._make_member(loop)
        folder, writer, server_run = member.state_dir, basics.writer, member.server_run
        self._observer = observer = ServerObserver(
            member.server, server_run, published, own.binlog_index
        )

        # its data, and how its server starts
        self._jobs = jobs = Jobs(published)
        fitness = basics.fitness
        self._cloning = cloning = Cloning(member, jobs, lambda: fitness.was_reset, observer.look)
        self._kept_up = upkeep(member, lambda: basics.obeyed.anybody or cloning.half)
        inputs = Inputs(own.command, own.option_file, own.datadir)
        self._boot_check = BootCheck(member.server, server_run, published, inputs, folder)
        self._regained = Regained(published, server_run, own.binlog_index)
        self._starts = Starts(published, inputs.fingerprint, fitness.declare_unfit)
        self._room = room_of(own, folder, published, self._starts.at_once)
        self._prober = Prober(
            Probe(own.flavor, own.socket, member.admin),
            published,
            own.binlog_index.absolute().parent,
        )

        # its tables, compared with the primary's
        self._digester = Digester(own.flavor, own.socket, member.admin)
        self._chunks = ChunkDigester(self._digester)
        self._hold = ApplierHold(
            member.server, self._digester, observer.look, folder, published.clock
        )
        comparing = Comparing(jobs, self._hold, self._digester, fitness, member.shown)
        self._verifying = Verifying(
            published, jobs, self._hold, self._chunks, fitness, member.shown, folder
        )

        # its lease
        self._peers = Peers(member.shown)
        second = guards.second_keeper(config, basics.token, writer, published)
        self._held_by = (second,) if second else guards.alone(config, writer, published)
        self._addresses = guards.addresses(config, writer, published, second)
        self._guards: tuple[SecondKeeper | Gate | Watchdog | Address, ...] = (
            *self._held_by,
            *self._addresses,
        )
        self._keeper = keeper = Keeper(
            *(published, server_run, basics.term.refuses, basics.electorate, self._peers, writer),
            Upholders(self._guards, second),
        )

        # what the promise rests on
        opened = basics.electorate.has_opened
        self._strangers = Strangers(member.server.dumps, published, lambda: keeper.accounts, folder)
        mark = PendingMark(folder / "primary", own.binlog_index, writer.do)
        self._releases = Releases(
            member.server, published, mark, own.socket, opened, server_run.kill
        )
        data = partial(mark_of, own.datadir, own.flavor)
        unfit = fitness.declare_unfit
        self._streams = KnownStreams(published, folder, writer.do, unfit, server_run.kill, data)
        self._receipts = Receipts(
            *(member.server, server_run, folder, self._streams.unfit, opened, basics.term),
            published.clock,
        )
        self._kept = KeptSettings(member.server, published, member.relaxed, folder, opened, unfit)
        self._files = Limits(server_run, published)

        # commands
        rewinder = Rewinder(own.flavor, own.socket, member.admin)
        rewinding = self._make_rewinding(rewinder)
        judging = Judging(
            *(published, member.server, rewinder, rewinding, own.binlog_index),
            self._receipts.forgetting,
        )
        parts = Parts(
            *(self._kept_up.accounts, cloning, rewinding, judging, comparing, self._verifying),
            *(self._releases, keeper, basics.vouch, self._strangers),
        )
        executor = CommandExecutor(member, parts, observer)
        self._commands = CommandQueue(
            *(executor, basics.term, basics.obeyed, server_run, observer, published, basics.vouch)
        )
        self._poll = LongPoll(published, loop, keeper.run)
        self._subscribe()
        for each in (cloning, self._kept_up.founding):
            each.publish()  # before the first request is answered
        server_run.look()
        cloning.publish()

    def _make_member(self, loop: asyncio.AbstractEventLoop) -> LocalMember:
        basics, own = self._basics, self._basics.config.server
        folder = basics.config.state_dir.absolute()
        process = ServerProcess(
            *(own.command, own.option_file, own.datadir),
            folder / "server.out",
            basics.boot_id,
            own.socket,
            lambda: command_line(own.flavor, own.option_file, own.datadir),
            lambda: log_of(own.flavor, own.option_file, own.datadir),
        )
        data = partial(mark_of, own.datadir, own.flavor)
        return LocalMember(
            basics.published,
            ServerRun(process, basics.published, loop),
            basics.server,
            own,
            basics.admin,
            basics.replication,
            basics.shown,
            folder,
            RelaxedMarker(folder, own.binlog_index, basics.boot_id, data),
        )

    def _make_rewinding(self, rewinder: Rewinder) -> Rewinding:
        member, own, fitness = self._member, self._member.own, self._basics.fitness
        electorate = self._basics.electorate
        settling = Settling(
            member.published,
            fitness,
            PreparedTransactions(own.flavor, own.socket, member.admin),
            own.binlog_index,
            lambda: bool(electorate.kept.incarnation),
        )
        return Rewinding(
            *(member.published, member.server_run, rewinder, fitness, settling),
            *(own.binlog_index, own.datadir, member.state_dir / "pending"),
        )

    def _subscribe(self) -> None:
        """Connects events with their subscribers. Each list is called in its order."""
        published, server_run, observer = (
            self._member.published,
            self._member.server_run,
            self._observer,
        )
        keeper, vouch = self._keeper, self._basics.vouch
        starts, regained, kept = self._starts, self._regained, self._kept
        published.as_of_now = lambda state: vouch.seen(keeper.seen(state))
        published.heeding += [each.changed for each in self._addresses]

        server_run.on_appeared = observer.appeared
        server_run.before_start += [
            self._boot_check.may_start,
            starts.before_start,
            regained.before_start,
            kept.before_start,
        ]
        server_run.on_end, server_run.on_failed = regained.ended, starts.failed
        server_run.on_clean_end += [
            self._releases.ended,
            self._member.relaxed.clear_in_background,
            kept.ended,
        ]

        observer.holds_applier = lambda: self._hold.held
        observer.on_answer += [self._boot_check.first_contact, regained.answers]
        observer.on_look += [
            lambda found, _: starts.came_up(),
            lambda found, _: self._files.looked(),
            self._releases.seen,  # records what was let through before the server is killed
            self._compared,
            lambda found, _: regained.looked(found),
            lambda found, _: self._cloning.came_up(),
            lambda found, _: kept.seen(found),
        ]
        observer.on_lost = self._releases.lost
        observer.on_down += [
            self._boot_check.look_again,
            starts.look_again,
            self._cloning.publish,
            self._kept_up.founding.publish,
        ]

        self._cloning.forget += [
            self._basics.fitness.forget,
            self._verifying.forget,
            self._releases.end,
            starts.at_once,
            self._streams.forget,
            kept.ended,
            observer.data_replaced,
        ]
        self._commands.steering = self._receipts.steering

    def _compared(self, found: Observation, _: float) -> None:
        state = self._member.published.state
        if state.term:  # a server that is not adopted yet is left alone
            self._receipts.seen(found, state.incarnation)
            self._streams.seen(found, state.incarnation)

    def start(self) -> None:
        """Begin all threads; in the event loop."""
        self._basics.writer.start()
        self._peers.start()
        for guard in self._held_by:
            guard.start()
        self._keeper.start()
        for each in self._addresses:
            each.start()
        self._observer.start()
        self._prober.start()
        for thread in (self._room, self._strangers, self._kept_up.logins, self._commands):
            thread.start()

    def stop(self) -> None:
        """Answer all waiting requests, and have all threads end."""
        self._poll.close()
        self._commands.stop()
        self._jobs.stop()
        self._keeper.stop()
        self._peers.stop()
        self._room.stop()
        for guard in self._guards:
            guard.stop()

    async def join(self) -> None:
        """After :meth:`stop`: wait for the end of all threads, and close what they used."""
        await asyncio.to_thread(self._jobs.wait, STOP_SECONDS)
        await asyncio.to_thread(self._observer.stop)
        await asyncio.to_thread(self._prober.stop, 1.0)
        for watched in (self._strangers, self._kept_up.logins):
            await asyncio.to_thread(watched.stop, 1.0)
        for part in (self._keeper, *self._guards):
            await asyncio.to_thread(part.join, 1.0)
        await asyncio.to_thread(self._basics.writer.stop, 1.0)
        self._member.server.close()
        self._kept_up.accounts.close()

    def app(self, lifespan: Lifespan) -> FastAPI:
        """The HTTP application."""
        basics, member, observer = self._basics, self._member, self._observer
        config, clock = basics.config, member.published.clock
        app = make_app(
            *(member.published, self._commands, self._poll),
            Entrance(basics.token, config.cluster, config.hosts, clock),
            *(self._keeper.granted, lifespan, identity(config)),
        )
        add_lease(
            *(app, self._poll, self._keeper, basics.vouch, basics.obeyed),
            lambda every: setattr(observer, "every_seconds", every),
        )
        inspected = member.server_run.look, self._addressees, basics.obeyed.obeys
        add_inspection(app, Inspector(config, member.replication, *inspected, clock=clock))
        add_digests(app, self._digester, clock)
        add_verify(app, self._chunks, self._verifying, clock)
        add_blockers(app, member.server, clock)
        donor = CopyGiver(
            *(member.published, member.own, member.admin, member.state_dir), self._cloning.unfit
        )
        app.include_router(donor.router())
        return app

    def _addressees(self) -> set[str]:
        """Addresses of the servers that concern this one: the primary's, and its source's."""
        known = self._basics.electorate.kept.electorate
        source = self._member.published.seen()[0].replication.source
        return {each for each in (known.address if known else "", source) if each}
