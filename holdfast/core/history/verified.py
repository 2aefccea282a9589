"""The result of a verification, as the history keeps it: one entry for each, with its result table by table.

The history keeps a limited number of entries, and a schedule of every hour must not push failovers out of it. So
verifications that a schedule began, that were completed and that found no difference share one entry per member and
day: it holds the last one, and counts the others (:func:`merged`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from holdfast.core.view import MemberState

MOST_TABLES = 50
"""This many tables are named; those that differ come first, and all are counted."""
LONGEST_NAME, LONGEST_RANGES = 140, 300
"""Characters of a table's name (MySQL: 64 each for schema and table), and of the ranges in which it differs."""
SHARED_SECONDS = 86_400.0
"""For so long after the first of them uneventful verifications of a member share its entry."""


@dataclass(frozen=True, slots=True)
class TableVerified:
    """:ivar rows: how many were compared
    :ivar ranges: in which rows it differs, or ""; :ivar skipped: why it was not compared, or ""
    """

    table: str
    rows: int = 0
    ranges: str = ""
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Verified:
    """:ivar began, ended: seconds since 1970, by the clock of the member's host; ``ended`` of one that may continue:
        when it was halted
    :ivar over: it does not continue
    :ivar halted: why not all tables were compared, or ""; :ivar failed: it was not halted on purpose
    :ivar interrupted: how many times it has continued after an interruption
    :ivar ordered: an operator began it, not a schedule
    :ivar repair: a clone of the member was ordered with it, in case it differs
    :ivar equal, different, skipped: how many tables; :ivar rows: how many were compared
    :ivar tables: MOST_TABLES at most; :ivar left_out: how many are not named
    :ivar repeats: how many before it were the same, since ``since``; 0 for the first
    """

    member: str
    primary: str
    began: float
    ended: float
    over: bool = True
    halted: str = ""
    failed: bool = False
    interrupted: int = 0
    ordered: bool = False
    repair: bool = False
    equal: int = 0
    different: int = 0
    skipped: int = 0
    rows: int = 0
    tables: tuple[TableVerified, ...] = ()
    left_out: int = 0
    repeats: int = 0
    since: float = 0.0

    @property
    def uneventful(self) -> bool:
        return not (self.ordered or self.halted or self.different)


def halted_or_over(state: MemberState, at: float, findings: Mapping[str, Any]) -> Verified | None:
    """The result of the member's last verification; None while it is under way, or if there was none.

    :param at: the moment of the look; seconds since 1970
    :param findings: as its agent reports them table by table (``agent/api/verify_api.py``); {} if it could not be
        asked: then the tables that differ are those that its state names
    """
    found = state.verified
    if found is None or not (found.ended or found.halted):
        return None
    tables = [
        TableVerified(
            each.table[:LONGEST_NAME], ranges=(each.ranges or "not known")[:LONGEST_RANGES]
        )
        for each in state.differs
    ]
    if findings.get("began") == found.began:
        tables = [_table(name, each) for name, each in findings["results"].items()]
    tables.sort(key=lambda each: (not each.ranges, not each.skipped, each.table))
    return Verified(
        member=state.name,
        primary=found.primary,
        began=found.began,
        ended=found.ended or at,
        over=found.ended > 0,
        halted=found.halted,
        failed=found.failed,
        interrupted=found.interrupted,
        ordered=found.ordered,
        repair=found.repair,
        equal=found.tables - found.different,
        different=found.different,
        skipped=found.skipped,
        rows=found.rows,
        tables=tuple(tables[:MOST_TABLES]),
        left_out=max(0, len(tables) - MOST_TABLES),
        since=found.began,
    )


def _table(name: str, result: Mapping[str, Any]) -> TableVerified:
    ranges = "; ".join(map(str, result["ranges"]))
    return TableVerified(
        name[:LONGEST_NAME],
        int(result["rows"]),
        (ranges or ("not known" if result["different"] else ""))[:LONGEST_RANGES],
        str(result["skipped"])[:LONGEST_RANGES],
    )


def merged(kept: Verified, found: Verified) -> Verified | None:
    """What the entry of ``kept``, the member's last one, must hold from now on; None: ``found`` gets an entry of its
    own.

    It is ``kept`` itself if nothing is to be added: several managers may have found the same.
    """
    if kept.began == found.began:
        if kept.over and not found.over:
            return kept
        found = replace(found, repeats=kept.repeats, since=kept.since)
        # each manager gives the moment of the halt by its own clock
        return kept if replace(found, ended=kept.ended, tables=kept.tables) == kept else found
    if kept.uneventful and found.uneventful and found.began - kept.since < SHARED_SECONDS:
        return replace(found, repeats=kept.repeats + 1, since=kept.since)
    return None


def shortened(found: Verified, most: int) -> Verified:
    """The result with at most this many tables."""
    left_out = found.left_out + max(0, len(found.tables) - most)
    return replace(found, tables=found.tables[:most], left_out=left_out)
