"""Reports changes of keys below a prefix: a watch at etcd, in a thread of its own, started again whenever it ends."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from holdfast.errors import HoldfastError
from holdfast.store.gateway import Gateway, failed_frame
from holdfast.store.wording import get, get_all, text

SILENCE_SECONDS = 10.0
"""Seconds after which a silent watch is started again: its etcd member may be gone without having closed the
connection."""
PAUSE_SECONDS = 0.2

logger = logging.getLogger(__name__)


class Watcher:
    """:param told: called in the watcher's thread with each key that changed; with "" if some changes may have been
    missed"""

    def __init__(self, gateway: Gateway, prefix: str, told: Callable[[str], None]) -> None:
        self._gateway = gateway
        self._prefix = prefix
        self._told = told
        self._ended = threading.Event()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="etcd watch", daemon=True)
                self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is None:
            return
        while self._thread.is_alive():
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it has already ended
                    # not the method of a TLS socket, which must not be used by two threads
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            self._thread.join(PAUSE_SECONDS)

    def _run(self) -> None:
        while not self._ended.is_set():
            endpoint = self._gateway.order()[0]
            try:
                self._follow(endpoint)
            except httpx.ReadTimeout:
                continue
            except (httpx.HTTPError, HoldfastError, ValueError, RuntimeError) as error:
                if self._ended.is_set():
                    return
                logger.debug("etcd: the watch at %s ended: %r", endpoint, error)
                self._gateway.shun(endpoint)
            except Exception:
                # a watch is a hint only: without it everything is noticed later
                logger.exception("the etcd watch failed")
            self._gateway.clock.wait(self._ended, PAUSE_SECONDS)

    def _follow(self, endpoint: str) -> None:
        body = {"create_request": get_all(self._prefix)}
        with self._gateway.stream(endpoint, "watch", body, SILENCE_SECONDS) as reply:
            if reply.status_code != httpx.codes.OK:
                self._gateway.renew_token(self._gateway.token)
                self._gateway.ask("kv/range", get(self._prefix))
                raise ValueError(f"it answers {reply.status_code}")
            with self._listening(reply):
                for line in reply.iter_lines():
                    if line.strip():
                        self._take(json.loads(line))

    @contextlib.contextmanager
    def _listening(self, reply: httpx.Response) -> Iterator[None]:
        stream = reply.extensions.get("network_stream")
        self._socket = stream.get_extra_info("socket") if stream else None
        try:
            yield
        finally:
            self._socket = None

    def _take(self, frame: Mapping[str, Any]) -> None:
        result = frame.get("result", {})
        if failed_frame(frame) or result.get("canceled"):
            raise ValueError(failed_frame(frame) or str(result.get("cancel_reason", "canceled")))
        if result.get("created"):
            self._told("")
        for event in result.get("events", ()):
            self._told(text(event["kv"]["key"]))
