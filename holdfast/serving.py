"""What the HTTP APIs of agent and manager have in common: the listener, the token, one-line errors."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.errors import BadInput, Fatal, HoldfastError, OutcomeUnknown, Refused, Unreachable

OPEN_PATHS = frozenset({"/v1/health"})
KEEP_ALIVE_SECONDS = 600

_STATUS: dict[type[HoldfastError], int] = {Refused: 409, Unreachable: 503, OutcomeUnknown: 504}

logger = logging.getLogger(__name__)


class HttpServer(uvicorn.Server):
    """Leaves the signals to the process, which has to end its long polls first."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                log_config=None,
                access_log=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=3,
                server_header=False,
                date_header=False,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """A socket that listens on ``HOST:PORT``.

    :raises Fatal: naming the address, when it is taken or not ours
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, int(port)), family=family, backlog=256)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise Fatal(f"listen: cannot listen on {address}: {reason}") from error
    with listener:
        yield listener


class BearerToken:
    """Lets requests through that carry the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._wanted = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._carried(scope):
            await self._app(scope, receive, send)
            return
        refusal = error_response(401, "Unauthorized", "a token is wanted as Authorization: Bearer")
        refusal.headers["WWW-Authenticate"] = "Bearer"
        await refusal(scope, receive, send)

    def _carried(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._wanted)


def one_line_errors(app: FastAPI) -> None:
    """Every failure is answered as ``{"error": class, "message": one line}``."""

    @app.exception_handler(BadInput)
    async def bad_input(request: Request, error: BadInput) -> Response:
        return error_response(400, "BadInput", str(error))

    @app.exception_handler(HoldfastError)
    async def by_consequence(request: Request, error: HoldfastError) -> Response:
        for kind, status in _STATUS.items():
            if isinstance(error, kind):
                return error_response(status, kind.__name__, str(error))
        return error_response(500, "OutcomeUnknown", str(error))

    @app.exception_handler(RequestValidationError)
    async def bad_query(request: Request, error: RequestValidationError) -> Response:
        return error_response(400, "BadInput", first_complaint(error.errors()))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return error_response(error.status_code, "Refused", f"{request.url.path}: {error.detail}")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        logger.error("%s failed: %r", request.url.path, error)
        return error_response(500, "OutcomeUnknown", f"it failed here: {error!r}")


def error_response(status: int, name: str, message: str) -> Response:
    line = " ".join(message.split())
    content = json.dumps({"error": name, "message": line}).encode()
    return Response(content, status, media_type="application/json")


def first_complaint(errors: Any) -> str:
    """The first of pydantic's complaints, with the place that it is about."""
    place = ".".join(str(part) for part in errors[0]["loc"])
    return f"{place}: {errors[0]['msg']}" if place else str(errors[0]["msg"])
