"""Whether this manager leads a cluster, or follows the manager that does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.errors import Fatal, HoldfastError
from holdfast.log import say
from holdfast.store.base import Leadership, LeadershipCandidate, Store

ASK_AGAIN_SECONDS = 1.0
"""Maximum pause before the store is asked again; shorter where it hints that something changed."""
YIELD_SECONDS = 1.0
"""For so long a manager on the primary's host lets others lead first: host and primary may die together."""
YIELDING_SECONDS = 0.1
STEADY_SECONDS = 5.0
"""After this time a manager on the primary's host looks for another that could lead."""
HAND_OVER_AGAIN_SECONDS = 600.0
FOREVER_SECONDS = 3600.0

logger = logging.getLogger(__name__)


class Work(Protocol):
    """What a manager does for a cluster."""

    async def lead(self) -> None:
        """Run until it fails; cancelled as soon as the leadership is over."""

    async def follow(self, trouble: str) -> None:
        """Load the present state once.

        :param trouble: why it is not even known which manager leads, or \"\"
        """

    def primary_host(self) -> str:
        """The primary's host as far as it is known, or ""."""

    def steady(self) -> bool:
        """Nothing is under way or wrong, so another manager may as well lead."""


class LeadershipContest:
    """Competes for the leadership of one cluster.

    :ivar who: this manager
    :ivar leadership: while it leads
    """

    def __init__(
        self, store: Store, cluster: str, who: LeadershipCandidate, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.who = who
        self._clock = clock
        self.leadership: Leadership | None = None
        self._other: LeadershipCandidate | None = None
        self._store = store
        self._cluster = cluster
        self._news = asyncio.Event()
        self._free_since: float | None = None
        self._handed_over = -HAND_OVER_AGAIN_SECONDS

    @property
    def until(self) -> float:
        """The moment up to which this manager leads, on the monotonic clock; in the past when it does not."""
        return self.leadership.until if self.leadership else 0.0

    @property
    def leads(self) -> bool:
        """Whether this manager leads; correct also right after this process was stopped for a while."""
        return self._clock.monotonic() < self.until

    @property
    def leader(self) -> LeadershipCandidate | None:
        """Which manager leads, by the last answer of the store."""
        return self.who if self.leads else self._other

    async def run(self, work: Work) -> None:
        """Lead whenever no other manager does, until cancelled: then the leadership is handed over."""
        hint = _in_this_loop(self._news)
        with self._store.watch(self._cluster, hint):
            while True:
                self._news.clear()
                try:
                    pause = await self._once(work)
                except Fatal:
                    raise
                except HoldfastError as error:
                    self._other = None
                    await work.follow(str(error))
                    pause = ASK_AGAIN_SECONDS
                with contextlib.suppress(TimeoutError):
                    async with self._clock.timeout(pause):
                        await self._news.wait()

    async def _once(self, work: Work) -> float:
        """Lead until that is over, or follow once; returns how long to wait for news."""
        if await self._yields(work.primary_host()):
            await work.follow("")
            return YIELDING_SECONDS
        over = asyncio.Event()
        async with self._sought(_in_this_loop(over)) as leadership:
            if leadership:
                begun = self._clock.monotonic()
                await self._lead(work, leadership, over)
                # what failed at once would fail again at once
                if not over.is_set() and self._clock.monotonic() < leadership.until:
                    left = begun + ASK_AGAIN_SECONDS - self._clock.monotonic()
                    await self._clock.pause(max(0.0, left))
            else:
                self._other = await asyncio.to_thread(self._store.leader, self._cluster)
                await work.follow("")
        return ASK_AGAIN_SECONDS

    async def _lead(self, work: Work, leadership: Leadership, over: asyncio.Event) -> None:
        self.leadership, self._other = leadership, None
        leading = asyncio.create_task(work.lead())
        ends = [
            asyncio.create_task(self._ended(leadership, over)),
            asyncio.create_task(self._better_elsewhere(work)),
        ]
        try:
            await asyncio.wait([leading, *ends], return_when=asyncio.FIRST_COMPLETED)
            if ends[0].done():
                text = "no longer leads: the store could not be asked in time, or another manager leads"
                say(logger, f"this manager {text}", logging.WARNING, cluster=self._cluster)
            elif ends[1].done() and not leading.done():
                text = "hands the cluster over, as it runs on the primary's host"
                say(logger, f"this manager {text}", cluster=self._cluster)
        finally:
            for task in (leading, *ends):
                task.cancel()
            await asyncio.wait([leading, *ends])
            self.leadership = None
        for task in (leading, *ends):
            if not task.cancelled():
                task.result()

    @contextlib.asynccontextmanager
    async def _sought(self, lost: Callable[[], None]) -> AsyncIterator[Leadership | None]:
        """The leadership if no other manager has it; handed over at the end."""
        context = self._store.lead(self._cluster, self.who, lost)
        entering = asyncio.ensure_future(asyncio.to_thread(context.__enter__))
        try:
            leadership = await asyncio.shield(entering)
        except asyncio.CancelledError:
            with contextlib.suppress(HoldfastError):
                await entering  # else it would lead, and nobody knew
                await asyncio.to_thread(context.__exit__, None, None, None)
            raise
        try:
            yield leadership
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)

    async def _yields(self, primary_host: str) -> bool:
        """Whether to wait: no manager leads, and others are better placed."""
        if not primary_host or primary_host != self.who.host:
            return False
        self._other = await asyncio.to_thread(self._store.leader, self._cluster)
        if self._other is not None:
            self._free_since = None
            return False
        if not await self._others(primary_host):
            return False
        now = self._clock.monotonic()
        self._free_since = self._free_since or now
        return now - self._free_since < YIELD_SECONDS

    async def _others(self, primary_host: str) -> list[LeadershipCandidate]:
        """The managers that run on another host than the primary."""
        found = await asyncio.to_thread(self._store.candidates, self._cluster)
        return [each for each in found if each.name != self.who.name and each.host != primary_host]

    async def _better_elsewhere(self, work: Work) -> None:
        """Return when another manager had better lead. The next attempt is delayed, as that one may not have been able
        to."""
        while True:
            await self._clock.pause(STEADY_SECONDS)
            host = work.primary_host()
            if not host or host != self.who.host or not work.steady():
                continue
            if self._clock.monotonic() < self._handed_over + HAND_OVER_AGAIN_SECONDS:
                continue
            with contextlib.suppress(HoldfastError):
                if await self._others(host):
                    self._handed_over = self._clock.monotonic()
                    return

    async def _ended(self, leadership: Leadership, over: asyncio.Event) -> None:
        """Return as soon as the leadership is lost, or could not be confirmed in time."""
        while not over.is_set() and (left := leadership.until - self._clock.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(min(left, FOREVER_SECONDS)):
                    await over.wait()


def _in_this_loop(event: asyncio.Event) -> Callable[[], None]:
    """Returns a function that sets the event from any thread."""
    loop = asyncio.get_running_loop()

    def told() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nothing waits for the event
            loop.call_soon_threadsafe(event.set)

    return told
