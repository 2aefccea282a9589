"""What load balancers learn of a member."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from holdfast.agent.api.health_checks import make_checks
from holdfast.core.gtid import Flavor
from holdfast.core.lease import Lease, LeaseHolder
from holdfast.core.view import (
    MemberState,
    Receiver,
    Replication,
    SemiSync,
    ServerStatus,
)
from tests.unit.served import served

DOWN = MemberState("m1", Flavor.MARIADB)
IDLE = replace(DOWN, server=ServerStatus.UP)
PRIMARY = replace(IDLE, writable=True, lease=Lease(True, LeaseHolder.MANAGER, 2.0))
FOLLOWING = Replication(source="b:3306", receiver=Receiver.ON, applier=True, lag_seconds=1.0)
LEARNER = replace(IDLE, replication=FOLLOWING)
VOTER = replace(LEARNER, semi_sync=SemiSync(replica=True))


class Agent:
    """A listener for checks, of a member whose state the test sets."""

    def __init__(self, port: int) -> None:
        self.state = DOWN
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}")

    def asked(self, path: str, method: str = "GET") -> httpx.Response:
        return self.http.request(method, path)

    def yes(self, state: MemberState) -> set[str]:
        """Which checks say yes."""
        self.state = state
        codes = {path: self.asked(path).status_code for path in PATHS}
        assert set(codes.values()) <= {200, 503}
        return {path for path, code in codes.items() if code == 200}


PATHS = ("/primary", "/replica", "/voter", "/health", "/readiness")


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    held: list[Agent] = []
    with served(make_checks(lambda: held[0].state)) as port:
        held.append(Agent(port))
        with held[0].http:
            yield held[0]


@pytest.mark.parametrize(
    ("state", "yes"),
    [
        (DOWN, set()),
        (replace(DOWN, server=ServerStatus.STARTING), set()),
        (replace(PRIMARY, server=ServerStatus.DYING), set()),
        (IDLE, {"/health"}),
        (PRIMARY, {"/primary", "/voter", "/health", "/readiness"}),
        (LEARNER, {"/replica", "/health", "/readiness"}),
        (VOTER, {"/replica", "/voter", "/health", "/readiness"}),
    ],
    ids=["down", "starting", "dying", "idle", "primary", "learner", "voter"],
)
def test_each_check_says_what_the_member_is(
    agent: Agent, state: MemberState, yes: set[str]
) -> None:
    assert agent.yes(state) == yes


def test_a_primary_whose_lease_is_over_is_none(agent: Agent) -> None:
    assert agent.yes(replace(PRIMARY, lease=Lease(True, LeaseHolder.NOBODY, 0.0))) == {"/health"}


def test_without_leases_a_primary_needs_none(agent: Agent) -> None:
    assert "/primary" in agent.yes(replace(PRIMARY, lease=Lease()))


def test_a_silent_primary_keeps_its_clients_until_its_lease_is_over(agent: Agent) -> None:
    assert agent.yes(replace(PRIMARY, silent_seconds=0.5)) == {"/primary", "/voter", "/readiness"}


@pytest.mark.parametrize(
    "state",
    [
        replace(VOTER, silent_seconds=0.5),
        replace(VOTER, unfit="its data differ"),
        replace(VOTER, replication=replace(FOLLOWING, receiver=Receiver.CONNECTING)),
        replace(VOTER, replication=replace(FOLLOWING, applier=False)),
    ],
    ids=["silent", "unfit", "disconnected", "applier stopped"],
)
def test_what_does_not_keep_up_is_no_replica(agent: Agent, state: MemberState) -> None:
    assert not agent.yes(state) & {"/replica", "/voter", "/readiness"}


@pytest.mark.parametrize(
    ("lag", "asked", "code"),
    [
        (1.0, "2s", 200),
        (1.0, "1000ms", 200),
        (1.0, "0.5", 503),
        (None, "2s", 503),
        (9.0, "1m", 200),
    ],
)
def test_a_replica_is_asked_how_old_it_is(
    agent: Agent, lag: float | None, asked: str, code: int
) -> None:
    agent.state = replace(VOTER, replication=replace(FOLLOWING, lag_seconds=lag))
    assert agent.asked(f"/replica?max_lag={asked}").status_code == code


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(("state", "code"), [(PRIMARY, 200), (VOTER, 503)])
def test_the_methods_of_load_balancers(
    agent: Agent, method: str, state: MemberState, code: int
) -> None:
    agent.state = state
    assert agent.asked("/primary", method).status_code == code


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/", 404),
        ("GET", "/primary/", 404),
        ("GET", "/v1/state", 404),
        ("GET", "/v1/health", 404),
        ("POST", "/v1/command", 404),
        ("POST", "/primary", 405),
        ("DELETE", "/health", 405),
        ("GET", "/replica?max_lag=", 400),
        ("GET", "/replica?max_lag=soon", 400),
        ("GET", "/replica?max-lag=2s", 400),
        ("GET", "/primary?max_lag=2s", 400),
    ],
)
def test_what_is_no_check(agent: Agent, method: str, path: str, code: int) -> None:
    agent.state = PRIMARY
    assert agent.asked(path, method).status_code == code


def test_nothing_but_a_code_and_a_word_is_told(agent: Agent) -> None:
    agent.state = PRIMARY
    assert agent.asked("/primary").text == "yes\n"
    assert agent.asked("/replica").text == "no\n"
    assert agent.asked("/elsewhere").text == "unknown\n"
    assert agent.asked("/primary", "HEAD").text == ""
    assert set(agent.asked("/primary").headers) == {
        "content-type",
        "content-length",
        "cache-control",
    }


def test_an_agent_that_was_restarted_answers_for_the_lease_that_it_found(agent: Agent) -> None:
    found = replace(DOWN, server=ServerStatus.STARTING, unobserved="error 1045: Access denied")
    leased = replace(found, lease=Lease(True, LeaseHolder.NOBODY, 0.9))
    assert agent.yes(leased) == {"/primary", "/voter", "/readiness"}
    assert not agent.yes(replace(leased, lease=Lease(True, LeaseHolder.NOBODY, 0.0)))
    assert not agent.yes(found)
    assert not agent.yes(replace(leased, unobserved=""))


def test_a_replica_that_cannot_be_looked_into_gets_no_readers(agent: Agent) -> None:
    assert not agent.yes(replace(VOTER, unobserved="error 1045: Access denied"))


@pytest.mark.parametrize(
    ("blocked", "state", "asked", "code"),
    [
        (9.0, PRIMARY, "/primary", 200),
        (9.0, PRIMARY, "/primary?max_blocked=5s", 503),
        (4.0, PRIMARY, "/primary?max_blocked=5s", 200),
        (0.0, replace(PRIMARY, stuck_seconds=5.5), "/primary?max_blocked=5s", 503),
        (0.0, replace(PRIMARY, silent_seconds=5.5), "/primary?max_blocked=5s", 503),
        (0.0, VOTER, "/primary?max_blocked=5s", 503),
        (0.0, PRIMARY, "/primary?max_blocked=soon", 400),
        (0.0, PRIMARY, "/primary?max_lag=1s", 400),
        (0.0, VOTER, "/replica?max_blocked=1s", 400),
    ],
)
def test_whether_a_primary_with_blocked_commits_gets_clients_is_for_who_asks_to_say(
    blocked: float, state: MemberState, asked: str, code: int
) -> None:
    with served(make_checks(lambda: state, lambda: blocked)) as port:
        assert httpx.get(f"http://127.0.0.1:{port}{asked}").status_code == code
