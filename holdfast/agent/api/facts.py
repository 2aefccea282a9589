"""What the agent reports of its host on request: facts for a check, and its replication account."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Response

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.config.load import account
from holdfast.config.schema import AgentConfig
from holdfast.core.check.facts import Facts
from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError
from holdfast.http.serving import json_response
from holdfast.http.wire import AccountReply, FactsReply, ReachReply, ReachRequest, Told
from holdfast.server.authentication import authentication_string
from holdfast.server.base import Account, Deadline, Source
from holdfast.server.connection.sql import Connection
from holdfast.server.inspect.adopting import public_key, reached
from holdfast.server.inspect.facts import ServerPlace, collect
from holdfast.server.process.process import Running

REACH_SECONDS = 5.0
KEY_SECONDS = 1.0
MARK_ROUNDS = 100_000


class Inspector:
    """Examines the host anew for each request.

    :param running: the present run of the server; may take a while, and raise :class:`HoldfastError`
    :param obeys: whether the agent would obey a manager's command
    :param members: ``host:port`` of the servers that concern this one: the primary's, and its source's
    """

    def __init__(
        self,
        config: AgentConfig,
        replication: Account,
        running: Callable[[], Running | None],
        members: Callable[[], Collection[str]],
        obeys: Callable[[int, Told], bool] = lambda term, told: False,
        root: Path = Path("/"),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        own = config.server
        self.clock = clock
        self._place = ServerPlace(
            member=config.name,
            flavor=own.flavor,
            option_file=own.option_file,
            datadir=own.datadir,
            socket=own.socket,
            binlog_index=own.binlog_index,
            admin=account(own.admin, "server.admin.password_file"),
            account=replication.user,
            listen=config.listen,
            api=config.tls.files if config.tls else None,
            tls=own.tls.files if own.tls else None,
            root=root,
            clock=clock,
        )
        self._replication = replication
        self._running = running
        self._members = members
        self._obeys = obeys

    def facts(self, counting: bool) -> Facts:
        try:
            running = self._running()
        except HoldfastError:  # there are several such processes: the server's answer decides
            running = None
        return collect(self._place, running.pid if running else None, counting)

    def account(self, nonce: str = "") -> AccountReply:
        flavor = self._place.flavor
        text = authentication_string(flavor, self._replication.fresh().password)
        key = self._public_key() if flavor is Flavor.MYSQL else ""
        mark = _mark(self._place.admin.fresh(), nonce) if nonce else ""
        return AccountReply(
            user=self._replication.user, authentication=text, public_key=key, admin=mark
        )

    def reach(self, asked: ReachRequest) -> ReachReply:
        """Reports whether the member could replicate from the server at that address, and which server answers there.

        Addresses that do not concern this member are refused, unless the leading manager asks: it may order the member
        to follow there.
        """
        members = self._members()
        led = asked.term > 0 and self._obeys(asked.term, asked.told)
        if not led and not _is_among(asked.host, asked.port, members):
            known = ", ".join(sorted(members)) or "nobody"
            return ReachReply(
                error=f"{self._place.member} does not try its password at {asked.host}:{asked.port}: "
                f"its server has to do with {known}"
            )
        source = Source(asked.host, asked.port, self._replication.fresh())
        try:
            server_id, uuid = reached(self._place.flavor, source, REACH_SECONDS, asked.public_key)
        except HoldfastError as error:
            return ReachReply(error=str(error))
        return ReachReply(server_id=server_id, uuid=uuid)

    def _public_key(self) -> str:
        connection = Connection(self._place.socket, self._place.admin)
        try:
            return public_key(connection, Deadline(KEY_SECONDS, clock=self.clock))
        except HoldfastError:  # the step that needs it will report the error
            return ""
        finally:
            connection.close()


def _mark(account: Account, nonce: str) -> str:
    """A hash that is slow to guess a password by, and of no use for another comparison."""
    secret = f"{account.user}\0{account.password}".encode()
    return hashlib.pbkdf2_hmac("sha256", secret, nonce.encode(), MARK_ROUNDS).hex()


def _is_among(host: str, port: int, addresses: Collection[str]) -> bool:
    """Compares the text of the address, then what the name resolves to."""
    if f"{host}:{port}" in addresses:
        return True
    sought = _resolved(host)
    pairs = [each.rpartition(":") for each in addresses]
    return any(own == str(port) and sought & _resolved(name) for name, _, own in pairs)


def _resolved(host: str) -> frozenset[str]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return frozenset()
    return frozenset(str(each[4][0]) for each in found)


def add_inspection(app: FastAPI, inspector: Inspector) -> None:
    one_counts = asyncio.Lock()

    @app.get("/v1/facts", response_model=FactsReply)
    async def facts(counting: bool = True) -> Response:
        """Returns all facts that a check looks at on this host; at once where nothing is to be counted."""
        async with one_counts if counting else contextlib.nullcontext():
            found = await asyncio.to_thread(inspector.facts, counting)
        reply = FactsReply(facts=found, clock=inspector.clock.now())
        return json_response(reply)

    @app.post("/v1/reach", response_model=ReachReply)
    async def reach(asked: ReachRequest) -> ReachReply:
        """Logs in at a member's address with this member's replication account, and says which server answers there."""
        return await asyncio.to_thread(inspector.reach, asked)

    @app.get("/v1/account", response_model=AccountReply)
    async def account(nonce: Annotated[str, Query(max_length=64)] = "") -> Response:
        """Returns the member's replication account, with what a server stores instead of its password."""
        reply = await asyncio.to_thread(inspector.account, nonce)
        return json_response(reply)
