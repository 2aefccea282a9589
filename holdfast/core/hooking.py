"""When hooks are called on the way to another primary, and what waits for them.

    STOP    before the commit point, when the old primary surely takes no more writes, or is about to be frozen:
            nobody is named until it has ended well
    START   when the new primary takes writes: nothing waits for it. The record owes it until it has ended well

STOP is remembered nowhere: a manager that takes over calls it again. So what it took away may have to be given back
where nobody else is named after all: then START is owed for the primary that there was (``owing_again``).

A hook says nothing of the servers: no rule that keeps a transaction, or a second primary away, depends on one.
"""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.calls import Called, Outcome, Phase
from holdfast.core.decision import Call, Decision, Save
from holdfast.core.record import Kind, Owed, Record, Step
from holdfast.core.view import View


def hooks_step(record: Record, view: View, phase: Phase = Phase.STOP) -> Decision | None:
    """The call, or why it is waited for; None: go on.

    Where it failed it is asked for on and on; who calls it decides how often that is done (``manager/hooks.py``).
    """
    if not view.hooked or (record.transition and record.transition.skip_stop):
        return None
    what = f"the {phase} hook for {record.primary}"
    called = _called(record, view, phase)
    if called is None:
        return Decision(f"{what} is called", (Call(phase),))
    again = f", which failed before ({called.text})" if called.text else ""
    match called.outcome:
        case Outcome.GOOD:
            return None
        case Outcome.RUNNING:
            return Decision(f"waiting for {what}{again}")
        case Outcome.BAD:
            return Decision(f"held up: {what} failed: {called.text}", (Call(phase),))


def failed(record: Record, view: View, phase: Phase = Phase.STOP) -> str:
    """Why the hook stands in the way, or \"\"; also while it is being called again."""
    if record.transition and record.transition.skip_stop:
        return ""
    called = _called(record, view, phase) if view.hooked else None
    return called.text if called and called.outcome is not Outcome.GOOD else ""


def owing(record: Record, view: View, kind: Kind, before: str) -> Record:
    """With START owed: ``record.primary`` takes over from ``before``."""
    return replace(record, owed=Owed(kind, before) if view.hooked else None)


def owing_again(record: Record, view: View, back: Record) -> Record:
    """``back``, which goes on with the primary that there was, with START owed where STOP may have been called.

    :param record: the one under which it may have been
    """
    kind = record.transition.kind if record.transition else Kind.FAILOVER
    if not view.hooked:
        return back
    if kind is Kind.SWITCHOVER and _called(record, view, Phase.STOP) is None:
        return back  # a manager that took over undoes it in a term of its own, and called it itself, or nobody did
    return owing(back, view, kind, back.primary)


def start_step(record: Record, view: View, decision: Decision) -> Decision:
    """``decision``, with what START asks for beside it."""
    owed = record.owed
    if owed is None or not _open(record, view):
        return decision
    if any(isinstance(step, Save) for step in decision.steps):
        return decision
    if not view.hooked:
        why = "there are no hooks any more that would be told who takes writes"
        return Decision(why, (Save(replace(record, owed=None), why),))
    called = _called(record, view, Phase.START)
    if called is None:
        return replace(decision, steps=(*decision.steps, Call(Phase.START)))
    match called.outcome:
        case Outcome.RUNNING:
            return decision
        case Outcome.GOOD:
            why = f"the start hook was told that {record.primary} takes writes"
            return Decision(why, (Save(replace(record, owed=None), why),))
        case Outcome.BAD:
            why = f"{decision.reason}; the start hook for {record.primary} failed: {called.text}"
            return replace(
                decision, reason=why, steps=(*decision.steps, Call(Phase.START)), well=False
            )


def _open(record: Record, view: View) -> bool:
    step = record.transition.step if record.transition else None
    if step in (Step.ELECT, Step.CHAIN, Step.FREEZE):
        return False
    state = view.state(record.primary)
    return state is not None and state.writable and record.counts(state.name, state.incarnation)


def _called(record: Record, view: View, phase: Phase) -> Called | None:
    called = view.called.get(phase)
    return called if called and called.term == record.term else None
