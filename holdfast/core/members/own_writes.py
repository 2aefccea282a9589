"""Harmless transactions that a member wrote itself: recognised, repaired, and no reason to lose a copy.

A replica that logs ``FLUSH SLOW LOGS`` has a GTID that the primary lacks. Rewinding it would cost its vote and a
restart, cloning it would cost the copy; and logrotate does that on all hosts in the same minute. So before a member is
considered diverged, its agent reads the transactions (``Judge``), and says which of them change nothing
(``binlog/pending/harmless.py``).

* MySQL: the primary commits empty transactions with these GTIDs (``CommitEmpty``). Then every member has them, nothing
  is reset, no server restarts, and all votes stay. Such a commit waits for acknowledgements like any other, so it is
  requested only while enough voters acknowledge.
* MariaDB: the GTIDs of a domain form one line, and the primary has continued it: these GTIDs cannot be issued there any
  more, and the member's applier stops at the next event (``gtid_strict_mode``). So the member forgets them
  (``Forget``): if no transaction of the primary stands behind them in its binlog, its GTID state before them is that of
  its tables. What it has received is not touched, so its vote stays, too. The member loses its binlog files: the
  primary has them.

Why a vote may stay: a voter counts because it has *received* what it acknowledged, in the primary's order. What it
wrote itself removes nothing from that. Harmful transactions cost the vote as before, once they were read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from holdfast.core.commands import Forget, Judge, name_of
from holdfast.core.gtid import Flavor, GtidSet, everything, issuer_of, parse
from holdfast.core.record import Record
from holdfast.core.view import MemberState, Unseen, View
from holdfast.core.wording import transactions


def unjudged(state: MemberState, errant: GtidSet) -> GtidSet:
    """The transactions that the member's agent has not read yet."""
    return errant.subtract(parse(state.flavor, state.judged))


def harmful(state: MemberState, errant: GtidSet) -> GtidSet:
    """The transactions that the member may not keep: those that were read and are not harmless. Unread ones are read at
    once."""
    read = errant.subtract(unjudged(state, errant))
    return read.subtract(parse(state.flavor, state.harmless))


def in_the_way(state: MemberState, errant: GtidSet) -> GtidSet:
    """The transactions that a learner must be rid of before it votes. The primary may be waiting for its vote to commit
    empty ones."""
    if state.flavor is Flavor.MARIADB:
        return errant
    return errant.subtract(parse(state.flavor, state.harmless))


def without_harmless(states: Sequence[MemberState]) -> list[MemberState]:
    """The members as an election must see them: without harmless GTIDs, with which no replica contains another.

    Only on MySQL, where sets are exact. On MariaDB such a member forgets them first: its applier has stopped.
    """
    mysql = [state for state in states if state.flavor is Flavor.MYSQL]
    left_out = parse(Flavor.MYSQL, ",".join(state.harmless for state in mysql if state.harmless))
    if not left_out:
        return list(states)
    return [
        replace(
            state,
            received=str(state.received_set().subtract(left_out)),
            applied=str(state.applied_set().subtract(left_out)),
        )
        for state in states
    ]


def as_text(gtids: GtidSet) -> str:
    """The set as text, for ``judged`` and ``harmless``.

    On MariaDB the transactions of a stream that the primary lacks are the member's last numbers, so the last one stands
    for them: the numbers that the primary has are never asked for.
    """
    if gtids.flavor is Flavor.MYSQL:
        return str(gtids)
    return ",".join(f"{stream}-{spans[-1][1]}" for stream, spans in gtids.streams.items())


EXAMINING = frozenset({name_of(Judge), name_of(Forget)})


def settle(states: Sequence[MemberState]) -> dict[str, Judge | Forget | None]:
    """What members must do when the primary is gone and none can be elected, perhaps because each wrote something
    itself.

    Then there is no primary to compare them with. So each agent reads what its member has in its own streams and no
    other member has. If some of that is harmful, it stays, and the election still refuses.

    :return: for each such member its command; None: it is carrying one out. What it shows meanwhile is of no use: its
        GTIDs are gone already, its applier has not begun again
    """
    asked: dict[str, Judge | Forget | None] = {}
    for state in states:
        if not state.up or not state.origin:
            continue
        if state.busy in EXAMINING:
            asked[state.name] = None
            continue
        present = _all_but_own(state, [other for other in states if other is not state])
        lacking = state.applied_set().subtract(present)
        if not lacking or harmful(state, lacking):
            continue
        if unjudged(state, lacking):
            asked[state.name] = Judge("nobody", str(present))
        elif state.flavor is Flavor.MARIADB:
            asked[state.name] = Forget("nobody", str(present))
    return asked


def _all_but_own(state: MemberState, others: Sequence[MemberState]) -> GtidSet:
    """What the other members have, and everything that any server but this one issued."""
    flavor, own = state.flavor, issuer_of(state.flavor, state.origin)
    issuers = {issuer_of(flavor, stream) for stream in state.applied_set().streams} - {own}
    present = parse(flavor, ",".join(everything(flavor, each) for each in sorted(issuers)))
    for other in others:
        present = present.union(other.received_set()).union(other.applied_set())
    return present


def brought(record: Record, view: View, chosen: MemberState) -> GtidSet:
    """The transactions that the member which takes over wrote itself, by hand, and that no other member has: all
    members get them.

    An election takes the member that has received most, and cannot remove the rows: applied where they stand, they are
    part of everything that follows. So they are reported. What the member issued as a former primary is known to other
    members, or was known to the one that is replaced; if neither is known, nothing is reported.
    """
    sighting = view.members.get(record.primary)
    old = sighting.last if isinstance(sighting, Unseen) else view.state(record.primary)
    known = (old.applied or old.last_applied) if old else ""
    others = [state for name in view.members if name != chosen.name and (state := view.state(name))]
    others = [state for state in others if state.applied]
    if not chosen.origin or not (known or others):
        return parse(chosen.flavor, "")
    present = _all_but_own(chosen, others).union(parse(chosen.flavor, known))
    return chosen.applied_set().subtract(present).subtract(parse(chosen.flavor, chosen.harmless))


def about_brought(name: str, gtids: GtidSet) -> str:
    """What is reported when the member takes over, and as long as it is primary."""
    if gtids.flavor is Flavor.MYSQL:
        how = f"mysqlbinlog --verbose --include-gtids='{gtids}'"
    else:
        how = "mariadb-binlog --verbose of its last binlog files"
    return (
        f"{name} brought {transactions(gtids)} that it had written itself, and no other member had: {gtids}; all "
        f"members get them ({how} on {name} shows the rows)"
    )


def to_commit(primary: MemberState, states: Iterable[MemberState], most: int) -> str:
    """MySQL: the GTIDs that the primary is to commit as empty transactions, or ""."""
    wanted = parse(Flavor.MYSQL, "")
    for state in states:
        if state.up and state.harmless and state.flavor is Flavor.MYSQL:
            wanted = wanted.union(parse(state.flavor, state.harmless))
    lacking = wanted.subtract(primary.applied_set())
    gtids = (
        f"{stream}:{number}"
        for stream, spans in sorted(lacking.streams.items())
        for low, high in spans
        for number in range(low, high + 1)
    )
    return ",".join(gtid for gtid, _ in zip(gtids, range(most), strict=False))
