"""Builds the manager and runs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop
from fastapi import FastAPI

from holdfast import log
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.config import load
from holdfast.config.hooks import HooksConfig
from holdfast.config.schema import ManagerConfig, StoreConfig
from holdfast.config.token import TokenFile
from holdfast.core.answers.access import AccessRole
from holdfast.core.cluster import Member
from holdfast.endpoint.haproxy import Haproxy
from holdfast.errors import Fatal
from holdfast.http.guarding import Token
from holdfast.http.serving import HttpServer, listening
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.api.app import make_app
from holdfast.manager.api.history import add_history
from holdfast.manager.api.repair import add_repair
from holdfast.manager.api.switchover import add_switchover
from holdfast.manager.leader.desired import Given
from holdfast.manager.leader.lead import Leader
from holdfast.manager.listeners.archive import Archive
from holdfast.manager.listeners.endpoints import Endpoints
from holdfast.manager.listeners.history import History
from holdfast.manager.listeners.hooks_setup import Outsiders
from holdfast.manager.people.check import add_inspection
from holdfast.manager.people.scheduled import Planner
from holdfast.manager.people.verifier import Verifier, add_verification
from holdfast.reloading import Reloading, Reloads, heed
from holdfast.store.base import LeadershipCandidate, Store
from holdfast.store.etcd import EtcdStore
from holdfast.store.gateway import Etcd
from holdfast.store.sqlite import SqliteStore
from holdfast.tls import Certificates, Credentials, Needed

ANY_ADDRESS = ("0.0.0.0", "::")
TOKENS = ("token_file", "agent_token_file")
HISTORY_THREADS = 2
"""For all clusters: one thread may hang in the store while an operator's request needs another."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Basics:
    """What a manager has before it serves. :ivar who: this manager, as a candidate for the leadership"""

    config: ManagerConfig
    who: LeadershipCandidate
    store: Store
    tokens: Mapping[str, TokenFile | None]
    certificates: Certificates | None
    outsiders: Mapping[str, Outsiders]
    clock: Clock


def run(config: ManagerConfig, path: Path) -> None:
    """Run the manager until SIGTERM or SIGINT; on SIGHUP its file ``path`` is read again.

    :raises BadInput: when a secret cannot be read
    :raises Fatal: when it cannot start: nothing was done
    """
    log.setup(config.log_format, config.log_level)
    tokens = {key: TokenFile.at(getattr(config, key), key) for key in TOKENS}
    needed = Needed(AccessRole.MANAGER, tuple(each.name for each in config.clusters))
    certificates = (
        Certificates(config.tls.files, needed=needed, expected=AccessRole.AGENT)
        if config.tls
        else None
    )
    if certificates is not None:
        certificates.keep_fresh()
    clock = SYSTEM_CLOCK
    outsiders = {
        each.name: Outsiders.by(each.hooks, f"clusters.{number}.hooks", clock)
        for number, each in enumerate(config.clusters)
    }
    with (
        listening(config.listen) as listener,
        contextlib.closing(open_store(config.store, clock)) as store,
    ):
        who = candidate(config)
        log.say(logger, f"manager {who} listens on {config.listen}", store=str(store))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            reloading = Reloading(path, config, load.manager_config, tokens, certificates, _secrets)
            basics = _Basics(config, who, store, tokens, certificates, outsiders, clock)
            runner.run(_serve(basics, listener, reloading))
    log.say(logger, "manager ends; agents and servers are left as they are")


