"""Whether the accounts by which a member lives are let in, as its agent finds it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Logins:
    """:ivar denied: why the server that it follows does not let its replication account in anew, or ""
    :ivar shut_out: why its own server does not let its agent's account in anew, or ""
    :ivar mended: accounts that were mended on its server a moment ago: their members have not tried them since
    :ivar owed: accounts that were mended on its server, and not through the binlog yet
    """

    denied: str = ""
    shut_out: str = ""
    mended: tuple[str, ...] = ()
    owed: tuple[str, ...] = ()
