"""The reason for the whole cluster, as ``holdfast status`` shows it: each cause once."""

from __future__ import annotations

from holdfast.core.cluster import Cluster
from holdfast.core.members.copying import way_out
from holdfast.core.record import Record
from holdfast.core.rules.seats import may_be_alone
from holdfast.core.wording import Point, Topic, once, parts_of, points_of


def of_blocked(cluster: Cluster, record: Record, decided: str, why: str) -> str:
    """What clients see and why, then what is done about it, then what an operator can do; each cause once."""
    points = points_of(why)
    voters = {point.member for point in points if point.topic is Topic.VOTER}

    def is_known(point: Point) -> bool:
        match point.topic:
            case Topic.WAITS:
                return point.member == record.primary
            case Topic.MEMBER:
                return point.member in voters
            case _:
                return point in points

    done = [each for each in parts_of(decided) if not any(map(is_known, points_of(each)))]
    text = once([f"commits on {record.primary} are blocked: " + why, *done])
    if Point(Topic.NO_VOTER) not in points or may_be_alone(cluster.settings):
        return text
    return once([text, way_out(record.primary)])


def headline(reason: str, writable: bool, hidden: bool, managed: bool = True) -> str:
    """What clients notice, and why; what the reason itself says is not repeated.

    :param hidden: what is known of the primary is not as of now
    :param managed: the cluster has a record. Without one, a server may take writes that nobody manages
    """
    if not managed:
        return f"not managed; {reason}"
    if writable:
        says = Point(Topic.WRITES) in points_of(reason)
        return reason if says else f"takes writes; {reason}"
    felt = "not known to take writes" if hidden else "does not take writes"
    return f"{felt}; {reason}"
