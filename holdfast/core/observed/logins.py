"""Whether servers accept the logins of a member's own accounts, as its agent finds it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Logins:
    """:ivar denied: why the server that it follows refuses a new login of its replication account, or ""
    :ivar shut_out: why its own server refuses a new login of its agent's account, or ""
    :ivar mended: accounts that were repaired on its server a moment ago: their members have not tried them since
    :ivar owed: accounts that were repaired on its server, and not through the binlog yet
    """

    denied: str = ""
    shut_out: str = ""
    mended: tuple[str, ...] = ()
    owed: tuple[str, ...] = ()
