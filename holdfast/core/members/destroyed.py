"""Forgetting a member whose host will never answer again: an operator's word takes the place of its agent's.

A voter that lost its vote and could not be told so is remembered as a *stray* (``record.Stray``), until its agent has
answered: it may follow its source still, and acknowledge to it whenever that is the primary. Of a host that was
destroyed no answer ever comes. So it could never be removed, and where its source is named again it would get a seat
among the voters, and be waited for (``failover.name_primary``).

Why it is safe to forget it: strays stand for servers that may acknowledge, in two rules. ``quorum.extendable`` counts
them among those who can, ``name_primary`` gives them a vote. A server that does not exist acknowledges nothing, so
without it both rules see what is. It holds no vote when it is forgotten: that is taken from it before, by the same
steps as from any other member (``membership.py``), so every recovery quorum that is needed stands without it.

And should the operator be mistaken, so that the server comes back as it was:

1. At the primary of that time its account is locked before it is forgotten (:func:`lacks_lock`), and nobody unlocks an
   account that is no member's.
2. At any other that becomes primary later it is a stranger (``core/rules/ackers.py``): its session is ended when the
   agent looks, 20 times a second, and its account locked; what it may have acknowledged alone until then is in doubt,
   and nobody who lacks that takes over by himself.

What is risked is so what any stranger costs: a primary that dies within that moment, before a manager has heard of the
doubt, may take with it what was acknowledged by that server alone. So it is refused while anything shows that the
server lives. (That the primary lists a session of it shows nothing: of a host without power one stays until TCP gives
it up.)
"""

from __future__ import annotations

import math
from dataclasses import replace

from holdfast.core.cluster import Cluster
from holdfast.core.record import Record
from holdfast.core.view import Receiver, Seen, View
from holdfast.core.wording import is_under_way

SILENT_SECONDS = 10.0
"""For so long its agent must have been silent: a host that is being restarted is not destroyed."""


def signs_of_life(cluster: Cluster, view: View, name: str) -> list[str]:
    """What shows that it is not destroyed, or may not be; [] where nothing does."""
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
    """Whether the primary, as far as it is known, would let it in."""
    primary = view.state(record.primary)
    return primary is None or cluster.account(name) not in primary.barred


def waits(cluster: Cluster, record: Record, view: View, name: str) -> str:
    """Why it cannot be forgotten yet, or ""; expects that nothing shows that it lives."""
    if record.transition:
        return is_under_way(record.transition.kind)
    if record.names(name) or record.joint:
        return "it votes still"
    if lacks_lock(cluster, record, view, name):
        return f"its account is to be locked on {record.primary} first"
    return ""


def forgotten(record: Record, name: str) -> Record:
    """The record without it. Expects that nothing is waited for, and that nothing shows that it lives."""
    return replace(record, strays=frozenset(s for s in record.strays if s.name != name))
