"""Forgetting a member whose host will never answer again: an operator's statement replaces the agent's answer.

A voter that lost its vote and could not be told is remembered as a *stray* (``record.Stray``) until its agent has
answered: it may still follow its source, and acknowledge to it whenever that is the primary. A host that was destroyed
never answers. So its member could never be removed, and if its source is named primary again, it would become one of
the voters, and commits would wait for it (``failover.name_primary``).

Why it is safe to forget the member: strays stand for servers that may acknowledge, in two rules. ``quorum.extendable``
counts them among those that can, ``name_primary`` gives them a vote. A server that does not exist acknowledges nothing,
so without it both rules describe what is true. The member holds no vote when it is forgotten: its vote is removed
before, by the same steps as for any other member (``membership.py``), so every recovery quorum that is needed exists
without it.

The operator may be wrong, and the server may come back as it was:

1. On the present primary its account is locked before the member is forgotten (:func:`lacks_lock`), and nothing unlocks
   an account that belongs to no member.
2. On any server that becomes primary later it is a stranger (``core/rules/ackers.py``): the agent, which looks 20 times
   a second, ends its session and locks its account. What it may have acknowledged alone until then is in doubt, and no
   member that lacks it takes over automatically.

So the risk is the same as with any stranger: a primary that dies within that moment, before a manager has heard of the
doubt, may take with it what that server alone acknowledged. Therefore the order is refused while anything shows that
the server lives. (A session of it in the primary's list shows nothing: the session of a host without power stays until
TCP gives it up.)
"""

from __future__ import annotations

import math
from dataclasses import replace

from holdfast.core.cluster import Cluster
from holdfast.core.record import Record
from holdfast.core.view import Receiver, Seen, View
from holdfast.core.wording import is_under_way

SILENT_SECONDS = 10.0
"""For so long the member's agent must have been silent: a host that is being restarted is not destroyed."""


def signs_of_life(cluster: Cluster, view: View, name: str) -> list[str]:
    """What shows that the host is not destroyed, or may not be; [] if nothing does."""
    found = []
    sighting = view.members.get(name)
    if isinstance(sighting, Seen):
        found.append(f"its agent answers: remove {name} without --destroyed")
    elif sighting is None:
        found.append("its agent was not asked yet: ask again in a moment")
    elif (left := SILENT_SECONDS - (view.now - sighting.since)) > 0:
        found.append(f"its agent fell silent a moment ago: ask again in {math.ceil(left)} s")
    address = cluster.member(name).address
    for member in cluster.others(name):
        state = view.state(member.name)
        if state is None or state.replication.source != address:
            continue
        if state.replication.receiver is Receiver.ON and state.replication.unheard < SILENT_SECONDS:
            found.append(f"{member.name} follows its server, and hears it")
    return found


def lacks_lock(cluster: Cluster, record: Record, view: View, name: str) -> bool:
    """Whether the primary would let the member's account log in, as far as is known."""
    primary = view.state(record.primary)
    return primary is None or cluster.account(name) not in primary.barred


def waits(cluster: Cluster, record: Record, view: View, name: str) -> str:
    """Why the member cannot be forgotten yet, or "". Expects that nothing shows that it lives."""
    if record.transition:
        return is_under_way(record.transition.kind)
    if record.names(name) or record.joint:
        return "it votes still"
    if lacks_lock(cluster, record, view, name):
        return f"its account is to be locked on {record.primary} first"
    return ""


def forgotten(record: Record, name: str) -> Record:
    """The record without the member. Expects that there is nothing to wait for, and that nothing shows that the member
    lives."""
    return replace(record, strays=frozenset(s for s in record.strays if s.name != name))
