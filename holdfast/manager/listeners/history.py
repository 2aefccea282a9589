"""Keeps the history of one cluster while this manager leads it.

Looks, events and saved records become entries (``core/history/build.py``) in memory at once. Separate threads write
them to the store, not before the record has been unchanged for a moment, and again until it succeeds. A store that is
down delays only the history: no decision ever waits for it, or fails with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ParamSpec

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.cluster import Cluster
from holdfast.core.decision import Decision, Save
from holdfast.core.history import aftermath, build
from holdfast.core.history.entry import Entry, Outcome, Sort, head
from holdfast.core.history.verified import Verified
from holdfast.core.record import Record
from holdfast.core.rules.diagnosis import diagnose
from holdfast.core.view import View
from holdfast.core.wording import key_of
from holdfast.errors import Conflict, HoldfastError
from holdfast.log import say
from holdfast.manager.leader.events import Event, EventKind, EventLog
from holdfast.manager.listeners.archive import Archive
from holdfast.manager.listeners.pages import Page, heard

QUIET_SECONDS = 0.25
"""Nothing is written so soon after the record was: by then most failovers are over, and need not share the store."""
LATER_SECONDS = 1.0
"""The same for what does not change the record."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds until the store is tried again."""
CLOSE_SECONDS = 1.0
RECENT = 20
"""The number of entries that a manager searches for incomplete ones."""
FRESH_SECONDS = 5.0
"""The cause of a transition may have been logged so long before it."""

logger = logging.getLogger(__name__)
P = ParamSpec("P")


