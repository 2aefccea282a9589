"""Checks that no commit is released without a voter: reports one at once, and puts back what an operator has changed.

The client of such a commit got an answer that cannot be taken back. But the agent can record the fact: it removes the
mark by which the binlog's end may be cut (``pending_mark.py``). So what was let through is rewound, and never cut from
the binlog while the engine keeps it. The rules are in ``core/rules/releases.py``.

A replica that an operator opens (``SET GLOBAL read_only = 0``) answers clients without any voter. While no manager
leads no other rule stops it, so its agent closes it at the next look, or kills it. Before the agent itself opens a run
of its server it writes that to disk (``lease.Keeper.before_opening``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pymysql.constants import ER

from holdfast.agent.promise.hands import Hands
from holdfast.agent.promise.pending_mark import PendingMark, RunMark
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.binlog.files.run import Began
from holdfast.core.commands import Clone, Fence, Restart, Rewind, name_of
from holdfast.core.gtid import Flavor, issuer_of
from holdfast.core.observed.tally import Tally
from holdfast.core.rules.releases import Release, counted, describe, lesser, let_through, recounted
from holdfast.core.view import MemberState, SemiSync
from holdfast.errors import HoldfastError, Refused
from holdfast.log import say
from holdfast.server.base import Deadline, Observation, Server
from holdfast.server.connection.sql import StatementRefused

MEND_SECONDS = 0.5
"""How long putting variables back may hold up a look."""
OURS = frozenset(name_of(kind) for kind in (Restart, Rewind, Clone, Fence))
"""Commands during which the agent itself ends its server."""

logger = logging.getLogger(__name__)


class Releases:
    """:param socket: the server's; a shutdown removes it first, a crash leaves it
    :param has_opened: whether a run of the server is open because its agent opened it
    :param kill: ends the server, with the reason
    """

    def __init__(
        self,
        server: Server,
        published: PublishedState,
        mark: PendingMark,
        socket: Path,
        has_opened: Callable[[str], bool],
        kill: Callable[[str], None],
    ) -> None:
        self._has_opened = has_opened
        self._kill = kill
        self._follows = ""
        self._server = server
        self._published = published
        self._clock = published.clock
        self._mark = mark
        self._socket = socket
        self._lock = threading.RLock()
        self._turn = threading.Lock()
        self._changed_at = 0.0
        self._hands = Hands(published, "waiting")
        if (found := mark.mark) is not None:
            published.change(let_through=found.let_through, unacknowledged=found.unacknowledged)

    @contextmanager
    def command(self) -> Iterator[None]:
        """Context around a command. During it nothing is put back: the command itself may change how commits wait."""
        with self._turn:
            yield

    def pending(self) -> Began | None:
        return self._mark.pending()

    def begin(self, acks: int) -> None:
        """The server is about to be a primary whose commits wait for so many voters. On disk when this returns."""
        with self._lock:
            self._mark.hold(self._published.state.incarnation, acks)
            self._changed()

    def waits_for(self, acks: int) -> None:
        """The server is about to wait, or has begun to wait, for another number of voters."""
        with self._lock:
            mark = self._mark.mark
            if mark is not None and mark.acks != acks:
                self._mark.change(replace(mark, acks=acks))
            self._changed()

    @property
    def known(self) -> Tally | None:
        """What the server had counted when nothing had been let through."""
        mark = self._mark.mark
        return mark.tally if mark is not None else None

    def proved(self, under: SemiSync, known: Tally | None) -> None:
        """A row was acknowledged while commits waited as in ``under``, which was read before the row was committed.

        :param known: what :attr:`known` was before that; if it has changed by now, a look during the row has compared a
            state later than ``under``
        """
        with self._lock:
            incarnation = self._published.state.incarnation
            if known == self.known:
                self._compare(under, incarnation, "")
            self._mark.hold(incarnation, under.acks, under.tally)
            self._published.change(let_through="")
            self._changed()

    def end(self) -> None:
        """What the server issues from now on need not be pending. On disk when this returns."""
        with self._lock:
            self._mark.clear()
            self._published.change(let_through="")
            self._changed()

    def let_through(self, release: Release) -> None:
        """A commit was released without a voter that counts; found otherwise than by the server's counters."""
        with self._lock:
            mark = self._mark.mark
            if mark is not None:
                self._tell(mark, release)

    def seen(self, found: Observation, begun: float) -> None:
        """To be called with each look at the server.

        :param begun: when the look began: it may show later changes in part
        :raises Refused: the server was a replica that took writes, and takes none any more
        """
        self._keep_closed(found)
        if not self._lock.acquire(blocking=False):
            # a command writes to the disk, for which no look may wait: the next look compares as well
            return
        try:
            mark, incarnation = self._mark.mark, self._published.state.incarnation
            if mark is None or mark.incarnation != incarnation or begun < self._changed_at:
                return
            self._compare(found.semi_sync, incarnation, found.applied)
        finally:
            self._lock.release()
        if not found.writable:
            return
        if why := lesser(found.semi_sync, mark.acks):
            self._put_back(mark, found.semi_sync.degraded, why)
        else:
            self._hands.well()

    def _keep_closed(self, found: Observation) -> None:
        incarnation = self._published.state.incarnation
        if found.replication.source and not found.writable:
            self._follows = incarnation
        follows = found.replication.source or self._follows == incarnation
        if not found.writable or not follows or self._has_opened(incarnation):
            return
        if not self._published.state.term:
            return  # the server was not adopted yet
        if not self._turn.acquire(blocking=False):
            return  # a command may be what opens it
        try:
            if self._has_opened(incarnation):
                return
            self._server.shut(Deadline(MEND_SECONDS, clock=self._clock))
        except HoldfastError as error:
            reason = (
                f"this replica was made writable by hand, and cannot be made read-only: {error}"
            )
            self._kill(reason)
            raise Refused(reason) from error
        finally:
            self._turn.release()
        raise Refused("this replica was made writable by hand: it is read-only again")

    def lost(self, error: HoldfastError) -> None:
        """A look failed: check whether the server is shutting down, which releases what waits, or can no longer report
        how its commits wait."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            mark, state = self._mark.mark, self._published.state
            if mark is None or mark.let_through or mark.incarnation != state.incarnation:
                return
            if isinstance(error, StatementRefused) and error.code == ER.UNKNOWN_SYSTEM_VARIABLE:
                self._tell(mark, Release("the server's semi-sync plugin is gone"))
            elif state.up and not self._socket.exists():
                self._shut_down(mark, state)
        finally:
            self._lock.release()

    def ended(self) -> None:
        """The server has shut down in order: nothing is pending any more, whether something waited or not."""
        mark = self._mark.mark
        if mark is not None and not mark.let_through:
            self._mark.change(None)

    def _shut_down(self, mark: RunMark, state: MemberState) -> None:
        waiting = state.semi_sync.waiting
        if state.busy in OURS or not waiting:
            self._mark.change(None)
        else:
            told = waiting if state.flavor is Flavor.MYSQL else 0
            self._tell(mark, Release("it is being shut down, and commits waited", told))

    def _compare(self, now: SemiSync, incarnation: str, applied: str) -> None:
        """Compare the mark with what the server reports.

        :param applied: what the server has applied, to count by where it does not count itself; "": not known
        """
        mark = self._mark.mark
        if mark is None or mark.incarnation != incarnation:
            return
        if mark.tally is None:
            if not lesser(now, mark.acks):
                self._mark.change(replace(mark, tally=now.tally))
            return
        count = self._count(mark.tally, now, applied)
        release = let_through(mark.acks, mark.tally, now)
        if mark.let_through:
            release = Release(mark.let_through, count) if count else None
            if now.source and recounted(mark.tally, now.tally):
                self._mark.change(replace(mark, tally=now.tally))
        elif release is not None:
            release = replace(release, count=count)
        if release is not None:
            self._tell(mark, release, now)

    def _count(self, known: Tally, now: SemiSync, applied: str) -> int:
        """Where semi-sync is off the server counts nothing: then what was issued since the look before counts."""
        if now.source or not applied:
            return counted(known, now)
        before = self._published.state
        after = replace(before, applied=applied)
        return max(0, _issued(after) - _issued(before)) if before.applied else 0

    def _tell(self, mark: RunMark, release: Release, now: SemiSync | None = None) -> None:
        total = self._published.state.unacknowledged + release.count
        tally = now.tally if now is not None and now.source else mark.tally
        fallen = replace(
            mark, let_through=release.reason, unacknowledged=total, tally=tally or mark.tally
        )
        self._mark.change(fallen)
        self._published.change(let_through=release.reason, unacknowledged=total)
        if not mark.let_through:
            say(logger, describe(release), logging.WARNING)

    def _put_back(self, mark: RunMark, given_up: bool, why: str) -> None:
        """Waiting for more is safe at any moment; a command may ask for less, so this is done between commands only.

        :param given_up: the server has stopped waiting since one commit was let through, until a replica acknowledges
        """
        if not self._turn.acquire(blocking=False):
            return
        try:
            now = self._mark.mark
            if now is None or now.incarnation != mark.incarnation:
                return
            within = Deadline(MEND_SECONDS, clock=self._clock)
            self._server.set_acks(mark.acks, within, again=given_up)
            self._hands.put_back(f"commits did not wait as they should: {why}")
        except HoldfastError as error:
            say(logger, f"cannot put back how commits wait: {error}", logging.WARNING)
        finally:
            self._turn.release()

    def _changed(self) -> None:
        self._changed_at = self._clock.monotonic()


def _issued(state: MemberState) -> int:
    """How many transactions a member has that it issued itself; on MariaDB the number of the last one."""
    own = issuer_of(state.flavor, state.origin) if state.origin else ""
    return sum(
        last - first + 1
        for stream, spans in state.applied_set().streams.items()
        if issuer_of(state.flavor, stream) == own
        for first, last in spans
    )
