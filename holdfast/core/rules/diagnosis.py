"""What is wrong with the primary, as far as observers can say. One observer alone never decides, and "could not
observe" is never "down"."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum, auto

from holdfast.core.cluster import Cluster
from holdfast.core.lease import electorate, revoked
from holdfast.core.record import Record
from holdfast.core.rules.attachment import attached
from holdfast.core.rules.enforcement import unkept
from holdfast.core.rules.returned import returning
from holdfast.core.view import LookFailure, MemberState, Receiver, Seen, Unseen, View
from holdfast.core.wording import Topic, agree, counted, joined, lasting, once, quoted, saying


class Primary(Enum):
    """The recorded primary's condition.

    WELL: the server runs in the recorded incarnation and takes writes. CLOSED: it runs, and takes no writes, or does
    not wait for the acknowledgements that it should. DEAD: its agent says that the process is gone. RESTARTED: it runs,
    or is starting, in another incarnation than the recorded one. UNSEEN: its agent does not answer, or cannot query it,
    which says nothing about the server.

    LOST: the agent does not answer, and so many voters hear nothing from the server that it could not commit without
    them. FROZEN: the agent answers; the server answers neither the agent nor that many voters. STUCK: the server
    answers, and a small write on it does not complete; or it does not answer its agent, and its voters hear that it
    lives but receive nothing; or it is shutting down, which takes MySQL seconds. ISOLATED: agent and server are well,
    and so many voters have heard nothing from the server for so long that no write can be acknowledged. UNOPENED: the
    member was named primary, and cannot be opened, for a reason of its own.
    """

    WELL = auto()
    CLOSED = auto()
    DEAD = auto()
    RESTARTED = auto()
    UNSEEN = auto()
    LOST = auto()
    FROZEN = auto()
    STUCK = auto()
    ISOLATED = auto()
    UNOPENED = auto()


GONE = frozenset(
    {
        Primary.DEAD,
        Primary.LOST,
        Primary.FROZEN,
        Primary.STUCK,
        Primary.ISOLATED,
        Primary.UNOPENED,
    }
)
"""In these conditions another member takes over, if it may."""

ANSWERS = frozenset({Primary.STUCK, Primary.ISOLATED, Primary.UNOPENED})
"""In these conditions agent and server answer: where no member may take over, everything else that helps the primary is
still done."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """:ivar sound: nothing is wrong with the primary: ``reason`` says only that"""

    primary: Primary
    reason: str
    sound: bool = False


def diagnose(cluster: Cluster, record: Record, view: View) -> Diagnosis:
    name = record.primary
    sighting = view.members.get(name)
    if sighting is None:
        why = f"the agent of {name}, the primary, was not asked yet"
        return Diagnosis(Primary.UNSEEN, saying(why, Topic.AGENT, name))
    if isinstance(sighting, Unseen):
        found = _unseen(cluster, record, view, sighting)
        return replace(found, reason=saying(found.reason, Topic.AGENT, name))
    state = sighting.state
    if state.ended:
        return Diagnosis(Primary.DEAD, f"the server of {name}, the primary, is gone")
    asked = state.up or bool(state.unobserved)
    silent = asked and state.silent_seconds >= cluster.settings.timing.detection
    if state.incarnation != record.target.incarnation(name):
        if silent and returning(record):  # it may also hang before it was opened
            hangs = _silent(cluster, record, view, state)
            if hangs.primary in GONE:
                return hangs
        return Diagnosis(Primary.RESTARTED, f"the server of {name}, the primary, was restarted")
    if (
        state.look_failure is LookFailure.SHUTS_DOWN
        and state.unobserved_seconds >= cluster.settings.timing.detection
    ):
        return Diagnosis(Primary.STUCK, f"the server of {name}, the primary, is shutting down")
    if silent:
        return _silent(cluster, record, view, state)
    if state.writable and state.stuck_seconds >= cluster.settings.write_patience:
        if state.full:
            return Diagnosis(Primary.STUCK, f"{state.full} on {name}, the primary")
        why = f"a small write on {name}, the primary, has not come through for "
        cause = f" ({state.stuck})" if state.stuck else ""
        return Diagnosis(Primary.STUCK, why + lasting(state.stuck_seconds) + cause)
    if (state.writable or state.unobserved) and (isolated := _isolated(cluster, record, view)):
        return isolated
    if not state.writable and (unopened := _unopened(cluster, record, view)):
        return unopened
    if state.unobserved:
        return _unobserved(cluster, record, view, state)
    if not state.writable:
        return Diagnosis(Primary.CLOSED, f"{name}, the primary, is read-only")
    if state.semi_sync.acks < record.acks or (record.acks and not state.semi_sync.source):
        return Diagnosis(
            Primary.CLOSED,
            f"{name}, the primary, does not wait for {counted(record.acks, 'acknowledgement')}",
        )
    if state.full or state.reason:
        but = f"{name} is primary, but "
        said = [quoted(state.full, name)] if state.full else []
        said += [saying(state.why, Topic.MEMBER, name, state.why)] if state.reason else []
        return Diagnosis(Primary.WELL, once([but + said[0], *said[1:]]))
    why = saying(f"{name} is primary and takes writes", Topic.WRITES)
    return Diagnosis(Primary.WELL, why, sound=True)


def _unseen(cluster: Cluster, record: Record, view: View, sighting: Unseen) -> Diagnosis:
    """The primary's agent does not answer: is its server lost as well?"""
    name = record.primary
    agent = f"the agent of {name}, the primary, does not answer ({sighting.reason})"
    if sighting.last and sighting.last.ended:
        return Diagnosis(Primary.DEAD, f"the server of {name}, the primary, was gone; and {agent}")
    hearing, deaf, gone = _heard(cluster, record, view)
    if not revoked(electorate(cluster, record), deaf):
        heard = f", and {agree(hearing, 'hears', 'hear')} its server" if hearing else ""
        whether = "is alive" if hearing else "may be alive"
        if view.opening and not (sighting.last and sighting.last.writable):
            whether = "was to be opened by its agent (start that)"
        told: str = f"{agent}{heard}: it {whether}, so no member is promoted{_kept(record, view)}"
        if silent := _cannot_tell(cluster, record, view, {*hearing, *deaf}):
            told += "; " + joined("; ", silent)
            if not hearing:
                told += f"; once its server is certainly down: holdfast failover --accept-loss {cluster.name}"
        return Diagnosis(Primary.UNSEEN, told)
    if view.now - sighting.since < cluster.settings.timing.detection and not gone:
        return Diagnosis(
            Primary.UNSEEN, f"{agent}; {agree(deaf, 'hears', 'hear')} nothing from its server"
        )
    ended = sighting.agent_gone and view.enforced is not True
    if (ended or unkept(record, view)) and not gone:
        return Diagnosis(
            Primary.UNSEEN,
            f"{agent}: it {'had ended' if ended else 'hung'} before {', '.join(deaf)} heard nothing any more from its "
            "server; nothing ends that server when its lease is over, so no member is promoted; start the agent, or "
            "make sure that the server is down, then: holdfast failover --accept-loss",
        )
    return Diagnosis(
        Primary.LOST, f"{agent}, and {agree(deaf, 'hears', 'hear')} nothing from its server"
    )


