"""HAProxy follows the primary: what it would find out by its checks is pushed to it at once.

What is pushed is each server's *health*, not its administrative state: HAProxy goes on checking, and what was pushed
holds until checks have said otherwise several times in a row (``rise``, ``fall``). So nothing stays pinned when no
manager is left to change it: the agents' answers carry on by themselves. While a manager leads, it shows anew every
second, faster than checks can outvote it. What a person sets (``set server … state maint``) is above both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.config.endpoints import HaproxyConfig
from holdfast.core.answers.routing import Directions
from holdfast.endpoint.haproxy_file import backend
from holdfast.endpoint.runtime import RuntimeApi
from holdfast.errors import Refused

GRACE_SECONDS = 1.0
"""A replica that changes its source, or lags for a moment, keeps its readers for so long."""
UNKNOWN = ("No such server", "No such backend")


@dataclass(frozen=True, slots=True)
class Push:
    """One command.

    :ivar needed: members come and go: only for the one that shall get clients does it matter that HAProxy knows it
    """

    command: str
    server: str
    needed: bool = False


class Haproxy:
    """An Endpoint: one HAProxy of a cluster, whose file :mod:`holdfast.endpoint.haproxy_file` has rendered."""

    def __init__(self, config: HaproxyConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = f"HAProxy {config.called}"
        self._max_lag = config.max_lag
        self._api = RuntimeApi(config.socket)
        self._clock = clock
        self._read_at: dict[str, float] = {}

    async def show(self, directions: Directions) -> None:
        """:raises Refused: HAProxy does not do it
        :raises Unreachable, DeadlinePassed: as of :meth:`RuntimeApi.ask`
        """
        pushes = writes(directions) + self._reads(directions)
        answers = await self._api.ask([each.command for each in pushes])
        for push, answer in zip(pushes, answers, strict=True):
            unknown = answer.startswith(UNKNOWN)
            if unknown and push.needed:
                raise Refused(
                    f"{self.name} has no server {push.server}: generate its file again (holdfast endpoint haproxy) "
                    "and reload it"
                )
            if answer and not unknown:
                raise Refused(f"{self.name} does not {push.command}: {' '.join(answer.split())}")

    async def close(self) -> None:
        self._api.close()

    def _reads(self, directions: Directions) -> list[Push]:
        """Where nobody can be read, HAProxy's file sends readers to the primary."""
        where, now = backend(directions.cluster, "read"), self._clock()
        read = {
            each.member.name
            for each in directions.readers
            if each.lag_seconds is not None and each.lag_seconds <= self._max_lag
        }
        self._read_at |= dict.fromkeys(read, now)
        pushes = []
        for member in directions.members:
            server = f"{where}/{member.name}"
            if member.name in read:
                pushes.append(Push(f"set server {server} health up", server))
            elif now - self._read_at.setdefault(member.name, now) >= GRACE_SECONDS:
                pushes.append(Push(f"set server {server} health down", server))
                pushes.append(Push(f"shutdown sessions server {server}", server))
        return pushes


def writes(directions: Directions) -> list[Push]:
    """No two servers are up at any moment in between, and nobody's session goes on at one that lost its place."""
    where, primary = backend(directions.cluster, "write"), directions.primary
    servers = {member.name: f"{where}/{member.name}" for member in directions.members}
    others = [server for name, server in servers.items() if not primary or name != primary.name]
    pushes = [Push(f"set server {server} health down", server) for server in others]
    if primary is not None:
        server = servers[primary.name]
        pushes.append(Push(f"set server {server} health up", server, needed=True))
    pushes += [Push(f"shutdown sessions server {server}", server) for server in others]
    return pushes
