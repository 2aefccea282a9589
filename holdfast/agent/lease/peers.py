"""Asks other agents to vouch. Nothing here may delay the caller: each peer is asked in a separate thread."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from pydantic import ValidationError

from holdfast.http.wire import VouchReply, VouchRequest
from holdfast.tls import Credentials

LARGEST_ANSWER_BYTES = 64 * 1024


class Answer(Enum):
    """NOBODY_THERE: the peer's host says that no agent runs there. Silence says nothing."""

    VOUCHED = auto()
    DECLINED = auto()
    NOBODY_THERE = auto()


Answered = Callable[[str, Answer], None]
"""Called with the name of each peer that answers, and its answer."""


@dataclass(frozen=True, slots=True)
class _Round:
    peers: Mapping[str, str]
    request: VouchRequest
    patience: float
    answered: Answered


class Peers:
    """The other agents. Their hosts' addresses are looked up ahead of time: a name server that is lost with the network
    must not cost a healthy primary its lease.
    """

    def __init__(self, shown: Credentials) -> None:
        # a context that is made for each connection would read files: the disk may be what is stuck
        self._context = shown.context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._shown = shown
        self._addresses: dict[str, str] = {}
        self._work: queue.SimpleQueue[_Round | Mapping[str, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="peers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._work.put(None)

    def show(self, token: str | None) -> None:
        """Use another token from now on."""
        self._shown = replace(self._shown, token=token)

    def know(self, peers: Mapping[str, str]) -> None:
        """Resolve ahead the URLs of peers that may be asked later. Never blocks."""
        self._work.put(dict(peers))

    def ask(
        self, peers: Mapping[str, str], request: VouchRequest, patience: float, answered: Answered
    ) -> None:
        """Ask all of them at once. Never blocks.

        :param patience: seconds to wait for a connection, and for an answer
        :param answered: called in a thread of that peer
        """
        self._work.put(_Round(dict(peers), request, patience, answered))

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            if isinstance(work, _Round):
                for name, url in work.peers.items():
                    self._beside(self._ask, name, url, work)
            else:
                for url in work.values():
                    self._beside(self._resolve, url)

    def _beside(self, work: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, name="ask peer", daemon=True).start()

    def _ask(self, name: str, url: str, work: _Round) -> None:
        try:
            vouched = self._answer(url, work).vouched
            work.answered(name, Answer.VOUCHED if vouched else Answer.DECLINED)
        except ConnectionRefusedError:
            work.answered(name, Answer.NOBODY_THERE)
            self._resolve(url)
        except (OSError, HTTPException, ValidationError):
            self._resolve(url)  # no answer; another address may be the right one next time

    def _answer(self, url: str, work: _Round) -> VouchReply:
        """Use a new connection for each question: an old one may lead to a host that no longer exists."""
        host = urlsplit(url).hostname or ""
        connection = self._connection(url, work.patience)
        try:
            connection.sock = self._socket(connection, self._addresses.get(host, host))
            body = work.request.model_dump_json()
            headers = {"Content-Type": "application/json", **self._shown.headers}
            connection.request("POST", "/v1/vouch", body, headers)
            response = connection.getresponse()
            return VouchReply.model_validate_json(response.read(LARGEST_ANSWER_BYTES))
        finally:
            connection.close()

    def _resolve(self, url: str) -> None:
        host = urlsplit(url).hostname or ""
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        self._addresses[host] = str(found[0][4][0])

    def _connection(self, url: str, patience: float) -> HTTPConnection:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return HTTPSConnection(host, parts.port, timeout=patience, context=self._context)
        return HTTPConnection(host, parts.port, timeout=patience)

    def _socket(self, connection: HTTPConnection, address: str) -> socket.socket:
        found = socket.create_connection((address, connection.port), connection.timeout)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not isinstance(connection, HTTPSConnection):
            return found
        return self._context.wrap_socket(found, server_hostname=connection.host)
