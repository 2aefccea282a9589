"""A manager's connection to an agent: HTTP, with a deadline on every call."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Generator
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from holdfast import tls
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.check.facts import Facts
from holdfast.core.commands import Command, answered_within
from holdfast.core.observed.blockers import Blocker
from holdfast.errors import OutcomeUnknown, Unreachable
from holdfast.http.wire import (
    AccountReply,
    BlockersReply,
    CommandReply,
    CommandRequest,
    FactsReply,
    Grant,
    Identity,
    ReachReply,
    ReachRequest,
    RecordReply,
    StateReply,
    Told,
    WatchRequest,
    command_name,
)

CONNECT_SECONDS = 0.5
GRACE_SECONDS = 1.5
"""What a long poll may take beyond the wait that it asks for: a slow answer of a busy machine is no failure."""

FACTS_SECONDS = 5.0
COUNTING_SECONDS = 20.0
"""The agent counts tables, on a server that may be busy."""

BLOCKERS_SECONDS = 5.0

FAILURES = (httpx.TransportError, ssl.SSLError)
"""The second is raised as it is when the agent breaks an open connection off by a TLS alert."""

Reply = TypeVar("Reply", bound=BaseModel)

_STATE = TypeAdapter(StateReply)
_REPLY = TypeAdapter(CommandReply)


class _Bearer(httpx.Auth):
    """The current token: it may change while connections are open."""

    def __init__(self, shown: tls.Credentials) -> None:
        self._shown = shown

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        request.headers.update(self._shown.headers)
        yield request


class AgentGone(Unreachable):
    """The agent's host has answered that nothing listens on that port."""


