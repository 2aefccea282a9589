"""Taking over a replication cluster that already runs, with data and clients: whether it is possible, and with which
record.

No step here stops a write. The record names the server that takes writes as the primary, alone and with no
acknowledgements (such a primary is never deposed); the other members then become voters in the usual way. Before the
record is saved, each replica follows by an account of its own, so that it can be barred later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from holdfast.core.check.facts import Facts
from holdfast.core.cluster import Cluster, Member
from holdfast.core.gtid import Flavor
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.rules.attachment import errant_transactions
from holdfast.core.view import MemberState, Receiver, View

SERIAL = 1


@dataclass(frozen=True, slots=True)
class AdoptionPlan:
    """What ``holdfast adopt`` would do.

    :ivar server_id, uuid: of the primary's server
    :ivar accounts: replication accounts that are created on the primary, or get the password that the agents have
    :ivar repointed: replicas that still follow by another account, or by another name of the primary
    :ivar equipped: members whose servers get semi-sync loaded
    """

    primary: str
    replicas: tuple[str, ...]
    server_id: int
    uuid: str
    accounts: tuple[str, ...]
    repointed: tuple[str, ...]
    equipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusals:
    reasons: tuple[str, ...]


def plan(cluster: Cluster, found: Mapping[str, Facts]) -> AdoptionPlan | Refusals:
    """The plan: the primary is the server that takes writes and that all others follow."""
    reasons = [reason for member in cluster.members for reason in _unfit(member, found)]
    if reasons:
        return Refusals(tuple(reasons))
    open_ones = [m.name for m in cluster.members if found[m.name].writable]
    if len(open_ones) != 1:
        return Refusals((_not_one(open_ones),))
    primary = found[open_ones[0]]
    reasons = [
        f"{primary.member} takes writes, but replicates from {upstream.address}: end that replication if nothing "
        "comes from there (RESET REPLICA ALL)"
        for upstream in primary.upstreams
    ]
    others = [found[member.name] for member in cluster.others(primary.member)]
    for other in others:
        reasons += _not_following(other, primary, found)
    if reasons:
        return Refusals(tuple(reasons))
    address = cluster.member(primary.member).address
    return AdoptionPlan(
        primary=primary.member,
        replicas=tuple(other.member for other in others),
        server_id=int(primary.variables["server_id"]),
        uuid=primary.variables.get("server_uuid", ""),
        accounts=tuple(found[member.name].account for member in cluster.members),
        repointed=tuple(
            other.member
            for other in others
            if (other.upstreams[0].user, other.upstreams[0].address) != (other.account, address)
        ),
        equipped=tuple(m.name for m in cluster.members if _lacks_semi_sync(found[m.name])),
    )


def first_record(cluster: Cluster, view: View, primary: str) -> Record | Refusals:
    """The record with which managing begins, made from what is observed when everything is prepared."""
    head = view.state(primary)
    if head is None or not head.up or not head.writable or head.replication.source:
        return Refusals((f"{primary} is not seen to be up, to take writes and to have no source",))
    reasons = _has_been(cluster, view)
    for member in cluster.others(primary):
        state = view.state(member.name)
        if state is None or not state.up:
            reasons.append(f"{member.name} is not seen to be up")
        else:
            reasons += _not_attached(cluster, head, state)
    if reasons:
        return Refusals(tuple(reasons))
    alone = Configuration(frozenset({(primary, head.incarnation)}), 0)
    return Record(
        term=1,
        primary=primary,
        elected=1,
        configurations=(alone,),
        serial=SERIAL,
        mode=cluster.settings.mode,
        lease=cluster.settings.timing.lease,
    )


def known_before(cluster: Cluster, view: View) -> Refusals | None:
    """Refuse members of which another manager's store has a record."""
    reasons = _has_been(cluster, view)
    return Refusals(tuple(reasons)) if reasons else None


def diverged(cluster: Cluster, view: View, primary: str) -> tuple[str, ...]:
    """Replicas that have transactions which the primary lacks, as far as they can be observed."""
    head = view.state(primary)
    if head is None or not head.up:
        return ()
    states = [state for m in cluster.others(primary) if (state := view.state(m.name)) and state.up]
    return tuple(reason for state in states for reason in _errant(head, state))


