"""The last step of a takeover, and of a restart in place: the primary that was named is made ready and opened."""

from __future__ import annotations

from holdfast.core.cluster import Cluster
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.members.modes import promotion
from holdfast.core.record import Record
from holdfast.core.view import MemberState
from holdfast.core.wording import some_of


def open_step(cluster: Cluster, record: Record, primary: MemberState) -> Decision:
    """OPEN, the primary's part: it is up; make it prove its voters and take writes, then settle.

    A primary that took over in a switchover stops following the former primary last of all. If the record were settled
    before that, and the agent ended, the primary would obey no command that is for a primary: no SetAcks, no Bar.
    """
    if primary.writable and primary.proved >= record.serial and not primary.replication.source:
        why = f"{record.primary} is open: {_needed(record, record.target.acks)} must acknowledge"
        return Decision(why, (Save(record.settled(primary.incarnation), why),))
    why = f"{record.primary} is being opened: {_needed(record, record.acks)} must acknowledge"
    return Decision(why, (Send(record.primary, promotion(cluster, record)),))


def _needed(record: Record, acks: int) -> str:
    names = sorted(record.target.names() - {record.primary})
    return some_of(acks, names) if acks and names else "nobody"


def voters(record: Record) -> str:
    return ", ".join(sorted(record.target.names() - {record.primary})) or "no other voter"
