"""What the HTTP APIs of agent and manager have in common: the listener, TLS, one-line errors."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import ssl
from asyncio import BaseTransport, TimerHandle
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holdfast.errors import (
    BadInput,
    Fatal,
    HoldfastError,
    OutcomeUnknown,
    Refused,
    Unreachable,
    WrongValue,
    first_wrong,
)
from holdfast.tls import peer

KEEP_ALIVE_SECONDS = 600

REQUEST_SECONDS = 30.0
"""How long a request may take to arrive, and a new connection to send something."""
SILENT_SECONDS = 4
"""If nothing arrives on a connection for so long, the kernel probes whether its peer is still there; 6 s later the
connection is closed."""
FAREWELL_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 60.0
"""How long a client may wait for news, at most."""
LARGEST_HEAD_BYTES = 64 * 1024
"""For a request line and its headers: uvicorn's parser in C has no limit of its own."""

PARTS = frozenset({"body", "query", "path"})
"""The parts of a request, as pydantic calls them."""

_STATUS: dict[type[HoldfastError], int] = {Refused: 409, Unreachable: 503, OutcomeUnknown: 504}

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

logger = logging.getLogger(__name__)


class Protocol(HttpToolsProtocol):
    """One connection. Closes those that take too long or send too much before the client is known.

    A request knows the name in the client's certificate as ``state.peer``, and what else that says as ``state.holder``:
    read once, when the connection is made.
    """

    request_seconds = REQUEST_SECONDS
    _timer: TimerHandle | None = None
    _head_bytes = 0
    _in_head = True

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn: a Transport only
        if (connection := transport.get_extra_info("socket")) is not None:
            notice_the_dead(connection)
        holder = peer(transport.get_extra_info("peercert"))
        if holder.name:
            self.app_state = {**self.app_state, "peer": holder.name, "holder": holder}
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > LARGEST_HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_request()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._arrived()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Do not answer what is no HTTP: uvicorn's text would show what listens here."""
        self.transport.close()

    def shutdown(self) -> None:
        """With TLS, a closed connection waits for the peer's farewell, which has no reason to hurry."""
        super().shutdown()
        self.loop.call_later(FAREWELL_SECONDS, self._drop_idle)

    def _drop_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _await_request(self) -> None:
        self._arrived()
        self._timer = self.loop.call_later(self.request_seconds, self._too_late)

    def _arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self.transport.abort()


class HttpServer(uvicorn.Server):
    """Leaves the signals to the process, which has to end its long polls first."""

    def __init__(
        self,
        app: ASGIApp,
        tls: ssl.SSLContext | None = None,
        protocol: type[Protocol] = Protocol,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                # the log names the client: no header may set that
                proxy_headers=False,
                ssl_context_factory=(lambda config, default: tls) if tls is not None else None,
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


def notice_the_dead(connection: socket.socket) -> None:
    """Have the kernel close the connection of a host that vanished: what it ordered may wait for it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


@contextlib.contextmanager
def listening(address: str, key: str = "listen") -> Iterator[socket.socket]:
    """A socket that listens on ``HOST:PORT``.

    :param key: of the configuration that names it
    :raises Fatal: naming the address, when it is in use or not this host's
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, int(port)), family=family, backlog=256)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise Fatal(f"{key}: cannot listen on {address}: {reason}") from error
    with listener:
        yield listener


def make_api(title: str, lifespan: Any = None) -> FastAPI:
    """An API without pages for browsers; every failure is answered in one line (:func:`one_line_errors`)."""
    app = FastAPI(
        title=title,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=lifespan,
    )
    one_line_errors(app)
    return app


def one_line_errors(app: FastAPI) -> None:
    """Every failure is answered as ``{"error": class, "message": one line}``."""

    @app.exception_handler(BadInput)
    async def bad_input(request: Request, error: BadInput) -> Response:
        return error_response(400, "BadInput", str(error), key=error.key, wrong=error.message)

    @app.exception_handler(HoldfastError)
    async def by_consequence(request: Request, error: HoldfastError) -> Response:
        for kind, status in _STATUS.items():
            if isinstance(error, kind):
                return error_response(status, kind.__name__, str(error))
        return error_response(500, "OutcomeUnknown", str(error))

    @app.exception_handler(RequestValidationError)
    async def bad_query(request: Request, error: RequestValidationError) -> Response:
        wrong = _wrong(error)
        return error_response(400, "BadInput", str(wrong), key=wrong.key, wrong=wrong.message)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        unsaid = error.detail == HTTPStatus(error.status_code).phrase  # for a path without a route
        response = error_response(
            error.status_code,
            "Refused",
            f"{request.url.path}: {error.detail}" if unsaid else error.detail,
        )
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        logger.error("%s failed: %r", request.url.path, error)
        return error_response(500, "OutcomeUnknown", f"it failed here: {error!r}")


def error_response(status: int, name: str, message: str, **fields: str) -> Response:
    """:param fields: what programs read beside the message: of BadInput ``key``, and what is ``wrong`` with it"""
    said = {"message": message, **fields}
    lines = {key: " ".join(text.split()) for key, text in said.items()}
    content = json.dumps({"error": name, **lines}).encode()
    return Response(content, status, media_type="application/json")


def json_response(reply: BaseModel | bytes | str) -> Response:
    """:param reply: a model, or text that is JSON already"""
    content = reply.model_dump_json() if isinstance(reply, BaseModel) else reply
    return Response(content, media_type="application/json")


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """For a route that reads its body by :func:`parsed`: the OpenAPI description of that body."""
    schema = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"content": schema, "required": True}}


async def parsed(request: Request, model: type[Model]) -> Model:
    """Read from the bytes as they arrived, without a dictionary in between.

    :raises BadInput: it is no such request
    """
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise BadInput("request", str(_wrong(error))) from None


def of_cluster(known: Mapping[str, T], name: str) -> T:
    """What a manager has for that cluster.

    :raises HTTPException: it has none of that name
    """
    if name not in known:
        raise HTTPException(404, f"no cluster {name!r}; this manager has {', '.join(known)}")
    return known[name]


def check_member(member: str, names: Collection[str]) -> None:
    """:raises HTTPException: it is none of these"""
    if member not in names:
        raise HTTPException(404, f"no member {member!r}; there are {', '.join(names)}")


def _wrong(error: ValidationError | RequestValidationError) -> WrongValue:
    """With its key, in whatever part of the request."""
    wrong = first_wrong(error.errors())
    inner = wrong.place[1:] if wrong.place[:1] and wrong.place[0] in PARTS else wrong.place
    return replace(wrong, place=inner)
