"""The Judge and Forget commands: what a member wrote by itself, and whether it changes anything.

See ``core/members/own_writes.py`` for what is done about it, and why that loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from holdfast.agent.rewind.rewind import Done, Rewinding
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.binlog.pending import errant as finding
from holdfast.binlog.pending import harmless
from holdfast.binlog.pending.errant import Errant
from holdfast.core.commands import Forget, Judge
from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.core.members.own_writes import as_text
from holdfast.core.view import MemberState, Receiver
from holdfast.errors import BadInput, CalledOff, HoldfastError, Refused
from holdfast.log import say
from holdfast.server.base import Deadline, Server
from holdfast.server.connection.sql import StatementRefused
from holdfast.server.data.rewind import LOCKED_OUT, Disturbed, Rewinder

logger = logging.getLogger(__name__)


class Judging:
    """:param index: of the server's binlogs
    :param forgetting: a context to enter, with the transactions, while they are forgotten
    """

    def __init__(
        self,
        published: PublishedState,
        server: Server,
        rewinder: Rewinder,
        rewinding: Rewinding,
        index: Path,
        forgetting: Callable[[GtidSet], AbstractContextManager[None]],
    ) -> None:
        self._published = published
        self._server = server
        self._rewinder = rewinder
        self._rewinding = rewinding
        self._flavor = published.state.flavor
        self._index = index
        self._forgetting = forgetting

    def perform(self, command: Judge | Forget, deadline: Deadline, done: Done) -> None:
        if isinstance(command, Judge):
            self.judge(command, deadline, done)
        else:
            self.forget(command, deadline, done)

    def judge(self, command: Judge, deadline: Deadline, done: Done) -> None:
        """Publish a verdict on all that the server has and the primary lacks. What cannot be read is harmful.

        :raises BadInput: ``present`` is no GTID set
        :raises CalledOff: no verdict is published
        """
        present = _parsed(self._flavor, command.present)
        state = self._published.state
        lacking = state.received_set().union(state.applied_set()).subtract(present)
        found = parse(self._flavor, "")
        try:
            errant = self._errant(present, deadline)
            found = self._harmless(errant, lacking, deadline)
        except CalledOff:
            raise  # an incomplete read is judged another time
        except (HoldfastError, OSError, ValueError) as error:
            say(logger, f"what {command.primary} lacks cannot be judged: {error}", logging.WARNING)
        done("binlog read")
        self._published.change(
            during=state.incarnation, judged=as_text(lacking.union(found)), harmless=as_text(found)
        )
        if found:
            say(
                logger,
                f"these transactions change nothing, and {command.primary} lacks them: {found}",
            )

    def forget(self, command: Forget, deadline: Deadline, done: Done) -> None:
        """Judge again with the applier stopped, so that nothing can follow it; then forget.

        :raises CalledOff: they are as harmless as before
        :raises Refused: something stands in the way. They are harmless no longer, so the member will be rewound, unless
            the only obstacle is that another session holds a lock, or has logged more
        """
        present = _parsed(self._flavor, command.present)
        state = self._published.state
        if state.writable or self._flavor is not Flavor.MARIADB:
            raise Refused(f"{state.name} is no replica of MariaDB: it cannot forget transactions")
        self._rewinding.settle(deadline, done)
        self._server.hold_applier(deadline)
        done("applier stopped")
        try:
            self._forget(state, command, present, deadline, done)
        except Refused as error:
            later = isinstance(error, Disturbed) or (
                isinstance(error, StatementRefused) and error.code in LOCKED_OUT
            )
            if not later:
                self._published.change(during=state.incarnation, harmless="")
            raise
        finally:
            self._server.resume_applier(deadline)
        self._published.change(during=state.incarnation, judged="", harmless="")
        done("applier started")

    def _forget(
        self, state: MemberState, command: Forget, present: GtidSet, deadline: Deadline, done: Done
    ) -> None:
        was, slave_pos = self._rewinder.gtid_state(deadline)
        lacking = parse(self._flavor, was).subtract(present)
        if not lacking:
            return
        errant = self._errant(present, deadline)
        if not self._harmless(errant, lacking, deadline):
            raise Refused(f"{errant} that {command.primary} lacks cannot be forgotten")
        done("binlog read")
        following = state.replication.receiver is not Receiver.OFF
        with self._forgetting(lacking):
            self._rewinding.forget(errant, was, slave_pos, present, following, deadline)
        done("forgotten")

    def _errant(self, present: GtidSet, deadline: Deadline) -> Errant:
        return finding.find(self._index, present, lambda: deadline.check("reading the binlogs"))

    def _harmless(self, errant: Errant, lacking: GtidSet, deadline: Deadline) -> GtidSet:
        """What of ``lacking`` changes nothing. On MariaDB all of it or nothing, as only the end can be forgotten."""
        nothing = parse(self._flavor, "")
        judged = harmless.judge(errant, lambda: deadline.check("reading the binlogs"))
        if judged.memory and not self._rewinder.in_memory(judged.memory, deadline):
            return nothing
        found = nothing
        for gtid in judged.harmless:
            one = ((gtid.sequence, gtid.sequence),)
            found = found.union(GtidSet(self._flavor, {gtid.stream: one}))
        if self._flavor is Flavor.MYSQL:
            return found
        last = {stream: spans[-1][1] for stream, spans in lacking.streams.items()}
        whole = all(found.has(stream, number) for stream, number in last.items())
        at_the_end = not judged.harmful and not errant.again and errant.before is not None
        return found if whole and at_the_end else nothing


def _parsed(flavor: Flavor, present: str) -> GtidSet:
    try:
        return parse(flavor, present)
    except ValueError as error:
        raise BadInput("present", str(error)) from None
