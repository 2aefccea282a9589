"""Replication accounts that were dropped, locked, or given another password by hand are repaired on the primary.

The damage does not show while existing connections last. So each agent tries a new login now and then
(``core/observed/logins.py``), and each server reports which accounts may replicate there. Only its member's agent knows
the password of such an account; it hands out only what a server stores instead. Repairing lets no server acknowledge
that must not:

* **A repair never opens an account.** A locked account stays locked, and a missing one is created locked. A member that
  was barred for its eviction, and whose account is then dropped by hand, so stays barred. Only one rule opens accounts:
  ``membership.unbarrable`` knows which members may acknowledge, and finds the account among those that are barred.
* The repair is done outside the binlog first: with its account gone, the member may be the one for whose
  acknowledgement a statement in the binlog would wait, and MySQL logs nobody in while CREATE USER waits.
* Once as many voters acknowledge as commits wait for, the repair is done through the binlog, too: a replica that
  becomes primary, or gives a copy, must let the other members log in. On the primary such an account already exists,
  and is open unless it is the primary's own (``CREATE USER IF NOT EXISTS`` changes nothing there): so this opens
  nothing either. On a replica it is created open, where no acknowledgement counts.
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
    """What must be done about members' accounts on the primary.

    :param ready: how many voters acknowledge to the primary
    """
    flows = primary.writable and ready >= record.acks and not primary.semi_sync.waiting
    for member in cluster.members:
        state = view.state(member.name)
        if state is None:
            continue  # only its agent knows its password
        account = cluster.account(member.name)
        if why := _amiss(cluster, record, primary, state, account):
            logged = flows and account in (primary.replicators or ())
            yield Mend(_step(primary, member, account, logged), why, account)
        elif flows and _owed(cluster, record, view, primary, member):
            why = f"the account {account} is created on the replicas, too"
            yield Mend(_step(primary, member, account, True), why, account)


def needed(cluster: Cluster, record: Record, view: View, primary: MemberState) -> tuple[Mend, ...]:
    """The repairs for members for whose acknowledgement the opening of the primary waits: it would wait in vain, and
    carry out no command meanwhile."""
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
    """Whether replicas may lack the account that the primary has; the head of this file says which accounts are
    barred."""
    account = cluster.account(member.name)
    if account in primary.barred and member.name != primary.name:
        return False
    if account in primary.logins.owed:
        return True
    if account in primary.logins.mended:
        return False  # what replicas report may be older
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
