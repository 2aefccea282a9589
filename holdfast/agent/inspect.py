"""What the agent tells of its host when it is asked: facts for a check, and its replication account."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Response

from holdfast.config.load import account
from holdfast.config.schema import AgentConfig
from holdfast.core.facts import Facts
from holdfast.errors import HoldfastError
from holdfast.server.adopting import reached
from holdfast.server.authentication import authentication_string
from holdfast.server.base import Account, Source
from holdfast.server.facts import Place, collect
from holdfast.server.process import Running
from holdfast.wire import AccountReply, FactsReply, ReachReply

REACH_SECONDS = 5.0


class Inspector:
    """Looks at the host anew each time.

    :param running: the present run of the server; may take a while, and raise :class:`HoldfastError`
    """

    def __init__(
        self,
        config: AgentConfig,
        replication: Account,
        running: Callable[[], Running | None],
        root: Path = Path("/"),
    ) -> None:
        own = config.server
        self._place = Place(
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
        )
        self._replication = replication
        self._running = running

    def facts(self, counting: bool) -> Facts:
        try:
            running = self._running()
        except HoldfastError:  # several of them: the server's answer decides
            running = None
        return collect(self._place, running.pid if running else None, counting)

    def account(self) -> AccountReply:
        flavor = self._place.flavor
        text = authentication_string(flavor, self._replication.password)
        return AccountReply(user=self._replication.user, authentication=text)

    def reach(self, host: str, port: int) -> ReachReply:
        """Whether the member could follow there, and whom."""
        source = Source(host, port, self._replication)
        try:
            server_id, uuid = reached(self._place.flavor, source, REACH_SECONDS)
        except HoldfastError as error:
            return ReachReply(error=str(error))
        return ReachReply(server_id=server_id, uuid=uuid)


def add_inspection(app: FastAPI, inspector: Inspector) -> None:
    one_counts = asyncio.Lock()

    @app.get("/v1/facts", response_model=FactsReply)
    async def facts(counting: bool = True) -> Response:
        """All that a check looks at on this host; at once where nothing is to be counted."""
        async with one_counts if counting else contextlib.nullcontext():
            found = await asyncio.to_thread(inspector.facts, counting)
        reply = FactsReply(facts=found, clock=time.time())
        return Response(reply.model_dump_json().encode(), media_type="application/json")

    @app.get("/v1/reach", response_model=ReachReply)
    async def reach(host: str, port: Annotated[int, Query(ge=1, le=65535)]) -> ReachReply:
        """Log in at that address with the member's replication account, and say which server it is."""
        return await asyncio.to_thread(inspector.reach, host, port)

    @app.get("/v1/account", response_model=AccountReply)
    async def account() -> Response:
        """The member's replication account, with what a server keeps instead of its password."""
        reply = await asyncio.to_thread(inspector.account)
        return Response(reply.model_dump_json().encode(), media_type="application/json")
