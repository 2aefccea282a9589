"""An application behind the listener of agents and managers, in a thread, as they run it."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from holdfast.core.answers.access import AccessRole
from holdfast.http.serving import REQUEST_SECONDS, HttpServer, Protocol, listening
from holdfast.tls import Files, authority

TOKEN = "t0ken-of-those-who-may"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
"""The headers of a request where there is no TLS."""


@contextmanager
def served(
    app: Any, context: ssl.SSLContext | None = None, request_seconds: float = REQUEST_SECONDS
) -> Iterator[int]:
    """The port on loopback."""

    class Hurried(Protocol):
        pass

    Hurried.request_seconds = request_seconds
    http = HttpServer(app, context, Hurried)

    async def serve(listener: Any) -> None:
        await http.serve(sockets=[listener.dup()])

    def run(listener: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(listener))

    with listening("127.0.0.1:0") as listener:
        thread = threading.Thread(target=run, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            http.should_exit = True
            thread.join()


class Authority:
    """A CA in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority.make_ca(folder, "test")

    def files(
        self,
        name: str,
        *hosts: str,
        force: bool = False,
        roles: Collection[AccessRole] = (AccessRole.AGENT, AccessRole.MANAGER, AccessRole.ADMIN),
        clusters: Sequence[str] = ("*",),
    ) -> Files:
        """By default with all rights."""
        authority.issue(
            self.folder, name, hosts, force=force, roles=tuple(roles), clusters=clusters
        )
        return Files(
            authority.ca_cert(self.folder), self.folder / f"{name}.pem", self.folder / f"{name}.key"
        )
