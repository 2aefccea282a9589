"""The guards in front of the HTTP APIs of agent and manager; ``core/answers/access.py`` says who may request what.

Without TLS, a token is required, on loopback, too: every user of a machine can connect there, and so can a web page in
a browser on it. A request without the token learns only that something listens: every path, known or not, gives the
same answer. With TLS, a client without a certificate does not come this far; one that has it may do what its role may.

A browser sends what a web page orders, from inside the network, and with its owner's certificate. So no request is
answered that another site's page can have sent. The guards check what the request says of its page (``Origin``,
``Sec-Fetch-Site``). A request that changes something must be JSON, which no page may send to another site unasked. On
loopback the requested host must be an address or this host: a page whose name resolves to 127.0.0.1 requests its own
name. (With TLS the certificate is for other names than that.)
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.answers.access import CertificateHolder, Routes, Table, refusal
from holdfast.http.serving import error_response
from holdfast.log import say

LARGEST_BODY_BYTES = 256 * 1024
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
WITH_BODY = CHANGING - {"DELETE"}
UNTOLD = frozenset({"/v1/watch", "/v1/vouch", "/v1/verify/load", "/v1/verify/piece"})
"""Not logged: requested several times a second, and they change nothing but leases."""
TOLD = frozenset({"/v1/backup", "/v1/account"})
"""Logged: nothing is changed, but more than a state leaves the host."""
WARN_SECONDS = 10.0
WANTED = "no token was sent: send it as Authorization: Bearer"
NOT_ACCEPTED = "the token that was sent is not accepted: it is not that of this token_file"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""The usual host names, so that they need not be parsed; other addresses are as good."""

_ASKER: ContextVar[str] = ContextVar("asker", default="an operator")

Headers = Mapping[bytes, bytes]


class Accepting(Protocol):
    """Bearer tokens that may change."""

    @property
    def accepted(self) -> tuple[str, ...]: ...


Token = str | Accepting

logger = logging.getLogger(__name__)


def guard(
    app: FastAPI,
    token: Token | None,
    table: Table,
    largest: Mapping[str, int] | None = None,
    cluster: str = "",
    hosts: Collection[str] = (),
    clock: Clock = SYSTEM_CLOCK,
) -> None:
    """Put the guards before ``app``.

    :param table: who may request what, where there is TLS
    :param largest: bytes of a request's body, for paths where it may be more than usual
    :param cluster: which all of it is about, where a path does not say so
    :param hosts: host names that requests on loopback may carry, besides loopback's own
    """
    app.add_middleware(Telling)
    app.add_middleware(BoundedBody, largest=largest or {})
    app.add_middleware(
        Doorkeeper, token=token, table=table, cluster=cluster, hosts=hosts, clock=clock
    )


def asker() -> str:
    """Who has sent the request that is carried out now, for logs and the history: a certificate's name, or that it was
    a client with the token, and from where."""
    return _ASKER.get()


def tell(state: Any, what: str) -> None:
    """Put ``what`` into the log line for this request.

    :param state: ``request.state``
    """
    state.what = what