def _errant(primary: MemberState, state: MemberState) -> list[str]:
    errant = errant_transactions(primary, state)
    if not errant:
        return []
    return [
        f"{state.name} has transactions that {primary.name} lacks ({errant}): rebuild it from a backup of "
        f"{primary.name}"
    ]


def _has_been(cluster: Cluster, view: View) -> list[str]:
    return [
        f"{member.name} was in a cluster before (its agent promised term {state.term}): restore the manager's "
        f"store, or run holdfast store repair {cluster.name}"
        for member in cluster.members
        if (state := view.state(member.name)) and state.term
    ]


def _unfit(member: Member, found: Mapping[str, Facts]) -> Iterator[str]:
    facts = found.get(member.name)
    if facts is None:
        yield f"{member.name}: its agent does not answer"
        return
    if facts.problem:
        yield f"{member.name}: its server cannot be queried ({facts.problem})"
        return
    port = facts.variables.get("port", str(member.port))
    if port != str(member.port):
        yield (
            f"{member.name}: its server listens on port {port}, and the manager's file says {member.address}: "
            "correct the one that is wrong"
        )
    if member.account != facts.account:
        yield (
            f"{member.name}: the agent replicates as {facts.account}, and the manager's file says {member.account}: "
            "set one account in both"
        )


def _not_one(open_ones: list[str]) -> str:
    if not open_ones:
        return "no server takes writes, so there is no primary to adopt"
    return (
        f"{' and '.join(open_ones)} take writes, but only one may: set the replicas read-only "
        "(SET GLOBAL read_only = 1, and in the option file)"
    )


def _not_following(other: Facts, primary: Facts, found: Mapping[str, Facts]) -> Iterator[str]:
    if not other.upstreams:
        yield f"{other.member} does not replicate: let it replicate from {primary.member} first, or leave it out"
        return
    upstream = other.upstreams[0]
    name = next((f.member for f in found.values() if _is(upstream.server_id, upstream.uuid, f)), "")
    if name != primary.member:
        where = f"{name} ({upstream.address})" if name else upstream.address
        yield (
            f"{other.member} follows {where}, and {primary.member} takes writes: let it follow {primary.member} "
            "itself"
        )
        return
    if not upstream.gtid:
        how = (
            "CHANGE MASTER TO MASTER_USE_GTID = slave_pos"
            if other.flavor is Flavor.MARIADB
            else "CHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION = 1"
        )
        yield f"{other.member} replicates by file and position: {how}"
    yield from _errant(_as_state(primary), _as_state(other))
    if upstream.error or not (upstream.receiver and upstream.applier):
        why = upstream.error or "its receiver or its applier is stopped"
        yield f"{other.member} does not replicate: {why}"


def _as_state(facts: Facts) -> MemberState:
    return MemberState(
        facts.member,
        facts.flavor,
        origin=facts.origin,
        received=facts.applied,
        applied=facts.applied,
    )


def _is(server_id: int, uuid: str, facts: Facts) -> bool:
    """Whether this is the server to which a receiver has been connected."""
    if facts.flavor is Flavor.MYSQL:
        return bool(uuid) and uuid == facts.variables.get("server_uuid")
    return bool(server_id) and str(server_id) == facts.variables.get("server_id")


def _lacks_semi_sync(facts: Facts) -> bool:
    side = "slave" if facts.flavor is Flavor.MARIADB else "replica"
    return f"rpl_semi_sync_{side}_enabled" not in facts.variables


def _not_attached(cluster: Cluster, primary: MemberState, state: MemberState) -> list[str]:
    address = cluster.member(primary.name).address
    replication = state.replication
    if state.writable:
        return [f"{state.name} takes writes"]
    if errant := _errant(primary, state):
        return errant
    if replication.source != address or not replication.applier:
        return [f"{state.name} does not follow {address} yet"]
    if replication.receiver is not Receiver.ON:
        return [f"{state.name} is not connected to {address}: {replication.error or 'connecting'}"]
    return []
