"""Which callers may do what: the roles that a certificate gives, and for each route of both HTTP APIs the roles that
may use it.

A caller that commands an agent can end its server, and make it follow another; a caller that is given a copy has all
data. So each certificate says *what* its holder is and *of which cluster*, and gives no right beyond that: an agent
that was broken into commands no other agent, the certificate of a database server is good for nothing here, another
cluster's manager is a stranger. A certificate that says nothing gives no right: silence cannot mean all rights, because
servers, etcd and people of the same CA have such certificates.

A certificate says this as URIs among its alternative names, or word for word in organizational units:
``holdfast:role:ROLE`` and ``holdfast:cluster:NAME``, each as often as needed; the cluster ``*`` is every one.

A route that is not listed here is answered to no caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

ROLE, CLUSTER = "holdfast:role:", "holdfast:cluster:"
EVERY_CLUSTER = "*"


class AccessRole(StrEnum):
    """What the holder of a certificate is.

    :cvar AGENT: of a member: asks other members to vouch, and for copies of their data
    :cvar MANAGER: commands agents
    :cvar VIEWER: an operator or program that looks; :cvar OPERATOR: gives orders, too; :cvar ADMIN: changes settings
        and members, too
    :cvar SERVER: a database server, or etcd: has no right here
    """

    AGENT = "agent"
    MANAGER = "manager"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    SERVER = "server"


_FURTHER = {
    AccessRole.OPERATOR: {AccessRole.VIEWER},
    AccessRole.ADMIN: {AccessRole.VIEWER, AccessRole.OPERATOR},
}
"""The roles that a role includes."""

Who = frozenset[AccessRole]

ANYBODY: Who = frozenset(AccessRole)
"""This route is also answered to callers that have neither certificate nor token."""
AGENTS: Who = frozenset({AccessRole.AGENT})
MANAGERS: Who = frozenset({AccessRole.MANAGER})
VIEWERS: Who = frozenset({AccessRole.VIEWER})
OPERATORS: Who = frozenset({AccessRole.OPERATOR})
ADMINS: Who = frozenset({AccessRole.ADMIN})
ALL: Who = AGENTS | MANAGERS | VIEWERS

Table = Mapping[tuple[str, str], Who]
"""Method and path, as the application has it -> the roles that may. In the manager's table ``{name}`` is the
cluster."""

AGENT_API: Table = {
    ("GET", "/v1/health"): ANYBODY,
    ("GET", "/v1/openapi.json"): ALL,
    # commands and other requests of managers to their agents
    ("POST", "/v1/command"): MANAGERS,
    ("POST", "/v1/watch"): MANAGERS,
    ("GET", "/v1/record"): MANAGERS,
    ("POST", "/v1/reach"): MANAGERS,
    ("GET", "/v1/blockers"): MANAGERS,
    ("GET", "/v1/verification"): MANAGERS,
    # requests between members
    ("GET", "/v1/account"): MANAGERS | AGENTS,
    ("POST", "/v1/vouch"): AGENTS,
    ("GET", "/v1/data"): AGENTS,
    ("GET", "/v1/backup"): AGENTS,
    ("POST", "/v1/backup/end"): AGENTS,
    ("POST", "/v1/digest"): AGENTS,
    ("POST", "/v1/verify/tables"): AGENTS,
    ("POST", "/v1/verify/load"): AGENTS,
    ("POST", "/v1/verify/piece"): AGENTS,
    ("GET", "/v1/state"): MANAGERS | AGENTS | VIEWERS,
    # observing
    ("GET", "/v1/identity"): MANAGERS | VIEWERS,
    ("GET", "/v1/facts"): MANAGERS | VIEWERS,
}

_CLUSTER = "/v1/clusters/{name}"

MANAGER_API: Table = {
    ("GET", "/v1/health"): ANYBODY,
    ("GET", "/v1/openapi.json"): ALL,
    # observing
    ("GET", "/v1/clusters"): VIEWERS,
    ("GET", f"{_CLUSTER}/leader"): VIEWERS,
    ("GET", f"{_CLUSTER}/status"): VIEWERS,
    ("GET", f"{_CLUSTER}/events"): VIEWERS,
    ("GET", f"{_CLUSTER}/settings"): VIEWERS,
    ("GET", f"{_CLUSTER}/members"): VIEWERS,
    ("GET", f"{_CLUSTER}/history"): VIEWERS,
    ("GET", f"{_CLUSTER}/history/{{number}}"): VIEWERS,
    ("GET", f"{_CLUSTER}/check"): VIEWERS,
    ("GET", f"{_CLUSTER}/members/{{member}}/verification"): VIEWERS,
    # orders
    ("POST", f"{_CLUSTER}/failover"): OPERATORS,
    ("POST", f"{_CLUSTER}/switchover"): OPERATORS,
    ("DELETE", f"{_CLUSTER}/switchover"): OPERATORS,
    ("POST", f"{_CLUSTER}/pause"): OPERATORS,
    ("POST", f"{_CLUSTER}/resume"): OPERATORS,
    ("POST", f"{_CLUSTER}/members/{{member}}/clone"): OPERATORS,
    ("POST", f"{_CLUSTER}/members/{{member}}/restart"): OPERATORS,
    ("POST", f"{_CLUSTER}/members/{{member}}/verify"): OPERATORS,
    # changes of the cluster
    ("POST", f"{_CLUSTER}/settings"): ADMINS,
    ("POST", f"{_CLUSTER}/members"): ADMINS,
    ("POST", f"{_CLUSTER}/members/{{member}}/remove"): ADMINS,
    ("POST", f"{_CLUSTER}/members/{{member}}/confirm"): ADMINS,
    ("POST", f"{_CLUSTER}/adopt"): ADMINS,
    ("POST", f"{_CLUSTER}/store/repair"): ADMINS,
}


@dataclass(frozen=True, slots=True)
class CertificateHolder:
    """What a caller's certificate says.

    :ivar name: its common name
    """

    name: str
    roles: frozenset[AccessRole] = frozenset()
    clusters: frozenset[str] = frozenset()

    @property
    def rights(self) -> frozenset[AccessRole]:
        return self.roles.union(*(_FURTHER.get(role, ()) for role in self.roles))

    def is_of(self, cluster: str) -> bool:
        return bool(self.clusters & {cluster, EVERY_CLUSTER})


def holder(name: str, statements: Iterable[str]) -> CertificateHolder:
    """:param statements: its URIs and organizational units; those that are not Holdfast's say nothing"""
    said = tuple(statements)
    known = {role.value for role in AccessRole}
    roles = {each.removeprefix(ROLE) for each in said if each.startswith(ROLE)}
    clusters = {each.removeprefix(CLUSTER) for each in said if each.startswith(CLUSTER)}
    return CertificateHolder(name, frozenset(map(AccessRole, roles & known)), frozenset(clusters))


