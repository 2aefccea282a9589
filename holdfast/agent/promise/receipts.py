"""What a server has must not become less while it runs: what a voter acknowledged may be gone then.

The rules count a voter by the run of its server: what it acknowledged in that run, it holds. An operator can make that
untrue. MariaDB drops the relay log when both threads are started (``STOP SLAVE; START SLAVE``), and fetches anew what
was not applied, if its source still lives; ``RESET REPLICA`` drops it on both servers.

So each look is compared with the one before. Where something is gone, the agent kills the server: its next run is
another voter, which has to be admitted like any other. No manager can overlook that, even if it learns of it late, and
it needs no statement on a server on which an operator is at work. What was dropped and fetched again between two looks
is not noticed, and not lost. An agent that was away goes by what its predecessor has left, see ``receiver_mark.py``.

A replication filter (``SET GLOBAL replicate_do_db``, ``CHANGE REPLICATION FILTER``, ``CHANGE MASTER TO
IGNORE_DOMAIN_IDS``) makes the server acknowledge what it then leaves out. Afterwards it cannot be determined what that
was: the server is killed, too, and must be cloned before it is fit.

A voter whose ``server_id`` becomes the primary's acknowledges what it then skips as its own: the same. A voter whose
applier waits on purpose (``SOURCE_DELAY``) keeps what it acknowledges, but could not take over during the delay: it is
killed, and follows without the delay.

After ``RESET MASTER`` (``RESET BINARY LOGS AND GTIDS``) no server can follow this one any more, whether it votes or
not. On a primary all commits wait from then on, as no voter finds its position: it is killed while others have what it
has acknowledged.

A rewind makes the history shorter on purpose, in a run of the server that has acknowledged nothing
(``rewinding.Rewinding.part``). So does a Forget, in a run that may have: it removes only what the member itself has
written (:meth:`Receipts.forgetting`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.agent.disk.term import TermFile
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.promise.receiver_mark import ReceiverMark
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.core.view import Receiver, Replication, SemiSync
from holdfast.core.wording import transactions
from holdfast.errors import Refused
from holdfast.log import say
from holdfast.server.base import Deadline, Observation, Server

LOOK_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Look:
    """:ivar run: the incarnation; :ivar votes: it has acknowledged in this run; :ivar acks: it does so now
    :ivar works: how often the agent had begun or ended work on its replication
    :ivar texts: what the server reported as received and applied
    """

    run: str
    votes: bool
    works: int
    texts: tuple[str, str]
    received: GtidSet
    applied: GtidSet
    acks: bool = True

    def without(self, gtids: GtidSet) -> _Look:
        received, applied = self.received.subtract(gtids), self.applied.subtract(gtids)
        return replace(self, texts=("", ""), received=received, applied=applied)

    def gone(self, now: _Look) -> GtidSet:
        """What the server received or applied by this look, and no longer has by the later look ``now``."""
        return self.received.subtract(now.received).union(self.applied.subtract(now.applied))

    def was_reset(self, now: _Look) -> bool:
        """Whether the history begins anew. A domain that an operator has deleted on MariaDB (``FLUSH BINARY LOGS
        DELETE_DOMAIN_ID``) is gone as a whole, and all others are as they were. If a MariaDB server logs again at once,
        and only one server had written, nothing is found missing."""
        gone = self.applied.subtract(now.applied)
        domains = {stream.partition("-")[0] for stream in now.applied.streams}
        whole_domains = all(stream.partition("-")[0] not in domains for stream in gone.streams)
        deleted = gone.flavor is Flavor.MARIADB and bool(domains) and whole_domains
        return bool(gone) and not deleted


def _waits(semi_sync: SemiSync) -> bool:
    """Of a primary: no commit is answered before a voter has it."""
    return semi_sync.source and semi_sync.acks > 0 and not semi_sync.timeout_seconds


class Receipts:
    """The last look at what a server has that acknowledges, or may, or whose commits wait.

    :param unfit: called before the server is killed, with why its data must be replaced, and whether its history was
        reset
    :param has_opened: whether a run of the server is open because its agent opened it: an operator may open one, too
    """

    def __init__(
        self,
        server: Server,
        server_run: ServerRun,
        state_dir: Path,
        unfit: Callable[[str, bool], None],
        has_opened: Callable[[str], bool],
        term: TermFile,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._clock = clock
        self._server = server
        self._server_run = server_run
        self._mark = ReceiverMark(server, state_dir, term, clock)
        self._unfit = unfit
        self._has_opened = has_opened
        self._last: _Look | None = None
        self._number = ("", 0)
        self._turn = threading.Lock()
        self._paused = False
        self._works = 0

    @contextlib.contextmanager
    def forgetting(self, gtids: GtidSet) -> Iterator[None]:
        """Within the block these transactions are forgotten. Meanwhile the server may report that it has nothing at
        all: it is compared after the block with everything that it had except these. If the block fails they may be
        gone, too. They are the server's own and change nothing: it acknowledged none of them."""
        with self._turn:
            self._paused = True
        try:
            yield
        finally:
            with self._turn:
                if self._last is not None:
                    self._last = self._last.without(gtids)
                self._paused = False

    def seen(self, found: Observation, incarnation: str) -> None:
        """To be called with each look before it is published.

        :raises Refused: the server has lost what it had, and was killed
        """
        with self._turn:
            if self._paused:
                return
            self._leaves_nothing_out(found.replication)
            self._keeps_its_number(found, incarnation)
            if self._mark.moved(incarnation):
                raise self._killed(
                    "while its agent was away, its receiver was stopped or restarted by hand: whether it still has "
                    "all that it acknowledged is not known, so it was killed, and votes again when it has caught up"
                )
            self._compare(found, incarnation)

    @contextlib.contextmanager
    def steering(self) -> Iterator[None]:
        """Context around the agent's own work on the server's replication. On a server that does not vote that work may
        begin the history anew (a rewind)."""
        self._works += 1  # odd while the agent is at work; no look is awaited
        try:
            with self._mark.steering():
                yield
        finally:
            self._works += 1

    def _compare(self, found: Observation, incarnation: str) -> None:
        works = self._works
        last = self._last if self._last and self._last.run == incarnation else None
        open_or_opening = found.writable or found.semi_sync.source
        primary = open_or_opening and self._has_opened(incarnation)
        votes = found.semi_sync.replica or (last is not None and last.votes)
        # a rewind by the agent, or a learner fetches anew what it cannot apply. Before it drops that, the agent asks
        # the server itself whether it acknowledges
        may_begin_anew = not primary and (not votes or (last is not None and not last.acks))
        if last is not None and may_begin_anew and last.works != works:
            last = None
        if votes and not primary:
            self._applies_at_once(found.replication)
            self._mark.note(incarnation)
        else:
            self._mark.drop()
        if (primary and not _waits(found.semi_sync)) or (may_begin_anew and works % 2):
            self._last = None
            return
        if (
            last is not None
            and last.texts == (found.received, found.applied)
            and (last.votes, last.acks) == (votes, found.semi_sync.replica)
        ):
            return
        now = self._look(found, incarnation, votes, works)
        if last is not None and last.gone(now):
            # the parts of one look are not of one moment: what is received may have been applied in between
            found = self._server.observe(Deadline(LOOK_SECONDS, clock=self._clock))
            now = self._look(found, incarnation, votes, works)
            if last.was_reset(now) and not (may_begin_anew and works != self._works):
                raise self._reset(last.gone(now))
            if votes and not primary and (gone := last.gone(now)):
                raise self._lost(gone)
        self._last = now

    def _look(self, found: Observation, incarnation: str, votes: bool, works: int) -> _Look:
        texts = (found.received, found.applied)
        received, applied = (parse(self._server.flavor, text) for text in texts)
        acks = found.semi_sync.replica
        return _Look(incarnation, votes, works, texts, received, applied, acks)

    def _lost(self, gone: GtidSet) -> Refused:
        return self._killed(
            f"it has lost {transactions(gone)} that it had received ({gone}), as its replication was restarted or "
            "reset by hand: it was killed, and votes again when it has caught up"
        )

    def _reset(self, gone: GtidSet) -> Refused:
        what = f"its binary log was reset by hand, and all that it had up to {gone.last()} is gone from there"
        self._unfit(what, True)
        return self._killed(f"{what}: it was killed, and votes again when it was cloned")

    def _leaves_nothing_out(self, replication: Replication) -> None:
        if not replication.filters:
            return
        what = ", ".join(replication.filters)
        self._unfit(f"its replication leaves something out ({what})", False)
        # MariaDB keeps some filters over a restart: until the next Follow they do no harm
        if replication.applier or replication.receiver is not Receiver.OFF:
            raise self._killed(
                f"its replication leaves something out ({what}), so it may not have all that it acknowledged: it was "
                "killed, and votes again when it was cloned"
            )

    def _keeps_its_number(self, found: Observation, incarnation: str) -> None:
        former, self._number = self._number, (incarnation, found.server_id)
        if former[0] != incarnation or former[1] == found.server_id:
            return
        if found.replication.receiver is Receiver.OFF and not found.replication.applier:
            self._number = former
            return  # a primary, see ``kept_settings.py``
        what = f"its server_id was changed from {former[1]} to {found.server_id}"
        self._unfit(f"{what}: it skips what another server issues under that number", False)
        raise self._killed(
            f"{what}: it may acknowledge what it skips, so it was killed, and votes again when it was cloned"
        )

    def _applies_at_once(self, replication: Replication) -> None:
        if replication.delay:
            raise self._killed(
                f"it was set up to apply {replication.delay} s later, so it could not take over: it was killed, and "
                "votes again when it has caught up"
            )

    def _killed(self, reason: str) -> Refused:
        say(logger, reason, logging.ERROR)
        self._server_run.kill(reason)  # until the server is gone, it is compared with what it had
        return Refused(reason)
