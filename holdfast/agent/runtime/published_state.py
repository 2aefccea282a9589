"""The state that the agent publishes, and the number by which a long poll sees that it changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.observed.lineage import RecordMark
from holdfast.core.observed.progress import Position
from holdfast.core.observed.tally import Tally
from holdfast.core.view import LookFailure, MemberState

SILENCE = (0.3, 0.05)
"""The silence from which the silence of a server or its source is published, and the steps in which it is."""


class PublishedState:
    """One member's present state. Threads of the agent write it, the event loop reads it.

    The version starts at the time of day, so a number that a former agent used does not occur again.

    :ivar on_change: called, in the thread that made the change, after each new version; :ivar heeding: before it
    :ivar blocked_seconds: for how long commits have waited for acknowledgements, or would wait, without any release
    :ivar clock: of this agent: its parts that publish go by it
    :ivar as_of_now: fills in what changes with time alone, whenever the state is read
    """

    def __init__(self, state: MemberState, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.on_change: Callable[[], None] = lambda: None
        self.heeding: list[Callable[[], None]] = []
        self.as_of_now: Callable[[MemberState], MemberState] = lambda state: state
        self.blocked_seconds = 0.0
        self._failed = ""
        self._alarms: dict[str, str] = {}
        self._concerns: dict[str, str] = {}
        self._lock = threading.Lock()
        self._seen = (state, int(clock.now() * 1000))

    @property
    def state(self) -> MemberState:
        return self._seen[0]

    @property
    def version(self) -> int:
        return self._seen[1]

    def seen(self) -> tuple[MemberState, int]:
        """State and version that belong together."""
        state, version = self._seen
        return self.as_of_now(state), version

    def blocked(self) -> float:
        return self.blocked_seconds

    @property
    def lasting(self) -> str:
        """The reason to return to once the server is well: the last job's error, and what else is wrong."""
        return "; ".join(each for each in (self._failed, *self._alarms.values()) if each)

    @lasting.setter
    def lasting(self, failed: str) -> None:
        self._failed = failed

    def alarm(self, what: str, reason: str) -> None:
        """Something besides the server is wrong, or (``reason`` is "") no longer."""
        before = self.lasting
        self._alarms[what] = reason
        if self.state.reason == before:
            self.change(reason=self.lasting)

    def concern(self, what: str, text: str) -> None:
        """An operator should attend to something, or (``text`` is "") no longer; the member is well nevertheless."""
        with self._lock:
            if self._concerns.get(what, "") == text:
                return
            self._concerns[what] = text
            found = tuple(each for _, each in sorted(self._concerns.items()) if each)
        self.change(concerns=found)

    def change(self, *, during: str | None = None, **fields: Any) -> bool:
        """Replace fields of the state.

        :param during: change it only while this incarnation is the present one: what was learned of a server that has
            died meanwhile is void :returns: whether it was changed
        """
        # the fields that describe a text are replaced with it
        if "reason" in fields:
            fields.setdefault("lasted", 0.0)
        if "unobserved" in fields:
            fields.setdefault("look_failure", LookFailure.OTHER)
        with self._lock:
            before, version = self._seen
            if during is not None and before.incarnation != during:
                return False
            after = replace(before, **fields)
            changed = _worth_telling(after) != _worth_telling(before)
            self._seen = (after, version + changed)
        if changed:
            for tell in (*self.heeding, self.on_change):
                tell()
        return True


def _worth_telling(state: MemberState) -> MemberState:
    """The state without what changes all the time: positions, lag, waiting clients, and the age of the last answer,
    except for steps of silence.

    What a command alone changes is left out as well (``busy``, what was promised, proven and remembered): its manager
    gets that with the answer, and a look in between would make no failover quicker. Of ``progress`` only the kind is
    kept.
    """
    progress, applying = state.progress, state.applying
    return replace(
        state,
        received="",
        applied="",
        busy="",
        term=0,
        leader="",
        promised=0,
        proved=0,
        record=RecordMark(),
        written=Position(),
        silent_seconds=_steps(state.silent_seconds),
        unobserved_seconds=0.0,
        applying=replace(applying, seconds=0.0, stalled=float(int(applying.stalled))),
        progress=progress and replace(progress, done=0, total=0, rate=0.0),
        replication=replace(
            state.replication,
            lag_seconds=None,
            fetched=Position(),
            executed=Position(),
            unheard=_steps(state.replication.unheard),
        ),
        semi_sync=replace(state.semi_sync, waiting=0, tally=Tally()),
        lasted=0.0,
    )


def _steps(silence: float) -> int:
    """Rounded down: a step is published once it is over."""
    begin, step = SILENCE
    return int(silence / step + 1e-6) if silence >= begin else 0