def statements(roles: Iterable[AccessRole], clusters: Iterable[str]) -> tuple[str, ...]:
    """What a certificate must say for :func:`holder` to find these."""
    return (*(f"{ROLE}{role}" for role in roles), *(f"{CLUSTER}{name}" for name in clusters))


def refusal(asking: CertificateHolder, who: Who, clusters: Iterable[str]) -> str:
    """Why the holder of this certificate may not do what the roles ``who`` may, in one sentence; "" if it may.

    :param clusters: the clusters that the request is about; none if it is about none
    """
    if not asking.rights & who:
        wanted = " or ".join(sorted(who))
        if not asking.roles:
            return (
                f"the certificate of {asking.name} gives no role, and this is for {wanted}: issue it anew "
                "with --role ROLE (holdfast certs issue, see docs/security.md)"
            )
        has = ", ".join(sorted(asking.roles))
        return f"the certificate of {asking.name} is that of {has}, and this is for {wanted}"
    for cluster in clusters:
        if not asking.is_of(cluster):
            of = ", ".join(sorted(asking.clusters)) or "no cluster"
            return (
                f"the certificate of {asking.name} is for {of}, and this is {cluster}: issue it anew "
                f"with --cluster {cluster} (holdfast certs issue, see docs/security.md)"
            )
    return ""


class Routes:
    """A table of routes, looked up for every request: 1 µs."""

    def __init__(self, table: Table) -> None:
        self._fixed = {key: who for key, who in table.items() if "{" not in key[1]}
        self._open = [
            (method, path.split("/"), who) for (method, path), who in table.items() if "{" in path
        ]

    def find(self, method: str, path: str) -> tuple[Who, str] | None:
        """Which roles may use the route, and which cluster it is about, or ""; None: it is not listed.

        :param path: decoded, as routers compare it
        """
        method = "GET" if method == "HEAD" else method
        who = self._fixed.get((method, path))
        if who is not None:
            return who, ""
        parts = path.split("/")
        for known, pattern, who in self._open:
            if known == method and _fits(pattern, parts):
                cluster = parts[pattern.index("{name}")] if "{name}" in pattern else ""
                return who, cluster
        return None

    def knows(self, path: str) -> bool:
        """Whether the path is listed for some method."""
        parts = path.split("/")
        return any(known == path for _, known in self._fixed) or any(
            _fits(pattern, parts) for _, pattern, _ in self._open
        )


def _fits(pattern: list[str], parts: list[str]) -> bool:
    return len(pattern) == len(parts) and all(
        known == part or (known.startswith("{") and part)
        for known, part in zip(pattern, parts, strict=True)
    )
