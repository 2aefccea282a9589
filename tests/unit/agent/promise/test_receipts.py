"""A voter whose server lost what it had received loses its vote; the files of a stopped server show what it holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.agent.disk.term import TermFile
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.promise.receipts import Receipts
from holdfast.agent.promise.receiver_mark import AFTER_COMMAND_SECONDS, EVERY_SECONDS
from holdfast.clock import Clock
from holdfast.core.commands import Fence, Follow, Inventory, Promise, Start
from holdfast.core.gtid import Flavor, parse
from holdfast.core.view import MemberState, Replication, SemiSync, ServerStatus
from holdfast.errors import Refused
from holdfast.server.base import (
    RECEIVER_CONNECTING,
    RECEIVER_FAILED,
    RECEIVER_OFF,
    Deadline,
    Observation,
)
from tests.unit.agent_world import MemoryServer, World
from tests.unit.binlog.events.test_builder import Builder, gtid, mariadb
from tests.unit.hand_clock import HandClock

VOTER = Follow("b", "127.0.0.1", 3306, semi_sync=True)
LEARNER = replace(VOTER, semi_sync=False)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.done(1, Start())
    made.until(lambda state: state.up)
    yield made
    made.end()


def receives(world: World, received: str, applied: str = "0-1-10") -> None:
    world.server.now = replace(world.server.now, received=received, applied=applied)


def is_down(state: MemberState) -> bool:
    return state.server is ServerStatus.DOWN


def of(
    server: MemoryServer,
    killed: list[str],
    folder: Path,
    opened: str = "",
    term: int = 1,
    clock: Clock | None = None,
) -> Receipts:
    """:param opened: the run that its agent has opened; :param term: the promised one
    :param clock: None: one that moves on with each look at it, so far that everything is due
    """
    clock = clock or HandClock(partial(next, count(0.0, EVERY_SECONDS)))
    server_run = cast("ServerRun", SimpleNamespace(kill=killed.append))
    promised = TermFile(folder)
    promised.raise_to(term)
    return Receipts(
        server,
        server_run,
        folder,
        lambda reason, reset: None,
        lambda run: run == opened,
        promised,
        clock,
    )


def test_until_it_is_gone_no_look_at_it_passes(tmp_path: Path) -> None:
    server, killed = MemoryServer(), list[str]()
    receipts = of(server, killed, tmp_path)
    voter = replace(server.now, semi_sync=SemiSync(replica=True), received="0-1-12")
    receipts.seen(voter, "a")
    server.now = replace(voter, received="0-1-11")
    for _ in range(2):
        with pytest.raises(Refused, match="0-1-12"):
            receipts.seen(server.now, "a")
    assert len(killed) == 2
    receipts.seen(server.now, "b")  # another run is another voter


def test_its_own_agent_may_drop_what_a_learner_cannot_apply_though_it_has_voted_in_this_run(
    tmp_path: Path,
) -> None:
    server, killed = MemoryServer(), list[str]()
    receipts = of(server, killed, tmp_path)
    voter = replace(server.now, semi_sync=SemiSync(replica=True), received="0-1-12")
    receipts.seen(voter, "a")
    learner = replace(voter, semi_sync=SemiSync(replica=False))
    receipts.seen(learner, "a")
    dropped = replace(learner, received="0-1-11")
    server.now = dropped
    with receipts.steering():
        pass
    receipts.seen(dropped, "a")
    assert killed == []
    receipts.seen(voter, "a")
    server.now = replace(voter, received="0-1-11")
    with receipts.steering():
        pass
    with pytest.raises(Refused, match="0-1-12"):
        # it acknowledges: the loss counts, whatever dropped the data
        receipts.seen(server.now, "a")


def test_what_is_forgotten_on_purpose_is_not_lost_and_all_else_is(tmp_path: Path) -> None:
    server, killed = MemoryServer(), list[str]()
    receipts = of(server, killed, tmp_path)
    had = replace(
        server.now, semi_sync=SemiSync(replica=True), received="0-1-12,0-2-13", applied="0-2-13"
    )
    own = parse(Flavor.MARIADB, "0-2-13")
    server.now = replace(had, received="0-1-12", applied="")

    def forgotten(fails: bool) -> None:
        with receipts.forgetting(own):
            receipts.seen(replace(had, received="", applied=""), "a")  # in between it has nothing
            if fails:
                raise Refused("no")

    receipts.seen(had, "a")
    forgotten(fails=False)
    receipts.seen(server.now, "a")
    assert killed == []
    server.now = replace(had, received="0-1-11", applied="")
    with pytest.raises(Refused, match="0-1-12"):
        receipts.seen(server.now, "a")
    for left in (replace(had, received="0-1-12", applied=""), had):  # it failed late, or early
        server.now = left
        receipts.seen(had, "b")
        with pytest.raises(Refused, match="no"):
            forgotten(fails=True)
        receipts.seen(left, "b")
    server.now = replace(had, received="0-1-11", applied="0-2-13")
    with pytest.raises(Refused, match="0-1-12"):
        receipts.seen(server.now, "b")


def test_a_receiver_that_was_restarted_while_its_agent_was_away_costs_the_vote(
    tmp_path: Path,
) -> None:
    server, killed = MemoryServer(), list[str]()
    voter = replace(server.now, semi_sync=SemiSync(replica=True))

    def agent() -> Receipts:
        return of(server, killed, tmp_path)

    agent().seen(voter, "a")  # there was no agent before it that could have left a mark
    one = agent()
    one.seen(voter, "a")
    server.receiver += 1  # an operator does that while the agent observes
    one.seen(voter, "a")
    agent().seen(voter, "a")
    server.receiver += 1
    two = agent()
    for semi_sync in (SemiSync(replica=True), SemiSync()):  # also where it was switched off
        with pytest.raises(Refused, match="while its agent was away"):
            two.seen(replace(voter, semi_sync=semi_sync), "a")
    assert len(killed) == 2
    for _ in range(2):
        two.seen(voter, "b")  # another run is another voter
    server.receiver = RECEIVER_CONNECTING  # started by an operator, and not connected yet
    with pytest.raises(Refused, match="while its agent was away"):
        agent().seen(voter, "b")
    assert len(killed) == 3
    server.receiver = RECEIVER_FAILED
    three = agent()
    three.seen(voter, "b")  # it ended with an error, as where its account was locked
    server.receiver = 4
    three.seen(voter, "b")
    server.receiver = RECEIVER_OFF
    with pytest.raises(Refused, match="while its agent was away"):
        agent().seen(voter, "b")
    assert len(killed) == 4


def test_what_its_agent_does_itself_is_no_hand_at_work(tmp_path: Path) -> None:
    server, killed = MemoryServer(), list[str]()
    voter = replace(server.now, semi_sync=SemiSync(replica=True))
    one = of(server, killed, tmp_path)
    one.seen(voter, "a")
    with one.steering():
        server.receiver += 1
        one.seen(voter, "a")
        of(server, killed, tmp_path).seen(voter, "a")  # it was killed within its command
        server.receiver += 1
    one.seen(voter, "a")
    of(server, killed, tmp_path).seen(voter, "a")
    with one.steering():
        server.receiver = RECEIVER_CONNECTING
    one.seen(voter, "a")
    server.receiver = 7
    of(server, killed, tmp_path).seen(voter, "a")  # it was connected while no agent looked
    one.seen(voter, "a")
    of(server, killed, tmp_path).seen(voter, "a")
    primary = replace(voter, semi_sync=SemiSync(source=True), writable=True)
    of(server, killed, tmp_path, opened="a").seen(primary, "a")
    server.receiver = 0  # it was promoted, and acknowledges to nobody
    of(server, killed, tmp_path).seen(voter, "a")
    (tmp_path / "receiver").write_text("{")
    of(server, killed, tmp_path).seen(voter, "a")
    assert killed == []


def test_the_first_command_of_another_term_need_not_take_back_what_was_marked(
    tmp_path: Path,
) -> None:
    server, killed = MemoryServer(), list[str]()
    voter = replace(server.now, semi_sync=SemiSync(replica=True))
    of(server, killed, tmp_path, term=3).seen(voter, "a")
    marked = (tmp_path / "receiver").stat().st_mtime_ns
    server.receiver += 1
    promised = of(server, killed, tmp_path, term=4)  # it was killed within its command
    promised.seen(voter, "a")
    assert (tmp_path / "receiver").stat().st_mtime_ns != marked  # marked anew, in its own term
    with promised.steering():
        server.receiver += 1
        of(server, killed, tmp_path, term=4).seen(voter, "a")
    assert killed == []
    of(server, killed, tmp_path, term=4).seen(voter, "a")
    server.receiver += 1
    with pytest.raises(Refused, match="while its agent was away"):
        of(server, killed, tmp_path, term=4).seen(voter, "a")


def test_what_cannot_be_marked_is_no_longer_marked_as_it_was_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server, killed = MemoryServer(), list[str]()
    voter = replace(server.now, semi_sync=SemiSync(replica=True))
    one = of(server, killed, tmp_path)
    one.seen(voter, "a")

    def full(self: Path, text: str) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with one.steering():
            server.receiver += 1
        for _ in range(3):
            one.seen(voter, "a")
    assert caplog.text.count("No space left on device") == 1
    of(server, killed, tmp_path).seen(voter, "a")
    assert killed == []
    one.seen(voter, "a")
    server.receiver += 1
    with pytest.raises(Refused, match="while its agent was away"):
        of(server, killed, tmp_path).seen(voter, "a")


def test_for_a_moment_after_a_command_nothing_is_marked(tmp_path: Path) -> None:
    """The next command of a failover would have to remove it, and wait for the disk."""
    server, killed = MemoryServer(), list[str]()
    voter = replace(server.now, semi_sync=SemiSync(replica=True))
    now = [100.0]
    one = of(server, killed, tmp_path, clock=HandClock(lambda: now[0]))
    with one.steering():
        pass
    one.seen(voter, "a")
    assert not (tmp_path / "receiver").exists()
    now[0] += AFTER_COMMAND_SECONDS
    one.seen(voter, "a")
    assert (tmp_path / "receiver").exists()


def test_a_thread_that_was_asked_for_before_a_command_is_not_marked_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, killed = MemoryServer(), list[str]()
    voter = replace(server.now, semi_sync=SemiSync(replica=True))
    one = of(server, killed, tmp_path)
    asked = server.receiver_thread

    def slow(deadline: Deadline) -> int:
        before = asked(deadline)
        with one.steering():
            server.receiver += 1
        return before

    monkeypatch.setattr(server, "receiver_thread", slow)
    one.seen(voter, "a")
    monkeypatch.setattr(server, "receiver_thread", asked)
    of(server, killed, tmp_path).seen(voter, "a")
    assert killed == []


@pytest.mark.parametrize(
    "changed", [{"semi_sync": SemiSync()}, {"writable": True}, {"semi_sync": SemiSync(source=True)}]
)
def test_whatever_a_hand_makes_of_a_voter_it_is_compared_all_the_same(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    server, killed = MemoryServer(), list[str]()
    voter = replace(server.now, semi_sync=SemiSync(replica=True), received="0-1-12")
    receipts = of(server, killed, tmp_path)
    receipts.seen(voter, "a")
    receipts.seen(replace(voter, **changed), "a")
    server.now = replace(voter, **changed, received="0-1-11")
    with pytest.raises(Refused, match="0-1-12"):
        receipts.seen(server.now, "a")


@pytest.mark.parametrize(
    ("before", "after", "ends"),
    [
        ("0-1-12", "", True),
        ("0-1-12,0-2-7", "0-1-1", True),
        ("0-1-12,0-2-7", "0-1-13", True),  # everything that another server had logged is gone
        ("0-1-12,5-1-3", "0-1-13", False),  # DELETE_DOMAIN_ID = 5
        ("0-1-12", "0-1-13", False),
    ],
)
@pytest.mark.parametrize("waits", [True, False])
def test_a_primary_whose_binary_log_was_reset_is_ended_where_its_commits_wait(
    before: str, after: str, ends: bool, waits: bool, tmp_path: Path
) -> None:
    """No server can follow it, so commits wait without end; where they do not wait, it continues."""
    server, killed = MemoryServer(), list[str]()
    receipts = of(server, killed, tmp_path, opened="a")
    had = replace(
        server.now,
        writable=True,
        semi_sync=SemiSync(source=waits, acks=1 if waits else 0),
        received=before,
        applied=before,
    )
    receipts.seen(had, "a")
    server.now = replace(had, received=after, applied=after)
    if ends and waits:
        with receipts.steering(), pytest.raises(Refused, match="was reset by hand"):
            receipts.seen(server.now, "a")  # a command hangs meanwhile, as its row waits
    else:
        receipts.seen(server.now, "a")
    assert bool(killed) == (ends and waits)


def test_one_that_does_not_vote_must_not_begin_its_history_anew_but_by_its_agent(
    tmp_path: Path,
) -> None:
    server, killed = MemoryServer(), list[str]()
    receipts = of(server, killed, tmp_path)
    learner = replace(server.now, received="0-1-12", applied="0-1-12")
    server.now = replace(learner, received="0-1-11", applied="0-1-11")
    receipts.seen(learner, "a")
    with receipts.steering():  # a rewind
        receipts.seen(server.now, "a")
        receipts.seen(replace(server.now, received="", applied=""), "a")
    receipts.seen(server.now, "a")
    assert killed == []
    server.now = replace(server.now, received="0-1-1", applied="0-1-1")
    with pytest.raises(Refused, match="was reset by hand"):
        receipts.seen(server.now, "a")
    assert len(killed) == 1


def test_one_that_leaves_something_out_is_ended_and_not_fit(world: World) -> None:
    world.done(1, VOTER)
    world.server.now = replace(
        world.server.now,
        replication=replace(world.server.now.replication, filters=("replicate_do_db=x",)),
    )
    state = world.until(is_down)
    assert "leaves something out (replicate_do_db=x)" in state.reason
    assert state.unfit == "its replication leaves something out (replicate_do_db=x)"


def test_what_would_be_left_out_by_one_that_does_not_follow_makes_it_unfit_and_no_more(
    world: World,
) -> None:
    """MariaDB keeps IGNORE_DOMAIN_IDS over a restart: it could not be started."""
    world.server.now = replace(
        world.server.now, replication=Replication(filters=("replicate_ignore_domain_ids=7",))
    )
    state = world.until(lambda state: bool(state.unfit))
    assert "replicate_ignore_domain_ids=7" in state.unfit
    assert state.up


@pytest.mark.parametrize(
    ("received", "applied", "told"),
    [
        ("0-1-11", "0-1-10", "it has lost 1 transaction that it had received"),
        ("0-1-12", "0-1-9", "its binary log was reset by hand"),
    ],
)
def test_a_voter_that_has_less_than_it_had_is_ended(
    world: World, received: str, applied: str, told: str
) -> None:
    world.done(1, VOTER)
    receives(world, "0-1-12")
    world.until(lambda state: state.received == "0-1-12")
    receives(world, received, applied)
    state = world.until(is_down)
    assert told in state.reason
    assert (told in state.unfit) == (applied != "0-1-10")


def test_it_does_not_promise_what_it_has_lost(world: World) -> None:
    world.done(1, VOTER)
    receives(world, "0-1-12")
    world.until(lambda state: state.received == "0-1-12")
    receives(world, "0-1-11")
    reply = world.command(2, Promise())
    assert reply.error or not reply.state.up
    world.until(is_down)


def test_a_look_whose_parts_are_not_of_one_moment_is_looked_at_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.done(1, VOTER)
    receives(world, "0-1-12")
    state = world.until(lambda state: state.received == "0-1-12")
    seen, looks = world.server.observe, 0

    def torn(deadline: Deadline) -> Observation:
        nonlocal looks
        looks += 1
        found = seen(deadline)
        return replace(found, received="0-1-10") if looks == 1 else found

    monkeypatch.setattr(world.server, "observe", torn)
    receives(world, "0-1-12,0-2-1")
    after = world.until(lambda state: "0-2-1" in state.received)
    assert looks >= 2
    assert after.incarnation == state.incarnation


def test_what_a_learner_has_counts_for_nothing(world: World) -> None:
    world.done(1, LEARNER)
    receives(world, "0-1-12")
    world.until(lambda state: state.received == "0-1-12")
    receives(world, "0-1-11")
    world.until(lambda state: state.received == "0-1-11")
    # and a new comparison begins when it votes
    world.done(1, VOTER)
    assert world.state().state.up


def test_of_one_that_is_down_the_files_tell_what_it_holds(world: World) -> None:
    """Except what it has issued itself, which is 0-7 here."""
    binlog, relay = Builder(Flavor.MARIADB), Builder(Flavor.MARIADB)
    gtid_list = b"\x01\x00\x00\x00" + b"".join(
        n.to_bytes(size, "little") for n, size in ((0, 4), (1, 4), (5, 8))
    )
    binlog.event(163, gtid_list)
    binlog.transaction(gtid(Flavor.MARIADB, 9))
    relay.transaction(replace(mariadb(12), server_id=1))
    relay.opening(replace(mariadb(13), server_id=1))
    data = world.folder / "data"
    binlog.write(data / "binlog.000001")
    (data / "binlog.index").write_text("./binlog.000001\n")
    relay.write(data / "relay.000002")
    (data / "relay.index").write_text("./relay.000002\n")
    (world.folder / "my.cnf").write_text("[mysqld]\nrelay_log = relay\nserver_id = 7\n")
    refused = world.command(1, Inventory())
    assert (refused.error, refused.state.kept) == ("Refused", None)
    world.done(1, Fence())
    assert world.done(1, Inventory()).state.kept == "0-1-12"
    (data / "relay.000002").write_bytes(b"\xfdbin and what follows")
    assert world.command(1, Inventory()).error == "Refused"
    world.done(1, Start())
    assert world.state().state.kept is None


@pytest.mark.parametrize("votes", [True, False])
def test_one_that_follows_and_changes_its_number_is_killed_and_cloned(
    votes: bool, world: World
) -> None:
    """It skips what the server with that number has issued."""
    world.done(1, VOTER if votes else LEARNER)
    world.until(lambda state: bool(state.replication.source))
    time.sleep(0.3)
    world.server.now = replace(world.server.now, server_id=2)
    state = world.until(is_down)
    assert "its server_id was changed from 1 to 2" in state.unfit


def test_a_voter_that_is_told_to_wait_is_killed_and_a_learner_is_not(world: World) -> None:
    for what in (LEARNER, VOTER):
        world.done(1, what)
        world.server.now = replace(
            world.server.now, replication=replace(world.server.now.replication, delay=600)
        )
        if what is LEARNER:
            time.sleep(0.6)
            assert world.state().state.up
    state = world.until(is_down)
    assert state.unfit == ""
    assert "apply 600 s later" in state.reason
