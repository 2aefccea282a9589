"""A primary's server lives no longer than its lease; who upholds the lease; when an agent vouches."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.lease.electorate import ElectorateFile
from holdfast.agent.runtime import boottime
from holdfast.core.commands import Follow, Freeze, Promise, Promote, Prove, Start
from holdfast.core.lease import Electorate, LeaseHolder, Quorum
from holdfast.core.timing import FENCE_SECONDS
from holdfast.core.view import MemberState, Receiver, ServerStatus
from holdfast.errors import Fatal
from holdfast.http.wire import Grant, StateReply, VouchReply, VouchRequest, WatchRequest
from tests.unit.agent_world import World

pytestmark = pytest.mark.alone

LEASE = 0.4
HERE = "10.0.0.1:3306"
FOLLOW = Follow("m1", "10.0.0.1", 3306, semi_sync=True)
BUSY = 0.1
"""What the machine that runs the tests may add to a moment."""

Made = Callable[[str], World]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """Makes hosts."""
    worlds: list[World] = []

    def make(name: str) -> World:
        folder = tmp_path / name
        folder.mkdir()
        worlds.append(World(folder))
        return worlds[-1]

    yield make
    for world in worlds:
        world.end()


@pytest.fixture
def world(made: Made) -> World:
    world = made("a")
    up(world)
    return world


def up(world: World) -> None:
    world.done(1, Start())
    world.until(lambda state: state.up)


def known(
    quorums: tuple[Quorum, ...] = (Quorum(("b", "c"), 1),),
    agents: dict[str, str] | None = None,
    serial: int = 1,
    term: int = 1,
    primary: str = "a",
    settled: bool = True,
) -> Electorate:
    return Electorate(primary, term, serial, quorums, agents or {}, HERE, settled)


def watch(world: World, grant: Grant | None = None, **poll: Any) -> StateReply:
    request = WatchRequest(grant=grant, **poll)
    answer = world.http.post("/v1/watch", content=request.model_dump_json())
    assert answer.status_code == 200, answer.text
    return StateReply.model_validate_json(answer.content)


def grant(
    world: World,
    electorate: Electorate | None = None,
    seconds: float = LEASE,
    term: int = 1,
    lease: float = LEASE,
) -> Grant:
    """A grant based on an answer of this moment."""
    reply = watch(world)
    return Grant(
        run=reply.run,
        until=reply.clock + seconds,
        lease=lease,
        term=term,
        electorate=electorate or known(),
    )


def primary(world: World, electorate: Electorate | None = None) -> float:
    """Make it an open primary; returns when its lease ends."""
    electorate = electorate or known()
    given = grant(world, electorate)
    watch(world, given)
    world.done(1, Promote(1, 1, electorate=electorate))
    return given.until


def vouch(world: World, address: str = HERE, seconds: float = LEASE) -> VouchReply:
    request = VouchRequest(member="m1", address=address, seconds=seconds)
    answer = world.http.post("/v1/vouch", content=request.model_dump_json())
    assert answer.status_code == 200, answer.text
    return VouchReply.model_validate_json(answer.content)


def dead_at(world: World) -> float:
    """When its server had ended, on the clock of leases."""
    running = world.process()
    if running is not None:
        assert running.wait(10)
    return boottime.now()


def follower(made: Made, name: str) -> tuple[World, str]:
    """A host whose server follows the primary, and its agent's URL."""
    world = made(name)
    up(world)
    world.done(1, FOLLOW)
    return world, str(world.http.base_url)


def told(state: MemberState) -> tuple[bool, LeaseHolder]:
    return state.lease.enforced, state.lease.by


def test_an_answer_tells_the_clock_of_leases_and_whose_it_is(world: World) -> None:
    before = boottime.now()
    first, second = world.state(), watch(world)
    assert before <= first.clock <= second.clock <= boottime.now()
    assert first.run == second.run != ""
    world.restart_agent()
    assert world.state().run != first.run


def test_a_watch_without_news_ends_with_its_wait(world: World) -> None:
    version = world.state().version
    begun = time.monotonic()
    reply = watch(world, since=version, wait=0.3)
    assert reply.version == version
    assert 0.25 < time.monotonic() - begun < 5
    assert reply.clock > 0
    assert abs(boottime.now() - reply.clock) < 5 * BUSY


def test_a_grant_takes_effect_before_the_poll_is_answered(world: World) -> None:
    """Else the server would be killed while the manager's poll waits."""
    electorate = known()
    primary(world, electorate)
    long = 2.5 * LEASE
    for _ in range(3):
        version = world.state().version
        watch(
            world,
            grant(world, electorate, seconds=long, lease=long),
            since=version,
            wait=long * 0.7,
        )
    assert world.process() is not None


