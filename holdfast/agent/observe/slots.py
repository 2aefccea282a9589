"""Keeps clients that use all connections of this server from locking out its replicas and its agent."""

from __future__ import annotations

import logging

from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.commands import Promote, name_of
from holdfast.errors import HoldfastError
from holdfast.log import say
from holdfast.server.base import Deadline, Server

EVERY_SECONDS = 1.0
WAITED_SECONDS = 1.0
"""A promotion that lasts so long may be waiting for replicas that cannot connect."""

LOOK_SECONDS = 0.5
PROMOTING = name_of(Promote)

logger = logging.getLogger(__name__)


class Slots:
    """Adjusts the server's limit of connections. Called after each look, by one thread."""

    def __init__(self, server: Server, published: PublishedState) -> None:
        self._server = server
        self._published = published
        self._clock = published.clock
        self._run = ""
        self._given = 0
        self._limit = 0
        self._looked = 0.0
        self._promoting: float | None = None

    def looked(self) -> None:
        """Check once a second, and more often while a promotion is under way."""
        state, now = self._published.state, self._clock.monotonic()
        if state.busy != PROMOTING:
            self._promoting = None
        elif self._promoting is None:
            self._promoting = now
        if not state.up or (self._promoting is None and now - self._looked < EVERY_SECONDS):
            return
        self._looked = now
        if self._run != state.incarnation:
            self._run, self._given, self._limit = state.incarnation, 0, 0
        waited = self._promoting is not None and now - self._promoting >= WAITED_SECONDS
        try:
            self._keep_one(waited)
        except HoldfastError as error:
            say(logger, f"whether replicas get in is not known: {error}", logging.DEBUG)

    def _keep_one(self, promoting: bool) -> None:
        raised = self._given if self._limit > self._given else 0
        deadline = Deadline(LOOK_SECONDS, clock=self._clock)
        crowd = self._server.keep_slot(raised, promoting, deadline)
        if not raised or crowd.was != self._limit:  # an operator has set another limit
            self._given = crowd.was
        if crowd.limit > self._given and crowd.limit > self._limit:
            say(logger, self._told(crowd.limit), logging.WARNING)
        self._limit = crowd.limit
        self._published.alarm("slots", self._told(crowd.limit) if crowd.limit > self._given else "")

    def _told(self, limit: int) -> str:
        return (
            f"clients hold all connections (max_connections is {self._given}): it is {limit} for now, so that replicas "
            "and the agent get in"
        )
