"""Who may ask what: in front of the HTTP APIs of agent and manager.

Where a token is wanted, whoever does not carry it learns nothing but that somebody is there: every path, known or not,
gives the same answer. With TLS, whoever has no certificate does not come this far.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.log import say
from holdfast.serving import error_response

LARGEST_BODY_BYTES = 256 * 1024
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
UNTOLD = frozenset({"/v1/watch", "/v1/vouch"})
"""Several times a second, and nothing but leases changes by them."""
TOLD = frozenset({"/v1/backup", "/v1/account"})
"""Nothing is changed, and more than a state leaves the host."""
WARN_SECONDS = 10.0
WANTED = "a token is wanted as Authorization: Bearer"

logger = logging.getLogger(__name__)


def guard(app: FastAPI, token: str | None, largest: Mapping[str, int] | None = None) -> None:
    """Put the guards before ``app``.

    :param largest: bytes of a request's body, for paths where it may be more than usual
    """
    app.add_middleware(Telling, token=token)
    app.add_middleware(BoundedBody, largest=largest or {})
    if token is not None:
        app.add_middleware(BearerToken, token=token)


def tell(state: Any, what: str) -> None:
    """Have ``what`` stand in the line that tells of this request.

    :param state: ``request.state``
    """
    state.what = what


class BearerToken:
    """Lets requests through that carry the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._wanted = f"Bearer {token}".encode()
        self._warned_at = -WARN_SECONDS
        self._untold = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_health(scope) or self._carried(scope):
            await self._app(scope, receive, send)
            return
        self._warn(scope)
        refusal = error_response(401, "Unauthorized", WANTED)
        refusal.headers["WWW-Authenticate"] = "Bearer"
        refusal.headers["Connection"] = "close"
        await refusal(scope, receive, send)

    def _carried(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._wanted)

    def _warn(self, scope: Scope) -> None:
        """Not for each: whoever asks often must not fill the disk."""
        now = time.monotonic()
        self._untold += 1
        if now - self._warned_at < WARN_SECONDS:
            return
        text = f"refused without the right token: {self._untold} requests, the last from {_peer(scope)}"
        say(logger, text, logging.WARNING)
        self._warned_at, self._untold = now, 0


class BoundedBody:
    """Refuses bodies that are too large, as soon as that is known; also those that do not say how long they are."""

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
    """Logs every request that changes something, once: who asked, for what, and how it was answered.

    Never a body: there are secrets in some.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._nameless = "token" if token is not None else "anybody on this host"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_told(scope):
            await self._app(scope, receive, send)
            return
        status = 0

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._tell(scope, str(status))
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            if not status:
                self._tell(scope, "none: it was left, or failed")

    def _tell(self, scope: Scope, answer: str) -> None:
        state = scope.get("state", {})
        what = {"what": state["what"]} if "what" in state else {}
        say(
            logger,
            f"asked: {scope['method']} {scope['path'][:200]!a}",
            **what,
            who=state.get("peer") or self._nameless,
            at=_peer(scope),
            answer=answer,
        )


def _is_health(scope: Scope) -> bool:
    return bool(scope["path"] == "/v1/health" and scope["method"] == "GET")


def _is_told(scope: Scope) -> bool:
    path = scope["path"]
    return path in TOLD or (scope["method"] in CHANGING and path not in UNTOLD)


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "?"
