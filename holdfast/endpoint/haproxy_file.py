"""The configuration of HAProxy for one cluster.

How a connection waits while no server takes writes: HAProxy queues connections where every server is *full*, and
refuses them where every server is *down*. So the backend for writes has two additional servers, which lead nowhere and
have room for one connection each; HAProxy itself occupies these two, through its ``ring`` sections, from its start on.
A connection that arrives while no member takes writes finds only full servers, queues, and continues in the moment in
which one is up: no interval is added. There are two of them because HAProxy waits a second before it tries again after
a refused connection, unless it has more than one server to try.

From 3.0 on HAProxy gives queued connections to a server only below that server's own ``maxconn``: a server without one
never got any of them, and they waited until ``timeout queue`` ended them. So each member has one that limits nothing in
practice. 2.6 behaves the same with it and without.

No two sections of a file have the same name: 3.2 warns of a frontend and a backend, or a ring, that share one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.config.endpoints import HaproxyConfig, split
from holdfast.config.schema import ClusterConfig
from holdfast.errors import BadInput

HOLDS = (1, 2)
"""Servers ``hold:1`` and ``hold:2``: no member can have such a name."""
CHECK_MS = 1000
RISE, FALL = 2, 3
"""Number of checks in a row that outvote what a manager has pushed; it pushes again every second."""
CONNECT_SECONDS = 3
"""Longer than the kernel takes to send a lost packet again."""
KEEPALIVE_SECONDS = 5
"""A session to a host that is gone ends within a few of these, where no manager has ended it."""
SESSION = "1d"
"""Longer than the servers' own ``wait_timeout`` of 8 hours: the servers end idle sessions, not HAProxy."""
ROOM = 100_000
"""``maxconn`` of a member: the highest ``max_connections`` that a server accepts, so that only the server refuses."""
FOREVER = "24d"
"""About the longest that HAProxy can count: for the two connections that keep the holds full."""


@dataclass(frozen=True, slots=True)
class HaproxyTarget:
    """A member as HAProxy reaches it.

    :ivar checks: ``HOST:PORT`` at which its agent answers checks
    """

    name: str
    host: str
    port: int
    checks: str


def backend(cluster: str, use: str) -> str:
    """:param use: ``write`` or ``read``"""
    return f"{cluster}_{use}"


def frontend(name: str) -> str:
    """Name of the frontend for the backend of that name."""
    return f"{name}_clients"


def render(cluster: str, targets: Sequence[HaproxyTarget], config: HaproxyConfig) -> str:
    """The text of a file that HAProxy (2.6 or later) accepts as it is, or beside others.

    :raises BadInput: naming the key that is missing
    """
    if config.write is None:
        raise BadInput(
            "endpoints.haproxy.write",
            f"{config.called}: set the address for connections that write",
        )
    inside = f"{cluster}-{split(config.write)[1]}"  # abstract sockets are shared by the whole host
    sections = [
        _global(config),
        _defaults(cluster, config),
        _write(cluster, targets, config.write, inside),
        *([_read(cluster, targets, config, config.read)] if config.read else []),
        *(_hold(cluster, number, inside) for number in HOLDS),
        _nowhere(cluster, inside),
    ]
    return "\n".join(sections)


def targets(cluster: ClusterConfig) -> list[HaproxyTarget]:
    """:raises BadInput: the file does not say where an agent answers checks"""
    found = []
    said = cluster.endpoints
    for member in cluster.members:
        checks = said.checks.get(member.name)
        if checks is None and said.checks_port is None:
            raise BadInput(
                "endpoints.checks_port",
                f"set the port at which the agents answer checks (checks: HOST:PORT in their files), or give "
                f"endpoints.checks.{member.name}: HAProxy must find the primary itself when no manager is left",
            )
        found.append(
            HaproxyTarget(
                member.name, member.host, member.port, checks or f"{member.host}:{said.checks_port}"
            )
        )
    return found


