"""From one mode to another, so that the record never promises more than what holds.

A weaker mode is recorded first and carried out afterwards. Mode strong is recorded last: when the primary waits without
end, and a row that it committed since then is acknowledged, everything before that row is on k voters.
"""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.cluster import Cluster
from holdfast.core.commands import Promote, SetAcks
from holdfast.core.decision import Decision, Save
from holdfast.core.lease import electorate
from holdfast.core.record import Record
from holdfast.core.settings import Mode
from holdfast.core.transition import Strengthen, Switchover
from holdfast.core.view import MemberState


def step(cluster: Cluster, record: Record, primary: MemberState) -> Decision | None:
    """The next change of the record that the wanted mode requires; None if there is none now."""
    wanted = cluster.settings.mode
    proving = isinstance(record.transition, Strengthen)
    if wanted is not Mode.STRONG:
        if record.mode is wanted and not proving:
            return None
        why = f"{cluster.name}: mode {wanted} instead of {record.mode}: {GIVES_UP[wanted]}"
        weaker = replace(record, mode=wanted, transition=None if proving else record.transition)
        return Decision(why, (Save(weaker, why),))
    if record.mode is Mode.STRONG or record.joint or not record.acks:
        return None
    if not proving:
        why = f"mode strong is wanted: a row of {record.primary} will prove that its voters have everything"
        begun = replace(record, serial=record.serial + 1, transition=Strengthen())
        return Decision(why, (Save(begun, why),))
    if primary.proved >= record.serial and waits_as(primary, wanted_acks(cluster, record)):
        why = f"mode strong: what {record.primary} acknowledges is on the primary that is elected next"
        return Decision(why, (Save(replace(record, mode=Mode.STRONG, transition=None), why),))
    return None


GIVES_UP = {
    Mode.SEMI_SYNC: "commits stop waiting after a time-out, and a failover may lose them",
    Mode.ASYNC: "commits do not wait, and a failover may lose them",
}


def wanted_acks(cluster: Cluster, record: Record) -> SetAcks:
    """How the primary's commits should wait now."""
    settings = cluster.settings
    ends = record.mode is Mode.SEMI_SYNC and settings.mode is Mode.SEMI_SYNC
    timeout = settings.semi_sync_timeout if ends else 0.0
    return SetAcks(record.acks, timeout, settings.wait_point)


def promotion(cluster: Cluster, record: Record) -> Promote:
    wanted = wanted_acks(cluster, record)
    change = record.transition
    return Promote(
        wanted.acks,
        record.serial,
        wanted.timeout_seconds,
        wanted.wait_point,
        electorate(cluster, record),
        drained=change.drained if isinstance(change, Switchover) else "",
        events=cluster.settings.events,
    )


def waits_as(primary: MemberState, wanted: SetAcks) -> bool:
    """Whether the primary's commits wait in that way."""
    has = primary.semi_sync
    if not wanted.acks:
        return not has.source
    return (
        has.source
        and (has.acks, has.timeout_seconds, has.wait_point)
        == (wanted.acks, wanted.timeout_seconds, wanted.wait_point)
        and has.waits_alone
        and not (has.degraded and not wanted.timeout_seconds)
    )
