"""The agent's HTTP API; ``wire.py`` says what goes over it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response

from holdfast.agent.commands.queue import CommandQueue
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.answers.access import AGENT_API
from holdfast.errors import BadInput
from holdfast.http.guarding import Token, guard, tell
from holdfast.http.serving import LONGEST_WAIT_SECONDS, body_of, json_response, make_api, parsed
from holdfast.http.wire import CommandReply, CommandRequest, Grant, Identity, StateReply

LARGEST_REQUEST_BYTES = 16 * 1024 * 1024
HIGHEST_TERM = 2**53


class LongPoll:
    """Wakes, on the event loop, every request that waits for a new version of the published state.

    ``changed`` runs on the loop, so nothing can change between its look at the version and its wait.

    :param run: names this run of the agent
    """

    def __init__(
        self, published: PublishedState, loop: asyncio.AbstractEventLoop, run: str
    ) -> None:
        self._published = published
        self._run = run
        self._loop = loop
        self._event = asyncio.Event()
        self._closed = False
        published.on_change = self._changed

    async def changed(self, since: int | None, seconds: float) -> StateReply:
        """Return the state as soon as its version is not ``since``, at the latest after ``seconds``."""
        clock = self._published.clock
        with contextlib.suppress(TimeoutError):
            async with clock.timeout(seconds):
                while self._published.version == since and not self._closed:
                    await self._event.wait()
        state, version = self._published.seen()
        return StateReply(state=state, version=version, clock=clock.boottime(), run=self._run)

    def close(self) -> None:
        """Answer all waiting requests now; later requests are answered at once."""
        self._closed = True
        self._wake()

    def _changed(self) -> None:
        # a thread may still be at work when the loop has ended
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Entrance:
    """Who may use the API: the arguments of ``guard``."""

    token: Token | None
    cluster: str = ""
    hosts: Collection[str] = ()
    clock: Clock = SYSTEM_CLOCK


def make_app(
    published: PublishedState,
    commands: CommandQueue,
    poll: LongPoll,
    entrance: Entrance,
    granted: Callable[[Grant], object],
    lifespan: Lifespan | None = None,
    identity: Identity | None = None,
) -> FastAPI:
    """:param granted: called with a grant that comes with a command, before the command is carried out"""
    app = make_api("Holdfast agent", lifespan)
    largest = {"/v1/command": LARGEST_REQUEST_BYTES}
    guard(app, entrance.token, AGENT_API, largest, entrance.cluster, entrance.hosts, entrance.clock)

    @app.get("/v1/health")
    async def health() -> Response:
        """Answers that the agent itself runs; says nothing about its server."""
        return json_response(b'{"status":"ok"}')

    if identity is not None:

        @app.get("/v1/identity", response_model=Identity)
        async def who() -> Identity:
            """Returns the identity of this agent's member, as its files give it."""
            return identity

    @app.get("/v1/state", response_model=StateReply)
    async def state(since: int | None = None, wait: float = 0.0) -> Response:
        """Returns the member's state as soon as its version is not ``since``, at the latest after ``wait`` seconds."""
        return json_response(await poll.changed(since, bounded_wait(wait)))

    @app.post("/v1/command", response_model=CommandReply, openapi_extra=body_of(CommandRequest))
    async def command(request: Request) -> Response:
        """Carry out a command; the answer says how it ended, also when it was refused."""
        asked = await parsed(request, CommandRequest)
        if not 0 <= asked.term <= HIGHEST_TERM:
            raise BadInput("term", f"must be from 0 to {HIGHEST_TERM}")
        tell(request.state, f"{asked.command[:40]} of term {asked.term}")
        if asked.grant is not None:
            granted(asked.grant)
        reply: CommandReply = await asyncio.wrap_future(
            commands.submit(asked.term, asked.parsed(), asked.told)
        )
        return json_response(reply)

    return app


def bounded_wait(seconds: float) -> float:
    """The time for which a poll may wait that asks for ``seconds``."""
    if not (math.isfinite(seconds) and seconds >= 0):
        raise BadInput("wait", "must be a number of seconds")
    return min(seconds, LONGEST_WAIT_SECONDS)
