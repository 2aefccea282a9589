"""etcd's HTTP/JSON gateway: several endpoints, tried one after another, each with a short deadline."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.errors import BadInput, OutcomeUnknown, Refused, Unreachable

TRY_SECONDS = 0.4
"""Seconds for one endpoint, if there are others: a member that takes longer to answer is considered hanging."""
ONLY_TRY_SECONDS = 1.5
CALL_SECONDS = 2.0
SHUNNED_SECONDS = 5.0
"""For so long an endpoint that did not answer is tried only after the others."""

UNAVAILABLE = frozenset({1, 4, 13, 14})
"""gRPC: cancelled, deadline exceeded, internal, unavailable (no leader, request timed out ...)."""
EXHAUSTED, DENIED, UNAUTHENTICATED = 8, 7, 16
STALE_TOKEN = ("invalid auth token", "revision of auth store is old")

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Etcd:
    """Where etcd is, and with which identity to connect to it.

    :ivar endpoints: URLs of its members
    :ivar ca: checks etcd's certificates; None for the machine's own CAs
    :ivar cert: shown to etcd, with ``key``
    :ivar user: "" if etcd requires none
    """

    endpoints: tuple[str, ...]
    prefix: str = "/holdfast/"
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Etcd({', '.join(self.endpoints)}, prefix={self.prefix!r})"


class _NoAnswer(Exception):
    """:ivar sent: the request may have been carried out nevertheless"""

    def __init__(self, text: str, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class Gateway:
    """May be used by several threads.

    :raises BadInput: a certificate cannot be read
    """

    def __init__(self, etcd: Etcd, clock: Clock = SYSTEM_CLOCK) -> None:
        self._etcd = etcd
        self.clock = clock
        self._http = httpx.Client(
            verify=_tls(etcd) if _has_tls(etcd) else False,
            trust_env=False,
            timeout=TRY_SECONDS,
        )
        self._shunned: dict[str, float] = {}
        self._token = ""
        self._authenticating = threading.Lock()

    def ask(
        self, method: str, body: Body, *, repeatable: bool = True, end: float | None = None
    ) -> dict[str, Any]:
        """Call ``method`` (``kv/range``) of the first endpoint that answers.

        :param repeatable: it may be sent to another endpoint although the first may have carried it out
        :param end: on the monotonic clock
        :raises Unreachable: no endpoint answered; if it was not repeatable: nothing was done
        :raises OutcomeUnknown: not repeatable, and it may have been done
        :raises Refused: etcd answered, and refuses
        """
        end = self.clock.monotonic() + CALL_SECONDS if end is None else end
        found: list[str] = []
        for endpoint in self.order():
            left = end - self.clock.monotonic()
            if left <= 0:
                break
            try:
                reply = self._try(endpoint, method, body, min(left, self._patience))
            except _NoAnswer as none:
                self.shun(endpoint)
                if none.sent and not repeatable:
                    raise OutcomeUnknown(f"etcd at {endpoint} was asked, and: {none}") from None
                found.append(f"{endpoint}: {none}")
                continue
            self._shunned.pop(endpoint, None)
            return reply
        raise Unreachable(
            f"etcd does not answer ({'; '.join(sorted(found)) or 'no time was left'})"
        )

    @contextmanager
    def stream(
        self, endpoint: str, method: str, body: Body, silence: float
    ) -> Iterator[httpx.Response]:
        """The answer of this endpoint, as it comes; the caller handles httpx's errors.

        :param silence: seconds without data after which an answer is a ReadTimeout
        """
        timeout = httpx.Timeout(TRY_SECONDS, read=silence)
        # a member that is cut off from the other members then reports that, instead of being silent
        headers = {**self._headers(), "Grpc-Metadata-hasleader": "true"}
        url = f"{endpoint}/v3/{method}"
        with self._http.stream("POST", url, json=body, headers=headers, timeout=timeout) as reply:
            yield reply

    def order(self) -> list[str]:
        """The endpoints, with those last that did not answer lately."""
        now = self.clock.monotonic()
        return sorted(
            self._etcd.endpoints, key=lambda each: max(0.0, self._shunned.get(each, 0.0) - now)
        )

    def shun(self, endpoint: str) -> None:
        self._shunned[endpoint] = self.clock.monotonic() + SHUNNED_SECONDS

    def renew_token(self, used: str) -> None:
        """Make the next call carry another token than ``used``."""
        with self._authenticating:
            if self._token == used:
                self._token = ""

    @property
    def token(self) -> str:
        return self._token

    def close(self) -> None:
        self._http.close()

    @property
    def _patience(self) -> float:
        return TRY_SECONDS if len(self._etcd.endpoints) > 1 else ONLY_TRY_SECONDS

    def _try(self, endpoint: str, method: str, body: Body, seconds: float) -> dict[str, Any]:
        end = self.clock.monotonic() + seconds
        if self._etcd.user and not self._token:
            self._authenticate(endpoint, seconds)
        used = self._token
        try:
            return self._post(endpoint, method, body, max(0.01, end - self.clock.monotonic()))
        except _StaleToken:
            self.renew_token(used)
        try:
            self._authenticate(endpoint, max(0.01, end - self.clock.monotonic()))
            return self._post(endpoint, method, body, max(0.01, end - self.clock.monotonic()))
        except _StaleToken:
            raise _NoAnswer("it does not accept the token that it gave", sent=False) from None

    def _authenticate(self, endpoint: str, seconds: float) -> None:
        """:raises Refused: user or password are wrong, or etcd requires none"""
        with self._authenticating:
            if self._token:
                return
            body = {"name": self._etcd.user, "password": self._etcd.password}
            try:
                reply = self._post(endpoint, "auth/authenticate", body, seconds)
            except _NoAnswer as none:
                raise _NoAnswer(str(none), sent=False) from None
            self._token = str(reply["token"])

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}

    def _post(self, endpoint: str, method: str, body: Body, seconds: float) -> dict[str, Any]:
        url = f"{endpoint}/v3/{method}"
        try:
            reply = self._http.post(url, json=body, headers=self._headers(), timeout=seconds)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _NoAnswer(_why(error), sent=False) from None
        except httpx.HTTPError as error:
            raise _NoAnswer(_why(error), sent=True) from None
        except RuntimeError:  # httpx, if the client was closed meanwhile
            raise _NoAnswer("this manager is ending", sent=False) from None
        try:
            said = reply.json()
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise _NoAnswer(
                f"answers {reply.status_code}, but is no etcd with the v3 gateway", sent=False
            )
        if reply.status_code == httpx.codes.OK:
            return said
        raise self._failure(int(said.get("code", 0)), str(said.get("message", said.get("error"))))

    def _failure(self, code: int, message: str) -> Exception:
        if code == UNAUTHENTICATED or any(each in message for each in STALE_TOKEN):
            return _StaleToken()
        if code in UNAVAILABLE:
            return _NoAnswer(message, sent=True)
        if code == EXHAUSTED and "space" not in message:
            return _NoAnswer(message, sent=False)
        return Refused(f"etcd refuses: {message}{self._advice(code, message)}")

    def _advice(self, code: int, message: str) -> str:
        if "space" in message:
            return "; compact and defragment it, then disarm its alarm (etcdctl alarm disarm)"
        if "invalid user ID or password" in message:
            return f"; see store.user ({self._etcd.user}) and store.password_file"
        if "user name is empty" in message:
            return "; it wants store.user and store.password_file"
        if "authentication is not enabled" in message:
            return "; leave out store.user, or enable authentication there"
        if code == DENIED:
            return f"; grant {self._etcd.user or 'its user'} readwrite below {self._etcd.prefix}"
        return ""


class _StaleToken(Exception):
    """etcd has forgotten the token, or it has expired."""


def failed_frame(frame: Mapping[str, Any]) -> str:
    """What a line of a stream says about its end, or ""."""
    error = frame.get("error")
    if isinstance(error, Mapping):
        return str(error.get("message") or error)
    return str(error or "")


def _has_tls(etcd: Etcd) -> bool:
    return any(each.startswith("https://") for each in etcd.endpoints)


def _tls(etcd: Etcd) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(etcd.ca) if etcd.ca else None)
    except (OSError, ssl.SSLError) as error:
        raise BadInput("store.tls.ca", f"cannot use {etcd.ca}: {error}") from None
    if etcd.cert:
        try:
            context.load_cert_chain(etcd.cert, etcd.key)
        except (OSError, ssl.SSLError) as error:
            raise BadInput("store.tls.cert", f"cannot use {etcd.cert}: {error}") from None
    return context


def _why(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__
