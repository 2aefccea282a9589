"""What is wrong with members' hosts and settings, as far as it speaks against their taking over on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from holdfast.core.agreement import check_together
from holdfast.core.facts import Facts
from holdfast.core.findings import Finding, Level, in_one_line
from holdfast.core.preflight import Objection
from holdfast.core.prerequisites import check_member

NO_WORSE = frozenset({"disk", "service"})
"""Keys of findings that harm a primary alone. Where they are the present one's as well, it is no reason to stay with
it: a disk that fills up is often why somebody wants to leave."""


OF_ALL = frozenset({"replicas"})
"""Keys of findings that take the facts of all members: of two, a third one looks like a stranger."""


def wrong(
    primary: str, found: Mapping[str, Facts], unanswered: Mapping[str, str]
) -> dict[str, tuple[Objection, ...]]:
    """For each member but the primary, what is wrong with it, or with it and the primary together.

    :param found: facts by member; of the primary where it answers
    :param unanswered: members of which nothing is known, and why
    """
    present = found.get(primary)
    objections = {
        name: tuple(_against(facts, present)) for name, facts in found.items() if name != primary
    }
    for name, why in unanswered.items():
        if name != primary:
            text = f"{name}: whether it may take over is not known: {why}"
            objections[name] = (Objection(text, passes=True, candidate=name),)
    return objections


def _against(facts: Facts, present: Facts | None) -> Iterator[Objection]:
    own = {each.key for each in check_member(present) if _is_wrong(each)} if present else set()
    for each in check_member(facts):
        if _is_wrong(each) and not (each.key in NO_WORSE and each.key in own):
            asked_again = each.key == "server"
            yield Objection(in_one_line(facts.member, each), asked_again, facts.member)
    for each in check_together((present, facts), adopting=False) if present else ():
        if _is_wrong(each) and each.key not in OF_ALL:
            yield Objection(in_one_line("", each), candidate=facts.member)


def _is_wrong(finding: Finding) -> bool:
    return finding.level is Level.WRONG
