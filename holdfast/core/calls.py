"""Calls to the user's executables (hooks), which are made on the way to another primary.

A call is a step of a decision, like a command. Its outcome is part of what was observed. A manager that takes over
calls again, so a hook must tolerate being called twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """STOP: the old primary loses its clients; before the commit point. START: the new primary takes writes."""

    STOP = "stop"
    START = "start"


class HookOutcome(StrEnum):
    """RUNNING: no answer yet. GOOD: continue (also if the hook only warned). BAD: the commit point must not be
    passed."""

    RUNNING = "running"
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Ran:
    """One executable that was run.

    :ivar hook: which of the configured hooks
    :ivar command: the argument that says what it was called for
    :ivar code: its exit code; None: it did not exit
    :ivar output: what it printed, without the middle if that is long
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
    """:ivar term: of the record under which the hook was called; in another term it is called again
    :ivar text: why the outcome is BAD, or was at the previous call, or what the hook warned of; or ""
    :ivar ran: the executables run in this term, the latest last
    """

    term: int
    outcome: HookOutcome
    text: str = ""
    ran: tuple[Ran, ...] = ()
