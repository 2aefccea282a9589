"""When hooks are called on the way to another primary, and what waits for them.

    STOP    before the commit point, when the old primary certainly takes no more writes, or is about to be frozen:
            no member is named until it has succeeded
    START   when the primary takes writes, be it the new one or, if no member was named, the old one again:
            nothing waits for it

The record owes START (``Record.owed``) from before STOP is called until START has succeeded, no matter which manager
leads then. The call of STOP is not recorded: a manager that takes over calls it again.

A hook says nothing about the servers: no rule that protects a transaction or prevents a second primary depends on one.
"""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.calls import Called, HookOutcome, Phase
from holdfast.core.decision import Call, Decision, Save
from holdfast.core.record import Owed, Record
from holdfast.core.transition import Failover, Step, TransitionKind
from holdfast.core.view import View

WITHOUT_STOP_HOOK = "holdfast failover --skip-stop-hook"


def hooks_step(record: Record, view: View, phase: Phase = Phase.STOP) -> Decision | None:
    """The call, or why the hook is waited for; None: continue.

    A hook that failed is requested again at each decision; the caller decides how often it is called
    (``manager/listeners/hooks.py``).
    """
    if not view.hooked or _skipped(record):
        return None
    what = f"the {phase} hook for {record.primary}"
    if record.owed is None:
        why = f"{what} will be called, and the start hook after it in any case"
        return Decision(why, (Save(replace(record, owed=owed(record, view)), why),))
    last = _called(record, view, phase)
    if last is None:
        return Decision(f"{what} is called", (Call(phase),))
    match last.outcome:
        case HookOutcome.GOOD:
            return None
        case HookOutcome.RUNNING:
            before = f", which failed before ({last.text})" if last.text else ""
            return Decision(f"waiting for {what}{before}")
        case HookOutcome.BAD:
            held = f"held up: {what} failed: {last.text}"
            if isinstance(record.transition, Failover):
                held += f"; to continue without it: {WITHOUT_STOP_HOOK}"
            return Decision(held, (Call(phase),))


def failed(record: Record, view: View, phase: Phase = Phase.STOP) -> str:
    """Why the hook blocks the change, or ""; also while it is being called again."""
    if not view.hooked or _skipped(record):
        return ""
    last = _called(record, view, phase)
    return last.text if last and last.outcome is not HookOutcome.GOOD else ""


def called(record: Record, view: View, phase: Phase = Phase.STOP) -> bool:
    """Whether this manager has called the hook. A script may set the server read-only, as MHA's samples do."""
    return view.hooked and _called(record, view, phase) is not None


def owed(record: Record, view: View, kind: TransitionKind | None = None) -> Owed | None:
    """What the next record owes, when a change of primary begins or is decided.

    :param kind: of the change; None: as the transition of ``record`` says
    """
    if not view.hooked:
        return None
    if kind is None:
        kind = record.transition.kind if record.transition else TransitionKind.FAILOVER
    return Owed(kind, record.primary)


def start_step(record: Record, view: View, decision: Decision) -> Decision:
    """``decision``, extended by what START requires."""
    if record.owed is None or not _open(record, view):
        return decision
    if any(isinstance(step, Save) for step in decision.steps):
        return decision
    if not view.hooked:
        why = "no hook is configured any more that would be called with the new primary"
        return Decision(why, (Save(replace(record, owed=None), why),))
    last = _called(record, view, Phase.START)
    if last is None:
        return replace(decision, steps=(*decision.steps, Call(Phase.START)))
    match last.outcome:
        case HookOutcome.RUNNING if not last.text:
            return decision
        case HookOutcome.GOOD:
            warned = f" ({last.text})" if last.text else ""
            why = f"the start hook was told that {record.primary} takes writes{warned}"
            return Decision(why, (Save(replace(record, owed=None), why),))
        case HookOutcome.BAD | HookOutcome.RUNNING:
            failed = f"; the start hook for {record.primary} failed: {last.text}"
            why = decision.reason + failed
            steps = (*decision.steps, Call(Phase.START))
            return replace(decision, reason=why, steps=steps, well=False)


def _open(record: Record, view: View) -> bool:
    """Whether clients can be directed to the primary, and will not be directed away from it at once."""
    step = record.transition.step if record.transition else None
    if step in (Step.ELECT, Step.CLOSE, Step.CHAIN, Step.FREEZE):
        return False
    state = view.state(record.primary)
    return state is not None and state.writable and record.counts(state.name, state.incarnation)


def _skipped(record: Record) -> bool:
    return isinstance(record.transition, Failover) and record.transition.skip_stop


def _called(record: Record, view: View, phase: Phase) -> Called | None:
    called = view.called.get(phase)
    return called if called and called.term == record.term else None