def test_no_server_is_opened_without_a_lease(world: World) -> None:
    watch(world, grant(world, seconds=0.01))
    reply = world.command(1, Promote(1, 1, electorate=known()))
    assert reply.error == "Refused"
    assert "lease" in reply.message
    assert not world.server.now.writable
    assert "open" not in world.server.calls


def test_without_an_electorate_there_is_no_lease(world: World) -> None:
    world.done(1, Promote(1, 1))
    assert world.server.now.writable
    assert told(world.state().state) == (False, LeaseHolder.NOBODY)


def test_a_server_whose_lease_is_over_is_killed_at_that_moment(world: World) -> None:
    until = primary(world)
    assert told(world.state().state) == (True, LeaseHolder.MANAGER)
    assert 0 < world.state().state.lease.left <= LEASE
    assert -0.001 <= dead_at(world) - until < FENCE_SECONDS + BUSY
    state = world.until(lambda state: state.server is ServerStatus.DOWN)
    assert "its lease is over: no manager has renewed it for 0." in state.reason
    assert "none of b, c confirmed it" in state.reason
    assert told(world.until(lambda state: not state.lease.enforced)) == (False, LeaseHolder.NOBODY)


@pytest.mark.parametrize(
    "void",
    [
        lambda good: good.model_copy(update={"run": "another"}),
        lambda good: good.model_copy(update={"term": 0}),
        lambda good: good.model_copy(update={"leader": "another"}),
        lambda good: good.model_copy(update={"electorate": known(primary="z")}),
        lambda good: good.model_copy(update={"lease": -1.0}),
        lambda good: good.model_copy(update={"until": good.until - LEASE}),
        lambda good: good.model_copy(update={"until": float("nan")}),
    ],
    ids=["run", "term", "leader", "primary", "lease", "past", "nan"],
)
def test_a_void_grant_renews_nothing(world: World, void: Callable[[Grant], Grant]) -> None:
    until = primary(world)
    end = time.monotonic() + 3 * LEASE
    good = grant(world)
    request = (
        WatchRequest(grant=void(good)).model_dump_json().replace('"until":null', '"until":NaN')
    )
    while world.process() is not None and time.monotonic() < end:
        answer = world.http.post("/v1/watch", content=request)
        assert answer.status_code in (200, 400)
        time.sleep(0.02)
    assert dead_at(world) - until < FENCE_SECONDS + BUSY


def test_no_grant_lasts_longer_than_a_lease_from_its_coming(world: World) -> None:
    primary(world)
    watch(world, grant(world, seconds=1e9))
    now = boottime.now()
    assert LEASE * 0.3 < dead_at(world) - now < LEASE + FENCE_SECONDS + BUSY


def test_peers_uphold_a_primary_that_no_manager_renews(made: Made) -> None:
    a, (b, url) = made("a"), follower(made, "b")
    up(a)
    primary(a, known(agents={"b": url}))
    a.until(lambda state: told(state) == (True, LeaseHolder.PEERS))
    time.sleep(4 * LEASE)
    assert told(a.state().state) == (True, LeaseHolder.PEERS)
    assert b.state().state.vouched > LEASE / 4
    watch(a, grant(a, known(agents={"b": url})))
    a.until(lambda state: state.lease.by is LeaseHolder.MANAGER)


def test_once_its_peers_have_promised_nobody_upholds_it(made: Made) -> None:
    a, (b, url) = made("a"), follower(made, "b")
    up(a)
    primary(a, known(agents={"b": url}))
    a.until(lambda state: state.lease.by is LeaseHolder.PEERS)
    reply = b.done(2, Promise())
    over = boottime.now() + reply.state.vouched
    assert reply.state.vouched > 0
    assert dead_at(a) < over
    assert (
        "none of b, c confirmed it"
        in a.until(lambda state: state.server is ServerStatus.DOWN).reason
    )


def test_where_nobody_can_be_elected_a_primary_stays(world: World) -> None:
    primary(world, known(quorums=()))
    time.sleep(4 * LEASE)
    assert world.process() is not None
    assert told(world.state().state) == (True, LeaseHolder.PEERS)


def test_every_quorum_has_to_vouch(made: Made) -> None:
    a, (_, url) = made("a"), follower(made, "b")
    up(a)
    quorums = (Quorum(("b", "c"), 1), Quorum(("c", "d"), 1))
    until = primary(a, known(quorums, {"b": url}))
    assert dead_at(a) - until < FENCE_SECONDS + BUSY


