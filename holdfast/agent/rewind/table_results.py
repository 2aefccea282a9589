"""The results of a verification so far, by table, and its progress; kept on disk as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

from pydantic import TypeAdapter

from holdfast.core.observed.comparison import Difference, Verification
from holdfast.server.data.chunks import Key

NAMED = 3
"""The number of a table's ranges that one sentence names."""
SHOWN = 20
"""The number of differing pieces of a table that are named; all are counted."""


@dataclass(frozen=True, slots=True)
class TableResult:
    """:ivar rows: how many were compared; :ivar pieces: in how many
    :ivar different: how many pieces differ; :ivar ranges: the first of them
    :ivar skipped: why it was not compared, or \"\"
    """

    rows: int = 0
    pieces: int = 0
    different: int = 0
    ranges: tuple[str, ...] = ()
    skipped: str = ""

    def with_piece(self, rows: int, range_of_difference: str) -> TableResult:
        more = (range_of_difference,) if range_of_difference else ()
        return replace(
            self,
            rows=self.rows + rows,
            pieces=self.pieces + 1,
            different=self.different + len(more),
            ranges=(*self.ranges, *more)[:SHOWN],
        )


@dataclass(frozen=True, slots=True)
class Findings:
    """The results of a verification so far, and its progress.

    :ivar began, ended: seconds since 1970; 0: not yet
    :ivar wanted, rate, max_load: as it was ordered
    :ivar table, after: where it continues; :ivar last: the last key of that table when it was begun
    :ivar finished: tables that are done
    :ivar halted, failed, interrupted, ordered, repair: as in ``view.Verification``
    """

    began: float = 0.0
    ended: float = 0.0
    primary: str = ""
    wanted: tuple[str, ...] = ()
    rate: int = 0
    max_load: int = 0
    table: str = ""
    after: Key = ()
    last: Key = ()
    finished: tuple[str, ...] = ()
    results: dict[str, TableResult] = field(default_factory=dict)
    halted: str = ""
    failed: bool = False
    interrupted: int = 0
    ordered: bool = False
    repair: bool = False

    @property
    def under_way(self) -> bool:
        return self.began > 0 and not self.ended

    def different(self) -> list[Difference]:
        return [
            Difference(table, _ranges(result))
            for table, result in sorted(self.results.items())
            if result.different
        ]

    def told(self) -> Verification:
        return Verification(
            began=self.began,
            ended=self.ended,
            primary=self.primary,
            tables=sum(1 for each in self.results.values() if not each.skipped),
            skipped=sum(1 for each in self.results.values() if each.skipped),
            rows=sum(each.rows for each in self.results.values()),
            different=sum(1 for each in self.results.values() if each.different),
            halted=self.halted,
            failed=self.failed,
            interrupted=self.interrupted,
            ordered=self.ordered,
            repair=self.repair,
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def of_json(cls, text: str) -> Findings:
        """:raises ValueError: the text is no such JSON"""
        return TypeAdapter(cls).validate_json(text)


def _ranges(result: TableResult) -> str:
    shown = "; ".join(result.ranges[:NAMED])
    more = result.different - NAMED
    return f"{shown}; and {more} more ranges" if more > 0 else shown
