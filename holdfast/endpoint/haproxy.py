"""Makes HAProxy follow the primary: what its checks would find is pushed to it at once.

The manager pushes each server's *health*, not its administrative state: HAProxy keeps checking, and a push holds until
checks have contradicted it several times in a row (``rise``, ``fall``). So nothing stays pinned when no manager is left
to change it: the agents' answers take over by themselves. While a manager leads, it pushes again every second, faster
than checks can outvote it. What an operator sets (``set server … state maint``) takes precedence over both.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.clock import SYSTEM_CLOCK, Clock
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

    :ivar needed: members are added and removed: HAProxy must know only the one that clients are directed to
    """

    command: str
    server: str
    needed: bool = False


class Haproxy:
    """An Endpoint: one HAProxy of a cluster, with a file by :mod:`holdfast.endpoint.haproxy_file`."""

    def __init__(self, config: HaproxyConfig, clock: Clock = SYSTEM_CLOCK) -> None:
        self.name = f"HAProxy {config.called}"
        self._max_lag = config.max_lag
        self._api = RuntimeApi(config.socket, clock)
        self._clock = clock
        self._read_at: dict[str, float] = {}

    async def show(self, directions: Directions) -> None:
        """:raises Refused: HAProxy refuses
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
        """If no member can be read from, HAProxy's file sends readers to the primary."""
        where, now = backend(directions.cluster, "read"), self._clock.monotonic()
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
    """At no moment in between are two servers up, and no session stays on one that is primary no longer."""
    where, primary = backend(directions.cluster, "write"), directions.primary
    servers = {member.name: f"{where}/{member.name}" for member in directions.members}
    others = [server for name, server in servers.items() if not primary or name != primary.name]
    pushes = [Push(f"set server {server} health down", server) for server in others]
    if primary is not None:
        server = servers[primary.name]
        pushes.append(Push(f"set server {server} health up", server, needed=True))
    pushes += [Push(f"shutdown sessions server {server}", server) for server in others]
    return pushes