def _global(config: HaproxyConfig) -> str:
    if config.socket.startswith("/"):
        bind = f"{config.socket} mode 660"
    else:
        host, port = split(config.socket)
        bind = f"ipv6@{host}:{port}" if host.startswith("[") else f"ipv4@{host}:{port}"
    return f"""\
global
    # the manager pushes through this; anyone who can connect to it controls HAProxy
    stats socket {bind} level admin
    max-spread-checks 50
"""


def _defaults(cluster: str, config: HaproxyConfig) -> str:
    return f"""\
defaults {cluster}
    mode tcp
    option redispatch 1
    option clitcpka
    option srvtcpka
    srvtcpka-idle {KEEPALIVE_SECONDS}s
    srvtcpka-intvl {KEEPALIVE_SECONDS}s
    srvtcpka-cnt 3
    retries 10
    timeout connect {CONNECT_SECONDS}s
    timeout check {CHECK_MS}ms
    timeout queue {_ms(config.wait)}
    timeout client {SESSION}
    timeout server {FOREVER}
    default-server inter {CHECK_MS}ms rise {RISE} fall {FALL} init-addr libc,none
    # a server that refuses a connection is down, without waiting for a check; not with on-marked-down
    # shutdown-sessions, which would refuse all who are just connecting to it instead of letting them queue
    default-server observe layer4 error-limit 1 on-error mark-down
"""


def _write(cluster: str, targets: Sequence[HaproxyTarget], bind: str, inside: str) -> str:
    name = backend(cluster, "write")
    use = "\n".join(
        f"    use-server hold:{n} if {{ fe_name {frontend(_hold_name(cluster, n))} }}"
        for n in HOLDS
    )
    holds = "\n".join(
        f"    server hold:{n} abns@{inside}-nowhere maxconn 1 observe none" for n in HOLDS
    )
    return f"""\
frontend {frontend(name)} from {cluster}
    bind {bind}
    # never two: after a start of HAProxy, until checks or a manager have said which
    tcp-request connection reject if {{ nbsrv({name}) gt {len(HOLDS) + 1} }}
    default_backend {name}

backend {name} from {cluster}
    balance roundrobin
    option httpchk GET /primary
{use}
{_servers(targets)}
    # full from the start: clients that come while no member takes writes queue, for timeout queue at most
{holds}
"""


def _read(cluster: str, targets: Sequence[HaproxyTarget], config: HaproxyConfig, bind: str) -> str:
    name = backend(cluster, "read")
    return f"""\
frontend {frontend(name)} from {cluster}
    bind {bind}
    # where no replica can be read, the primary is
    use_backend {backend(cluster, "write")} if {{ nbsrv({name}) eq 0 }}
    default_backend {name}

backend {name} from {cluster}
    balance leastconn
    option httpchk GET /replica?max_lag={_ms(config.max_lag)}
{_servers(targets)}
"""


def _servers(targets: Sequence[HaproxyTarget]) -> str:
    return "\n".join(
        f"    server {each.name} {each.host}:{each.port} maxconn {ROOM} check addr {host} port {port}"
        for each in targets
        for host, port in [split(each.checks)]
    )


def _hold(cluster: str, number: int, inside: str) -> str:
    name = _hold_name(cluster, number)
    return f"""\
ring {name}
    timeout connect 1s
    timeout server {FOREVER}
    server {name} abns@{inside}-hold{number}

frontend {frontend(name)} from {cluster}
    bind abns@{inside}-hold{number}
    timeout client {FOREVER}
    default_backend {backend(cluster, "write")}
"""


def _hold_name(cluster: str, number: int) -> str:
    return f"{cluster}-hold{number}"


def _nowhere(cluster: str, inside: str) -> str:
    return f"""\
frontend {cluster}-nowhere from {cluster}
    bind abns@{inside}-nowhere
    timeout client {FOREVER}
    tcp-request inspect-delay {FOREVER}
    tcp-request content reject if WAIT_END
"""


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
