"""Which sessions acknowledge to a primary: every dump session that could, and what Holdfast does about those of
non-voters.

A commit counts the acknowledgement of *any* semi-sync replica; neither server can be configured to count only some. So
intersection and barrier (``quorum.py``) hold only while every server that can acknowledge is a voter. Three rules keep
that true:

1. *Prevention.* The primary's agent looks at its dump sessions many times a second. It ends a session that could
   acknowledge under an account that belongs to no member, and locks that account (:func:`strangers`). The manager,
   which knows the voters, finds sessions of members that are not voters (:func:`pretenders`).
2. *Doubt.* Commits that were released before that took effect may have been acknowledged by the stranger alone.
   Everything that the primary had committed when the stranger was gone is *in doubt*, and the record keeps that set.
   The doubt ends when a row that the primary commits afterwards is acknowledged, with no stranger connected from before
   the row until after it: by fact 2 (barrier) the k voters that acknowledge the row hold everything before it, so the
   whole set.
3. *No failover past a doubt.* Until then only a member that holds the whole set takes over (:func:`missing`). Such a
   member has everything that any client can have been told, so it does not matter which replica acknowledged it. If no
   member holds the set, the primary comes back in place, or an operator accepts the loss.

Nothing in doubt is cut from the primary's binlog: the agent's mark (``agent/commands/cut.py``) is removed before the
stranger is ended. An acknowledgement by a stranger is worth no more than none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from holdfast.core.cluster import Cluster
from holdfast.core.commands import EndReplicas
from holdfast.core.gtid import GtidSet, parse
from holdfast.core.observed.dumps import Acks, Doubt, Dump
from holdfast.core.record import Record
from holdfast.core.settings import Mode
from holdfast.core.view import MemberState, Seen, Unseen, View
from holdfast.core.wording import transactions

ASKING_AGAIN = 0x4000_0000
"""What ``server/replication/acknowledge.py`` adds to a member's server id when it needs a second one (MariaDB)."""

NAMELESS_SECONDS = 1.0
"""``server/replication/acknowledge.py`` needs such sessions for half a second in total at most, and each for a few
milliseconds."""


def strangers(dumps: Collection[Dump], clients: int, accounts: Collection[str]) -> tuple[Dump, ...]:
    """Sessions that may acknowledge, under accounts that belong to no member.

    Some sessions do not show whether they acknowledge. The server's count of semi-sync replicas decides then: while it
    is not higher than the number of sessions that are known to acknowledge or belong to members, no other session
    acknowledges. If it is higher, every session that may acknowledge is treated as one that does: an asynchronous
    reader that is ended reconnects, but an acknowledged transaction cannot be taken back.

    :param clients: how many semi-sync replicas the server counts
    :param accounts: the accounts of all members
    """
    certain = [dump for dump in dumps if dump.acks is Acks.YES and dump.account not in accounts]
    explained = [
        dump
        for dump in dumps
        if dump.acks is Acks.YES or (dump.acks is Acks.UNKNOWN and dump.account in accounts)
    ]
    unknown = [dump for dump in dumps if dump.acks is Acks.UNKNOWN and dump.account not in accounts]
    return (*certain, *(unknown if clients > len(explained) else ()))


def nameless(
    dumps: Collection[Dump], accounts: Collection[str], seconds: Mapping[int, float]
) -> tuple[Dump, ...]:
    """Sessions of a member's account that acknowledge, do not name their server, and last longer than an agent needs
    one.

    MySQL counts acknowledgements by server id, so such a session could count as one voter more.

    :param seconds: for how long each session has been seen
    """
    return tuple(
        dump
        for dump in dumps
        if dump.account in accounts
        and dump.acks is Acks.YES
        and not dump.server
        and seconds.get(dump.session, 0.0) >= NAMELESS_SECONDS
    )


def pretenders(
    cluster: Cluster, record: Record, view: View, primary: MemberState
) -> EndReplicas | None:
    """The command that ends sessions which acknowledge under a member's account and belong to no voter; None if there
    are none.

    Such sessions come from a learner whose semi-sync was switched on by hand, and from servers that use a member's
    account and are not that member.

    A member's own receiver reconnects, and the manager makes it follow as it should (``attachment.attached``). The
    account is not locked, because its member needs it.

    A session may stay on the primary's list for a moment after its server has ended, or after its account was barred;
    this says nothing about which sessions acknowledge now. And there is nothing to end while commits wait for no
    acknowledgement: then the primary is not deposed (``quorum.py``).
    """
    if not any(each.acks for each in record.configurations):
        return None
    found = list(_pretenders(cluster, record, view, primary))
    sessions = tuple(session for session, _ in found)
    return (
        EndReplicas(sessions, "; ".join(dict.fromkeys(why for _, why in found))) if found else None
    )