def _cannot_tell(cluster: Cluster, record: Record, view: View, can: Collection[str]) -> list[str]:
    """Each voter that says nothing about the primary's server, and why: until it does, nobody knows whether it hears
    that server."""
    address = cluster.member(record.primary).address
    found: list[str] = []
    for name in sorted(record.target.names() - {record.primary} - set(can)):
        state = view.state(name)
        if state is None:
            why = f"the agent of {name} does not answer either"
            found.append(saying(why, Topic.AGENT, name))
        elif not state.up and not state.unobserved:
            found.append(f"the server of {name} is {state.server}")
        elif state.observed and state.replication.source != address:
            follows = state.replication.source or "nobody"
            found.append(f"{name} follows {follows}: it was detached by hand")
        elif state.observed and state.replication.receiver is Receiver.OFF and not state.promised:
            found.append(f"the receiver of {name} was stopped by hand")
    return found


def _unobserved(cluster: Cluster, record: Record, view: View, state: MemberState) -> Diagnosis:
    """The server's process runs, and its agent cannot query it: this shows only that the server lives.

    So it is no reason to replace the server or to direct clients away from it: it has a lease like any other primary,
    and its voters report when they hear nothing more from it.
    """
    hearing, _, _ = _heard(cluster, record, view)
    heard = f"; {agree(hearing, 'hears', 'hear')} it" if hearing else ""
    return Diagnosis(Primary.UNSEEN, cannot_look_into(state) + f"{heard}: no member is promoted")


def cannot_look_into(state: MemberState) -> str:
    if state.look_failure is LookFailure.NOT_YET:  # usually for some milliseconds
        return f"the agent of {state.name}, the primary, was restarted, and looks at its server"
    why = (
        f"the server of {state.name}, the primary, runs, and its agent cannot query it: "
        f"{state.unobserved}"
    )
    return saying(why, Topic.MEMBER, state.name, state.why)


