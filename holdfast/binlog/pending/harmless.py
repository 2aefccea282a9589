"""Judges the transactions that the primary lacks: does any of them change anything?

Servers and administrators log statements on a replica without intending to diverge: ``FLUSH SLOW LOGS`` from logrotate,
``ANALYZE TABLE``, or what a server writes when it opens a MEMORY table that a restart has emptied. Undone or not, the
rows are the same. Such a transaction is left as it is; only its GTID must be repaired (``core/members/own_writes.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from holdfast.binlog.events.changes import Opaque, RowChange, Statement, changes
from holdfast.binlog.events.gtid_event import OPENING_TYPES, Gtid, parse_opening
from holdfast.binlog.events.reader import HEADER, Binlog, Torn, open_binlog
from holdfast.binlog.events.statements import changes_nothing, emptied
from holdfast.binlog.pending.errant import Check, Errant

MOST = 1000
"""Transactions that are judged: more than these are not there by accident."""

MOST = 1000
"""Transactions that are judged: more than these are not there by accident."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """:ivar harmless, harmful: what the primary lacks, in the binlog's order
    :ivar memory: (schema, table) of tables emptied by a restart, provided that they are MEMORY tables
    """

    harmless: tuple[Gtid, ...] = ()
    harmful: tuple[Gtid | None, ...] = ()
    memory: frozenset[tuple[str, str]] = frozenset()


def judge(errant: Errant, check: Check = lambda: None) -> Judgement:
    """Read the transactions that the primary lacks, event by event.

    :raises Unreadable: a file ends in the middle of one
    """
    harmless: list[Gtid] = []
    harmful: list[Gtid | None] = []
    memory: set[tuple[str, str]] = set()
    for stretch in errant.stretches:
        with open_binlog(stretch.file) as log:
            for start, end in stretch.errant():
                check()
                gtid = _gtid(log, start)
                few = len(harmless) + len(harmful) < MOST
                tables = _tables_emptied(changes(log, start, end)) if few else None
                if gtid is None or tables is None:
                    harmful.append(gtid)
                else:
                    harmless.append(gtid)
                    memory |= tables
    return Judgement(tuple(harmless), tuple(harmful), frozenset(memory))


def _tables_emptied(
    found: Iterable[RowChange | Statement | Opaque],
) -> frozenset[tuple[str, str]] | None:
    """The MEMORY tables that a harmless transaction emptied; None if it is not harmless."""
    tables: set[tuple[str, str]] = set()
    for change in found:
        if not isinstance(change, Statement):
            return None
        if table := emptied(change.text):
            tables.add(table)
        elif change.text != "COMMIT" and not changes_nothing(change.text):
            return None
    return frozenset(tables)


def _gtid(log: Binlog, start: int) -> Gtid | None:
    event = next(log.events(start))
    if isinstance(event, Torn) or event.type not in OPENING_TYPES:
        return None
    body = log.read_at(start + HEADER.size, event.size - HEADER.size)
    return parse_opening(event.type, event.server_id, body).gtid
