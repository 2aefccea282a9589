"""What outsiders have a say in: executables of the user's (hooks) that are called on the way to another primary.

A call is a step of a decision like a command. Its outcome is part of what was observed; a manager that takes over calls
again, so a hook must bear being called twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """STOP: the old primary loses its clients; before the commit point. START: the new one takes writes."""

    STOP = "stop"
    START = "start"


class HookOutcome(StrEnum):
    """RUNNING: no answer yet. GOOD: go on (also where the hook only warned). BAD: not before the commit point."""

    RUNNING = "running"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Ran:
    """One executable that was run.

    :ivar hook: which of those that are configured
    :ivar command: what it was asked for
    :ivar code: as it exited; None: it did not end by itself
    :ivar output: what it printed, without the middle where that is long
    :ivar trouble: why there is no code, or ""
    """

    hook: str
    command: str
    code: int | None
    seconds: float
    output: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Called:
    """:ivar term: of the record under which it was called; in another term it is called anew
    :ivar text: why it is BAD, or was when it was called before, or what it warned of; or ""
    :ivar ran: in this term, the last ones last
    """

    term: int
    outcome: HookOutcome
    text: str = ""
    ran: tuple[Ran, ...] = ()
