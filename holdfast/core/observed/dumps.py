"""The replicas' sessions on a primary, and what may have been acknowledged by one that is no voter's."""

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

    :ivar session: the server's number of it; :ivar host: where it comes from
    :ivar server: which server it says it is: its ``server_uuid`` (MySQL), its ``server_id`` (MariaDB); "": it does not
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
    :ivar why: who it was, and what was done about it
    """

    upto: str
    transactions: int
    why: str
