"""Several managers and one store in memory, which the test controls."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.record import Record
from holdfast.errors import Conflict, Unreachable
from holdfast.store.base import LeadershipCandidate, Stored, StoredEntry, StoredSettings


@dataclass
class Led:
    who: LeadershipCandidate
    lost: Callable[[], None]
    until: float = math.inf
    alone_from: float = -math.inf


@dataclass
class MemoryStore:
    """:ivar down: it answers nothing
    :ivar led: the leading manager
    :ivar heir: the only manager that may get the leadership, or ""
    :ivar lasts: seconds for which a leadership is valid without confirmation; :ivar clock: they are its
    :ivar history: which managers led, in order
    """

    down: bool = False
    led: Led | None = None
    heir: str = ""
    lasts: float = math.inf
    clock: Clock = SYSTEM_CLOCK
    history: list[str] = field(default_factory=list)
    known: dict[str, LeadershipCandidate] = field(default_factory=dict)
    record: Record | None = None
    version: int = 0
    watchers: list[Callable[[], None]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, cluster: str) -> Stored:
        self._up()
        return Stored(self.record, self.version)

    def replace(self, cluster: str, record: Record, expected: int) -> int:
        self._up()
        with self.lock:
            if self.version != expected:
                raise Conflict(cluster, expected)
            self.record, self.version = record, expected + 1
        self.tell()
        return self.version

    def settings(self, cluster: str) -> StoredSettings:
        self._up()
        return StoredSettings()

    def replace_settings(self, cluster: str, document: Mapping[str, Any], expected: int) -> int:
        raise NotImplementedError

    def entries(self, cluster: str, most: int) -> tuple[StoredEntry, ...]:
        raise NotImplementedError

    def entry(self, cluster: str, number: int) -> StoredEntry | None:
        raise NotImplementedError

    def write_entry(self, cluster: str, number: int, body: str, expected: int) -> int:
        raise NotImplementedError

    @contextmanager
    def lead(
        self, cluster: str, who: LeadershipCandidate, lost: Callable[[], None] = lambda: None
    ) -> Iterator[Led | None]:
        self._up()
        with self.lock:
            self.known[who.name] = who
            free = self.led is None and self.heir in ("", who.name)
            mine = Led(who, lost, self.clock.monotonic() + self.lasts) if free else None
            if mine:
                self.led = mine
                self.history.append(who.name)
        try:
            yield mine
        finally:
            if mine and self.led is mine:
                self.led = None
                self.tell()

    def take_away(self, heir: str = "") -> None:
        """As when the store has given it to another manager.

        :param heir: that manager; without one, the first that asks
        """
        self.heir = heir
        led, self.led = self.led, None
        assert led
        led.until = -math.inf
        led.lost()

    def leader(self, cluster: str) -> LeadershipCandidate | None:
        self._up()
        return self.led.who if self.led else None

    def candidates(self, cluster: str) -> tuple[LeadershipCandidate, ...]:
        self._up()
        return tuple(self.known.values())

    @contextmanager
    def watch(self, cluster: str, changed: Callable[[], None]) -> Iterator[None]:
        self.watchers.append(changed)
        yield
        self.watchers.remove(changed)

    def close(self) -> None:
        pass

    def _up(self) -> None:
        if self.down:
            raise Unreachable("the store does not answer")

    def tell(self) -> None:
        for each in list(self.watchers):
            each()