def test_a_restarted_agent_goes_on_to_keep_the_lease(world: World) -> None:
    primary(world)
    world.stop_agent()
    time.sleep(2 * LEASE)
    assert world.process() is not None, "nobody is there to kill it"
    begun = boottime.now()
    world.start_agent()
    state = world.state().state
    assert state.lease.enforced
    assert dead_at(world) - begun < LEASE + FENCE_SECONDS + 3 * BUSY


def test_a_restarted_agent_finds_its_peers_by_itself(made: Made) -> None:
    a, (_, url) = made("a"), follower(made, "b")
    up(a)
    primary(a, known(agents={"b": url}))
    a.restart_agent()
    time.sleep(3 * LEASE)
    assert told(a.state().state) == (True, LeaseHolder.PEERS)


def test_a_restarted_agent_takes_no_grant_of_before(world: World) -> None:
    primary(world)
    old = grant(world)
    world.restart_agent()
    before = boottime.now()
    while world.process() is not None and boottime.now() < before + 3 * LEASE:
        watch(world, old)
    assert dead_at(world) - before < LEASE + FENCE_SECONDS + 3 * BUSY


def test_a_grant_holds_an_open_server_to_a_lease(world: World) -> None:
    """As after an update of an agent that knew no leases."""
    world.done(1, Promote(1, 1))
    given = grant(world)
    watch(world, given)
    assert -0.001 <= dead_at(world) - given.until < FENCE_SECONDS + BUSY


def test_a_proof_holds_an_open_server_to_a_lease(world: World) -> None:
    world.done(1, Promote(1, 1))
    world.done(1, Prove(2, known(serial=2)))
    assert world.until(lambda state: state.lease.enforced)
    kept = json.loads((world.state_dir / "lease").read_text())
    assert kept["electorate"]["serial"] == 2


def test_the_electorate_is_on_disk_before_the_row_is_committed(world: World) -> None:
    primary(world)
    world.server.stuck = {"prove"}
    proof = world.in_background(1, Prove(2, known((), serial=2)))
    end = time.monotonic() + 5
    while "prove" not in world.server.calls[-1:]:
        assert time.monotonic() < end
    kept = json.loads((world.state_dir / "lease").read_text())
    assert kept["electorate"]["serial"] == 2
    world.server.stuck = set()
    proof.reply()


def test_an_older_electorate_never_replaces_a_later_one(made: Made) -> None:
    a, (_, url) = made("a"), follower(made, "b")
    up(a)
    primary(a, known(agents={"b": url}))
    later = known((Quorum(("c", "d"), 1),), serial=2)
    watch(a, grant(a, later))
    given = grant(a, known(agents={"b": url}))
    watch(a, given)
    assert dead_at(a) - given.until < FENCE_SECONDS + BUSY


def test_of_two_electorates_of_one_age_both_must_vouch(made: Made) -> None:
    a, (_, url) = made("a"), follower(made, "b")
    up(a)
    primary(a, known((Quorum(("c",), 1),)))
    given = grant(a, known((Quorum(("b",), 1),), {"b": url}))
    watch(a, given)
    assert dead_at(a) - given.until < FENCE_SECONDS + BUSY


def test_a_server_that_follows_another_has_no_lease(world: World) -> None:
    world.server.stuck = {"open"}
    watch(world, grant(world))
    opening = world.in_background(1, Promote(1, 1, electorate=known()))
    world.until(lambda state: state.lease.enforced)
    follows = world.in_background(2, FOLLOW)  # cancels the promotion
    assert opening.reply().error
    assert follows.reply().error == ""
    time.sleep(2 * LEASE)
    assert world.process() is not None
    assert not world.state().state.lease.enforced
    world.restart_agent()
    time.sleep(2 * LEASE)
    assert world.process() is not None


@pytest.mark.parametrize("frozen", [True, False])
def test_of_those_that_turn_only_a_frozen_primary_goes_without_its_lease(
    world: World, frozen: bool
) -> None:
    """MySQL may take a second; but where commits wait it cannot change over at all, and must be ended."""
    primary(world)
    world.server.stuck = {"follow"}
    if frozen:
        assert world.command(2, Freeze()).error == ""
    else:
        world.server.now = replace(world.server.now, writable=False)
        world.until(lambda state: not state.writable)
    follows = world.in_background(2, FOLLOW)
    if not frozen:
        world.until(lambda state: state.server is ServerStatus.DOWN)
        return
    world.until(lambda state: not state.lease.enforced)
    time.sleep(2 * LEASE)
    assert world.process() is not None
    world.server.stuck.clear()
    assert follows.reply().error == ""


