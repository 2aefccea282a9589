"""Observes the server a few times a second, and at once when poked, in a separate thread.

A look costs the server about a millisecond. While something may be wrong, looks follow each other quickly: the silence
of a server or a source must be known on time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from holdfast.agent.observe.applying import ApplierWatch
from holdfast.agent.observe.binlog_end import BinlogEnd
from holdfast.agent.observe.freeing import PromotionFreeing
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.observe.slots import Slots
from holdfast.agent.observe.source_silence import Hearing
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.observed.applying import REMOVED
from holdfast.core.view import (
    SHUTS_DOWN,
    LookFailure,
    MemberState,
    Receiver,
    Replication,
    ServerStatus,
)
from holdfast.errors import HoldfastError, Unreachable
from holdfast.log import say
from holdfast.server.base import (
    Crowded,
    Deadline,
    NotListening,
    Observation,
    Server,
    SocketGone,
)
from holdfast.server.connection.sql import keeps_out
from holdfast.server.process.process import Running

EVERY_SECONDS = (0.05, 0.25)
"""Minimum and maximum time between two looks at a server that is up."""
STARTING_EVERY_SECONDS = 0.025
DOWN_EVERY_SECONDS = 1.0
"""How often the agent looks for a server that it did not start itself."""
OBSERVE_SECONDS = 1.0
SILENT_SECONDS = 0.3
"""A server that has answered nothing for so long is reported as silent."""
TOLD_SECONDS = 1.0
"""A start that lasts so long is reported."""
UNDER_WAY_SECONDS = 0.2
"""A look may take so long before its wait counts as silence: this host may just be busy."""
LISTEN_EVERY_SECONDS = 0.05
"""How often the agent checks whether a look is taking too long."""

_REMOVED = f"{REMOVED}: make another member primary (holdfast switchover), then its data is replaced by a copy"
HELD_UP_SECONDS = 10.0
"""An applier is reported when it has finished nothing for so long, with something left: longer transactions are
rare."""
_HELD_UP = (
    "its applier has finished nothing for a while, and something is left: a lock is held there, or it applies a long "
    "transaction; until it continues, reads there are behind, and taking over would wait for it"
)
_SHARED = {f.name for f in fields(Observation)} & {f.name for f in fields(MemberState)}

logger = logging.getLogger(__name__)


class ServerObserver:
    """Keeps the published state up to date.

    :ivar every_seconds: between two looks; kept within bounds, and less while the source of a replica is silent
    :ivar on_look: called with each look, and when it began, before it is published; :ivar on_lost: with the error of
        one that failed, while the server runs
    :ivar freeing: ends sessions that hold a promotion up
    :ivar on_down: called now and then while no server runs
    :ivar on_answer: called while a server is starting, when it has answered; raises where it must not be seen as up
    :ivar holds_applier: whether the applier was stopped on purpose, and will continue by itself: it is reported as
        running
    """

    def __init__(
        self, server: Server, server_run: ServerRun, published: PublishedState, binlog_index: Path
    ) -> None:
        self.on_look: list[Callable[[Observation, float], None]] = []
        self.on_lost: Callable[[HoldfastError], None] = lambda error: None
        self.holds_applier: Callable[[], bool] = lambda: False
        self.on_down: list[Callable[[], None]] = []
        self.on_answer: list[Callable[[Running, Deadline], None]] = []
        self._server = server
        self._server_run = server_run
        self._published = published
        self._clock = published.clock
        self._binlog = BinlogEnd(binlog_index)
        self._hearing = Hearing()
        self._appliers = ApplierWatch(published.state.flavor)
        self.freeing = PromotionFreeing(server, published.clock)
        self._slots = Slots(server, published)
        self.every_seconds = EVERY_SECONDS[-1]
        self._poked = threading.Event()
        self._looking = threading.Lock()
        self._answered_at = self._looked_at = self._clock.monotonic()
        self._asked_at: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observe", daemon=True)
        self._listener = threading.Thread(target=self._listen, name="silence", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._listener.start()

    def stop(self) -> None:
        self._stopped.set()
        self._poked.set()
        self._thread.join(OBSERVE_SECONDS + 0.5)
        self._listener.join(0.5)

    def poke(self) -> None:
        """Have the next look made now."""
        self._poked.set()

    def data_replaced(self) -> None:
        """By a copy."""
        self._appliers.replaced(self._clock.monotonic())

    def look(self) -> None:
        """Observe and publish. The result contains nothing that was true only before this was called.

        :raises Unreachable: when the server does not answer; what was known of it stays, with the reason
        """
        # one at a time: an older look must not overwrite a newer one
        with self._looking:
            running = self._server_run.current()
            if running is None:
                return
            state = self._published.state
            begun = self._clock.monotonic()
            self._asked_at = self._asked_at or begun
            try:
                if state.server is not ServerStatus.UP:
                    self._server.ping(self._deadline(running))
                    for each in self.on_answer:
                        each(running, self._deadline(running))
                found = self._server.observe(self._deadline(running))
            except HoldfastError as error:
                if running.alive:
                    self.on_lost(error)
                raise self._unanswered(running.incarnation, error) from error
            self._answered_at, self._asked_at = self._clock.monotonic(), None
            self._looked_at = self._answered_at
            found = replace(found, replication=self._replication(begun, found))
            for told in self.on_look:
                told(found, begun)
            written = self._binlog.look()
            applying = self._appliers.seen(found, self._clock.monotonic(), bool(written.file))
            serves = found.writable or found.semi_sync.source
            self._published.concern("binlog", _REMOVED if applying.removed and serves else "")
            held_up = applying.stalled >= HELD_UP_SECONDS
            self._published.concern("applier", _HELD_UP if held_up else "")
            self._published.change(
                during=running.incarnation,
                server=ServerStatus.UP,
                silent_seconds=0.0,
                unobserved="",
                unobserved_seconds=0.0,
                written=written,
                applying=applying,
                reason=self._published.lasting,
                **{name: getattr(found, name) for name in _SHARED},
            )
        if state.server is not ServerStatus.UP:
            say(logger, "the server is up", version=found.version)

    def note(self, during: str, **found: Any) -> None:
        """Publish what a command itself has found out, in place of a look: no older look overwrites it."""
        with self._looking:
            self._published.change(during=during, **found)

    def _deadline(self, running: Running) -> Deadline:
        """A dying server's connections stay open: nothing but this deadline ends the wait for it."""
        return Deadline(
            OBSERVE_SECONDS, lambda: self._server_run.current() is not running, self._clock
        )

    def appeared(self) -> None:
        """A run of the server begins; its silence is counted from here."""
        self._answered_at, self._asked_at = self._clock.monotonic(), None
        self._looked_at = self._answered_at
        self.poke()

    def _replication(self, begun: float, found: Observation) -> Replication:
        seen = found.replication
        return replace(
            seen,
            unheard=self._hearing.heard(begun, self._answered_at, seen, found.traces),
            applier=seen.applier or self.holds_applier(),
        )

    def _unanswered(self, incarnation: str, error: Exception) -> Unreachable:
        if isinstance(error, Crowded):
            return self._crowded(incarnation, error)
        if self._server_run.see_dying():
            return Unreachable(f"{self._published.state.why}: {error}")
        if isinstance(error, SocketGone) or keeps_out(error):
            return self._kept_out(incarnation, str(error))
        if isinstance(error, NotListening) and self._published.state.server is ServerStatus.UP:
            return self._shuts_down(incarnation, error)
        silent = self._clock.monotonic() - self._answered_at
        starting = self._published.state.server is ServerStatus.STARTING
        reason = "starting" if starting else "no answer from the server"
        said = f"{reason} for {silent:.1f} s"
        if starting and silent < TOLD_SECONDS:
            reason, silent, said = "", 0.0, "the server is starting"
        ended = self._server_run.current() is None
        if self._published.state.reason == "" and not starting and not ended:
            say(logger, "no answer from the server", logging.WARNING, error=error)
        self._published.change(during=incarnation, reason=reason, lasted=silent)
        return Unreachable(f"{said}: {error}")

    def _crowded(self, incarnation: str, error: Crowded) -> Unreachable:
        """The server lives and answers connected clients, but cannot be observed: a session of the agent's was lost."""
        self._answered_at, self._asked_at = self._clock.monotonic(), None
        reason = f"the server takes no more connections, not even those of its agent: {error}"
        if self._published.state.reason == "":
            say(logger, reason, logging.WARNING)
        since = round(self._clock.monotonic() - self._looked_at, 1)
        fields: dict[str, object] = {
            "reason": reason,
            "silent_seconds": 0.0,
            "unobserved_seconds": since,
        }
        if self._published.state.server is not ServerStatus.UP:  # nothing is known of it yet
            fields["unobserved"] = reason
        self._published.change(during=incarnation, **fields)
        return error

    def _kept_out(self, incarnation: str, why: str) -> Unreachable:
        """The server lives, but no longer lets its agent log in: what is known of it is as old as the last look."""
        now = self._clock.monotonic()
        self._answered_at, self._asked_at = now, None
        if self._published.state.unobserved != why:
            say(logger, f"the server cannot be queried: {why}", logging.WARNING)
        self._published.change(
            during=incarnation,
            silent_seconds=0.0,
            unobserved=why,
            unobserved_seconds=round(now - self._looked_at, 1),
            reason=f"its agent cannot query it: {why}",
        )
        return Unreachable(why)

    def _shuts_down(self, incarnation: str, error: NotListening) -> Unreachable:
        """The server's clients have lost their sessions, and it accepts no new ones: it is open no more."""
        if not self._published.state.unobserved:
            say(logger, SHUTS_DOWN, logging.WARNING)
        self._published.change(
            during=incarnation,
            writable=False,
            unobserved=SHUTS_DOWN,
            look_failure=LookFailure.SHUTS_DOWN,
            unobserved_seconds=round(self._clock.monotonic() - self._looked_at, 1),
            reason=SHUTS_DOWN,
        )
        return error

    def _listen(self) -> None:
        """Report that the server is silent while a look still waits for it; not of a server that is starting."""
        while not self._clock.wait(self._stopped, LISTEN_EVERY_SECONDS):
            self._tell_silence()

    def _tell_silence(self) -> None:
        asked, state = self._asked_at, self._published.state
        now = self._clock.monotonic()
        looked_for = state.server is ServerStatus.UP or state.unobserved
        if asked is None or now - asked < UNDER_WAY_SECONDS or not looked_for:
            return
        silent = round(now - self._answered_at, 2)
        if silent >= SILENT_SECONDS and self._asked_at is not None:
            self._published.change(during=state.incarnation, silent_seconds=silent)

    def _run(self) -> None:
        complaint = ""
        while not self._stopped.is_set():
            try:
                if self._server_run.look() is not None:
                    self.look()
                    self.freeing.looked()
                    self._slots.looked()
                else:
                    for each in self.on_down:
                        each()
                complaint = ""
            except HoldfastError as error:
                complaint = self._complain(error, complaint)
            # the loop must not end: without it the server is not observed
            except Exception as error:
                if str(error) != complaint:
                    logger.exception("looking at the server failed")
                complaint = str(error)
                self._published.change(reason=f"looking at the server failed: {error!r}")
            self._clock.wait(self._poked, self._pause())
            self._poked.clear()

    def _complain(self, error: HoldfastError, before: str) -> str:
        """Log an error once. An unanswered look has been published already."""
        if isinstance(error, Unreachable) or str(error) == before:
            return before
        say(logger, str(error), logging.WARNING)
        self._published.change(reason=str(error))
        return str(error)

    def _pause(self) -> float:
        """The time until the next look. A receiver that was just started connects within milliseconds, and a switchover
        waits until that is seen; if the receiver keeps connecting, its source is silent.
        """
        state = self._published.state
        match state.server:
            case ServerStatus.STARTING:
                return STARTING_EVERY_SECONDS
            case ServerStatus.UP:
                least, most = EVERY_SECONDS
                every = min(max(self.every_seconds, least), most)
                connects = state.replication.receiver is Receiver.CONNECTING
                return least if connects or self._hearing.unheard >= every else every
            case _:
                return DOWN_EVERY_SECONDS
