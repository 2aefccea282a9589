"""A server becomes the primary, or as primary changes the acknowledgements that it waits for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

from holdfast.agent.disk.relaxed import RelaxedMarker
from holdfast.agent.lease.keeper import Keeper
from holdfast.agent.promise.domains import Domains
from holdfast.agent.promise.releasing import Releases
from holdfast.agent.promise.strangers import Strangers
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.runtime.steps import KnownStep
from holdfast.core.commands import Command, Fence, Promote, SetAcks
from holdfast.core.rules.releases import asked, holds_back
from holdfast.core.view import MemberState, Receiver
from holdfast.errors import DeadlinePassed
from holdfast.log import say
from holdfast.server.base import Deadline, Server

ACKER_SECONDS = 1.0
"""How long a promotion waits for replicas to connect, where commits wait for a limited time, too."""
ATTEMPT_SECONDS = 2.0
"""How long one attempt waits for them, where commits wait without a limit: during the attempt its manager can send no
other command, and other members may have to be let in, or kept out, first."""

logger = logging.getLogger(__name__)

Done = Callable[[str], None]


class Promoting:
    """:param marker: cleared once every commit is flushed
    :param releases: keeps the mark that what the server issues is pending
    :param look: observes the server, and publishes what it saw
    :param strangers: tells whether a row was acknowledged by voters
    """

    def __init__(
        self,
        server: Server,
        published: PublishedState,
        marker: RelaxedMarker,
        releases: Releases,
        keeper: Keeper,
        look: Callable[[], None],
        domains: Domains,
        strangers: Strangers,
    ) -> None:
        self._server = server
        self._published = published
        self._marker = marker
        self._releases = releases
        self._keeper = keeper
        self._look = look
        self._domains = domains
        self._strangers = strangers
        self._noted: Future[None] | None = None

    def admit(self, command: Command, deadline: Deadline) -> None:
        """Called with every command before it is carried out: files that a promotion writes must not be written after
        the next command has removed them. A fence does not wait for the disk.

        :raises DeadlinePassed: a cancelled promotion is still writing
        """
        noted = self._noted
        if noted is None or isinstance(command, Fence):
            return
        if not wait([noted], deadline.left).done:
            raise DeadlinePassed("files of the promotion before: the disk", deadline.seconds)
        self._noted = None

    def promote(
        self, state: MemberState, term: int, command: Promote, deadline: Deadline, done: Done
    ) -> None:
        """:param state: of a server that is up"""
        if command.drained:
            self._server.drain(deadline, command.drained)
            done("applied")
        if command.drained and state.replication.source:
            self._take_over(state, term, command, deadline, done)
        else:
            self._take_place(state, term, command, deadline, done)
        self._marker.clear_in_background()
        if command.events:
            self._server.start_events(deadline, lambda why: say(logger, why, logging.WARNING))
            done("events on")
        else:
            self._server.leave_events(deadline)

    def _take_place(
        self, state: MemberState, term: int, command: Promote, deadline: Deadline, done: Done
    ) -> None:
        noted: Future[None] | None = None
        if state.writable and (state.semi_sync.source or command.acks == 0):
            if state.replication.source:  # an operator has made it follow another server
                self._server.leave(deadline)
                done("follows nobody")
            self.set_acks(command, deadline, done)
        else:
            drained = state.received_set() == state.applied_set()
            if state.replication.receiver is not Receiver.OFF or not drained:
                self._server.stop_receiver(deadline)
                done(KnownStep.RECEIVER_STOPPED)
                self._server.drain(deadline)
                done("applied")
            noted = self._note(state, command)
            self._set_up(command, deadline, done)
        connected = self._ackers_connected(command, deadline, done)
        if noted is not None:
            _wait(noted, deadline, done)
        if connected:
            self._prove(term, command.serial, deadline, done, insist=not command.timeout_seconds)
        elif not state.writable:
            self._begin_alone(term, command, deadline, done)
        self._open(command, deadline, done)

    def set_acks(self, command: SetAcks | Promote, deadline: Deadline, done: Done) -> None:
        waits = asked(command)
        if holds_back(waits):
            self._releases.waits_for(min(waits.acks, self._published.state.semi_sync.acks))
        else:
            self._releases.end()
        self._server.set_acks(command.acks, deadline, command.timeout_seconds, command.wait_point)
        if holds_back(waits):
            self._releases.waits_for(waits.acks)
        done("acks set")

    def prove(self, term: int, serial: int, deadline: Deadline, done: Done) -> None:
        self._prove(term, serial, deadline, done)
        self._marker.clear_in_background()

    def _prove(
        self,
        term: int,
        serial: int,
        deadline: Deadline,
        done: Done,
        insist: bool = True,
        following: bool = False,
    ) -> None:
        before, seen, known = self._published.state, self._strangers.seen, self._releases.known
        under = self._server.prove(term, serial, deadline, insist, following)
        if under.degraded:
            done("row committed, not acknowledged")
            return
        if under.source:
            self._strangers.refuse_if_there(seen, deadline)
        if holds_back(under):
            self._releases.proved(under, known)
        self._published.change(during=before.incarnation, proved=max(before.proved, serial))
        done("proved")

    def _take_over(
        self, state: MemberState, term: int, command: Promote, deadline: Deadline, done: Done
    ) -> None:
        """The former primary is frozen, and this server has applied all that it has: nothing more arrives from there.
        So the server can be opened while it still follows, and the remaining steps are done afterwards.

        It is opened before its row is proven: a client that commits meanwhile waits for the same acknowledgements. That
        order needs no gap in MariaDB's sequence numbers: nothing was cut from the former primary.

        After an interruption all steps are repeated. The repetition does not make pending again what was let through
        since the opening: the next row tells whether voters have it.
        """
        noted = self._note(state, command)
        self._set_up(command, deadline, done, following=True)
        connected = self._ackers_connected(command, deadline, done)
        _wait(noted, deadline, done)
        self._open(command, deadline, done, following=True)
        self._look()  # managers that wait for a primary learn of it now
        done("seen open")
        if connected:
            insist = not command.timeout_seconds
            self._prove(term, command.serial, deadline, done, insist, following=True)
        self._server.leave(deadline)
        done("follows nobody")

    def _note(self, state: MemberState, command: Promote) -> Future[None]:
        """Write what must be on disk before the first row, or before the opening, while the server is set up. What must
        no longer be on disk is gone when this returns."""
        acks = command.acks if not state.writable and holds_back(asked(command)) else 0
        if not acks:
            self._releases.end()
        noted = self._noted = Future[None]()

        def write() -> None:
            try:
                if acks:
                    self._releases.begin(acks)
                if command.electorate is not None:
                    self._keeper.about_to_open()
            except Exception as error:  # any error must end the wait for the result
                noted.set_exception(error)
            else:
                noted.set_result(None)

        threading.Thread(target=write, name="promotion", daemon=True).start()
        return noted

    def _set_up(
        self, command: Promote, deadline: Deadline, done: Done, following: bool = False
    ) -> None:
        waits = (command.timeout_seconds, command.wait_point)
        domains = self._domains.known()
        self._server.prepare_primary(command.acks, deadline, *waits, following, domains)
        done("prepared")

    def _begin_alone(self, term: int, command: Promote, deadline: Deadline, done: Done) -> None:
        """Commit the first row without acknowledgements. The semi-sync time-out would release it anyway, but a new
        primary begins with a row of its own."""
        self._server.set_acks(0, deadline)
        self._server.prove(term, command.serial, deadline)
        self.set_acks(command, deadline, done)
        done("began alone")

    def _open(
        self, command: Promote, deadline: Deadline, done: Done, following: bool = False
    ) -> None:
        deadline.check("opening")
        if command.electorate is not None:
            self._keeper.before_opening(deadline)
            done("lease held")
        self._keeper.opens()
        self._server.open(deadline, following)
        done(KnownStep.OPENED)

    def _ackers_connected(self, command: Promote, deadline: Deadline, done: Done) -> bool:
        """Wait for voters to connect; only for a limited time where commits wait for a limited time."""
        if not command.timeout_seconds:
            self._server.wait_for_ackers(command.acks, deadline.within(ATTEMPT_SECONDS))
        else:
            patience = deadline.within(min(command.timeout_seconds, ACKER_SECONDS))
            try:
                self._server.wait_for_ackers(command.acks, patience)
            except DeadlinePassed:
                return False
        done("ackers connected")
        return True


def _wait(noted: Future[None], deadline: Deadline, done: Done) -> None:
    try:
        noted.result(deadline.left)
    except TimeoutError:
        raise DeadlinePassed("its agent's files: the disk", deadline.seconds) from None
    done("noted on disk")
