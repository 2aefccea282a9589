"""What a look at the members adds to an entry of the history: whether the primary is open, what hooks did, and what
became of the old primary."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.calls import Called, HookOutcome, Phase
from holdfast.core.cluster import Cluster
from holdfast.core.commands import Clone, Rewind, name_of
from holdfast.core.history.build import noted, since, told
from holdfast.core.history.entry import (
    LONGEST_OUTPUT,
    MOST_HOOKS,
    Entry,
    HookResult,
    Sort,
    What,
    both_ends,
    clipped,
)
from holdfast.core.record import Record
from holdfast.core.rules.attachment import attached
from holdfast.core.transition import Step
from holdfast.core.view import MemberState, TailVerdict, View


def looked(entry: Entry, cluster: Cluster, record: Record, view: View) -> Entry:
    """The entry with what a look at the members adds; the same entry if that is nothing."""
    if entry.opened is None and _is_open(entry, record, view):
        entry = replace(entry, opened=view.date)
        entry = noted(entry, view.date, Sort.NOTE, f"{record.primary} takes writes", record.primary)
    return _returning(entry, cluster, record, view)


def whole(entry: Entry, at: float, reason: str) -> Entry:
    """The entry after every member is as it should be: it is complete."""
    if entry.ended is None or entry.whole is not None:
        return entry
    return replace(noted(entry, at, Sort.NOTE, reason), whole=at)


def hooked(entry: Entry, view: View) -> Entry:
    """The entry with the results of the hooks; the same entry if there are none yet."""
    for phase, called in view.called.items():
        if called.term >= entry.term and called.outcome is not HookOutcome.RUNNING:
            entry = _called(entry, phase, called, view.date)
    return entry


def _called(entry: Entry, phase: Phase, called: Called, at: float) -> Entry:
    ran = tuple(
        replace(
            r,
            hook=clipped(r.hook),
            output=both_ends(r.output, LONGEST_OUTPUT),
            trouble=clipped(r.trouble),
        )
        for r in called.ran[-MOST_HOOKS:]
    )
    text = clipped(called.text)
    result = HookResult(phase.value, called.outcome.value, text, since(entry, at), ran)
    if any(replace(each, at_ms=result.at_ms) == result for each in entry.hooks):
        return entry
    return replace(entry, hooks=(*entry.hooks, result)[-MOST_HOOKS:])


def _is_open(entry: Entry, record: Record, view: View) -> bool:
    """Whether the member that is to be primary takes writes; False before the commit point."""
    transition = told(record)
    if transition and transition.step is not Step.OPEN:
        return False
    state = view.state(record.primary)
    named = entry.what is What.RESTART or entry.new == record.primary
    return named and state is not None and state.up and state.writable and not state.silent_seconds


def _returning(entry: Entry, cluster: Cluster, record: Record, view: View) -> Entry:
    """The entry with what becomes of the old primary."""
    if not entry.new or entry.returned.following is not None:
        return entry
    if told(record) and entry.opened is None:
        return entry
    state = view.state(entry.old)
    if state is None:
        return entry
    returned = entry.returned
    tail = state.tail
    if tail.term >= entry.term:
        count = tail.transactions or returned.transactions
        if tail.verdict is not TailVerdict.UNCHECKED:
            reason = clipped(tail.reason) or returned.reason
            returned = replace(returned, verdict=tail.verdict.value, reason=reason)
        if tail.saved and tail.saved not in returned.saved:
            returned = replace(returned, saved=(*returned.saved, tail.saved)[-4:])
        returned = replace(returned, transactions=count)
    if state.unfit and not returned.reason:
        returned = replace(returned, reason=clipped(state.unfit))
    if _is_back(entry, cluster, record, state):
        returned = replace(returned, following=view.date)
        text = f"{entry.old} follows {record.primary}"
        if entry.old == record.primary:
            text = f"{entry.old} is primary again"
        entry = noted(entry, view.date, Sort.NOTE, text, entry.old)
    return entry if returned == entry.returned else replace(entry, returned=returned)


def _is_back(entry: Entry, cluster: Cluster, record: Record, state: MemberState) -> bool:
    if not state.observed or state.unfit:
        return False
    if entry.old == record.primary:
        return state.writable
    return not state.suspects and attached(cluster, record, state)


def did(entry: Entry, command: str) -> Entry:
    """The old primary has carried out the command of that name."""
    returned = entry.returned
    if command == name_of(Rewind):
        returned = replace(returned, rewound=True)
    elif command == name_of(Clone):
        returned = replace(returned, cloned=True)
    return entry if returned == entry.returned else replace(entry, returned=returned)
