"""Which of the members that could vote become voters: the number of voters is limited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.core.cluster import Cluster
from holdfast.core.gtid import Flavor
from holdfast.core.quorum import Voter, most_voters
from holdfast.core.settings import Durability, Mode, Settings, WhenAlone
from holdfast.core.view import MemberState


@dataclass(frozen=True, slots=True)
class Candidate:
    """:ivar seated: it votes already"""

    name: str
    incarnation: str
    seated: bool

    @property
    def voter(self) -> Voter:
        return self.name, self.incarnation


def chosen(
    cluster: Cluster, primary: MemberState, candidates: Sequence[Candidate]
) -> frozenset[Voter]:
    """The voters beside the primary: first those that vote already, then by priority, up to the limit.

    With durability ``zones`` any k of them must include one in another zone than the primary's: so fewer than k are of
    its own zone.
    """
    seats = most_voters(cluster.settings, primary.flavor) - 1
    order = [member.name for member in cluster.members]
    best = sorted(
        candidates,
        key=lambda each: (
            not each.seated,
            -cluster.setting(each.name).priority,
            order.index(each.name) if each.name in order else len(order),
        ),
    )
    if cluster.settings.durability is not Durability.ZONES:
        return frozenset(each.voter for each in best[:seats])
    zone = cluster.setting(primary.name).zone
    away = [each for each in best if cluster.setting(each.name).zone != zone][:seats]
    near = [each for each in best if cluster.setting(each.name).zone == zone]
    taken = list(away)
    for each in near[: seats - len(away)]:
        acks = (len(taken) + 2) // 2
        if len(taken) - len(away) + 1 >= acks:
            break
        taken.append(each)
    return frozenset(each.voter for each in taken)


def why_standby(cluster: Cluster, primary: MemberState, name: str) -> str:
    """Why a member that is well does not vote beside the present voters."""
    settings = cluster.settings
    if not cluster.setting(name).voter:
        return f"members.{name}.voter is false"
    if settings.mode is Mode.ASYNC:
        return "in mode async commits wait for no acknowledgement"
    seats = most_voters(settings, primary.flavor)
    if settings.durability is Durability.ZONES and len(cluster.members) <= seats:
        return "durability zones has as many voters of its zone as it can use"
    if primary.flavor is Flavor.MARIADB:
        also = " with durability all" if settings.durability is Durability.ALL else ""
        return f"MariaDB waits for one acknowledgement only, so{also} {seats} vote at most"
    return f"{seats} vote at most"


def may_be_alone(settings: Settings) -> bool:
    """Whether a primary without any other voter still acknowledges commits."""
    return settings.mode is Mode.ASYNC or settings.when_alone is WhenAlone.SERVE
