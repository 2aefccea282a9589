"""Builds an entry of the history from what the leading manager saves, hears and sees."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.cluster import Cluster
from holdfast.core.history.candidates import candidates, difference
from holdfast.core.history.entry import (
    FIRST_MOMENTS,
    LAST_MOMENTS,
    LONGEST_GTIDS,
    Entry,
    Moment,
    Outcome,
    Positions,
    Returned,
    Setup,
    Sort,
    What,
    clipped,
)
from holdfast.core.history.verified import Verified
from holdfast.core.record import Record
from holdfast.core.transition import Failover, RestartInPlace, Step, Switchover
from holdfast.core.view import MemberState, Unseen, View

HistoryTransition = Failover | Switchover | RestartInPlace
"""The kinds of transition of which an entry is kept."""

ENTRY_OF: dict[type[HistoryTransition], What] = {
    Failover: What.FAILOVER,
    Switchover: What.SWITCHOVER,
    RestartInPlace: What.RESTART,
}


def told(record: Record | None) -> HistoryTransition | None:
    """What is under way, if an entry is kept of it."""
    transition = record.transition if record else None
    return transition if isinstance(transition, HistoryTransition) else None


def _beginning(before: Record, record: Record) -> HistoryTransition | None:
    """What begins with the record that replaced ``before``."""
    was, now = told(before), told(record)
    anew = (
        was is not None and was.step is Step.OPEN and now is not None and now.step is not Step.OPEN
    )
    return now if type(was) is not type(now) or anew else None


def begun(
    before: Record,
    record: Record,
    view: View,
    at: float,
    cause: str,
    why: str,
    ordered: str = "",
    manager: str = "",
) -> Entry | None:
    """The entry that begins with ``record``; None: none does.

    :param before: the record that it replaced, in which the primary is the old one
    :param at: when the cause was seen; seconds since 1970
    :param why: as saved with the record
    """
    transition = _beginning(before, record)
    if transition is None:
        return None
    state, known = shown(view, before.primary)
    entry = Entry(
        ENTRY_OF[type(transition)],
        clipped(cause),
        at,
        before.primary,
        record.term,
        ordered=clipped(ordered or ("an operator has ordered it" if transition.ordered else "")),
        managers=(manager,) if manager else (),
        before=setup(before),
        positions=Positions(clipped(known, LONGEST_GTIDS)),
    )
    sighting = view.members.get(before.primary)
    if isinstance(sighting, Unseen):
        silent = view.now - sighting.since
        text = f"the agent of {before.primary} is heard no more ({sighting.reason})"
        entry = noted(entry, at - silent, Sort.NOTE, text, before.primary)
    if state and state.silent_seconds:
        text = f"the server of {before.primary} answers its agent no more"
        entry = noted(entry, at - state.silent_seconds, Sort.NOTE, text, before.primary)
    if cause != why:
        entry = noted(entry, at, Sort.NOTE, cause)
    return noted(entry, view.date, Sort.RECORD, f"{why} (term {record.term})")


def continued(
    transition: HistoryTransition, record: Record, view: View, cause: str, manager: str
) -> Entry:
    """The entry of a manager that finds this transition under way, and no entry of it."""
    deposed = "" if isinstance(transition, RestartInPlace) else transition.deposed
    past = transition.step is Step.OPEN and not isinstance(transition, RestartInPlace)
    entry = Entry(
        ENTRY_OF[type(transition)],
        clipped(cause),
        record.failovers[-1].date if _automatic(record, transition, view) else view.date,
        (deposed if past else "") or record.primary,
        record.term,
        new=record.primary if past else "",
        ordered="an operator has ordered it" if transition.ordered else "",
    )
    if not past:
        known = shown(view, record.primary)[1]
        entry = replace(entry, before=setup(record), positions=Positions(known))
    text = (
        f"{manager} continues it at the step {transition.step} in term {record.term}: the manager before it was "
        "lost, or leads no more"
    )
    return taken_over(entry, view.date, manager, text)


def _automatic(record: Record, transition: HistoryTransition, view: View) -> bool:
    """Whether the last of ``failovers`` says when it began."""
    at = record.failovers[-1].date if record.failovers else 0.0
    return isinstance(transition, Failover) and not transition.ordered and view.date - at < 3600


def taken_over(entry: Entry, at: float, manager: str, text: str) -> Entry:
    managers = entry.managers
    if not managers or managers[-1] != manager:
        managers = (*managers, manager)
    return noted(replace(entry, managers=managers), at, Sort.NOTE, text)


def joined(stored: Entry, later: Entry) -> Entry:
    """One entry from what a manager wrote before it was lost, and what the next one has seen of the same change."""
    entry = replace(
        stored,
        managers=tuple(dict.fromkeys((*stored.managers, *later.managers))),
        new=later.new or stored.new,
        stopped=later.stopped if stored.stopped is None else stored.stopped,
        named=stored.named or later.named,
        opened=stored.opened or later.opened,
        ended=later.ended,
        whole=later.whole,
        outcome=later.outcome,
        why=later.why,
        before=stored.before or later.before,
        after=later.after or stored.after,
        positions=later.positions if later.positions.new else stored.positions,
        candidates=later.candidates or stored.candidates,
        hooks=stored.hooks + later.hooks,
        returned=later.returned if later.returned != Returned() else stored.returned,
        left_out=stored.left_out + later.left_out,
    )
    if later.positions.new and stored.positions.old and not later.positions.old:
        entry = replace(entry, positions=replace(later.positions, old=stored.positions.old))
    for each in later.moments:
        entry = _kept(entry, replace(each, at_ms=since(stored, later.begun + each.at_ms / 1000)))
    return entry


def same(stored: Entry, entry: Entry) -> bool:
    """Whether ``stored``, still under way, is the change that a later manager continues as ``entry``."""
    return (
        stored.under_way
        and stored.what is entry.what
        and stored.old == entry.old
        and stored.term <= entry.term
    )


def orphaned(entry: Entry, record: Record, at: float) -> Entry:
    """The entry after the change is over, if the manager that led it was lost before it could write that down."""
    last = next((m.text for m in reversed(entry.moments) if m.sort is Sort.RECORD), "its beginning")
    why = f"the manager that led it was lost after: {last}; the next one found it over"
    changed = record.primary != entry.old
    done = changed or (entry.what is What.RESTART and record.transition is None)
    return replace(
        entry,
        new=record.primary if changed else entry.new,
        outcome=Outcome.DONE if done else Outcome.UNDONE,
        ended=at,
        whole=entry.whole or at,
        after=setup(record),
        why=clipped(why),
    )


def saved(entry: Entry, before: Record, record: Record, why: str, view: View) -> Entry:
    """The record was replaced while ``entry`` was under way, and this begins no other entry.

    If the record names another primary, :func:`compared` adds more.
    """
    at = view.date
    was, now = told(before), told(record)
    if was and now and was.step is not now.step and now.step is Step.FREEZE:
        entry = noted(entry, at, Sort.NOTE, "writes stop")
        entry = replace(entry, stopped=at if entry.stopped is None else entry.stopped)
    entry = noted(entry, at, Sort.RECORD, f"{why} (term {record.term})")
    if before.primary != record.primary:
        entry = replace(entry, new=record.primary, named=at)
    if now is not None:
        return entry
    over = replace(entry, ended=at, after=setup(record), why=clipped(why))
    if entry.new == record.primary or (
        entry.what is What.RESTART and was and was.step is Step.OPEN
    ):
        return replace(over, outcome=Outcome.DONE, opened=entry.opened or at)
    return replace(over, outcome=Outcome.UNDONE)


def gave_way(entry: Entry, before: Record, record: Record, why: str, view: View) -> Entry:
    """The entry after another one began before this one had ended."""
    entry = noted(entry, view.date, Sort.RECORD, why)
    undone = before.primary == entry.old and entry.what is What.FAILOVER
    return replace(
        entry,
        outcome=Outcome.UNDONE if undone else Outcome.REPLACED,
        ended=view.date,
        after=setup(record),
        why=clipped(why),
    )


def compared(entry: Entry, cluster: Cluster, before: Record, record: Record, view: View) -> Entry:
    """Why this member was named, and what it had that the old primary had not, and the reverse. Takes a while if there
    are many GTIDs.

    :param view: of the moment at which it was named
    """
    new = view.state(record.primary)
    if new is None:
        return entry
    old, known = shown(view, before.primary)
    known = known or entry.positions.old
    return replace(
        entry,
        positions=Positions(
            clipped(known, LONGEST_GTIDS),
            clipped(new.applied, LONGEST_GTIDS),
            difference(before, old, known, new),
        ),
        candidates=candidates(cluster, before, view, record.primary),
    )


def noted(
    entry: Entry,
    at: float,
    sort: Sort,
    text: str,
    member: str = "",
    ms: float = 0.0,
    steps: dict[str, float] | None = None,
) -> Entry:
    """:param at: seconds since 1970; of its end, if it took time"""
    moment = Moment(since(entry, at), sort, clipped(text), member, round(ms, 2), steps or {})
    return _kept(entry, moment)


def _kept(entry: Entry, moment: Moment) -> Entry:
    moments = (*entry.moments, moment)
    if len(moments) <= FIRST_MOMENTS + LAST_MOMENTS:
        return replace(entry, moments=moments)
    moments = (*moments[:FIRST_MOMENTS], *moments[-LAST_MOMENTS:])
    return replace(entry, moments=moments, left_out=entry.left_out + 1)


def since(entry: Entry, at: float) -> float:
    """Milliseconds since the entry began."""
    return round((at - entry.begun) * 1000, 1)


def setup(record: Record) -> Setup:
    return Setup(
        record.term,
        record.primary,
        tuple(sorted(record.target.names())),
        record.acks,
        record.mode.value,
    )


def shown(view: View, name: str) -> tuple[MemberState | None, str]:
    """A member as it is seen now, and the GTIDs that it reported last, also if it is not seen any more."""
    state = view.state(name)
    if state is None:
        sighting = view.members.get(name)
        last = sighting.last if isinstance(sighting, Unseen) else None
        return None, (last.applied or last.last_applied) if last else ""
    return state, state.applied or state.last_applied


def order(what: str, at: float, record: Record, manager: str, by_person: bool = True) -> Entry:
    """An order of an operator that was begun; or something that followed from it automatically."""
    entry = replace(alarm(what, at, record, manager), what=What.ORDER)
    return replace(entry, ordered=entry.cause) if by_person else entry


def alarm(what: str, at: float, record: Record, manager: str) -> Entry:
    """Something that happened without an order, and that an operator must know of."""
    return Entry(
        What.ALARM,
        clipped(what),
        at,
        record.primary,
        record.term,
        managers=(manager,) if manager else (),
        ended=at,
        outcome=Outcome.DONE,
    )


def verification(found: Verified, told: str, record: Record, manager: str) -> Entry:
    """:param told: the result, in one sentence"""
    return Entry(
        What.VERIFICATION,
        clipped(told),
        found.began,
        record.primary,
        record.term,
        ordered="an operator has ordered it" if found.ordered else "",
        managers=(manager,) if manager else (),
        ended=found.ended,
        outcome=Outcome.UNDONE if found.halted else Outcome.DONE,
        why=clipped(found.halted),
        verification=found,
    )