def _kept(record: Record, view: View) -> str:
    """What ends that server if it is cut off from its voters, too."""
    if view.enforced:
        return "; its keeper process keeps its lease"
    return (
        "; no process kills its server when the lease ends: start the agent again"
        if unkept(record, view)
        else ""
    )


def _silent(cluster: Cluster, record: Record, view: View, state: MemberState) -> Diagnosis:
    silence = f"the server of {state.name}, the primary, has not answered its agent for " + lasting(
        state.silent_seconds, digits=1
    )
    hearing, deaf, _ = _heard(cluster, record, view)
    if revoked(electorate(cluster, record), deaf):
        return Diagnosis(
            Primary.FROZEN, silence + f", and {agree(deaf, 'hears', 'hear')} nothing from it"
        )
    patience = cluster.settings.write_patience
    idle = [name for name in hearing if view.quiet.get(name, 0.0) >= patience]
    if state.silent_seconds >= patience and revoked(electorate(cluster, record), [*deaf, *idle]):
        # its disk is full, for instance: its threads that only send heartbeats still run
        return Diagnosis(
            Primary.STUCK, silence + f", and {agree(idle, 'receives', 'receive')} nothing new"
        )
    heard = f", and {agree(hearing, 'hears', 'hear')} it" if hearing else ""
    return Diagnosis(Primary.WELL, silence + heard)


def _isolated(cluster: Cluster, record: Record, view: View) -> Diagnosis | None:
    patience = cluster.settings.write_patience
    _, deaf, _ = _heard(cluster, record, view, max(patience, cluster.settings.timing.detection))
    if not record.acks or not revoked(electorate(cluster, record), deaf):
        return None
    heard = agree(deaf, "has heard", "have heard")
    why = f"{heard} nothing from {record.primary}, the primary, for {patience:g} s"
    return Diagnosis(Primary.ISOLATED, f"{why}: no write can be acknowledged")


def _unopened(cluster: Cluster, record: Record, view: View) -> Diagnosis | None:
    """A primary that was named, answers, and is not opened: would another member be opened?

    It would, if as many voters as must acknowledge follow this primary and it is still not opened: then its disk, a
    lock, or missing transactions stand in the way. It would also, if so many other members hear nothing from this
    primary that one of them can take over and the rest can acknowledge to it: a cut between hosts. If acknowledgements
    are missing for another reason, another primary would miss them as well.

    Nothing that was acknowledged is lost: another primary is named by the usual rules, from the configurations in
    force.
    """
    patience = cluster.settings.write_patience
    if not record.acks or view.opening < patience:
        return None
    name = record.primary
    named = f"{name} was named primary " + lasting(view.opening) + " ago, and is not open"
    _, deaf, _ = _heard(cluster, record, view, patience)
    if len(deaf) > record.acks:
        return Diagnosis(
            Primary.UNOPENED, named + f": {agree(deaf, 'hears', 'hear')} nothing from it"
        )
    ready = [
        voter
        for voter, run in sorted(record.target.without(name))
        if (state := view.state(voter))
        and state.incarnation == run
        and state.observed
        and attached(cluster, record, state)
        and state.replication.receiver is Receiver.ON
    ]
    if view.opening >= 2 * patience and len(ready) >= record.acks:
        follows = f", although {', '.join(ready)} can acknowledge"
        return Diagnosis(Primary.UNOPENED, named + follows)
    return None


def _heard(
    cluster: Cluster, record: Record, view: View, silence: float | None = None
) -> tuple[list[str], list[str], bool]:
    """Members that hear the primary's server, members that do not, and whether one of the latter found its port
    refused.

    A member that cannot be asked is in neither list. Members that do not replicate from the primary say nothing about
    it.

    :param silence: seconds that a silence must have lasted; None: ``detection``
    """
    address = cluster.member(record.primary).address
    detection = cluster.settings.timing.detection if silence is None else silence
    hearing: list[str] = []
    deaf: list[str] = []
    refused = False
    for member in cluster.others(record.primary):
        sighting = view.members.get(member.name)
        if not isinstance(sighting, Seen) or not sighting.state.up:
            continue
        state, replication = sighting.state, sighting.state.replication
        if replication.source != address or not state.observed:
            continue
        if replication.receiver is Receiver.OFF and not state.promised:
            continue  # stopped by hand
        if replication.receiver is Receiver.ON and replication.unheard < detection:
            hearing.append(member.name)
        elif replication.unheard >= detection or (
            silence is None and (replication.refused or state.promised)
        ):
            deaf.append(member.name)
            refused |= replication.refused
    return hearing, deaf, refused
