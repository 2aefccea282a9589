"""How many transactions a member has received and not applied."""

from __future__ import annotations

from holdfast.core.gtid import SEQUENCE_STEP, Flavor
from holdfast.core.view import MemberState


def backlog(state: MemberState) -> int:
    """About how many transactions are received and not applied; 0 if there are none.

    MariaDB's sequence numbers jump where a primary was promoted: what is left of the term before that is not counted.
    """
    received, applied = state.received_set(), state.applied_set()
    left = received.subtract(applied)
    if state.flavor is Flavor.MYSQL or not left:
        return left.count()
    reached = applied.heads()
    return sum(
        max(number - max(reached.get(domain, (0, ""))[0], number - number % SEQUENCE_STEP), 1)
        for domain, (number, _) in left.heads().items()
    )
