"""What the manager's file says of where clients connect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from holdfast.config.values import Duration, Name, StrictModel

LONGEST_SOCKET_PATH = 107
"""In bytes: the kernel's limit."""


def split(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; brackets of an IPv6 address stay."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def _listening(text: str) -> str:
    host, _, port = text.rpartition(":")
    if (
        not host
        or not port.isdecimal()
        or not 1 <= int(port) <= 65535
        or set(text) & set(" \t#'\"")
    ):
        raise ValueError("must be HOST:PORT, or *:PORT for every address of that host")
    return text


def _reached(text: str) -> str:
    if text.startswith("*"):
        raise ValueError("must name a host")
    return _listening(text)


def _socket(text: str) -> str:
    if not text.startswith("/"):
        return _reached(text)
    if len(text.encode()) > LONGEST_SOCKET_PATH or set(text) & set(" \t#'\"\\"):
        raise ValueError(f"must be at most {LONGEST_SOCKET_PATH} bytes, without blanks and quotes")
    return text


Listening = Annotated[str, AfterValidator(_listening)]
Reached = Annotated[str, AfterValidator(_reached)]
Socket = Annotated[str, AfterValidator(_socket)]
Patience = Annotated[Duration, Field(ge=0.1, le=3600)]


class HaproxyConfig(StrictModel):
    """One HAProxy.

    :ivar socket: its runtime API as the manager reaches it: the path of a socket, or ``HOST:PORT``
    :ivar name: for people; "" stands for ``socket``
    :ivar write: where it takes connections that write; :ivar read: those that only read
    :ivar wait: for how long a connection waits for a server while none takes writes
    :ivar max_lag: a replica that is further behind gets no readers
    """

    socket: Socket
    name: Name | Literal[""] = ""
    write: Listening | None = None
    read: Listening | None = None
    wait: Patience = 10.0
    max_lag: Patience = 2.0

    @property
    def called(self) -> str:
        return self.name or self.socket


class EndpointsConfig(StrictModel):
    """The endpoints of one cluster.

    :ivar checks_port: where every agent answers checks, on its member's host
    :ivar checks: ``HOST:PORT`` by member, where that is another address
    """

    checks_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    checks: Mapping[Name, Reached] = {}
    haproxy: tuple[HaproxyConfig, ...] = ()

    @model_validator(mode="after")
    def _distinct(self) -> EndpointsConfig:
        for key in ("socket", "called"):
            values = [getattr(each, key) for each in self.haproxy]
            if twins := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"haproxy: {twins[0]!r} is there twice")
        return self
