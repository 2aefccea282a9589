"""Whether a primary that came back in place has all that its voters have received."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.core.record import Kind, Record, Step, Transition
from holdfast.core.view import MemberState, View

OPENING = Transition(Kind.RESTART, Step.OPEN)


def ahead(record: Record, view: View, primary: MemberState) -> MemberState | None:
    """Which voter of any configuration in force has received what the primary no longer has; None: nobody has."""
    voting = {name for each in record.configurations for name in each.names()}
    return ahead_of(primary, [s for name in sorted(voting) if (s := view.state(name)) and s.up])


def ahead_of(primary: MemberState, others: Iterable[MemberState]) -> MemberState | None:
    """Who has received what a primary that came back in place no longer has; None when nobody has.

    To be asked before it is made ready: until then it commits nothing, so the two looks need not be of one moment.
    """
    mine = primary.applied_set()
    return next((other for other in others if not mine.contains(other.received_set())), None)


def may_be_copied(record: Record, view: View, primary: MemberState) -> bool:
    """Whether what the primary has is what counts: it is open, or being opened; or it came back in place and has all
    that its voters have, and takes no writes."""
    if primary.writable or primary.semi_sync.source:
        return True
    return record.transition == OPENING and ahead(record, view, primary) is None
