"""Confirms to the agent of the primary that this member follows it, and has promised no other term.

From the moment a promise is requested this member does not vouch, until the promise has failed, or the member was
ordered to follow again and does so. So once enough members have promised, nobody vouches for the primary; and the
answer to the promise says for how long the primary may still rely on an earlier confirmation.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path

from holdfast.agent.disk.term import replace_durably
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.lease import Asked
from holdfast.core.timing import Timing, relied_on
from holdfast.core.view import MemberState, Receiver
from holdfast.errors import Fatal
from holdfast.http.wire import VouchReply, VouchRequest

LONGEST_SECONDS = 60.0
"""Maximum duration of one confirmation."""


class Vouch:
    """Safe for several threads; never waits for a disk.

    Confirmations are not kept on disk: an agent that starts assumes that it gave one just before, for the longest time
    that was ever requested. That time is on disk before a confirmation is given for as long.
    """

    def __init__(
        self,
        state_dir: Path,
        published: PublishedState,
        writer: BackgroundWriter,
    ) -> None:
        self._path = state_dir / "vouched"
        self._published = published
        self._writer = writer
        self._clock = published.clock
        self._lock = threading.Lock()
        self._longest = self._read()
        self._until = self._clock.boottime() + relied_on(self._longest)
        self._promises = 0
        self._kept = False
        self._asked: tuple[str, float] | None = None

    def asked(self, request: VouchRequest) -> VouchReply:
        """Vouch, or say why not."""
        seconds = request.seconds
        if not (math.isfinite(seconds) and 0 < seconds <= LONGEST_SECONDS):
            return VouchReply(vouched=False, reason=f"a lease of {seconds} s cannot be confirmed")
        with self._lock:
            self._asked = (request.address, self._clock.boottime())
            why = self._against(request, self._published.state)
            if not why:
                self._until = max(self._until, self._clock.boottime() + relied_on(seconds))
        return VouchReply(vouched=not why, reason=why)

    def seen(self, state: MemberState) -> MemberState:
        """Returns ``state`` with how long this member still vouches, or since when no longer, at this moment."""
        now = self._clock.boottime()
        left, asked = self._until - now, self._asked
        return replace(
            state,
            vouched=max(0.0, left),
            unvouched=max(0.0, -left),
            asked=Asked(asked[0], now - asked[1]) if asked else None,
        )

    @property
    def left(self) -> float:
        """Seconds for which a primary, and the killing of its server, may still rely on this member."""
        return max(0.0, self._until - self._clock.boottime())

    def promise_begins(self) -> None:
        """A promise was requested; called before the request is examined."""
        with self._lock:
            self._promises += 1

    def promise_ends(self, kept: bool) -> None:
        """Call once the answer to the request has been written."""
        with self._lock:
            self._promises -= 1
            self._kept = self._kept or kept

    def follows(self) -> None:
        """The server follows the primary that a manager named: a promise that was kept before is released."""
        with self._lock:
            self._kept = False

    def _against(self, request: VouchRequest, state: MemberState) -> str:
        replication = state.replication
        if self._promises or self._kept or state.promised:
            return f"{state.name} has promised to follow no server before a manager names it"
        if not state.up or replication.source != request.address:
            return f"{state.name} follows {replication.source or 'nobody'}, not {request.address}"
        if replication.receiver is Receiver.OFF:
            return f"{state.name} receives nothing: its receiver is off"
        if request.seconds > self._longest:
            self._writer.do(lambda: self._allow(request.seconds))
            return f"{state.name} has to note first that leases last {request.seconds:g} s"
        return ""

    def _allow(self, seconds: float) -> None:
        if seconds > self._longest:
            replace_durably(self._path, f"{seconds!r}\n")
            self._longest = seconds

    def _read(self) -> float:
        """The longest time for which any primary has ever asked."""
        try:
            longest = float(self._path.read_text())
        except FileNotFoundError:
            return Timing().lease
        except (OSError, ValueError) as error:
            raise Fatal(
                f"{self._path} cannot be read: write into it how many seconds the cluster's lease lasts ({error})"
            ) from error
        return max(longest, Timing().lease)
