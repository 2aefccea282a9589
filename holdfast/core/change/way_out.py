"""What an operator can do when hosts are gone and nothing recovers without help: added to the reason after a while."""

from __future__ import annotations

from dataclasses import replace

from holdfast.core.change.failover import prospects
from holdfast.core.cluster import Cluster
from holdfast.core.decision import Decision, Save
from holdfast.core.record import Record
from holdfast.core.rules.seats import may_be_alone
from holdfast.core.transition import Switchover
from holdfast.core.view import Unseen, View
from holdfast.core.wording import once

PATIENCE = 10.0
"""Seconds for which an agent has been silent: a host that is being restarted is not gone for good."""


def told(cluster: Cluster, record: Record | None, view: View, decision: Decision) -> Decision:
    """The decision, with the way out at the end of its reason if there is one."""
    if record is None or decision.well or any(isinstance(s, Save) for s in decision.steps):
        return decision
    found = way_out(cluster, record, view)
    return replace(decision, reason=once([decision.reason, found])) if found else decision


def way_out(cluster: Cluster, record: Record, view: View) -> str:
    """The way out for a cluster in which no commit can be acknowledged because hosts are gone; "" for every other
    cluster."""
    if isinstance(record.transition, Switchover):
        return ""
    gone = {name for name in (m.name for m in cluster.members) if _is_gone(view, name)}
    if record.primary in gone:
        if record.recoverable(prospects(record, view).reachable) or len(gone) == len(view.members):
            return ""  # a failover begins, or something else blocks it; or no member is left
        who = ", ".join(sorted(gone))
        return (
            f"if {who} will never return: holdfast failover --accept-loss {cluster.name} (loses what no other member "
            "has)"
        )
    voters = {name for name, _ in record.target.without(record.primary)}
    if not record.acks or may_be_alone(cluster.settings) or not voters or voters - gone:
        return ""
    who = ", ".join(sorted(gone))
    return (
        f"if {who} will never return: holdfast config set when_alone serve (what {record.primary} acknowledges alone "
        "is lost with it)"
    )


def _is_gone(view: View, name: str) -> bool:
    sighting = view.members.get(name)
    return isinstance(sighting, Unseen) and view.now - sighting.since >= PATIENCE