class AgentClient:
    """One member's agent. Keeps its connections open."""

    def __init__(
        self,
        member: str,
        url: str,
        credentials: tls.Credentials | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._member = member
        self._clock = clock
        shown = (credentials or tls.Credentials()).to(url)
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Content-Type": "application/json"},
            auth=_Bearer(shown),
            verify=shown.verify,
            limits=httpx.Limits(keepalive_expiry=300),
            trust_env=False,
        )

    async def state(self, since: int | None, wait: float) -> StateReply:
        """Returns the state as soon as its version is not ``since``, at the latest after ``wait`` seconds.

        :raises AgentGone: nothing listens there; :raises Unreachable: no answer, or none that can be understood
        """
        params = {"wait": str(wait)} | ({"since": str(since)} if since is not None else {})
        timeout = httpx.Timeout(wait + GRACE_SECONDS, connect=CONNECT_SECONDS)
        try:
            response = await self._http.get("/v1/state", params=params, timeout=timeout)
            self._understood(response)
            return _STATE.validate_json(response.content)
        except (*FAILURES, ValidationError) as error:
            kind = AgentGone if _refused(error) else Unreachable
            raise kind(_why(error)) from None

    async def watch(
        self,
        since: int | None,
        wait: float,
        patience: float,
        grant: Grant | None,
        told: Told | None = None,
    ) -> StateReply:
        """As :meth:`state`, for the leading manager: answered within ``wait`` seconds, the heartbeat.

        :param patience: seconds after which it counts as not answering
        :param told: this manager, and the record by which it decides
        :raises AgentGone: nothing listens there; :raises Unreachable: else
        """
        asked = WatchRequest(since=since, wait=wait, grant=grant, told=told or Told())
        body = asked.model_dump_json()
        timeout = httpx.Timeout(patience, connect=min(CONNECT_SECONDS, patience))
        try:
            response = await self._http.post("/v1/watch", content=body, timeout=timeout)
            self._understood(response)
            return _STATE.validate_json(response.content)
        except (*FAILURES, ValidationError) as error:
            kind = AgentGone if _refused(error) else Unreachable
            raise kind(_why(error)) from None

    async def identity(self) -> Identity:
        """Returns the identity of the agent's member, as its files give it.

        :raises Unreachable: no answer, or none that can be understood
        """
        timeout = httpx.Timeout(2, connect=CONNECT_SECONDS)
        try:
            response = await self._http.get("/v1/identity", timeout=timeout)
            self._understood(response)
            return Identity.model_validate_json(response.content)
        except (*FAILURES, ValidationError) as error:
            raise Unreachable(f"agent of {self._member}: {_why(error)}") from None

    async def facts(self, counting: bool = True) -> Facts:
        """Returns what a check examines on the member's host, with the offset of its clock from this host's.

        :param counting: its tables, too
        :raises Unreachable: no answer, or none that can be understood
        """
        seconds = COUNTING_SECONDS if counting else FACTS_SECONDS
        path = f"/v1/facts?counting={str(counting).lower()}"
        reply = await self._inspected(path, FactsReply, seconds)
        return dataclasses.replace(reply.facts, clock_offset=reply.clock - self._clock.now())

    async def verification(self) -> dict[str, Any]:
        """Returns the result of its last verification; see ``agent/api/verify_api.py``.

        :raises Unreachable: no answer, or none that can be understood
        """
        try:
            response = await self._http.get("/v1/verification", timeout=FACTS_SECONDS)
            self._understood(response)
            return dict(response.json())
        except (*FAILURES, ValueError) as error:
            raise Unreachable(f"agent of {self._member}: {_why(error)}") from None

    async def record(self) -> RecordReply:
        """Returns what it remembers of the record.

        :raises Unreachable: no answer, or none that can be understood
        """
        return await self._inspected("/v1/record", RecordReply, 3.0)

    async def account(self, nonce: str = "") -> AccountReply:
        """:param nonce: for the mark of its administrative account
        :raises Unreachable: no answer, or none that can be understood
        """
        return await self._inspected(f"/v1/account?nonce={nonce}", AccountReply, 3.0)

    async def reach(
        self, host: str, port: int, public_key: str = "", term: int = 0, told: Told | None = None
    ) -> ReachReply:
        """Asks which server lets the member's replication account in at that address.

        :param public_key: of the server that should be there, as its agent says
        :param term, told: of this manager, where it leads
        :raises Unreachable: the agent gives no answer, or none that can be understood
        """
        asked = ReachRequest(
            host=host, port=port, public_key=public_key, term=term, told=told or Told()
        )
        return await self._inspected("/v1/reach", ReachReply, 8.0, asked)

    async def blockers(self, seconds: float) -> tuple[Blocker, ...]:
        """Returns transactions and statements that have been open there for ``seconds``, and table locks.

        :raises Unreachable: no answer, or none that can be understood
        """
        path = f"/v1/blockers?seconds={seconds:g}"
        return (await self._inspected(path, BlockersReply, BLOCKERS_SECONDS)).blockers

    async def _inspected(
        self, path: str, model: type[Reply], seconds: float, asked: BaseModel | None = None
    ) -> Reply:
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        method, body = ("POST", asked.model_dump_json()) if asked is not None else ("GET", None)
        try:
            response = await self._http.request(method, path, content=body, timeout=timeout)
            self._understood(response)
            return model.model_validate_json(response.content)
        except (*FAILURES, ValidationError) as error:
            raise Unreachable(f"agent of {self._member}: {_why(error)}") from None

    async def command(
        self,
        term: int,
        command: Command,
        grant: Grant | None = None,
        told: Told | None = None,
    ) -> CommandReply:
        """Have ``command`` carried out; the reply's ``fail`` raises the agent's error.

        :raises Unreachable: it was not sent; :raises OutcomeUnknown: no answer came
        """
        timeout = httpx.Timeout(answered_within(command), connect=CONNECT_SECONDS)
        body = CommandRequest.of(term, command, grant, told).model_dump_json()
        try:
            response = await self._http.post("/v1/command", content=body, timeout=timeout)
            self._understood(response)
            return _REPLY.validate_json(response.content)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"agent of {self._member}: {_why(error)}") from None
        except (*FAILURES, ValidationError) as error:
            if tls.refused_certificate(error):
                raise Unreachable(f"agent of {self._member}: {_why(error)}") from None
            what = f"agent of {self._member}: {command_name(command)}"
            raise OutcomeUnknown(f"{what}: {_why(error)}") from None

    def _understood(self, response: httpx.Response) -> None:
        if response.status_code == httpx.codes.UNAUTHORIZED:
            if "Authorization" not in response.request.headers:
                raise Unreachable(
                    "it wants a token, and the manager has none: set agent_token_file"
                )
            raise Unreachable("it does not accept the token: see agent_token_file")
        if response.status_code == httpx.codes.FORBIDDEN:
            raise Unreachable(f"it refuses: {_said(response)}")
        if response.is_error:
            raise Unreachable(_said(response) or f"it answers {response.status_code}")

    async def close(self) -> None:
        await self._http.aclose()


def _said(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]


def _refused(error: BaseException | None) -> bool:
    """Whether the host itself has answered that nothing listens on that port."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _why(error: Exception) -> str:
    if said := tls.explain(error):
        return said
    if isinstance(error, httpx.ConnectError):
        return "connection refused" if _refused(error) else "it cannot be reached"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, ValidationError):
        return "its answer cannot be understood; are agent and manager of the same version?"
    return str(error) or type(error).__name__
