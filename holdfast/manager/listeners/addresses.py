"""IP addresses of the members' hosts, looked up ahead of time: a change of primary does not wait for DNS."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterable

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.cluster import Cluster, Member
from holdfast.endpoint.contract import MemberPlace

RENEW_SECONDS = 60.0


class Addresses:
    """Never blocks; a host name that is not known yet stands for itself."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._known: dict[str, str] = {}
        self._asked_for: frozenset[str] = frozenset()
        self._at = 0.0

    def prepare(self, cluster: Cluster) -> None:
        """Look up names that are unknown or not fresh. Cheap, unless there is something to do."""
        hosts = frozenset(member.host for member in cluster.members)
        now = self._clock.monotonic()
        if hosts == self._asked_for and now - self._at < RENEW_SECONDS:
            return
        self._asked_for, self._at = hosts, now
        if names := [host for host in hosts if not _is_address(host)]:
            threading.Thread(target=self.look_up, args=(names,), daemon=True).start()

    def look_up(self, hosts: Iterable[str]) -> None:
        """Blocks for as long as the resolver does."""
        for host in hosts:
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):  # the second: it is no host name at all
                continue  # what was known of it before is better than nothing
            self._known[host] = str(found[0][4][0])

    def place(self, member: Member) -> MemberPlace:
        ip = self._known.get(member.host, member.host)
        return MemberPlace(member.name, member.host, ip, member.port)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
