"""What is wrong with members' hosts and settings, as far as it speaks against a switchover to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from holdfast.core.change.preflight import Objection
from holdfast.core.check.facts import Facts
from holdfast.core.check.findings import Finding, Level, in_one_line, names
from holdfast.core.check.member import check_member
from holdfast.core.check.together import check_together

NO_WORSE = frozenset({"disk", "service"})
"""Keys of findings that harm any primary. If the present primary has them too, they are no reason to stay with it: a
disk that fills up is often why an operator wants to switch."""


OF_ALL = frozenset({"replicas"})
"""Keys of findings that need the facts of all members: with the facts of two, a third looks like a stranger."""


def wrong(
    primary: str,
    found: Mapping[str, Facts],
    unanswered: Mapping[str, str],
    shut: Mapping[tuple[str, str], str] | None = None,
) -> dict[str, tuple[Objection, ...]]:
    """For each member but the primary: what is wrong with it, or with it and the primary together.

    :param found: facts by member; of the primary, if it answers
    :param unanswered: members of which nothing is known, and why
    :param shut: (member, source) -> why the host of the member could not replicate from that source
    """
    present = found.get(primary)
    objections = {
        name: tuple(_against(facts, present)) for name, facts in found.items() if name != primary
    }
    for name, why in unanswered.items():
        if name != primary:
            text = f"{name}: cannot tell whether it may take over: {why}"
            objections[name] = (Objection(text, passes=True, candidate=name),)
    for (name, to), why in (shut or {}).items():
        if to != primary:
            text = f"{to}: the host of {name} could not replicate from it: {why}"
            objections[to] = (*objections.get(to, ()), Objection(text, candidate=to))
    return objections


def _against(facts: Facts, present: Facts | None) -> Iterator[Objection]:
    own = {each.key for each in check_member(present) if _is_wrong(each)} if present else set()
    if present and (left_out := [f for f in present.boot.filters if f.startswith("binlog_")]):
        text = (
            f"{present.member} leaves something out of its binary log ({names(left_out)}): {facts.member} lacks it; "
            f"remove it from {present.boot.file}, restart {present.member}, and compare: holdfast member verify"
        )
        yield Objection(text, candidate=facts.member)
    for each in check_member(facts):
        if _is_wrong(each) and not (each.key in NO_WORSE and each.key in own):
            asked_again = each.key == "server"
            yield Objection(in_one_line(facts.member, each), asked_again, facts.member)
    for each in check_together((present, facts), adopting=False) if present else ():
        if _is_wrong(each) and each.key not in OF_ALL:
            yield Objection(in_one_line("", each), candidate=facts.member)


def _is_wrong(finding: Finding) -> bool:
    return finding.level is Level.WRONG