def _pretenders(
    cluster: Cluster, record: Record, view: View, primary: MemberState
) -> Iterator[tuple[int, str]]:
    voting = {stray.name for stray in record.strays} | {
        name for each in record.configurations for name in each.names()
    }
    for member in cluster.others(primary.name):
        account = cluster.account(member.name)
        state = view.state(member.name)
        if state is None or not state.up or account in primary.barred:
            continue
        for dump in primary.dumps:
            if dump.account != account or dump.acks is not Acks.YES:
                continue
            if not _is_of(dump, state):
                who = f"server {dump.server} at {dump.host or 'the host of the primary'}"
                yield (
                    dump.session,
                    f"{who} acknowledged as {account}, but is not {member.name}: change the password",
                )
            elif member.name not in voting and state.semi_sync.replica:
                yield dump.session, f"{member.name} acknowledged, but is no voter"


def acknowledges(view: View, primary: MemberState, name: str, account: str) -> bool:
    """Whether a session of that member's server may acknowledge to the primary under an account that is not its own:
    barring the member's account does not end such a session."""
    state = _known(view, name)
    return state is not None and any(
        dump.acks is not Acks.NO
        and dump.account != account
        and dump.server != ""
        and _is_of(dump, state)
        for dump in primary.dumps
    )


def _is_of(dump: Dump, state: MemberState) -> bool:
    """Whether the session may belong to that server. A session that does not name its server may belong to any."""
    own = {state.origin, str(state.server_id), str(state.server_id + ASKING_AGAIN)}
    return not dump.server or not state.server_id or dump.server in own


def doubtful(record: Record, view: View) -> GtidSet | None:
    """The transactions that the recorded primary may have acknowledged without a voter, as far as known; None if there
    are none."""
    state = _known(view, record.primary)
    texts = [record.doubt] if record.doubt else []
    if state and state.doubt:
        texts.append(state.doubt.upto)
    flavor = state.flavor if state else next((s.flavor for s in _states(view)), None)
    if not texts or flavor is None:
        return None
    found = parse(flavor, texts[0])
    for text in texts[1:]:
        found = found.union(parse(flavor, text))
    return found


def missing(record: Record, view: View, has: GtidSet) -> str:
    """Why a member that has these transactions may not take over automatically, or "".

    :param has: what the member has applied: on MariaDB what a member has received is known by the last GTID alone
    """
    doubt = doubtful(record, view)
    lacking = doubt.subtract(has) if doubt is not None else None
    if not lacking or record.mode is not Mode.STRONG:
        return ""
    return (
        f"{transactions(lacking)} of {record.primary} ({lacking}) may have been acknowledged by a replica that "
        f"is no voter; no other member has received them: {record.primary} must come back "
        "(or holdfast failover --accept-loss)"
    )


def nobody_has(record: Record, view: View, heirs: Collection[MemberState]) -> str:
    """Why none of these members may take over automatically, or "", as far as can be said before one of them is drained
    (see ``GtidSet.covers``)."""
    doubt = doubtful(record, view)
    if doubt is None or not heirs or any(s.received_set().covers(doubt) for s in heirs):
        return ""
    furthest = max(heirs, key=lambda state: state.received_set().count())
    return missing(record, view, furthest.received_set())


def noted(record: Record, primary: MemberState) -> tuple[Record, str] | None:
    """The record extended by what its primary reports as in doubt, and why; None if the record has that already.

    The record gets a new serial: an earlier proof says nothing about this doubt.
    """
    if primary.doubt is None or not record.acks:
        return None
    upto, known = parse(primary.flavor, primary.doubt.upto), parse(primary.flavor, record.doubt)
    if known.contains(upto):
        return None
    doubted = replace(record, doubt=str(known.union(upto)), serial=record.serial + 1)
    return doubted, in_doubt(primary.name, primary.doubt)


def proven(record: Record, primary: MemberState) -> bool:
    """Whether voters hold everything that the record has in doubt: a row that was committed since then is
    acknowledged."""
    return primary.doubt is None and primary.proved >= record.serial


def in_doubt(name: str, doubt: Doubt) -> str:
    number = doubt.transactions
    if not number:
        return f"{doubt.why}; {name} committed nothing meanwhile"
    what = "1 transaction" if number == 1 else f"{number} transactions"
    return f"{what} of {name} may have been acknowledged without a voter: {doubt.why}"


def _known(view: View, name: str) -> MemberState | None:
    """The member's state as seen now, or as last seen before its agent stopped answering."""
    match view.members.get(name):
        case Seen(state=state):
            return state
        case Unseen(last=last):
            return last
        case _:
            return None


def _states(view: View) -> Iterator[MemberState]:
    for sighting in view.members.values():
        if isinstance(sighting, Seen):
            yield sighting.state
