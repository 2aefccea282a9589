"""Whether members accept each other's logins and have the same administrator: the logins that agents tried in, findings
out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from holdfast.core.check.findings import Finding, Level, names, ok
from holdfast.core.cluster import Cluster
from holdfast.core.view import View

Reached = Mapping[tuple[str, str], str]
"""(member that tried to log in, member whose server it tried) -> why the login was refused, or ""."""

Barred = Collection[tuple[str, str]]
"""Member and server: Holdfast has locked the member's account there, and unlocks it when the member may connect."""

BY_HAND = (
    "Holdfast repairs it on the primary within seconds; by hand, on that server: SET sql_log_bin = 0; then CREATE USER "
    "or ALTER USER … (in the binlog it would wait for the replicas that cannot log in)"
)


def barred_pairs(cluster: Cluster, view: View) -> frozenset[tuple[str, str]]:
    return frozenset(
        (member.name, to.name)
        for to in cluster.members
        if (state := view.state(to.name))
        for member in cluster.members
        if cluster.account(member.name) in state.barred
    )


def refusals(reached: Reached, barred: Barred = ()) -> dict[tuple[str, str], str]:
    """The logins that were refused and should not have been."""
    return {pair: why for pair, why in sorted(reached.items()) if why and pair not in barred}


def check_logins(reached: Reached, barred: Barred, admins: Mapping[str, str]) -> Iterator[Finding]:
    """:param admins: a mark of each agent's administrative account, the same for the same user and password"""
    against = refusals(reached, barred)
    for (name, _), why in against.items():
        yield Finding("logins", Level.WRONG, f"from the host of {name}: {why}", BY_HAND)
    if reached and not against:
        yield ok("logins", "all members can log in to each other")
    if len(set(admins.values())) > 1:
        groups: dict[str, list[str]] = {}
        for name, each in admins.items():
            groups.setdefault(each, []).append(name)
        said = "; ".join(names(each) for each in groups.values())
        yield Finding(
            "administrators",
            Level.WRONG,
            f"agents have different administrative accounts (the same: {said}): a clone brings the donor's along, and "
            "its agent could not log in any more",
            "use one user and password on all members: ALTER USER on the primary, then server.admin's file on each "
            "host (read again without a restart)",
        )
    elif admins:
        yield ok("administrators", "all agents use the same administrative account")
