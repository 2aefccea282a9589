"""The primary is shut down and started again in place, by order, or because it hangs: no other member takes over
meanwhile."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.cluster import Cluster
from holdfast.core.commands import Fence, Restart, name_of
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.record import Record
from holdfast.core.rules.diagnosis import Diagnosis, Primary
from holdfast.core.rules.returned import OPENING, returning
from holdfast.core.transition import RestartInPlace, Step
from holdfast.core.view import View

CLOSING = RestartInPlace(Step.CLOSE)
RESTARTING = name_of(Restart)
PATIENCES = 4
"""A server that has not answered for this many times ``write_patience`` does not recover without help."""


def close_step(record: Record, view: View) -> Decision:
    """CLOSE: the primary's agent shuts down its server in order and starts it again; then it is opened in place.

    If the agent is interrupted while the server is down, this is a primary that died like any other.
    """
    name = record.primary
    state = view.state(name)
    if state is None:
        return Decision(f"{name} was to be restarted, but its agent does not answer")
    if state.ended:  # on its way out it may be seen to be dying
        if state.busy == RESTARTING:
            return Decision(f"the server of {name}, the primary, is being restarted")
    elif state.incarnation == record.target.incarnation(name):
        return Decision(f"{name}, the primary, will be restarted", (Send(name, Restart()),))
    why = f"the server of {name}, the primary, has ended for its restart"
    return Decision(why, (Save(replace(record, transition=OPENING), why),))


def hung_step(
    cluster: Cluster, record: Record, view: View, lost: Diagnosis, refusal: str
) -> Decision:
    """The primary's server does not answer, and no member may take over from it: it is killed, to be started again.

    A statement may wait for an acknowledgement and hold what the server needs to log in any account or to answer its
    agent: MySQL logs nobody in while a ``CREATE USER`` waits, MariaDB opens ``mysql.user`` for nobody. If the voters
    were restarted meanwhile, they must log in again, which such a primary cannot allow: without this step it would
    stand still for good.

    Nothing that was acknowledged is lost: this is the crash of a primary that no member may replace. It has flushed
    what it acknowledged, and is compared with its voters before it is opened (``core/rules/returned.py``).

    :param refusal: why no member may take over; not because of a setting, as operators decide then
    """
    name = record.primary
    state = view.state(name)
    silent = state.silent_seconds if state else 0.0
    patience = PATIENCES * cluster.settings.write_patience
    if state and state.full:
        return Decision(refusal)  # nor would it come up
    if lost.primary not in (Primary.FROZEN, Primary.STUCK) or silent < patience:
        return Decision(refusal)
    why = refusal + f"; {name} is killed and will be restarted in place"
    if returning(record):
        return Decision(why, (Send(name, Fence()),))
    # saved first, so that the history says why it ended
    return Decision(why, (Save(replace(record, transition=OPENING), why),))
