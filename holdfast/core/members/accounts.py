"""Replication accounts that were dropped, locked, or given another password by hand are mended on the primary.

It shows itself to nobody as long as connections of before stand: so each agent tries anew now and then
(``core/observed/logins.py``), and each server says which accounts may replicate there. The password of such an account
is known to its member's agent alone, which gives what a server keeps instead. Why mending lets nobody acknowledge who
must not:

* **Mending never opens an account.** One that is locked stays locked, and one that is missing is made locked. A member
  that was barred for its eviction, and whose account is then dropped by hand, stays barred so. Accounts are opened by
  the one rule that knows who may acknowledge (``membership.unbarrable``), which finds it among those that are barred.
* It is done outside the binlog first: with its account gone, the member may be the one for whose acknowledgement a
  statement in the binlog would wait, and MySQL lets nobody in while CREATE USER waits.
* As soon as as many voters acknowledge as commits wait for, it is done through the binlog, too: a replica that becomes
  primary, or gives a copy, must let the others in. On the primary such an account is there already, and open unless it
  is the primary's own (``CREATE USER IF NOT EXISTS`` changes nothing there): so this opens nothing either. On a replica
  it is made open, where nobody's acknowledgement counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.core.cluster import Cluster, Member
from holdfast.core.commands import MendAccount
from holdfast.core.decision import Send
from holdfast.core.record import Record
from holdfast.core.view import MemberState, Receiver, View


@dataclass(frozen=True, slots=True)
class Mend:
    """:ivar why: one phrase for the status"""

    step: Send
    why: str
    account: str


def mends(
    cluster: Cluster, record: Record, view: View, primary: MemberState, ready: int
) -> Iterator[Mend]:
    """What is to be done about members' accounts on the primary.

    :param ready: how many voters acknowledge to it
    """
    flows = primary.writable and ready >= record.acks and not primary.semi_sync.waiting
    for member in cluster.members:
        state = view.state(member.name)
        if state is None:
            continue  # nobody tells its password
        account = cluster.account(member.name)
        if why := _amiss(cluster, record, primary, state, account):
            logged = flows and account in (primary.replicators or ())
            yield Mend(_step(primary, member, account, logged), why, account)
        elif flows and _owed(cluster, record, view, primary, member):
            why = f"the account {account} is created on the replicas, too"
            yield Mend(_step(primary, member, account, True), why, account)


def needed(cluster: Cluster, record: Record, view: View, primary: MemberState) -> tuple[Mend, ...]:
    """Those for whose acknowledgement the opening of the primary waits: it would wait in vain, and obey nothing
    meanwhile."""
    voters = {cluster.account(name) for name, _ in record.target.without(record.primary)}
    found = mends(cluster, record, view, primary, ready=-1)
    return tuple(each for each in found if each.account in voters)


def _step(primary: MemberState, member: Member, account: str, logged: bool) -> Send:
    return Send(primary.name, MendAccount(account, member.name, member.agent, logged))


def _amiss(
    cluster: Cluster, record: Record, primary: MemberState, state: MemberState, account: str
) -> str:
    """What is wrong with the account of that member on the primary, as far as is known, or ""."""
    if primary.replicators is None:
        return ""
    if account not in primary.replicators:
        return f"{primary.name} has no account {account} that may replicate: creating it"
    if state.name == primary.name or account in {*primary.barred, *primary.logins.mended}:
        return ""
    replication = state.replication
    if replication.source != cluster.member(record.primary).address:
        return ""
    refused = replication.denied and replication.receiver is not Receiver.ON
    said = replication.error if refused else state.logins.denied
    return f"{primary.name} refuses the login of {account} ({said}): repairing it" if said else ""


def _owed(
    cluster: Cluster, record: Record, view: View, primary: MemberState, member: Member
) -> bool:
    """Whether replicas may lack what the primary has; see the head of this file for who is barred."""
    account = cluster.account(member.name)
    if account in primary.barred and member.name != primary.name:
        return False
    if account in primary.logins.owed:
        return True
    if account in primary.logins.mended:
        return False  # what replicas say may be older
    source = cluster.member(record.primary).address
    return any(
        state.replicators is not None
        and account not in state.replicators
        and state.replication.source == source
        and state.replication.receiver is Receiver.ON
        and state.replication.applier
        and not state.applied_set().subtract(primary.applied_set())
        for other in cluster.others(record.primary)
        if (state := view.state(other.name)) and state.up and not state.unfit
    )