async def _serve(basics: _Basics, listener: socket.socket, reloading: Reloads) -> None:
    config, who, store, clock = basics.config, basics.who, basics.store, basics.clock
    tokens, certificates, outsiders = basics.tokens, basics.certificates, basics.outsiders
    context = certificates.client if certificates else None
    shown = Credentials(tokens["agent_token_file"], context)

    def connect(member: Member) -> AgentClient:
        return AgentClient(member.name, member.agent, shown, clock)

    leaders = {
        each.name: Leader(Given.by(each), connect, store, who, clock=clock)
        for each in config.clusters
    }

    pool = ThreadPoolExecutor(HISTORY_THREADS, "history")
    histories = {name: _history(each, store, who, pool) for name, each in leaders.items()}
    planners = {name: Planner(each) for name, each in leaders.items()}
    verifiers = {name: Verifier(each, histories[name]) for name, each in leaders.items()}
    for each in config.clusters:
        leader = leaders[each.name]
        endpoints = Endpoints(
            [Haproxy(one, clock) for one in each.endpoints.haproxy], leader.events, clock
        )
        leader.listeners = (
            *leader.listeners,
            endpoints,
            planners[each.name],
            verifiers[each.name],
        )
        if each.hooks != HooksConfig():
            made = outsiders[each.name].of(leader.events, leader.look_again)
            leader.hooks, reporter = made
            leader.listeners = (*leader.listeners, reporter)

    tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks.extend(asyncio.create_task(leader.run()) for leader in leaders.values())
        for task in tasks:
            task.add_done_callback(_unexpected)
        yield
        end()
        await asyncio.gather(*tasks, return_exceptions=True)

    def end() -> None:
        """Hand over all leaderships at once, not after the waiting clients have gone."""
        server.should_exit = True
        for task in tasks:
            if not task.cancelling():
                task.cancel()

    failures: list[BaseException] = []
    hosts = {*config.hosts, urlsplit(who.url).hostname or ""}
    token = tokens["token_file"]
    app = application(leaders, planners, verifiers, histories, token, lifespan, hosts, clock)
    server = HttpServer(app, certificates.server if certificates else None)
    heed(end, reloading)

    def _unexpected(task: asyncio.Task[None]) -> None:
        """End the process: a cluster without a manager's attention is worse than a restart of the manager."""
        if not task.cancelled() and (error := task.exception()):
            logger.critical("the manager fails", exc_info=error)
            failures.append(error)
            server.should_exit = True

    await server.serve(sockets=[listener])
    pool.shutdown(wait=False, cancel_futures=True)
    if failures:
        raise Fatal(f"the manager failed: {failures[0]!r}")


def application(
    leaders: dict[str, Leader],
    planners: Mapping[str, Planner],
    verifiers: Mapping[str, Verifier],
    histories: Mapping[str, History],
    token: Token | None,
    lifespan: Any = None,
    hosts: Collection[str] = (),
    clock: Clock = SYSTEM_CLOCK,
) -> FastAPI:
    """The whole API. :param hosts: as in ``guard``"""
    app = make_app(leaders, token, lifespan, hosts, clock)
    add_switchover(app, planners)
    add_inspection(app, leaders)
    add_verification(app, verifiers)
    add_history(app, histories)
    add_repair(app, leaders)
    return app


def _history(
    leader: Leader, store: Store, who: LeadershipCandidate, pool: ThreadPoolExecutor
) -> History:
    archive = Archive(store, leader.cluster.name)
    history = History(archive, who.name, leader.events, lambda: leader.decision, pool, leader.clock)
    leader.listeners = (*leader.listeners, history)
    return history


def open_store(config: StoreConfig, clock: Clock) -> Store:
    """:raises BadInput: when a file that is named cannot be read
    :raises Fatal: when the SQLite file cannot be opened
    """
    if config.path is not None:
        return SqliteStore(config.path, clock)
    tls = config.tls
    password = _optional(load.secret, config.password_file, "store.password_file") or ""
    return EtcdStore(
        Etcd(
            config.endpoints,
            config.prefix,
            ca=tls.ca if tls else None,
            cert=tls.cert if tls else None,
            key=tls.key if tls else None,
            user=config.user,
            password=password,
        ),
        clock,
    )


def candidate(config: ManagerConfig) -> LeadershipCandidate:
    """This manager, as operators and the other managers know it."""
    host, _, port = config.listen.rpartition(":")
    if host.strip("[]") in ANY_ADDRESS:
        host = socket.gethostname()
    scheme = "https" if config.tls else "http"
    url = config.url or f"{scheme}://{host}:{port}"
    return LeadershipCandidate(
        config.name or f"{socket.gethostname()}:{port}",
        url,
        config.host or urlsplit(url).hostname or "",
    )


def _secrets(config: ManagerConfig) -> dict[str, str]:
    """Contents of files that are read only at the start, by the key that names them.

    :raises BadInput: one cannot be read
    """
    named = {"store.password_file": config.store.password_file}
    for each in config.clusters:
        for number, webhook in enumerate(each.hooks.webhooks):
            named[f"clusters.{each.name}.hooks.webhooks.{number}.secret_file"] = webhook.secret_file
    return {key: load.secret(path, key) for key, path in named.items() if path is not None}


def _optional(read: Callable[[Path, str], str], path: Path | None, key: str) -> str | None:
    return read(path, key) if path else None
