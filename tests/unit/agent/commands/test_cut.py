"""The cut of a pending tail, and when it is refused although the binlog alone would allow it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.core.commands import Cut, Fence, Follow, Promote, Start
from holdfast.core.gtid import Flavor
from holdfast.core.view import TailVerdict
from tests.unit.agent_world import World, engine_file
from tests.unit.binlog.events.test_builder import Builder, gtid

PRESENT = Cut("b", "0-7-2")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.end()


@pytest.fixture
def crashed(world: World) -> World:
    """Transactions 3 and 4 are pending."""
    builder = Builder(Flavor.MARIADB)
    for number in (1, 2, 3, 4):
        builder.transaction(gtid(Flavor.MARIADB, number))
    data = world.folder / "data"
    builder.write(data / "binlog.000001")
    (data / "binlog.index").write_text("./binlog.000001\n")
    world.was_primary()
    return world


def test_what_the_primary_lacks_is_saved_and_cut(crashed: World) -> None:
    tail = crashed.done(3, PRESENT).state.tail
    assert (tail.verdict, tail.term, tail.transactions) == (TailVerdict.CUT, 3, 2)
    assert Path(tail.saved).parent == crashed.state_dir / "pending"
    assert Path(tail.saved).stat().st_size > 0
    again = crashed.done(4, PRESENT).state.tail
    assert (again.verdict, again.term, again.saved) == (TailVerdict.CUT, 4, tail.saved)


def test_what_a_replica_wrote_itself_is_committed_and_never_cut(crashed: World) -> None:
    """As when an operator opens it by hand: nothing waited for an acknowledgement there."""
    crashed.done(1, Start())
    crashed.until(lambda state: state.up)
    crashed.done(1, Follow("b", "127.0.0.1", 3306, semi_sync=True))
    crashed.done(1, Fence())
    before = (crashed.folder / "data" / "binlog.000001").read_bytes()
    tail = crashed.done(2, PRESENT).state.tail
    assert (tail.verdict, tail.transactions) == (TailVerdict.COMMITTED, 2)
    assert "it was no primary" in tail.reason
    assert (crashed.folder / "data" / "binlog.000001").read_bytes() == before


def test_a_promotion_is_remembered_until_it_follows(world: World) -> None:
    world.done(1, Start())
    world.until(lambda state: state.up)
    world.done(1, Promote(acks=1, serial=1))
    assert (world.state_dir / "primary").exists()
    world.restart_agent()
    world.done(1, Fence())
    assert (world.state_dir / "primary").exists()
    world.server.now = replace(world.server.now, writable=False)  # it boots read-only
    world.done(1, Start())
    world.until(lambda state: state.up)
    world.done(1, Follow("b", "127.0.0.1", 3306, semi_sync=True))
    assert not (world.state_dir / "primary").exists()


def test_after_a_start_in_place_that_did_not_come_up_nothing_is_cut(crashed: World) -> None:
    crashed.server.frozen = True
    crashed.done(1, Start())
    crashed.done(1, Fence())
    before = (crashed.folder / "data" / "binlog.000001").read_bytes()
    tail = crashed.done(2, PRESENT).state.tail
    assert (tail.verdict, tail.transactions) == (TailVerdict.COMMITTED, 2)
    assert "may have been committed" in tail.reason
    assert (crashed.folder / "data" / "binlog.000001").read_bytes() == before
    crashed.restart_agent()
    assert crashed.done(2, PRESENT).state.tail.verdict is TailVerdict.COMMITTED


def test_a_start_of_what_is_committed_that_did_not_come_up_is_found_again(crashed: World) -> None:
    """Its files may look by then as if the tail were pending: only the agent knows that recovery had begun."""
    (crashed.state_dir / "recovering").touch()
    assert crashed.done(1, PRESENT).state.tail.verdict is TailVerdict.COMMITTED
    crashed.server.frozen = True
    crashed.done(1, Start())
    crashed.done(1, Fence())
    crashed.restart_agent()
    assert crashed.done(2, PRESENT).state.tail.verdict is TailVerdict.COMMITTED


def test_once_it_was_up_the_binlog_tells_by_itself(crashed: World) -> None:
    crashed.done(1, Start())
    crashed.until(lambda state: state.up)
    crashed.done(1, Follow("b", "127.0.0.1", 3306, semi_sync=True))
    assert not (crashed.state_dir / "recovering").exists()


def test_a_start_after_a_cut_leaves_nothing_to_commit(crashed: World) -> None:
    crashed.done(1, PRESENT)
    crashed.done(1, Start())
    assert not (crashed.state_dir / "recovering").exists()


def committed_for(world: World, because: str) -> None:
    """It counts as committed, and its binlog is left as it is."""
    log = world.folder / "data" / "binlog.000001"
    before = log.read_bytes()
    tail = world.done(3, PRESENT).state.tail
    assert (tail.verdict, tail.transactions) == (TailVerdict.COMMITTED, 2)
    assert because in tail.reason
    assert log.read_bytes() == before


def test_what_its_engine_has_committed_is_never_cut(crashed: World) -> None:
    size = (crashed.folder / "data" / "binlog.000001").stat().st_size
    engine = crashed.folder / "data" / "ibdata1"
    engine.write_bytes(engine_file(("./binlog.000001", size), ("./binlog.000000", 4)))
    committed_for(crashed, f"its engine has committed what ends at {size} in binlog.000001")


def test_an_engine_that_has_committed_all_before_it_is_in_nobodys_way(crashed: World) -> None:
    engine = crashed.folder / "data" / "ibdata1"
    engine.write_bytes(engine_file(("./binlog.000001", 300), ("./binlog.000007", 1000)))
    assert crashed.done(3, PRESENT).state.tail.verdict is TailVerdict.CUT


@pytest.mark.parametrize("broken", ["gone", "encrypted", "unreadable"])
def test_an_engine_that_cannot_be_asked_may_have_committed_everything(
    crashed: World, broken: str
) -> None:
    engine = crashed.folder / "data" / "ibdata1"
    if broken == "gone":
        engine.unlink()
    elif broken == "encrypted":
        content = bytearray(engine_file(("./binlog.000001", 300)))
        content[5 * 16384 + 26] = 1
        engine.write_bytes(content)
    else:
        (crashed.folder / "server.py").write_text("raise SystemExit(7)")
    committed_for(crashed, "what its engine has committed is not known")


def test_what_went_on_without_a_voter_is_never_cut(crashed: World) -> None:
    crashed.was_primary(let_through="semi-sync is off")
    committed_for(crashed, "it was no primary whose commits all waited")


def test_what_another_run_has_written_is_never_cut(crashed: World) -> None:
    """An operator started it, wrote to it, and killed it: the agent's mark is of the run before."""
    data = crashed.folder / "data"
    later = Builder(Flavor.MARIADB)
    later.transaction(gtid(Flavor.MARIADB, 5))
    later.write(data / "binlog.000002")
    (data / "binlog.index").write_text("./binlog.000001\n./binlog.000002\n")
    tail = crashed.done(3, Cut("b", "0-7-4")).state.tail
    assert (tail.verdict, tail.transactions) == (TailVerdict.COMMITTED, 1)
    assert "started again behind binlog.000001" in tail.reason


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"incarnation": "x"}'])
def test_a_mark_that_cannot_be_read_is_none(crashed: World, text: str) -> None:
    (crashed.state_dir / "primary").write_text(text)
    crashed.restart_agent()
    committed_for(crashed, "it was no primary")


def test_a_primary_whose_binary_log_is_gone_may_have_committed_anything(crashed: World) -> None:
    for each in (crashed.folder / "data").glob("binlog.*"):
        each.unlink()
    tail = crashed.done(3, PRESENT).state.tail
    assert tail.verdict is TailVerdict.UNSAFE
    assert "are gone" in tail.reason


def test_a_new_replica_has_no_binary_log_yet(world: World) -> None:
    assert world.done(3, PRESENT).state.tail.verdict is TailVerdict.CLEAN
