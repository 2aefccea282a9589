"""A planned restart of the primary: nobody else takes over meanwhile."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.commands import Restart
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.record import Kind, Record, Step, Transition
from holdfast.core.returned import OPENING
from holdfast.core.view import View

CLOSING = Transition(Kind.RESTART, Step.CLOSE)
RESTARTING = "restart"
"""What ``MemberState.busy`` says while the command is carried out."""


def close_step(record: Record, view: View) -> Decision:
    """CLOSE: the primary's agent ends its server in order and starts it again; then it is opened in place.

    Should the agent be interrupted while the server is down, it is a primary that died like any other.
    """
    name = record.primary
    state = view.state(name)
    if state is None:
        return Decision(f"{name} was to be restarted, and its agent does not answer")
    if state.ended:  # on its way out it may be seen to be dying
        if state.busy == RESTARTING:
            return Decision(f"the server of {name}, the primary, is being restarted")
    elif state.incarnation == record.target.incarnation(name):
        return Decision(f"{name}, the primary, is to be restarted", (Send(name, Restart()),))
    why = f"the server of {name}, the primary, has ended, to be restarted"
    return Decision(why, (Save(replace(record, transition=OPENING), why),))
