"""What a check found, for operators and for scripts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """OK: as it should be. NOTE: worth knowing. WARNING: something is worse than it could be, and nothing that was
    acknowledged is lost because of it. WRONG: the promise does not hold, or the member cannot be managed."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """:ivar key: short name of what was looked at; :ivar mend: what an operator does about it, or \"\""""

    key: str
    level: Level
    text: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class MemberFindings:
    """:ivar member: "" for what concerns several members
    :ivar unanswered: why nothing is known of it, or ""
    """

    member: str
    findings: tuple[Finding, ...] = ()
    unanswered: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """:ivar cluster: "" if agents were asked without a manager"""

    cluster: str
    members: tuple[MemberFindings, ...]

    def count(self, level: Level) -> int:
        return sum(each.level is level for one in self.members for each in one.findings)

    def wrong(self) -> tuple[str, ...]:
        """Each wrong finding in one line: which member, what is wrong, and how to repair it."""
        return tuple(
            in_one_line(one.member, each)
            for one in self.members
            for each in one.findings
            if each.level is Level.WRONG
        )

    def unanswered(self) -> tuple[str, ...]:
        return tuple(f"{m.member}: {m.unanswered}" for m in self.members if m.unanswered)


def in_one_line(member: str, finding: Finding) -> str:
    whose = f"{member}: " if member else ""
    mend = f": {finding.mend}" if finding.mend else ""
    return f"{whose}{finding.text}{mend}"


def ok(key: str, text: str) -> Finding:
    return Finding(key, Level.OK, text)


def names(them: Iterable[str]) -> str:
    return ", ".join(sorted(them))
