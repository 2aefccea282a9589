"""How much a member has received and not applied."""

from __future__ import annotations

from holdfast.core.gtid import SEQUENCE_STEP, Flavor
from holdfast.core.membership import BINLOG_SIZE
from holdfast.core.view import MemberState

SMALL = 300
"""Bytes in a binlog of a transaction of one small row."""


def backlog(state: MemberState) -> int:
    """About how many small transactions that is; 0 when there is none.

    MariaDB's sequence numbers jump where a primary was promoted, and its positions say little right after the source
    has changed, or begun another file: the lesser of the two counts.
    """
    left = state.received_set().subtract(state.applied_set()).count()
    if state.flavor is Flavor.MYSQL or not left:
        return left
    replication = state.replication
    size = replication.executed.behind(replication.fetched, BINLOG_SIZE)
    return max(1, min(left % SEQUENCE_STEP, size // SMALL))
