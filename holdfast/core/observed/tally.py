"""What a primary counts of its commits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """What a primary has counted of its commits since it started, or since its counters were set to 0.

    :ivar acknowledged: commits that an acknowledgement ended (``…_yes_tx``)
    :ivar let_through: commits that completed without one (``…_no_tx``)
    :ivar switched_off: how often the waiting ended for all (``…_no_times``)
    """

    acknowledged: int = 0
    let_through: int = 0
    switched_off: int = 0
