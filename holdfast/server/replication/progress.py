"""How far a replica has come, according to SHOW REPLICA STATUS."""

from __future__ import annotations

import re

from holdfast.core.observed.progress import Position

SOURCE_FAILED = (1236, 13114)
"""A receiver's errors when its source cannot send: with the source's own words."""

_PURGED = ("purged", "could not find")

NOT_LET_IN = frozenset({1045, 1130, 1142, 1227, 1698, 1862, 3118, 3159, 3955, 4151})
"""A server's errors for an account whose login or replication it refuses: wrong password or unknown name, wrong host,
missing privilege, expired password, locked account, TLS required."""

CANNOT_CONNECT = 2003
_REFUSED = re.compile(r"\(111(?: \"[^\"]*\")?\)\s*$")
"""``(111 "Connection refused")`` of MariaDB, ``(111)`` of MySQL: ECONNREFUSED of Linux, in any language."""


_ATTEMPTS = re.compile(
    r" - retry-time: \d+ +(?:maximum-retries|retries): \d+ +message: "
    r"|\.? This was attempt \d+/\d+, with a delay of \d+ seconds between attempts\. Message: "
)
"""What separates what a receiver tried from why it failed: MariaDB's words, and MySQL's."""


def place(file: str, offset: int) -> Position:
    """The position in a file named like ``binlog.000007``; the name is "" before the first connection."""
    number = file.rpartition(".")[2]
    return Position(int(number), int(offset)) if number.isdecimal() else Position()


def lasting(message: str) -> str:
    """A receiver's error without the count of its attempts: so the same failure has the same text each time."""
    return _ATTEMPTS.sub(": ", message)


def lacks_binlogs(code: int, message: str) -> bool:
    """Whether the source no longer has what the replica needs next.

    False if the source never had it (MariaDB: "which is not in the master's binlog"): that replica has diverged.
    """
    said = message.lower()
    return code in SOURCE_FAILED and any(word in said for word in _PURGED)


def nobody_listens(code: int, message: str) -> bool:
    """Whether the source's host refused the receiver's connection, because no process listens there.

    This is about its last attempt, so up to two seconds old (a pause of one, and a time-out of one); its next
    connection ends it.
    """
    return code == CANNOT_CONNECT and _REFUSED.search(message) is not None
