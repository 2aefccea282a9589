"""Answers load balancers' health checks: one code and one word, to any client.

Load balancers send no token, and the agent's API answers no stranger. So the checks have a listener of their own, which
says no more than any client finds out by connecting to the server. Everything is read from the published state, which
the agent's threads maintain: a check never waits for the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.config.values import seconds
from holdfast.core.view import MemberState, Receiver

METHODS = ("GET", "HEAD", "OPTIONS")


def primary(state: MemberState) -> bool:
    """The server takes writes, and may: a lease that is enforced is not over.

    A server that is silent, or that its agent cannot observe, still counts: it is the primary until its lease is over.
    """
    lease = state.lease
    if (
        state.unobserved and not state.up
    ):  # open by an agent that was restarted: the agent enforces its lease
        return lease.enforced and lease.left > 0
    leased = not (lease.enforced and lease.left <= 0)
    return state.up and state.writable and not state.stopped and leased


def commits(state: MemberState, blocked_seconds: float, most: float) -> bool:
    """The server is the primary, and commits have not been blocked there for longer than ``most`` seconds."""
    return (
        primary(state) and max(blocked_seconds, state.silent_seconds, state.stuck_seconds) <= most
    )


def replica(state: MemberState, max_lag: float | None = None) -> bool:
    """The server follows a source, and its data is not older than ``max_lag`` seconds (None: of any age)."""
    replication = state.replication
    if not _answers(state) or state.writable or state.unfit:
        return False
    if replication.receiver is not Receiver.ON or not replication.applier:
        return False
    lag = replication.lag_seconds
    return max_lag is None or (lag is not None and lag <= max_lag)


def voter(state: MemberState) -> bool:
    """Commits wait for the server's acknowledgements, or it is the primary."""
    return primary(state) or (replica(state) and state.semi_sync.replica)


def _answers(state: MemberState) -> bool:
    return state.up and not state.silent_seconds and not state.unobserved


def _ready(state: MemberState) -> bool:
    return primary(state) or replica(state)


CHECKS: Mapping[str, Callable[[MemberState], bool]] = {
    "/primary": primary,
    "/replica": replica,
    "/voter": voter,
    "/health": _answers,
    "/readiness": _ready,
}


def make_checks(
    now: Callable[[], MemberState], blocked_seconds: Callable[[], float] = lambda: 0.0
) -> ASGIApp:
    """:param now: the state at this moment; must not block
    :param blocked_seconds: for how long commits have waited for acknowledgements here, and none was released
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"no {scope['type']} here")
        status, word = _answer(
            scope["method"], scope["path"], scope["query_string"], now, blocked_seconds
        )
        body = f"{word}\n".encode()
        headers = [
            (b"content-type", b"text/plain"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if status == 405:
            headers.append((b"allow", ", ".join(METHODS).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send(
            {"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body}
        )

    return app


def _answer(
    method: str,
    path: str,
    query: bytes,
    now: Callable[[], MemberState],
    blocked_seconds: Callable[[], float],
) -> tuple[int, str]:
    check = CHECKS.get(path)
    if check is None:
        return 404, "unknown"
    if method not in METHODS:
        return 405, "method"
    asked = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    named = "max_lag" if check is replica else "max_blocked" if check is primary else ""
    bound = asked.pop(named, None)
    if asked:
        return 400, "parameter"
    try:
        most = None if bound is None else seconds(bound)
    except ValueError:
        return 400, named
    state = now()
    if most is None:
        good = check(state)
    elif check is replica:
        good = replica(state, most)
    else:
        good = commits(state, blocked_seconds(), most)
    return (200, "yes") if good else (503, "no")