def test_a_new_run_of_the_server_is_not_held_to_the_lease_of_the_one_before(world: World) -> None:
    primary(world)
    running = world.process()
    assert running is not None
    running.kill_and_wait(5)
    world.until(lambda state: state.server is ServerStatus.DOWN)
    up(world)
    time.sleep(2 * LEASE)
    assert world.state().state.up


def test_a_lease_file_that_cannot_be_read_stops_the_agent(world: World) -> None:
    path = world.state_dir / "lease"
    path.write_text('{"electorate": 3}')
    with pytest.raises(Fatal, match="remove it"):
        ElectorateFile(world.state_dir)
    path.unlink()


# vouching


def test_an_agent_vouches_for_the_primary_that_its_server_follows(made: Made) -> None:
    b, _ = follower(made, "b")
    assert vouch(b).vouched
    assert not vouch(b, "10.0.0.9:3306").vouched
    assert "10.0.0.9" in vouch(b, "10.0.0.9:3306").reason


@pytest.mark.parametrize("seconds", [0, -1, 1e9])
def test_nobody_vouches_for_a_time_that_makes_no_sense(made: Made, seconds: float) -> None:
    b, _ = follower(made, "b")
    assert not vouch(b, seconds=seconds).vouched


def test_who_follows_nobody_or_receives_nothing_does_not_vouch(made: Made) -> None:
    b = made("b")
    assert not vouch(b).vouched
    up(b)
    assert not vouch(b).vouched
    b.done(1, FOLLOW)
    assert vouch(b).vouched
    b.server._replicate(receiver=Receiver.OFF)
    b.until(lambda state: state.replication.receiver is Receiver.OFF)
    assert not vouch(b).vouched


def test_from_the_asking_for_a_promise_on_no_word_is_given(made: Made) -> None:
    """Also while the promise waits for something else to end."""
    b, _ = follower(made, "b")
    b.server.stuck = {"stop_receiver"}
    promise = b.in_background(2, Promise())
    assert not vouch(b).vouched
    b.server.stuck = set()
    assert promise.reply().error == ""
    assert not vouch(b).vouched


def test_after_a_promise_that_failed_the_word_is_given_again(made: Made) -> None:
    b, _ = follower(made, "b")
    b.server.frozen = True
    assert b.command(2, Promise()).error
    b.server.frozen = False
    assert vouch(b).vouched


def test_a_kept_promise_is_released_when_the_server_follows_and_not_before(made: Made) -> None:
    b, _ = follower(made, "b")
    b.done(2, Promise())
    b.server.stuck = {"follow"}
    follows = b.in_background(2, FOLLOW)
    b.until(lambda state: state.promised == 0)
    b.server._replicate(receiver=Receiver.ON)  # as a look may find it meanwhile
    b.until(lambda state: state.replication.receiver is Receiver.ON)
    assert not vouch(b).vouched
    b.server.stuck = set()
    follows.reply()
    assert vouch(b).vouched


def test_the_answer_to_a_promise_tells_for_how_long_a_word_still_counts(made: Made) -> None:
    b, _ = follower(made, "b")
    assert vouch(b, seconds=1.1).vouched
    asked = boottime.now()
    reply = b.done(2, Promise())
    assert reply.state.vouched >= 1.1 - (boottime.now() - asked)


def test_a_restarted_agent_takes_it_that_it_gave_its_word_just_before(made: Made) -> None:
    b, _ = follower(made, "b")
    assert not vouch(b, seconds=5.0).vouched, "so long a time has to be on disk first"
    end = time.monotonic() + 5
    while not vouch(b, seconds=5.0).vouched:
        assert time.monotonic() < end
    b.restart_agent()
    assert b.state().state.vouched > 4.0


def test_what_time_alone_changes_makes_no_new_version(made: Made) -> None:
    a, (_, url) = made("a"), follower(made, "b")
    up(a)
    primary(a, known(agents={"b": url}))
    a.until(lambda state: state.lease.by is LeaseHolder.PEERS)
    before = a.state().version
    left = {round(a.state().state.lease.left, 2)}
    end = time.monotonic() + 2 * LEASE
    while time.monotonic() < end:
        left.add(round(a.state().state.lease.left, 2))
    assert a.state().version == before
    assert len(left) > 5
