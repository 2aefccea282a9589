"""A record that is older than what agents have obeyed: noticed, and rebuilt from what the agents remember.

The record is in the store. A store that was put back from a backup, was emptied, or belongs to another manager says
something that was true once, or never was. Nothing may be decided on it: the primary that it names may have been
deposed, and the voters that it lists may not be those that acknowledged. ``core/observed/lineage.py`` says why the
agents know better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from holdfast.core.cluster import Cluster
from holdfast.core.observed.lineage import Memory, RecordMark, follows
from holdfast.core.record import Record, Reign
from holdfast.core.view import MemberState, Seen, Unseen, View

LONGEST_JUMP = 2**24
"""A term may exceed the one that an agent has promised by this much at most. A manager that begins a term each second
needs half a year for that; to use up all numbers (2**53) takes 2**29 commands, each on disk before the next."""

FIRST_JUMP = 2**48
"""The same for an agent that has promised nothing yet: it comes into a cluster of any age."""


def jump_allowed(promised: int, term: int) -> bool:
    return term - promised <= (LONGEST_JUMP if promised else FIRST_JUMP)


def last_states(view: View) -> dict[str, MemberState]:
    """What each agent reported last, now or before: an agent does not forget what it has obeyed."""
    found: dict[str, MemberState] = {}
    for name, sighting in view.members.items():
        match sighting:
            case Seen(state=state):
                found[name] = state
            case Unseen(last=MemberState() as state):
                found[name] = state
    return found


def contradicted(cluster: Cluster, record: Record, view: View, stored: Record | None = None) -> str:
    """Why nothing may be decided on this record, or "": an agent has obeyed a record that does not lead to it.

    Must be called before each decision, with the record by which the manager leads. If the result is "", every promised
    term is lower, or of this leadership, and every obeyed record is an earlier one of this line. Members that an
    operator gave up are left out until they obey this line again.

    :param stored: the record as it is in the store, if the manager does not lead by it yet
    """
    against: dict[str, list[str]] = {}
    for name, state in sorted(last_states(view).items()):
        if name in record.forsaken:
            continue
        known = state.record
        if not follows(record, known):
            later = known.leader == record.leader or known.term >= record.term
            what = "a later record than the store has" if later else "a record of another line"
            against.setdefault(f"obeyed {what} ({_told(known)})", []).append(name)
        elif promised_elsewhere(record, state):
            what = f"promised term {state.term} to another manager"
            against.setdefault(what, []).append(name)
    if not against:
        return ""
    stored = stored or record
    mine = RecordMark(stored.term, stored.leader, stored.revision)
    said = "; ".join(
        f"{', '.join(names)} {'have' if len(names) > 1 else 'has'} {what}"
        for what, names in against.items()
    )
    return (
        f"the record in the store ({_told(mine)}) cannot be trusted: {said}. The store was put back, or another "
        f"manager with a store of its own commands {cluster.name}. Holdfast decides nothing until that is fixed, and "
        f"the servers run on unchanged: end the other manager, or holdfast store repair {cluster.name}"
    )


def promised_elsewhere(record: Record, state: MemberState) -> bool:
    """Whether the agent has promised a term of another leadership that is not below this one's.

    An agent of an earlier version, which has no identity, does not report to which leadership it has promised.
    """
    if state.term != record.term:
        return state.term > record.term
    told = bool(state.leader or state.identity)
    return told and state.leader != record.leader


def fits(record: Record, state: MemberState) -> bool:
    """Whether an agent has obeyed no manager, or only this line."""
    return not promised_elsewhere(record, state) and follows(record, state.record)


def regained(record: Record, view: View) -> Record | None:
    """The next step towards a member that an operator gave up and that answers again; None: there is none.

    First a term above the one that the member has promised elsewhere; then, once it has obeyed in this line, its memory
    counts again.
    """
    for name in sorted(record.forsaken):
        state = view.state(name)
        if state is None:
            continue
        if fits(record, state):
            return replace(record, forsaken=record.forsaken - {name})
        elsewhere = max(state.term, state.record.term)
        if elsewhere >= record.term and jump_allowed(max(record.term, 1), elsewhere + 1):
            return replace(record, term=elsewhere + 1)
    return None


def _told(mark: RecordMark) -> str:
    by = f" by {mark.leader[:6]}" if mark.leader else ""
    return f"revision {mark.revision} of term {mark.term}{by}"


@dataclass(frozen=True, slots=True)
class Remembered:
    """What one agent reports about itself when it is asked for a repair.

    :ivar term: the term that it has promised
    :ivar memory: None: it remembers no record
    """

    term: int
    identity: str = ""
    mark: RecordMark = field(default_factory=RecordMark)
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """:ivar memory: what is to be stored: record and settings
    :ivar source: the member whose memory this is; "" if the store's own record is the newest
    :ivar doubts: why it is not proved that this is the newest record that had an effect; empty: it is proved
    """

    memory: Memory
    source: str
    doubts: tuple[str, ...] = ()


def rebuilt(
    cluster: Cluster,
    stored: Memory | None,
    heard: Mapping[str, Remembered],
    silent: Mapping[str, str],
    wanted: str = "",
) -> Rebuilt | str:
    """The newest record that had an effect; or why there is none.

    *Proved* when all members answer and remember: those that are configured, those that the newest record counts on,
    and those that it was made with. A later record would have had an effect only through an agent that obeyed it, and
    that agent would have answered and remembered it (``core/observed/lineage.py``). Nothing less proves it: the last
    command of a silent primary may have been to continue alone, or without those that answer here.

    The terms of all agents that answer are below the new one, so none is left that obeys another manager.

    :param stored: what the store holds, if anything
    :param silent: why each of the other members does not answer
    :param wanted: the member whose memory an operator has chosen; "": the newest
    """
    memories = {name: each.memory for name, each in heard.items() if each.memory is not None}
    known = {name: heard[name] for name in memories}
    if not known:
        if stored is None:
            return "no agent remembers a record of it: put the store back from a backup, or let the agents answer"
        return _of_stored(cluster, stored, heard, silent)
    if wanted and wanted not in known:
        return f"{wanted} does not answer, or remembers no record"
    newest = _newest(known)
    source = wanted or newest[0]
    best = memories[source]
    doubts = _unknown(cluster, best, heard, silent)
    rivals = [
        name
        for name in newest
        if not follows(best.record, known[name].mark)
        and not _same(memories[name].record, best.record)
    ]
    doubts += [
        f"{name} has obeyed another manager than {source} ({_told(known[name].mark)}; {_told(known[source].mark)}): "
        "both may have acknowledged writes"
        for name in rivals
    ]
    if stored and all(follows(stored.record, each.mark) for each in known.values()):
        best, source = stored, ""
    return _made(best, source, doubts, heard, silent)


def _of_stored(
    cluster: Cluster, stored: Memory, heard: Mapping[str, Remembered], silent: Mapping[str, str]
) -> Rebuilt | str:
    """The store's record, for agents of an earlier version, which remember only terms: only an operator can know
    whether it is the newest."""
    return _made(stored, "", _unknown(cluster, stored, heard, silent), heard, silent)


def _made(
    best: Memory,
    source: str,
    doubts: list[str],
    heard: Mapping[str, Remembered],
    silent: Mapping[str, str],
) -> Rebuilt | str:
    for name, each in sorted(heard.items()):
        if not jump_allowed(max(best.record.term, 1), max(each.term, each.mark.term)):
            return (
                f"{name} has promised term {each.term}, and no manager of this cluster can have reached that term: end "
                f"its agent, write the line 'term {best.record.term}' into the file term in its state_dir, and start it"
            )
    return Rebuilt(_above(best, heard, silent), source, tuple(doubts))


def _same(one: Record, other: Record) -> bool:
    """Whether two lines are still as they were when they parted: neither has since changed the primary, the voters, or
    how commits wait. What is under way in one of them is started again in the next term."""

    def matter(record: Record) -> tuple[object, ...]:
        return (
            record.primary,
            record.elected,
            record.configurations,
            record.serial,
            record.strays,
            record.mode,
        )

    return matter(one) == matter(other)


def _newest(known: Mapping[str, Remembered]) -> list[str]:
    """The members whose memory no other memory follows; one of those that remember the same."""
    found: list[str] = []
    by_age = sorted(known, key=lambda name: (known[name].mark.age, name), reverse=True)
    for name in by_age:
        marks = [known[other].memory for other in found]
        if not any(each and follows(each.record, known[name].mark) for each in marks):
            found.append(name)
    return found


def _unknown(
    cluster: Cluster, best: Memory, heard: Mapping[str, Remembered], silent: Mapping[str, str]
) -> list[str]:
    """Members that may remember a later record."""
    record = best.record
    counted = {name for each in record.configurations for name in each.names()}
    names = counted | {each.name for each in cluster.members} | set(best.agents)
    pinned = dict(record.identities)
    doubts: list[str] = []
    for name in sorted(names):
        said = heard.get(name)
        if said is None:
            why = silent.get(name, "it is not configured here")
            risk = f"{name} may remember a later record ({why})"
            if name == record.primary:
                risk += ", and may have acknowledged writes by that one which no other member has"
            doubts.append(risk)
        elif said.memory is None and (said.term or name in counted):
            doubts.append(f"{name} has forgotten, or never kept, which record it obeyed last")
        elif pinned.get(name, said.identity) != said.identity:
            doubts.append(
                f"the agent of {name} is not the one known before: what that one knew is lost"
            )
    return doubts


def _above(best: Memory, heard: Mapping[str, Remembered], silent: Mapping[str, str]) -> Memory:
    """The memory with a term above all promised ones; from now on what other agents remember is of the past."""
    record = best.record
    # a poll brings a record before its term is promised
    known = [max(each.term, each.mark.term) for each in heard.values()]
    term = max([record.term, *known]) + 1
    past = {
        each.mark.leader: Reign(each.mark.leader, each.mark.term, each.mark.revision)
        for each in sorted(heard.values(), key=lambda each: each.mark.age)
        if each.mark.revision and not follows(record, each.mark)
    }
    # earlier ones come first: the oldest shows since when the list is complete
    kept = [each for each in record.lineage if each.leader not in past]
    lineage = tuple(sorted([*kept, *past.values()], key=lambda each: each.term))
    forsaken = record.forsaken | frozenset(silent)
    return replace(
        best,
        record=replace(record, term=term, lineage=lineage, forsaken=forsaken),
    )
