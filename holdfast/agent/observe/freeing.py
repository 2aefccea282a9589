"""Ends clients' sessions on this server that hold up a promotion, after a time limit, and names them.

A promotion that is not held up loses no time: the thread that observes the server measures how long a promotion takes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from holdfast.agent.runtime.steps import Steps
from holdfast.clock import Clock
from holdfast.core.commands import Command, Drain, Follow, Promise, Promote
from holdfast.errors import HoldfastError
from holdfast.log import say
from holdfast.server.base import Deadline, Server

FREE_SECONDS = 2.0
"""How long sessions may hold a promotion up. Earlier time of the same failover counts: the voters of the new primary
are ordered to follow it only after it was named."""

FAILOVER_SECONDS = 10.0
"""For so long after a promise, commands of its term count from the promise."""

AGAIN_SECONDS = 0.5
"""Time between two rounds; the last kind of sessions is ended in the second round."""

TOGETHER_SECONDS = 1.0
"""Commands that follow each other within this time belong to one promotion."""

LOOK_SECONDS = 0.5

logger = logging.getLogger(__name__)


class PromotionFreeing:
    """Ends sessions that hold a promotion up. Called with each command, and often by a thread that may wait for SQL."""

    def __init__(self, server: Server, clock: Clock) -> None:
        self._server = server
        self._clock = clock
        self._begun = 0.0
        self._promised = (0, 0.0)
        self._ended = 0.0
        self._steps: Steps | None = None
        self._tried = 0.0
        self._rounds = 0

    @contextlib.contextmanager
    def during(self, term: int, command: Command, steps: Steps) -> Iterator[None]:
        """Context around a command."""
        now = self._clock.monotonic()
        if isinstance(command, Promise):
            self._promised = (term, now)
        in_failover = self._promised[0] == term
        if not _promotes(command) and not (in_failover and isinstance(command, Follow)):
            yield
            return
        if in_failover and now - self._promised[1] <= FAILOVER_SECONDS:
            if self._begun != self._promised[1]:
                self._begun, self._rounds = self._promised[1], 0
        elif now - self._ended > TOGETHER_SECONDS:
            self._begun, self._rounds = now, 0
        self._steps = steps
        try:
            yield
        finally:
            self._steps = None
            self._ended = self._clock.monotonic()

    def looked(self) -> None:
        """End the sessions that hold up the current promotion, if it has taken too long."""
        steps, now = self._steps, self._clock.monotonic()
        if steps is None or now - self._begun < FREE_SECONDS or now - self._tried < AGAIN_SECONDS:
            return
        self._tried = now
        try:
            deadline = Deadline(LOOK_SECONDS, clock=self._clock)
            ended = self._server.free(deadline, self._rounds > 0)
        except HoldfastError as error:
            say(logger, f"what holds the promotion up is not known: {error}", logging.WARNING)
            return
        self._rounds += ended is not None
        for each in ended or ():
            say(logger, f"ended, as it held the promotion up: {each}", logging.WARNING)
            steps.done(f"ended {each}")


def _promotes(command: Command) -> bool:
    """Whether the command promotes in a failover. A switchover ends no session without notice: it is undone in time."""
    match command:
        case Drain(upto=upto, electorate=electorate):
            return not upto and electorate is None
        case Promote(drained=drained):
            return not drained
        case _:
            return False