class Doorkeeper:
    """Lets requests through that carry the token, that no web page has sent, and whose sender may make them."""

    def __init__(
        self,
        app: ASGIApp,
        token: Token | None,
        table: Table,
        cluster: str,
        hosts: Collection[str],
        clock: Clock,
    ) -> None:
        self._app = app
        self._clock = clock
        self._token = token
        self._routes = Routes(table)
        self._cluster = cluster
        self._hosts = LOOPBACK_NAMES | {each.lower() for each in hosts}
        self._warned_at: dict[int, float] = {}
        self._untold: dict[int, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_health(scope):
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused is None:
            await self._app(scope, receive, send)
            return
        refused.headers["Connection"] = "close"
        await refused(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers: Headers = dict(scope["headers"])
        if not self._is_known(scope, headers):
            self._warn(401, scope, "refused without the right token")
            sent = self._token is not None and b"authorization" in headers
            response = error_response(401, "Unauthorized", NOT_ACCEPTED if sent else WANTED)
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if why := self._foreign(scope, headers):
            self._warn(403, scope, f"refused, for it may come from a web page ({why})")
            return error_response(403, "Refused", why)
        route = self._routes.find(scope["method"], scope["path"])
        if route is None:
            status = 405 if self._routes.knows(scope["path"]) else 404
            return error_response(
                status, "Refused", f"{scope['path']}: {HTTPStatus(status).phrase}"
            )
        if not _has_tls(scope):
            return None  # the token's owner may do everything
        who, cluster = route
        holder: CertificateHolder = scope.get("state", {}).get("holder") or CertificateHolder(
            "nobody"
        )
        of = cluster or self._cluster
        if why := refusal(holder, who, (of,) if of else ()):
            self._warn(403, scope, f"refused: {scope['method']} {scope['path'][:200]!a}: {why}")
            return error_response(403, "Refused", why)
        return None

    def _is_known(self, scope: Scope, headers: Headers) -> bool:
        if self._token is None:
            return _has_tls(scope)
        accepted = (self._token,) if isinstance(self._token, str) else self._token.accepted
        given = headers.get(b"authorization", b"")
        count = sum(name == b"authorization" for name, _ in scope["headers"])
        good = [hmac.compare_digest(given, f"Bearer {each}".encode()) for each in accepted]
        return count == 1 and any(good)

    def _foreign(self, scope: Scope, headers: Headers) -> str:
        """Why another site's page may have sent the request; "" if it cannot have."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not _has_tls(scope) and not self._is_ours(_name(host)) and _is_on_loopback(scope):
            return f"Host: {host[:200]!a} is not this host: ask for 127.0.0.1, or name it in hosts"
        origin = headers.get(b"origin")
        if origin is not None and (not host or _site(origin) != host):
            return "Origin: another site's page"
        if headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            return "Sec-Fetch-Site: another site's page"
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if scope["method"] in WITH_BODY and kind != b"application/json":
            return "Content-Type: must be application/json"
        return ""

    def _is_ours(self, name: str) -> bool:
        return name in self._hosts or _is_address(name)

    def _warn(self, status: int, scope: Scope, what: str) -> None:
        """Log some of the refusals: a client that asks often must not fill the disk."""
        now = self._clock.monotonic()
        self._untold[status] = self._untold.get(status, 0) + 1
        if now - self._warned_at.get(status, -WARN_SECONDS) < WARN_SECONDS:
            return
        text = f"{what}: {self._untold[status]} requests, the last from {_peer(scope)}"
        say(logger, text, logging.WARNING)
        self._warned_at[status], self._untold[status] = now, 0


class BoundedBody:
    """Refuses bodies that are too large, as soon as that is known; also those that do not state their length."""

    def __init__(self, app: ASGIApp, largest: Mapping[str, int]) -> None:
        self._app = app
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._largest.get(scope["path"], LARGEST_BODY_BYTES)
        said = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if said.isdigit() and int(said) > most:
            refusal = error_response(413, "Refused", f"{scope['path']}: larger than {most} bytes")
            refusal.headers["Connection"] = "close"
            await refusal(scope, receive, send)
            return
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > most:
                headers = {"Connection": "close"}
                raise HTTPException(413, f"larger than {most} bytes", headers)
            return message

        await self._app(scope, counted, send)


class Telling:
    """Logs every request that changes something, once: who made it, for what, and how it was answered.

    Never a body: some contain secrets.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_told(scope):
            await self._app(scope, receive, send)
            return
        status = 0
        asking = _ASKER.set(_who(scope))

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._tell(scope, str(status))
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            _ASKER.reset(asking)
            if not status:
                self._tell(scope, "none: it was left, or failed")

    def _tell(self, scope: Scope, answer: str) -> None:
        state = scope.get("state", {})
        what = {"what": state["what"]} if "what" in state else {}
        say(
            logger,
            f"asked: {scope['method']} {scope['path'][:200]!a}",
            **what,
            who=state.get("peer") or "token",
            at=_peer(scope),
            answer=answer,
        )


def _is_health(scope: Scope) -> bool:
    return bool(scope["path"] == "/v1/health" and scope["method"] == "GET")


def _has_tls(scope: Scope) -> bool:
    """By the listener: no header can fake that."""
    return bool(scope["scheme"] == "https")


def _is_on_loopback(scope: Scope) -> bool:
    """Whether the connection came in at an address of loopback."""
    server = scope.get("server") or ("",)
    return _is_address(server[0]) and ip_address(server[0]).is_loopback


def _is_address(text: str) -> bool:
    """Whether the text is an address, so that no name server is needed."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _site(origin: bytes) -> str:
    """``host:port`` of the page; "" where there is none, or it is hidden."""
    try:
        return urlsplit(origin.decode("latin-1").lower()).netloc
    except ValueError:
        return ""


def _name(host: str) -> str:
    """``host`` of ``host:port``, without the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_told(scope: Scope) -> bool:
    path = scope["path"]
    return path in TOLD or (scope["method"] in CHANGING and path not in UNTOLD)


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "?"


def _who(scope: Scope) -> str:
    client = scope.get("client")
    place = f" at {client[0]}" if client else ""
    return f"{scope.get('state', {}).get('peer') or 'a client with the token'}{place}"
