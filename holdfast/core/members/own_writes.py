"""What a member wrote by itself and that means nothing: recognised, made good, and no reason to lose a copy.

A replica that logs ``FLUSH SLOW LOGS`` has a GTID that the primary lacks. Rewinding it would cost its vote and a
restart, cloning it the copy; and logrotate does that on all hosts in the same minute. So before a member is held to
have diverged, its agent reads what it has (``Judge``), and says what of it changes nothing
(``binlog/pending/harmless.py``).

* MySQL: the primary commits empty transactions of these GTIDs (``CommitEmpty``). Every member has them then, nothing
  is reset, no server restarts, and all votes stay. Such a commit waits for acknowledgements like any other, so it is
  asked for only while enough voters give them.
* MariaDB: GTIDs of a domain form one line, and the primary has gone on with it: they cannot be issued there any more,
  and the member's applier stops at the next event (``gtid_strict_mode``). So the member forgets them (``Forget``):
  where nothing of the primary's stands behind them in its binlog, its GTID state before them is that of its tables.
  What it has received is not touched, so its vote stays, too. It loses its binlog files: the primary has them.

Why a vote may stay: a voter counts because it has *received* what it acknowledged, in the primary's order. What it
wrote itself takes nothing away from that. Harmful transactions cost the vote as before, once they were read.
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
    """What its agent has not read yet."""
    return errant.subtract(parse(state.flavor, state.judged))


def harmful(state: MemberState, errant: GtidSet) -> GtidSet:
    """What it may not keep: all that was read and does not change nothing. What was not read yet is read at once."""
    read = errant.subtract(unjudged(state, errant))
    return read.subtract(parse(state.flavor, state.harmless))


def in_the_way(state: MemberState, errant: GtidSet) -> GtidSet:
    """What a learner must be rid of before it votes. The primary may be waiting for its vote to commit empty ones."""
    if state.flavor is Flavor.MARIADB:
        return errant
    return errant.subtract(parse(state.flavor, state.harmless))


def without_harmless(states: Sequence[MemberState]) -> list[MemberState]:
    """As an election is to see them: with harmless GTIDs of its own no replica contains another.

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
    """For ``judged`` and ``harmless``. What a member has of a stream on MariaDB and the primary lacks are its last
    numbers, so the last one stands for them: nobody asks for those that the primary has."""
    if gtids.flavor is Flavor.MYSQL:
        return str(gtids)
    return ",".join(f"{stream}-{spans[-1][1]}" for stream, spans in gtids.streams.items())


EXAMINING = frozenset({name_of(Judge), name_of(Forget)})


def settle(states: Sequence[MemberState]) -> dict[str, Judge | Forget | None]:
    """What is asked of members when the primary is gone and nobody can be elected: each wrote something itself perhaps.

    Then there is no primary to compare them with. Looked at is what a member has in its own streams and no other member
    has. Should it be more than harmless, it stays, and so does the election's refusal.

    :return: for each such member what it is asked; None: it is at it. What it shows meanwhile is of no use: its GTIDs
        are gone already, its applier has not begun again
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
    """What the others have, and all that was issued by any server but this one."""
    flavor, own = state.flavor, issuer_of(state.flavor, state.origin)
    issuers = {issuer_of(flavor, stream) for stream in state.applied_set().streams} - {own}
    present = parse(flavor, ",".join(everything(flavor, each) for each in sorted(issuers)))
    for other in others:
        present = present.union(other.received_set()).union(other.applied_set())
    return present


def brought(record: Record, view: View, chosen: MemberState) -> GtidSet:
    """What a member that takes over wrote itself, by a hand, and nobody else has: it becomes everybody's.

    An election takes who has received most, and cannot take the rows back: applied where they stand they are part of
    all that follows. So they are told. What it issued as a primary of before is known to others, or was to the one
    that is replaced; where neither is known nothing is claimed.
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
    """Told when it takes over, and as long as it is primary."""
    if gtids.flavor is Flavor.MYSQL:
        how = f"mysqlbinlog --verbose --include-gtids='{gtids}'"
    else:
        how = "mariadb-binlog --verbose of its last binlog files"
    return (
        f"{name} brought {transactions(gtids)} that it had written itself, and no other member had: {gtids}; all "
        f"members get them ({how} on {name} shows the rows)"
    )


def to_commit(primary: MemberState, states: Iterable[MemberState], most: int) -> str:
    """MySQL: GTIDs that the primary is to commit as empty transactions, or \"\"."""
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
