"""Why one member and not another: an election, explained afterwards."""

from __future__ import annotations

from holdfast.core.cluster import Cluster
from holdfast.core.gtid import parse
from holdfast.core.history.entry import MOST_CANDIDATES, CandidateNote, clipped
from holdfast.core.record import Record
from holdfast.core.rules.deposed import wished
from holdfast.core.rules.election import against, drained
from holdfast.core.transition import Switchover
from holdfast.core.view import MemberState, Seen, View
from holdfast.core.wording import transactions


def candidates(
    cluster: Cluster, record: Record, view: View, chosen: str
) -> tuple[CandidateNote, ...]:
    """All members that could have been chosen, ``chosen`` first; the old primary is not among them.

    :param record: the record on which the decision was based: it still names the old primary
    """
    others = sorted(cluster.others(record.primary), key=lambda each: each.name != chosen)
    return tuple(
        CandidateNote(
            each.name,
            each.name == chosen,
            record.target.incarnation(each.name) is not None,
            state.received_set().last() if state else "",
            clipped(_reason(cluster, record, view, each.name, chosen)),
        )
        for each in others[:MOST_CANDIDATES]
        for state in (view.state(each.name),)
    )


def _reason(cluster: Cluster, record: Record, view: View, name: str, chosen: str) -> str:
    sighting = view.members.get(name)
    if not isinstance(sighting, Seen):
        return f"its agent does not answer ({sighting.reason if sighting else 'not asked yet'})"
    state, best = sighting.state, view.state(chosen)
    if name == chosen:
        return _why_chosen(cluster, record, view, state)
    if not state.up:
        return f"its server is {state.server}"
    if state.unobserved:
        return f"its agent cannot look into its server: {state.unobserved}"
    if state.silent_seconds:
        return "its server does not answer its agent"
    if objection := against(state, wished(cluster, record.wish)):
        return objection
    if best is None:
        return "another one was chosen"
    lacks = best.received_set().subtract(state.received_set())
    if lacks and not state.received_set().covers(best.received_set()):
        return f"it lacked {transactions(lacks)} that {chosen} had received"
    return _why_later(cluster, record, state, best)


def _why_chosen(cluster: Cluster, record: Record, view: View, state: MemberState) -> str:
    seen = [s for m in cluster.others(record.primary) if (s := view.state(m.name)) and s.up]
    promised = [s.name for s in seen if s.promised == record.term and s.name != state.name]
    reasons = []
    if wanted := _wanted(record, state.name, "it"):
        reasons.append(wanted)
    if promised:
        reasons.append(f"it had all that {', '.join(sorted(promised))} had received")
    rank = cluster.setting(state.name).priority
    if any(cluster.setting(s.name).priority < rank for s in seen if s is not state):
        reasons.append(f"its priority is {rank}")
    if record.target.incarnation(state.name) is None:
        reasons.append("a learner that had received more than the voters")
    return "; ".join(reasons) or "nobody else could be asked"


def _wanted(record: Record, name: str, called: str) -> str:
    """Why this member was wanted, or "". A switchover names its member, whether the operator or the preflight chose
    it."""
    if record.wish != name:
        return ""
    of_switchover = isinstance(record.transition, Switchover)
    return f"the switchover was to {called}" if of_switchover else f"an operator wanted {called}"


def _why_later(cluster: Cluster, record: Record, state: MemberState, best: MemberState) -> str:
    if wanted := _wanted(record, best.name, best.name):
        return f"another one was chosen: {wanted}"
    mine, other = (cluster.setting(each.name).priority for each in (state, best))
    if mine != other:
        return f"its priority is {mine}, that of {best.name} {other}"
    if record.target.incarnation(state.name) is None:
        return "a learner: voters go first"
    if not drained(state):
        left = transactions(state.received_set().subtract(state.applied_set()))
        return f"it had as much, and {left} of that to apply"
    return f"as good as {best.name}: it had as much, and its priority is the same"


def difference(record: Record, old: MemberState | None, known: str, new: MemberState) -> str:
    """What the old primary had last reported (``known``), compared with what the new one had when it was named."""
    name = record.primary
    if not known:
        return f"how far {name} had come was not known"
    had, has = parse(new.flavor, known), new.applied_set()
    missing, more = had.subtract(has), has.subtract(had)
    exact = old is not None and old.up and not old.silent_seconds
    moment = "" if exact else ", as far as it was last seen"
    if missing:
        count, shown = transactions(missing), clipped(str(missing), 200)
        meaning = _meaning(record, name)
        return f"{new.name} lacked {count} that {name} had{moment} ({shown}): {meaning}"
    if more and not exact:
        count = transactions(more)
        return f"{new.name} had all that {name} had when it was last seen, and {count} since"
    return f"{new.name} had all that {name} had{moment}"


def _meaning(record: Record, name: str) -> str:
    lossy = record.electing is not None and record.electing.lossy
    if record.mode == "strong" and not lossy:
        return "no client was told that they are committed"
    return f"they may have been acknowledged; they are lost unless {name} comes back with them"
