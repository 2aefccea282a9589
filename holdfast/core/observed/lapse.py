"""What a member owes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lapse:
    """A member owes acknowledgements; see ``core/rules/pulse.py``."""

    seconds: float
    reason: str
