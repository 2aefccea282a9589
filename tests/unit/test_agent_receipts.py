"""A voter whose server lost what it had received loses its vote; the files of one that is down tell what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from holdfast.agent.receipts import Receipts
from holdfast.agent.watch import Watch
from holdfast.core.commands import Fence, Follow, Inventory, Promise, Start
from holdfast.core.gtid import Flavor, parse
from holdfast.core.view import MemberState, SemiSync, ServerStatus
from holdfast.errors import Refused
from tests.unit.agent_world import MemoryServer, World
from tests.unit.test_binlog_builder import Builder, gtid

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


def test_until_it_is_gone_no_look_at_it_passes() -> None:
    server, killed = MemoryServer(), []
    receipts = Receipts(server, cast("Watch", SimpleNamespace(kill=killed.append)))
    voter = replace(server.now, semi_sync=SemiSync(replica=True), received="0-1-12")
    receipts.seen(voter, "a")
    server.now = replace(voter, received="0-1-11")
    for _ in range(2):
        with pytest.raises(Refused, match="0-1-12"):
            receipts.seen(server.now, "a")
    assert len(killed) == 2
    receipts.seen(server.now, "b")  # another run is another voter


def test_what_is_forgotten_on_purpose_is_not_lost_and_all_else_is() -> None:
    server, killed = MemoryServer(), []
    receipts = Receipts(server, cast("Watch", SimpleNamespace(kill=killed.append)))
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
    server.now = replace(had, received="0-1-12", applied="")
    receipts.seen(had, "b")
    with pytest.raises(Refused, match="no"):
        forgotten(fails=True)
    with pytest.raises(Refused, match="0-2"):
        receipts.seen(server.now, "b")


@pytest.mark.parametrize(("received", "applied"), [("0-1-11", "0-1-10"), ("0-1-12", "0-1-9")])
def test_a_voter_that_has_less_than_it_had_is_ended(
    world: World, received: str, applied: str
) -> None:
    world.done(1, VOTER)
    receives(world, "0-1-12")
    world.until(lambda state: state.received == "0-1-12")
    receives(world, received, applied)
    state = world.until(is_down)
    assert "it has lost 1 transactions that it had received" in state.reason


def test_it_does_not_promise_what_it_has_lost(world: World) -> None:
    world.done(1, VOTER)
    receives(world, "0-1-12")
    world.until(lambda state: state.received == "0-1-12")
    receives(world, "0-1-11")
    reply = world.command(2, Promise())
    assert reply.error or not reply.state.up
    world.until(is_down)


def test_a_look_whose_parts_are_not_of_one_moment_is_looked_at_again(world: World) -> None:
    world.done(1, VOTER)
    receives(world, "0-1-12")
    state = world.until(lambda state: state.received == "0-1-12")
    seen, looks = world.server.observe, 0

    def torn(deadline: object) -> object:
        nonlocal looks
        looks += 1
        found = seen(deadline)  # type: ignore[arg-type]
        return replace(found, received="0-1-10") if looks == 1 else found

    world.server.observe = torn  # type: ignore[method-assign, assignment]
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
    # and it begins anew when it votes
    world.done(1, VOTER)
    assert world.state().state.up


def test_of_one_that_is_down_the_files_tell_what_it_holds(world: World) -> None:
    """But for what it has issued itself, which is 0-7 here."""
    binlog, relay = Builder(Flavor.MARIADB), Builder(Flavor.MARIADB)
    gtid_list = b"\x01\x00\x00\x00" + b"".join(
        n.to_bytes(size, "little") for n, size in ((0, 4), (1, 4), (5, 8))
    )
    binlog.event(163, gtid_list)
    binlog.transaction(gtid(Flavor.MARIADB, 9))
    relay.transaction(replace(gtid(Flavor.MARIADB, 12), server_id=1))
    relay.opening(replace(gtid(Flavor.MARIADB, 13), server_id=1))
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
