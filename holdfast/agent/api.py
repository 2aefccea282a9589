"""The agent's HTTP API; ``wire.py`` says what goes over it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.agent.board import Board
from holdfast.agent.lane import Lane
from holdfast.errors import BadInput
from holdfast.wire import CommandReply, CommandRequest, StateReply

LONGEST_WAIT_SECONDS = 60.0
LARGEST_REQUEST_BYTES = 16 * 1024 * 1024
HIGHEST_TERM = 2**53
OPEN_PATHS = frozenset({"/v1/health"})

logger = logging.getLogger(__name__)


class LongPoll:
    """Wakes everybody who waits for a new version of the board, on the event loop.

    ``changed`` runs on the loop, so nothing can change between its look at the version and its wait.
    """

    def __init__(self, board: Board, loop: asyncio.AbstractEventLoop) -> None:
        self._board = board
        self._loop = loop
        self._event = asyncio.Event()
        self._closed = False
        board.on_change = self._changed

    async def changed(self, since: int | None, seconds: float) -> StateReply:
        """The state, as soon as its version is not ``since``, at the latest after ``seconds``."""
        end = asyncio.get_running_loop().time() + seconds
        while self._board.version == since and not self._closed:
            try:
                async with asyncio.timeout_at(end):
                    await self._event.wait()
            except TimeoutError:
                break
        state, version = self._board.seen()
        return StateReply(state=state, version=version)

    def close(self) -> None:
        """Answer everybody now, and from now on at once."""
        self._closed = True
        self._wake()

    def _changed(self) -> None:
        # a thread may still be at work when the loop has ended
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


class BearerToken:
    """Lets requests through that carry the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._wanted = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._carried(scope):
            await self._app(scope, receive, send)
            return
        refusal = _error(401, "Unauthorized", "this agent wants its token as Authorization: Bearer")
        refusal.headers["WWW-Authenticate"] = "Bearer"
        await refusal(scope, receive, send)

    def _carried(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._wanted)


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def make_app(
    board: Board, lane: Lane, poll: LongPoll, token: str | None, lifespan: Lifespan | None = None
) -> FastAPI:
    app = FastAPI(
        title="Holdfast agent",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=lifespan,
    )
    if token is not None:
        app.add_middleware(BearerToken, token=token)

    @app.get("/v1/health")
    async def health() -> Response:
        """Whether the agent itself runs; says nothing of its server."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    @app.get("/v1/state", response_model=StateReply)
    async def state(since: int | None = None, wait: float = 0.0) -> Response:
        """The member's state, as soon as its version is not ``since``, at the latest after ``wait`` seconds."""
        if not (math.isfinite(wait) and wait >= 0):
            raise BadInput("wait", "must be a number of seconds")
        return _json(await poll.changed(since, min(wait, LONGEST_WAIT_SECONDS)))

    @app.post(
        "/v1/command",
        response_model=CommandReply,
        openapi_extra={
            "requestBody": {
                "content": {"application/json": {"schema": CommandRequest.model_json_schema()}},
                "required": True,
            }
        },
    )
    async def command(request: Request) -> Response:
        """Carry out a command; the answer says how it ended, also when it was refused."""
        try:
            asked = CommandRequest.model_validate_json(await _body(request))
        except ValidationError as error:
            raise BadInput("request", _first(error.errors(include_url=False))) from None
        if not 0 <= asked.term <= HIGHEST_TERM:
            raise BadInput("term", f"must be from 0 to {HIGHEST_TERM}")
        reply: CommandReply = await asyncio.wrap_future(lane.submit(asked.term, asked.parsed()))
        return _json(reply)

    @app.exception_handler(BadInput)
    async def bad_input(request: Request, error: BadInput) -> Response:
        return _error(400, "BadInput", str(error))

    @app.exception_handler(RequestValidationError)
    async def bad_query(request: Request, error: RequestValidationError) -> Response:
        return _error(400, "BadInput", _first(error.errors()))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return _error(error.status_code, "Refused", f"{request.url.path}: {error.detail}")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        logger.error("%s failed: %r", request.url.path, error)
        return _error(500, "OutcomeUnknown", f"the agent failed: {error!r}")

    return app


async def _body(request: Request) -> bytes:
    pieces: list[bytes] = []
    size = 0
    stream: AsyncIterator[bytes] = request.stream()
    async for piece in stream:
        size += len(piece)
        if size > LARGEST_REQUEST_BYTES:
            raise HTTPException(413, f"larger than {LARGEST_REQUEST_BYTES} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _json(reply: StateReply | CommandReply) -> Response:
    return Response(reply.model_dump_json().encode(), media_type="application/json")


def _error(status: int, name: str, message: str) -> Response:
    line = " ".join(message.split())
    content = json.dumps({"error": name, "message": line}).encode()
    return Response(content, status, media_type="application/json")


def _first(errors: Any) -> str:
    """The first of pydantic's complaints, with the place that it is about."""
    place = ".".join(str(part) for part in errors[0]["loc"])
    return f"{place}: {errors[0]['msg']}" if place else str(errors[0]["msg"])
