"""The replicas' sessions on a primary, and what a replica that is no voter may have acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Acks(StrEnum):
    """Whether a dump session acknowledges. UNKNOWN: the server does not show it."""

    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Dump:
    """A replica's session on its source.

    :ivar session: its number on the server; :ivar host: where it comes from
    :ivar server: which server it says it is: its ``server_uuid`` (MySQL), its ``server_id`` (MariaDB); "": it does not
        say
    """

    session: int
    account: str
    host: str = ""
    server: str = ""
    acks: Acks = Acks.NO


@dataclass(frozen=True, slots=True)
class Doubt:
    """Commits of a primary may have been acknowledged by a replica that is no voter; see ``core/rules/ackers.py``.

    :ivar upto: all that the primary had committed when that replica was gone
    :ivar transactions: how many of them it may have acknowledged, at most
    :ivar why: which replica it was, and what was done about it
    """

    upto: str
    transactions: int
    why: str
