"""Reads another agent's answer line by line in a separate thread, so that waiting for it can be cancelled at once.

A peer whose host is frozen sends nothing, and a read of its socket waits for seconds. A failover must not.
"""

from __future__ import annotations

import contextlib
import json
import queue
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from holdfast.agent.runtime.job import Job
from holdfast.errors import HoldfastError, Refused, Unreachable
from holdfast.tls import Credentials, explain

SILENT_SECONDS = 5.0
"""The other agent sends something four times a second."""
LOOK_SECONDS = 0.01
"""How often cancellation is checked."""

Answer = dict[str, Any] | HoldfastError


@contextlib.contextmanager
def answers_of(
    job: Job, agent: str, path: str, shown: Credentials, asked: Mapping[str, Any]
) -> Iterator[Iterator[dict[str, Any]]]:
    """Yield each line of the answer. Leaving the context makes the other agent cancel its work.

    Reading them raises :class:`CalledOff`; :class:`Refused`, as the other agent did; or :class:`Unreachable`, also
    where the answer ends too early.
    """
    found: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    left = threading.Event()
    reader = threading.Thread(
        target=_read,
        args=(f"{agent}{path}", shown, dict(asked), found, left),
        name="answers of a peer",
        daemon=True,
    )
    reader.start()
    try:
        yield _lines(job, found)
    finally:
        left.set()


def _lines(job: Job, found: queue.SimpleQueue[Answer]) -> Iterator[dict[str, Any]]:
    while True:
        job.check()
        try:
            answer = found.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            continue
        if isinstance(answer, HoldfastError):
            raise answer
        if "error" in answer:
            raise Refused(f"the primary: {answer['error']}")
        yield answer


def _read(
    url: str,
    shown: Credentials,
    asked: dict[str, Any],
    found: queue.SimpleQueue[Answer],
    left: threading.Event,
) -> None:
    timeout = httpx.Timeout(SILENT_SECONDS)
    try:
        with (
            httpx.Client(
                headers=shown.headers, verify=shown.verify, timeout=timeout, trust_env=False
            ) as http,
            http.stream("POST", url, json=asked) as response,
        ):
            if response.is_error:
                found.put(Refused(f"{url} answers {response.status_code}"))
                return
            for line in response.iter_lines():
                if left.is_set():
                    return
                if line.strip():
                    found.put(json.loads(line))
        found.put(Unreachable("the primary's agent ended in the middle of its answer"))
    except (httpx.TransportError, ssl.SSLError, ValueError) as error:
        found.put(Unreachable(f"{url}: {explain(error) or error or type(error).__name__}"))
