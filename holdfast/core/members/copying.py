"""When a member's data may be given up for a copy of another's, and what is done about commits that wait for that
member.

``rejoin.py`` says what each member needs, looked at alone. These rules look at all of them:

1. *One at a time.* While one member is being cloned, or an agent that was cloning has only just become silent, no other
   clone begins. A member whose clone has begun holds nothing that counts: with two at once the primary may hold the
   only copy left, although each of the two had most of the data before.
2. *The primary lives.* No data is given up while the primary's server does not answer: what the primary has may be
   lost.
3. *No clone begins that cannot end* (:func:`ends`). MySQL's CLONE (stage PAGE COPY) and MariaDB's backup (BACKUP STAGE
   BLOCK_COMMIT) wait for every commit that is under way on the donor, and a commit that waits for an acknowledgement is
   under way. On a primary whose voters are gone such a commit waits for the very member that is to be cloned.
4. *Then the primary is closed for the copy* (:func:`closing`), if no member can come back without one. Neither kind of
   server can cancel a waiting commit in such a way that no client gets an OK and the engine has the same state on both
   kinds. A server that is killed answers no client, and what its binlog holds is committed by the start that follows (a
   recovered transaction is not an acknowledged one, so this promises nothing). Once closed, the primary takes no
   writes, and nothing waits. With ``when_alone: serve`` none of this is needed: with k = 0 nothing waits.

Why rule 4 loses nothing: the record does not change. The primary stays the primary of the configurations in force, and
only the primary, or a recovery quorum of those configurations, may continue. What was acknowledged before stays on the
members that had it. Nothing is acknowledged until the copy votes, and the copy has everything that the primary had,
which was closed when the copy was made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.core.cluster import Cluster, Member
from holdfast.core.commands import Clone, Close, Fence
from holdfast.core.members.rejoin import Rejoin, rejoin
from holdfast.core.record import Record
from holdfast.core.rules import appliers
from holdfast.core.rules.attachment import attached
from holdfast.core.settings import Mode
from holdfast.core.view import MemberState, Receiver, Seen, TailVerdict, Unseen, View
from holdfast.core.wording import Topic, once, quoted, saying

SILENT_CLONE_SECONDS = 60.0
"""For so long a member whose agent became silent during a clone counts as being cloned: the agent may only be
restarting."""

STALL_SECONDS = 5.0
"""For so long commits must have waited before a primary is killed to end their wait: a voter may only be restarting."""

RETURN_SECONDS = 30.0
"""For so long another member that may come back without help is waited for, before the primary is closed for a copy."""


def way_out(primary: str) -> str:
    """What an operator can do where nobody can acknowledge to it."""
    return (
        "to take writes meanwhile without a second copy: holdfast config set when_alone serve "
        f"(what is committed until then is lost if {primary} is lost)"
    )


@dataclass(frozen=True, slots=True)
class Closing:
    """:ivar command: what closes the primary now; None: not yet
    :ivar reason: one sentence
    """

    command: Close | Fence | None
    reason: str


def next_step(cluster: Cluster, record: Record, view: View, member: Member) -> Rejoin:
    """:func:`rejoin`, except for a clone that may not begin now."""
    step = rejoin(cluster, record, view, member)
    if not isinstance(step.command, Clone):
        return step
    against = _against(cluster, record, view, member.name, step.command.donor)
    why = step.because or step.reason
    if not against:
        state = view.state(member.name)
        refused = state.clone_refused if state else ""
        return replace(step, reason=f"{why}: " + quoted(refused, member.name)) if refused else step
    must = f"{why}: it must be cloned from {step.command.donor}"
    return Rejoin(reason=once([must, against]))


def cloned_now(view: View, name: str) -> str:
    """Which other member is being cloned, or ""."""
    for other, sighting in sorted(view.members.items()):
        if other == name:
            continue
        match sighting:
            case Seen(state=state):
                if state.cloning:
                    return other
            case Unseen(since=since, last=last):
                if last and last.cloning and view.now - since < SILENT_CLONE_SECONDS:
                    return other
    return ""


def ends(
    cluster: Cluster, record: Record, view: View, primary: MemberState, donor: str, name: str
) -> bool:
    """Whether a clone of ``name`` from ``donor`` can end: the donor's commits must end without ``name``.

    A replica's commits wait for no acknowledgement. A primary's commits end if it takes no writes and no commit waits,
    if commits wait for no acknowledgement or only for a time, or if as many other members acknowledge as it waits for.
    """
    if donor != primary.name:
        return True
    if not primary.semi_sync.waiting and not primary.writable:
        return True
    waits = primary.semi_sync.acks if primary.semi_sync.source else 0
    if not max(record.acks, waits) or (
        record.mode is not Mode.STRONG and primary.semi_sync.timeout_seconds
    ):
        return True
    return len(_acking(cluster, record, view, name)) >= max(record.acks, waits)


def closing(cluster: Cluster, record: Record, view: View, primary: MemberState) -> Closing | None:
    """What to do about a primary that is open and must not be while a member is cloned from it; None if no clone waits
    for that."""
    found = _next(cluster, record, view)
    if found is None or cloned_now(view, ""):
        return None
    name, clone = found
    state = view.state(name)
    if state is None or state.clone_refused or not _spent(state):
        return None  # no primary is closed for a member that can wait
    if ends(cluster, record, view, primary, clone.donor, name):
        return None
    lapse = view.lapses.get(primary.name)
    stalled = lapse.seconds if lapse and primary.semi_sync.waiting else 0.0
    coming = _coming(cluster, record, view, name)
    if coming and stalled < RETURN_SECONDS:
        return Closing(None, f"waiting for {coming}, which may come back by itself")
    if not primary.semi_sync.waiting:
        why = f"{primary.name} stops taking writes, so that {name} can be cloned from it"
        return Closing(Close(), once([why, way_out(primary.name)]))
    if stalled < STALL_SECONDS:
        why = f"commits on {primary.name} wait for {name}"
        return Closing(None, saying(why, Topic.WAITS, primary.name))
    why = (
        f"{primary.name} is restarted read-only, so that {name} can be cloned from it: commits that wait for {name} "
        "would hold the copy up for ever"
    )
    return Closing(Fence(), once([why, way_out(primary.name)]))


def closed_for(cluster: Cluster, record: Record, view: View, primary: MemberState) -> str:
    """Why a primary that takes no writes is not opened now, or "".

    The member that its commits would wait for is being cloned from it: if the primary were opened, it would block the
    copy. It is opened once other voters acknowledge, or once it need not wait for any.
    """
    if primary.writable or not record.acks:
        return ""
    found = _next(cluster, record, view)
    name = cloned_now(view, "") or (found[0] if found else "")
    state = view.state(name)
    if state is None or state.clone_refused:
        return ""
    if state.cloning != primary.name and (found is None or found[1].donor != primary.name):
        return ""
    if len(_acking(cluster, record, view, name)) >= record.acks:
        return ""
    why = f"{primary.name} takes no writes until {name} has been cloned from it and votes"
    return once([why, way_out(primary.name)])


def _against(cluster: Cluster, record: Record, view: View, name: str, donor: str) -> str:
    """Why the member's clone does not begin now, or ""."""
    primary = view.state(record.primary)
    if primary is None or primary.silent_seconds or primary.unobserved:
        return f"not while {record.primary} does not answer"
    if other := cloned_now(view, name):
        return f"one member is cloned at a time, and {other} is being cloned"
    if (found := _next(cluster, record, view)) and found[0] != name:
        return f"one member is cloned at a time, and {found[0]} is cloned first"
    if not ends(cluster, record, view, primary, donor, name):
        return f"no copy can be made of {donor} while its commits wait for {name}"
    return ""


