"""Whether a replica follows the primary as the record asks, and which transactions it has that the primary lacks."""

from __future__ import annotations

from holdfast.core.cluster import Cluster
from holdfast.core.gtid import GtidSet, everything, issuer_of, parse
from holdfast.core.record import Record
from holdfast.core.rules import appliers
from holdfast.core.view import MemberState, Receiver


def attached(cluster: Cluster, record: Record, state: MemberState) -> bool:
    """Whether the member follows the recorded primary as the record asks: with or without acknowledging, and by its own
    account.

    Under another account it cannot be barred. A member whose applier is broken receives like any other.
    """
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
    """The transactions that the member has and the primary lacks.

    The two were not observed at the same moment: the member may already have what the primary wrote since. What the
    primary issues itself cannot be errant on another member, so that stream is left out. What was received counts while
    an applier runs, because the applier will apply it; a server that was just started fetches it again from the server
    that it then follows.
    """
    has = state.received_set() if state.replication.applier else state.applied_set()
    return has.subtract(with_everything_of(primary))


def with_everything_of(primary: MemberState) -> GtidSet:
    """What the primary has, and all that it will ever issue itself, under any tag or domain that its clients choose.

    This is safe, because only the primary can issue it. MySQL: a UUID belongs to one server, which gets a new one when
    transactions are taken back. MariaDB: server ids differ (``check``), and a promoted server does not reuse the
    numbers that it took back, in any domain (``SEQUENCE_STEP``).
    """
    own = everything(primary.flavor, issuer_of(primary.flavor, primary.origin))
    return primary.applied_set().union(parse(primary.flavor, own if primary.origin else ""))
