"""Members whose applier is broken: what they still count for, and when their data is replaced.

The applier of a replica can stop with an error: a duplicate or missing row, a table that is missing or full. The
replica still receives and acknowledges. What it received is as good as what any other voter received: the argument of
``quorum.py`` requires that k voters *have received* what was acknowledged, and that holds. But such a replica cannot
take over, because a new primary has applied everything. So, while another voter is sound:

1. *It does not vote* (:func:`stands_in`). Otherwise a commit could be acknowledged by this replica alone, and when that
   primary died, only a replica that cannot apply the transaction would have it: nothing lost, and no member to take
   over. Without its vote each commit is on a sound voter. It loses its vote like any other live voter: it is barred
   first, so that it acknowledges nothing more (``quorum.extendable``). Until that is done it counts: an election asks
   it for its promise, and names no member that has received less than it has (``election.py``).
2. *It is not among the voters of a new primary* (``failover.name_primary``), unless no voter is sound: it cannot follow
   without dropping what it cannot apply. Nothing is lost by leaving it out: the new primary has everything that the
   recovery quorum has.

If no other voter is sound, the replica votes. It may even be admitted then, because its acknowledgement means one more
copy, and the primary continues. No member can take over from that primary; status says so, and the primary comes back
in place when it dies.

The transactions that the replica has received and cannot apply are dropped in two cases, and fetched again from the
primary:

* The replica has acknowledged nothing since its receiver began (a learner): no commit ever counted on it.
* Its server is restarted for this purpose (:func:`must_restart`): the next run is another voter, which counts for
  nothing until it is admitted, as after any crash of a replica. This is done only once a primary is named for good; if
  that primary came back in place, only once it is known to have everything that this replica has received
  (``returned.py``).

After ``repair_after`` the replica's data is replaced by a copy of another member's (:func:`due`), while it has no vote,
so that its data is in no quorum. This is done to one member at a time (``core/members/copying.py``), from a sound
replica or from the primary, and never while commits wait for it. Each repair that did not help doubles the time until
the next: what a copy does not carry (MySQL: tables of other engines; both servers: rows of MEMORY tables) breaks the
applier again.

The same holds for a replica whose binary log files were removed while its server runs: the server keeps writing to
files that no other process can open. Such a replica receives, applies and acknowledges; but if it were primary, no
replica could follow it.
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
    """Why a member whose applier is broken cannot take over."""
    if state.applying.error:
        return f"its applier is broken ({state.applying.error})"
    return REMOVED


def due(cluster: Cluster, state: MemberState) -> bool:
    """Whether the applier has been broken for so long that the member's data must be replaced."""
    patience = cluster.settings.repair_after
    if not broken(state) or patience is None:
        return False
    doubled: int = 2 ** min(state.applying.repairs, MOST_DOUBLINGS)
    return state.applying.seconds >= patience * doubled


def stands_in(cluster: Cluster, lame: Iterable[MemberState]) -> list[MemberState]:
    """Which of these members with broken appliers may vote while no sound member does: so that one of several can be
    repaired while the others acknowledge. The last one loses its vote only if the primary may serve alone meanwhile."""
    all_of_them = sorted(lame, key=lambda state: state.name)
    patient = [state for state in all_of_them if not due(cluster, state)]
    if patient or may_be_alone(cluster.settings):
        return patient
    return all_of_them[1:] or all_of_them


def acknowledger(cluster: Cluster, record: Record, view: View, chosen: MemberState) -> Voter | None:
    """The voter that can acknowledge to a new primary if no voter is sound: a member that is up and has promised.

    It need not have been a voter before: the new primary is not deposed until a row has proved that this voter holds
    everything.
    """
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
    """Whether the member can do what the record asks only after it has dropped what it cannot apply.

    A learner acknowledges nothing, so it may drop that while its server runs (``server/procedures.py``). MariaDB drops
    it when its receiver is restarted, MySQL only when it is to follow another server.
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
    """What status says about a member whose applier is broken."""
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
