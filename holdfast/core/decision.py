"""The parts of a decision."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.core.calls import Phase
from holdfast.core.commands import Command
from holdfast.core.record import Record


@dataclass(frozen=True, slots=True)
class Send:
    """Make ``member``'s agent carry out ``command`` in the record's term."""

    member: str
    command: Command


@dataclass(frozen=True, slots=True)
class Save:
    """Replace the record by compare-and-set; ``why`` goes to the log and the history."""

    record: Record
    why: str


@dataclass(frozen=True, slots=True)
class Call:
    """Call the hooks of ``phase``, in the record's term; ``View.called`` has the outcome."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Decision:
    """The next steps, and why.

    Steps of one decision do not depend on each other: they may be carried out in any order or at the same time, and
    each may be interrupted. A Save always stands alone: what follows from it is decided from the new record.

    :ivar reason: one sentence for an operator, also if there is nothing to do
    :ivar well: whether the cluster is as it should be
    :ivar broken: nothing is done, because the record that was to be saved breaks a rule (``core/change/invariants.py``)
    :ivar again: seconds after which the passing of time alone changes the decision; None: no such moment is known
    """

    reason: str
    steps: tuple[Send | Save | Call, ...] = ()
    well: bool = False
    broken: bool = False
    again: float | None = None
