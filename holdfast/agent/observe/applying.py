"""Determines, from one look to the next, whether a replica's applier is broken or held up.

A broken applier is started again now and then (an operator may have fixed the cause). Then it runs for a moment before
it stops at the same place; so it counts as broken until it has passed that place, or nothing is left.

Also checks whether the files of its own binary log still exist: see ``core/rules/appliers.py`` for what that means.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from holdfast.core.gtid import Flavor, parse
from holdfast.core.observed.applying import Applying
from holdfast.core.view import Receiver
from holdfast.server.base import Observation

STEADY_SECONDS = 2.0
"""An applier that has advanced, and has run for so long, is broken no longer: with several threads it may advance a
little before it stops."""

GONE_SECONDS = 2.0
"""The index, or the last file, must be missing for so long: a server that purges puts a new index in place."""

FORGIVEN_SECONDS = 3600.0
"""A repair so long ago is counted no longer."""


class ApplierWatch:
    """Tells whether the applier is broken or held up. Called with each look; the agent's restart resets it."""

    def __init__(self, flavor: Flavor) -> None:
        self._flavor = flavor
        self._lock = threading.Lock()
        self._error = ""
        self._since = 0.0
        self._place = ""
        self._runs_since: float | None = None
        self._moved_at = 0.0
        self._last_place = ""
        self._repairs: list[float] = []
        self._texts = ("", "")
        self._left = False
        self._files_at: float | None = None
        self._removed = False

    def seen(self, found: Observation, now: float, files: bool = False) -> Applying:
        """:param now: seconds, by a clock that nobody sets
        :param files: whether the index of its binary log, and the last file, can be read; where they never could be,
            nothing is reported of them
        """
        with self._lock:
            told = self._seen(found, now)
            if files:
                self._files_at = now
            gone = 0.0 if self._files_at is None else now - self._files_at
            self._removed = gone >= GONE_SECONDS
            if not self._removed:
                return told
            return replace(told, removed=True, seconds=max(told.seconds, round(gone, 1)))

    def replaced(self, now: float) -> None:
        """All data of the member was replaced by a copy."""
        with self._lock:
            if self._error or self._removed:
                self._repairs.append(now)
            self._error, self._place = "", ""
            self._removed, self._files_at = False, None

    def _seen(self, found: Observation, now: float) -> Applying:
        replication = found.replication
        moved = found.applied != self._last_place
        # sets are compared only where the applier may be held up: while it advances they need not be
        left = bool(replication.source) and (
            self._is_left(found) if self._error or not moved else True
        )
        if not replication.applier and replication.applier_error:
            if not self._error:
                self._since = now
            if (
                not self._error or found.applied != self._place
            ):  # the same error does not always come in the same words
                self._error, self._place = replication.applier_error, found.applied
            self._runs_since = None
        elif self._error and self._has_passed(found, left, now):
            self._error, self._runs_since = "", None
        if moved or not left or not replication.applier:
            self._last_place, self._moved_at = found.applied, now
        self._repairs = [each for each in self._repairs if now - each < FORGIVEN_SECONDS]
        return Applying(
            self._error,
            seconds=round(now - self._since, 1) if self._error else 0.0,
            repairs=len(self._repairs),
            stalled=round(now - self._moved_at, 1),
        )

    def _has_passed(self, found: Observation, left: bool, now: float) -> bool:
        """Whether an applier that was broken is so no longer. A server that was just started has nothing left to apply
        only because it has received nothing yet."""
        replication = found.replication
        if not replication.source:
            return True
        if not replication.applier or replication.receiver is not Receiver.ON:
            self._runs_since = None
            return False
        if self._runs_since is None:
            self._runs_since = now
        moved = found.applied != self._place
        steady = now - self._runs_since >= STEADY_SECONDS
        return (moved and not left) or (steady and (moved or not left))

    def _is_left(self, found: Observation) -> bool:
        """Whether the server has received what it has not applied."""
        texts = (found.received, found.applied)
        if texts != self._texts:
            received, applied = (parse(self._flavor, text) for text in texts)
            self._texts, self._left = texts, not applied.contains(received)
        return self._left
