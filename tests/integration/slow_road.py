"""A path to a server on which bytes can be delayed: MySQL's own limit of a copy lets the first 0.1 s through, which may
be the whole copy."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, suppress

from tests.integration.ports import free_ports

PIECE_BYTES = 64 * 1024
LOOK_SECONDS = 0.2


class SlowRoad:
    """Listens on ``port``, and forwards everything to the server behind it until it is closed.

    :ivar rate: bytes a second from the server, also of connections that exist already
    """

    def __init__(self, server_port: int, rate: int) -> None:
        self.rate = rate
        self._server_port = server_port
        self._ports = ExitStack()
        (self.port,) = self._ports.enter_context(free_ports(1))
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.settimeout(LOOK_SECONDS)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow road", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._listener.close()
        self._ports.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            with suppress(OSError):
                client, _ = self._listener.accept()
                client.settimeout(None)
                try:
                    server = socket.create_connection(("127.0.0.1", self._server_port))
                except OSError:
                    client.close()
                    continue
                for way in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass_on, args=way, daemon=True).start()

    def _pass_on(self, come: socket.socket, go: socket.socket, slowly: bool) -> None:
        with suppress(OSError):
            while piece := come.recv(PIECE_BYTES):
                go.sendall(piece)
                if slowly:
                    time.sleep(len(piece) / self.rate)
        for end in (come, go):  # both ways: neither server continues without the other
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
