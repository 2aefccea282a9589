"""Follows a manager's events as they happen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.http.manager_client import ManagerClient

WAIT_SECONDS = 2.0
RETRY_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """As ``manager/leader/events.py`` has it; ``text`` is only shown.

    :ivar at: Unix seconds
    :ivar steps: milliseconds of each part of the work, in order
    :ivar ms: of the whole, where it was work
    :ivar command: of a command: its name
    :ivar named: the record names another primary, ``member``
    :ivar ended: which of failover, switchover and restart is over, or ""
    :ivar admitted, dismissed: members that vote from now on, or no more
    :ivar settled: a change of voters is complete
    """

    at: float
    kind: str
    text: str
    member: str = ""
    steps: dict[str, float] = field(default_factory=dict)
    ms: float | None = None
    command: str = ""
    named: bool = False
    ended: str = ""
    admitted: tuple[str, ...] = ()
    dismissed: tuple[str, ...] = ()
    settled: bool = False

    @property
    def name(self) -> str:
        """A command by its name, everything else by its kind."""
        return self.command if self.kind == "command" else self.kind

    @classmethod
    def of(cls, wire: dict[str, Any]) -> SeenEvent:
        change = wire["change"] or {}
        return cls(
            at=float(wire["at"]),
            kind=str(wire["kind"]),
            text=str(wire.get("text") or ""),
            member=str(wire.get("member") or ""),
            steps={str(name): float(ms) for name, ms in (wire.get("steps") or {}).items()},
            ms=float(wire["ms"]) if wire.get("ms") else None,
            command=str(wire["command"]),
            named=bool(change.get("named")),
            ended=str(change.get("ended") or ""),
            admitted=tuple(change.get("admitted", ())),
            dismissed=tuple(change.get("dismissed", ())),
            settled=bool(change.get("settled")),
        )


class Follower:
    """Collects events in a separate thread; a manager that is away for a while is asked again.

    :param pause: seconds before it asks again, so that a busy manager is not asked all the time
    """

    def __init__(
        self,
        client: ManagerClient,
        cluster: str,
        listener: Callable[[SeenEvent], None] = lambda event: None,
        pause: float = 0.0,
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._listener = listener
        self._pause = pause
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="events", daemon=True)
        self._since = 0
        self._begun = 0.0
        self.events: list[SeenEvent] = []

    def start(self) -> None:
        """Follow from now on: earlier events are left out."""
        self._begun = time.time()
        self._since = max(
            (int(each["id"]) for each in self._client.events(self._cluster, 0, 0.0)), default=0
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop. The thread ends by itself, and closes the client, when its request has been answered."""
        self._stopped.set()

    def _follow(self) -> None:
        try:
            self._listen()
        finally:
            self._client.close()

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                found = self._client.events(self._cluster, self._since, WAIT_SECONDS)
            except HoldfastError:
                self._stopped.wait(RETRY_SECONDS)
                self._since = 0  # the next manager's numbers start anew
                continue
            for wire in found:
                self._since = max(self._since, int(wire["id"]))
                event = SeenEvent.of(wire)
                if event.at >= self._begun and event not in self.events:
                    self.events.append(event)
                    self._listener(event)
            self._stopped.wait(self._pause)