class History:
    """A Listener. Everything but :meth:`newest` and :meth:`entry` is called in the manager's event loop.

    :param decision: the last one that was made
    :param pool: where the store is called; its threads serve nothing else
    """

    def __init__(
        self,
        archive: Archive,
        who: str,
        events: EventLog,
        decision: Callable[[], Decision],
        pool: ThreadPoolExecutor,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._clock = clock
        self._archive = archive
        self._who = who
        self._decision = decision
        self._pool = pool
        self._pages: list[Page] = []
        self._term = 0
        self._found: tuple[Record, float] | None = None
        self._ordered: Event | None = None
        self._detected: Event | None = None
        self._alarms: list[Event] = []
        self._told: list[Event] = []
        self._due = self._not_before = 0.0
        self._changed = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._trouble = ""
        events.hearers.append(self.heard)

    def looked(self, cluster: Cluster, record: Record | None, view: View) -> None:
        self._safely(self._looked, cluster, record, view)

    def saved(
        self, cluster: Cluster, before: Record | None, record: Record, why: str, view: View
    ) -> None:
        self._safely(self._saved, cluster, before, record, why, view)

    def heard(self, event: Event) -> None:
        self._safely(self._heard, event)

    def verified(self, found: Verified, told: str, record: Record, late: bool) -> None:
        """Keep the result of a verification.

        :param told: in one sentence; :param late: it was so already when this manager began to lead
        """
        entry = build.verification(found, told, record, self._who)
        self._pages.append(Page(entry, taken_over=late))
        self._soon(LATER_SECONDS)

    async def close(self) -> None:
        """Try once more to write what is not written yet."""
        if self._writing is not None:
            self._writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writing
        if self._unwritten:
            with contextlib.suppress(HoldfastError, TimeoutError):
                async with self._clock.timeout(CLOSE_SECONDS):
                    await self._write()

    async def newest(self, most: int) -> list[dict[str, Any]]:
        """Heads of the newest entries, the newest first.

        :raises HoldfastError: by consequence
        """
        return [
            {"number": stored.number, "unreadable": found}
            if isinstance(found, str)
            else head(self._latest(found, stored.version))
            for stored, found in await self._ask(self._archive.newest, most)
        ]

    async def entry(self, number: int) -> Entry | None:
        """:raises HoldfastError: by consequence"""
        found = await self._ask(self._archive.get, number)
        return self._latest(*found) if found else None

    def _latest(self, stored: Entry, version: int) -> Entry:
        """The entry with what this manager has not written yet; if another has continued it, that version counts."""
        for page in self._pages:
            if page.entry.number == stored.number and page.version == version:
                return page.entry
        return stored

    def _safely(self, do: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            do(*args, **kwargs)
        except Exception:
            # the manager must continue to lead, whatever is wrong with the history
            logger.exception("the history failed: the current operation is not recorded")
            self._pages.clear()
            self._told.clear()
            self._ordered = self._detected = None

    def _looked(self, cluster: Cluster, record: Record | None, view: View) -> None:
        if record is None:
            return
        if record.term != self._term:
            self._take_over(cluster, record, view)
        for event in self._alarms:
            entry = build.alarm(event.text, event.at, record, self._who)
            self._begin(entry, LATER_SECONDS)
        self._alarms.clear()
        if self._ordered is not None:  # it was begun without a change of the record
            self._told.append(self._ordered)
            self._ordered = None
        for event in self._told:
            self._begin(build.order(event.text, event.at, record, self._who), LATER_SECONDS)
        self._told.clear()
        present, decision = self._present, self._decision()
        for page in self._pages:
            if not page.entry.live:
                continue
            entry = aftermath.looked(page.entry, cluster, record, view)
            if page is present:
                entry = aftermath.hooked(entry, view) if view.called else entry
                entry = self._reasoned(page, entry, view.date)
            if decision.well:
                entry = aftermath.whole(entry, view.date, decision.reason)
            self._change(page, entry, LATER_SECONDS)

    def _reasoned(self, page: Page, entry: Entry, at: float) -> Entry:
        decision = self._decision()
        reason = key_of(decision.reason)
        if (
            decision.well
            or reason == page.reason
            or any(isinstance(step, Save) for step in decision.steps)
        ):
            return entry
        page.reason = reason
        return build.noted(entry, at, Sort.WAITED, decision.reason)

    def _saved(
        self, cluster: Cluster, before: Record | None, record: Record, why: str, view: View
    ) -> None:
        if before is not None and before.term != self._term:
            self._take_over(cluster, before, view)
        self._term = record.term
        ordered, self._ordered = self._ordered, None
        if before is None:
            return
        page = next((each for each in self._pages if each.entry.under_way), None)
        detected = self._detected
        if detected is None or view.date - detected.at > FRESH_SECONDS:
            cause, at = why, view.date
        else:
            cause, at = detected.text, detected.at
        text = ordered.text if ordered else ""
        begun = build.begun(before, record, view, at, cause, why, text, self._who)
        if begun is not None:
            if page:
                entry = build.gave_way(page.entry, before, record, why, view)
                self._change(page, entry, QUIET_SECONDS)
            self._begin(begun, QUIET_SECONDS)
        elif page:
            entry = build.saved(page.entry, before, record, why, view)
            if before.primary != record.primary:
                page.naming = (cluster, before, record, view)
            self._change(page, entry, QUIET_SECONDS)
        elif ordered or before.paused != record.paused:
            text = ordered.text if ordered else why
            by_person = ordered is not None
            entry = build.order(text, view.date, record, self._who, by_person)
            self._begin(entry, QUIET_SECONDS)
        if self._unwritten:
            self._soon(QUIET_SECONDS)
        self._detected = None

    def _heard(self, event: Event) -> None:
        if event.kind is EventKind.ORDERED:
            if self._ordered is not None:  # an order without a result that is kept elsewhere
                self._told.append(self._ordered)
            self._ordered = event
        elif event.kind in (EventKind.CONFIGURED, EventKind.NOT_BEGUN):
            self._told.append(event)
        elif event.kind is EventKind.DETECTED:
            self._detected = event
        elif event.kind in (EventKind.UNACKNOWLEDGED, EventKind.CONCERN, EventKind.CLONED):
            self._alarms.append(event)
        present = self._present
        for page in self._pages:
            entry = page.entry
            if entry.live and (page is present or event.member == entry.old):
                self._change(page, heard(entry, event), LATER_SECONDS)

    def _take_over(self, cluster: Cluster, record: Record, view: View) -> None:
        """This manager has begun to lead, or does again: another may have continued the history meanwhile."""
        self._term = record.term
        self._found = (record, view.date)
        found = None
        if transition := build.told(record):
            cause = diagnose(cluster, record, view).reason
            found = build.continued(transition, record, view, cause, self._who)
        for page in self._pages:
            if not page.entry.under_way:
                continue
            if found is not None and build.same(page.entry, found):
                text = f"{self._who} continues it in term {record.term}"
                entry = build.taken_over(page.entry, view.date, self._who, text)
                found = None
            else:
                entry = build.orphaned(page.entry, record, view.date)
            self._change(page, entry, QUIET_SECONDS)
        if found is not None:
            self._pages.append(Page(found, taken_over=True))
        self._soon(QUIET_SECONDS)

    @property
    def _present(self) -> Page | None:
        """The entry that all present events belong to: the last one, until every member is as it should be."""
        for page in reversed(self._pages):
            if page.entry.what.is_transition:
                alive = page.entry.live and page.entry.outcome is not Outcome.REPLACED
                return page if alive and page.entry.whole is None else None
        return None

    def _begin(self, entry: Entry, delay: float) -> None:
        self._pages.append(Page(entry))
        self._soon(delay)

    def _change(self, page: Page, entry: Entry, delay: float) -> None:
        if entry is not page.entry:
            page.entry = entry
            self._soon(delay)

    def _soon(self, delay: float) -> None:
        """Schedule a write. A change of the record postpones it, anything else does not."""
        now = self._clock.monotonic()
        if delay == QUIET_SECONDS or self._due <= now:
            self._due = max(now + delay, self._not_before)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        if self._writing is None:
            self._writing = asyncio.create_task(self._keep_writing())

    @property
    def _unwritten(self) -> bool:
        return self._found is not None or any(p.entry is not p.written for p in self._pages)

    async def _keep_writing(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._unwritten:
                if (left := self._due - self._clock.monotonic()) > 0:
                    await self._clock.pause(left)
                    continue
                try:
                    await self._write()
                    pause, self._trouble = FIRST_PAUSE, ""
                except HoldfastError as error:
                    self._complain(str(error))
                    self._due = self._not_before = self._clock.monotonic() + pause
                    pause = min(2 * pause, LONGEST_PAUSE)
                except Exception:
                    # an entry that cannot be written must not block the others
                    logger.exception("the history cannot be written")
                    self._found = None
                    self._pages.clear()

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            say(logger, f"the history is not written yet: {trouble}", logging.WARNING)
        self._trouble = trouble

    async def _write(self) -> None:
        """:raises HoldfastError: by consequence; what was written is known"""
        for page in self._pages:
            if page.naming is not None:
                naming, page.naming = page.naming, None
                page.entry = build.compared(page.entry, *naming)
        if self._found is not None:
            await self._read(*self._found)
        for page in list(self._pages):
            entry = page.entry
            if entry is page.written:
                continue
            try:
                put = await self._ask(self._archive.put, entry, page.version, page.taken_over)
            except Conflict:
                self._pages.remove(page)
                continue
            page.version = put.version
            if put.before is not None:
                page.entry = build.joined(put.before, page.entry)
                continue
            numbered = replace(page.entry, number=put.number)
            page.written = numbered if page.entry is entry else entry
            page.entry = numbered
        self._pages = [p for p in self._pages if p.entry.live or p.entry is not p.written]

    async def _read(self, record: Record, at: float) -> None:
        """Find incomplete entries, and continue them.

        :param record: with which this manager began to lead; :param at: when that was
        """
        stored = await self._ask(self._archive.newest, RECENT)
        if self._found is None or self._found[0] is not record:
            return
        self._found = None
        for each, entry in stored:
            if isinstance(entry, str):
                continue
            mine = next((p for p in self._pages if p.entry.number == each.number), None)
            begun = next((p for p in self._pages if p.begun_elsewhere), None)
            if mine is not None:
                if each.version > mine.version:  # another manager has continued it
                    mine.entry = mine.written = entry
                    mine.version = each.version
            elif begun is not None and build.same(entry, begun.entry):
                begun.entry = build.joined(entry, begun.entry)
                begun.version = each.version
            elif entry.under_way:
                over = build.orphaned(entry, record, at)
                self._pages.append(Page(over, each.version))
            elif entry.live:
                self._pages.append(Page(entry, each.version, entry))

    async def _ask(self, do: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: do(*args, **kwargs)
        )
