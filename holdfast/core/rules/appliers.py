"""Members whose applier is broken: what they still count for, and when their data is replaced.

A replica whose applier has stopped by an error (a row that is there twice, or missing; a table that is missing, or
full) goes on receiving, and acknowledges. What it received is as good as anybody's: the argument of ``quorum.py`` asks
that k voters *have received* what was acknowledged, and that holds. What it cannot do is to take over: who is named has
applied everything. So, where another voter is sound:

1. *It votes no longer* (:func:`stands_in`). Else a commit could be answered that nobody but it has beside the primary,
   and the death of that primary would leave the transaction to one that cannot apply it: nothing lost, and nobody to
   take over. Without its vote each commit is on a sound voter. It loses its vote like any other live voter: barred
   first, so that it acknowledges nothing more (``quorum.extendable``).
   Until that is done it counts: an election asks it for its promise, what it has received stands against a
   member that has less, and no member that has less is named (``election.py``).
2. *It is not among the voters of a new primary* (``failover.name_primary``), unless no sound one is: it cannot follow
   without dropping what it cannot apply. Nothing is given up with it: the one that is named has everything that the
   recovery quorum has.

Where no other voter is sound, it votes: it may be admitted for want of others, as an acknowledgement from it is one
more copy, and the primary goes on. Then nobody can take over from the primary, which is said, and which comes back in
place when it dies.

What it has received and cannot apply is dropped in two cases, and fetched again from the primary:

* It has not acknowledged anything since its receiver began (a learner): nothing was ever counted on it.
* Its server is restarted for it (:func:`must_restart`): the next run is another voter, which counts for nothing until
  it is admitted, as after any crash of a replica. That is done only once a primary is named for good, and where that
  primary came back in place, once it is known to have all that this one has received (``returned.py``).

After ``repair_after`` its data is replaced by a copy of another's (:func:`due`), while it has no vote: its data is then
in no quorum. One at a time (``core/members/copying.py``), from a sound replica or from the primary; never while commits
wait for it. Each repair that has not helped doubles the time to the next: what a copy does not carry (MySQL: tables of
other engines; both: rows of MEMORY tables) breaks it again.

All this holds, too, of a replica the files of whose binary log were removed while its server runs: it goes on writing
to what nobody else can open any more. It receives, applies and acknowledges; as a primary, nobody could follow it.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.core.cluster import Cluster
from holdfast.core.gtid import Flavor
from holdfast.core.observed.applying import REMOVED
from holdfast.core.quorum import Voter
from holdfast.core.record import Record
from holdfast.core.rules.election import drained
from holdfast.core.rules.seats import may_be_alone
from holdfast.core.view import MemberState, Receiver, View

MOST_DOUBLINGS = 12


def broken(state: MemberState) -> bool:
    return bool(state.applying.error or state.applying.removed)


def reason(state: MemberState) -> str:
    """Why it cannot take over, of one that is broken."""
    if state.applying.error:
        return f"its applier is broken ({state.applying.error})"
    return REMOVED


def due(cluster: Cluster, state: MemberState) -> bool:
    """Whether it has been broken for so long that its data is to be replaced."""
    patience = cluster.settings.repair_after
    if not broken(state) or patience is None:
        return False
    doubled: int = 2 ** min(state.applying.repairs, MOST_DOUBLINGS)
    return state.applying.seconds >= patience * doubled


def stands_in(cluster: Cluster, lame: Iterable[MemberState]) -> list[MemberState]:
    """Which of these, whose appliers are broken, may vote where nobody else does: so that one of several can be
    repaired while the others acknowledge. The last one goes only where the primary may serve alone meanwhile."""
    all_of_them = sorted(lame, key=lambda state: state.name)
    patient = [state for state in all_of_them if not due(cluster, state)]
    if patient or may_be_alone(cluster.settings):
        return patient
    return all_of_them[1:] or all_of_them


def acknowledger(cluster: Cluster, record: Record, view: View, chosen: MemberState) -> Voter | None:
    """Who can acknowledge to a new primary for want of a sound voter: one that is there, and has promised. It need not
    have been a voter: the new primary is not deposed before a row has proven that it holds everything."""
    for member in cluster.others(record.primary):
        state = view.state(member.name)
        if state is None or not state.up or state.name == chosen.name:
            continue
        if broken(state) and state.promised == record.term and cluster.setting(state.name).voter:
            return state.name, state.incarnation
    return None


def must_restart(
    cluster: Cluster, record: Record, primary: MemberState, state: MemberState
) -> bool:
    """Whether it can do what the record asks only once it has dropped what it cannot apply. A learner, which
    acknowledges nothing, may drop that as it runs (``server/procedures.py``).

    MariaDB drops it when its receiver is restarted, MySQL only when it is to follow another.
    """
    if not state.applying.error or drained(state) or not state.semi_sync.replica:
        return False
    replication = state.replication
    if replication.source != cluster.member(primary.name).address:
        return True
    if state.flavor is Flavor.MYSQL:
        return False
    votes = record.votes(state.name, state.incarnation)
    return replication.receiver is Receiver.OFF or not votes


def told(cluster: Cluster, record: Record, state: MemberState) -> str:
    """What is said of one whose applier is broken."""
    what = f"it cannot take over: {reason(state)}"
    mend = "fix it, or " if state.applying.error else ""
    if cluster.settings.repair_after is None:
        return f"{what}; repair_after is never: {mend}holdfast member clone {state.name}"
    if record.counts(state.name, state.incarnation):
        return (
            f"{what}; it still votes, as no healthy member can, so it is not replaced automatically: "
            f"{mend}holdfast member clone {state.name}"
        )
    done = state.applying.repairs
    again = (
        f", doubled for each of {done} in the last hour"
        if done > 1
        else ", doubled for one in the last hour"
    )
    again = again if done else ""
    return f"{what}; its data is replaced by a copy after repair_after{again}"
