"""What one save of the record changed, as programs read it in an event; the event's text says the same in words."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.history.build import told
from holdfast.core.history.entry import Outcome
from holdfast.core.record import Record
from holdfast.core.transition import Step, TransitionKind


@dataclass(frozen=True, slots=True)
class RecordChange:
    """:ivar ended: the failover, switchover or restart that this save ends; None: it ends none
    :ivar outcome: how that ended: DONE or UNDONE
    :ivar named: the save names another primary
    :ivar admitted: members with a run that votes from now on and did not vote before
    :ivar dismissed: members with a run that no longer votes
    :ivar settled: a change of voters is complete
    """

    ended: TransitionKind | None = None
    outcome: Outcome | None = None
    named: bool = False
    admitted: tuple[str, ...] = ()
    dismissed: tuple[str, ...] = ()
    settled: bool = False


def changed(before: Record | None, record: Record) -> RecordChange:
    """:param before: the record that ``record`` replaced"""
    if before is None:
        return RecordChange(named=True)
    was = told(before)
    ended = was if told(record) is None else None
    voted, votes = before.target.voters, record.target.voters
    return RecordChange(
        ended=ended.kind if ended else None,
        outcome=(Outcome.DONE if ended.step is Step.OPEN else Outcome.UNDONE) if ended else None,
        named=before.primary != record.primary,
        admitted=tuple(sorted(name for name, _ in votes - voted)),
        dismissed=tuple(sorted(name for name, _ in voted - votes)),
        settled=before.joint and not record.joint,
    )
