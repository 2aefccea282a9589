"""How a replica stands to the primary: whether it follows it as the record asks, and what it has that the primary has
not."""

from __future__ import annotations

from holdfast.core.cluster import Cluster
from holdfast.core.gtid import GtidSet, everything, issuer_of, parse
from holdfast.core.record import Record
from holdfast.core.rules import appliers
from holdfast.core.view import MemberState, Receiver


def attached(cluster: Cluster, record: Record, state: MemberState) -> bool:
    """Whether it follows the recorded primary in the way that the record asks: acknowledging or not, and by its own
    account, for by another one it cannot be barred. One whose applier is broken receives like any other."""
    replication = state.replication
    return (
        replication.source == cluster.member(record.primary).address
        and replication.user in ("", cluster.account(state.name))
        and replication.receiver is not Receiver.OFF
        and (replication.applier or appliers.broken(state))
        and state.semi_sync.replica == record.votes(state.name, state.incarnation)
        and not state.semi_sync.source
    )


def errant_transactions(primary: MemberState, state: MemberState) -> GtidSet:
    """What the member has and the primary does not.

    The two were not observed at one moment: the member may have what the primary wrote since. What the primary
    issues itself cannot be errant elsewhere, so that stream is left out. What was received counts while an
    applier runs, which will apply it; a server that was just started fetches it anew from whom it then follows.
    """
    has = state.received_set() if state.replication.applier else state.applied_set()
    return has.subtract(with_everything_of(primary))


def with_everything_of(primary: MemberState) -> GtidSet:
    """What the primary has, and all that it will ever issue itself, whatever tag or domain its clients choose.

    Safe, because nobody but the primary can issue it. MySQL: a UUID belongs to one server, which gets a new one where
    something is taken back. MariaDB: server ids differ (``check``), and a promoted server does not use the numbers
    again that it took back, in any domain (``SEQUENCE_STEP``).
    """
    own = everything(primary.flavor, issuer_of(primary.flavor, primary.origin))
    return primary.applied_set().union(parse(primary.flavor, own if primary.origin else ""))