def _next(cluster: Cluster, record: Record, view: View) -> tuple[str, Clone] | None:
    """The member that is cloned first, and how: preferably one whose agent does not refuse, then by priority."""
    must = [
        (
            bool(state.clone_refused),
            not _spent(state),
            -cluster.setting(member.name).priority,
            member.name,
            command,
        )
        for member in cluster.others(record.primary)
        if (state := view.state(member.name))
        and (_spent(state) or appliers.due(cluster, state))
        and isinstance(command := rejoin(cluster, record, view, member).command, Clone)
    ]
    return min(must, key=lambda each: each[:4])[3:] if must else None


def _spent(state: MemberState) -> bool:
    """Whether the member's data may be unusable: checked first, because this check is cheap."""
    unsafe = state.tail.verdict is TailVerdict.UNSAFE
    return bool(state.unfit or state.cloning or state.replication.purged or unsafe)


def _acking(cluster: Cluster, record: Record, view: View, name: str) -> list[str]:
    """Voters beside ``name`` that acknowledge to the primary now."""
    return [
        voter
        for voter, incarnation in sorted(record.target.without(record.primary))
        if voter != name
        and (state := view.state(voter))
        and state.incarnation == incarnation
        and state.observed
        and attached(cluster, record, state)
        and state.replication.receiver is Receiver.ON
    ]


def _coming(cluster: Cluster, record: Record, view: View, name: str) -> str:
    """Another member that may vote again without being cloned, or ""."""
    for member in cluster.others(record.primary):
        if member.name == name or not cluster.setting(member.name).voter:
            continue
        match view.members.get(member.name):
            case Seen(state=state):
                if not _spent(state):
                    return member.name
            case Unseen(since=since, last=last):
                if view.now - since < RETURN_SECONDS and not (last and last.unfit):
                    return member.name
    return ""
