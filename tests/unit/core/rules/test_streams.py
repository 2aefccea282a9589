"""Tags and domains that clients choose, in every rule that compares what two servers have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.agent.promise.domains import Domains
from holdfast.binlog.events.gtid_event import Gtid, MariadbGtid, MysqlGtid
from holdfast.binlog.pending import errant
from holdfast.binlog.pending.cut import cut
from holdfast.binlog.pending.tail import Clean, Pending, inspect
from holdfast.core.commands import Cut, Rewind
from holdfast.core.decide import decide
from holdfast.core.decision import Send
from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.core.quorum import Configuration
from holdfast.core.rules.attachment import errant_transactions, with_everything_of
from holdfast.core.rules.backlog import backlog
from holdfast.core.rules.election import Elected, NobodyElected, elect
from holdfast.core.rules.loss import without_errants
from holdfast.core.view import MemberState, Replication, TailVerdict
from holdfast.errors import Refused
from tests.unit.agent_world import World
from tests.unit.binlog.events.test_builder import UUID_A, Builder, mysql
from tests.unit.looks import CLUSTER, RECORD, primary, replica, view

OTHER = "4e11fa47-71ca-11e1-9e33-c80aa9429562"
NOBODY = Replication()


def my(name: str, applied: str, **changes: Any) -> MemberState:
    """On MySQL."""
    made = primary if name == "m1" else replica
    state = made(**changes) if name == "m1" else replica(name, **changes)
    origin = UUID_A if name == "m1" else OTHER
    return replace(state, flavor=Flavor.MYSQL, origin=origin, applied=applied, received=applied)


@pytest.mark.parametrize(
    ("first", "second", "errant"),
    [
        (primary(), replica("m3", applied="0-1-9,7-1-4", received="0-1-9,7-1-4"), ""),
        (primary(), replica("m3", applied="0-1-9,7-3-4", received="0-1-9,7-3-4"), "7-3-4"),
        (primary(origin="5-1"), replica("m3", applied="0-1-12", received="0-1-12"), ""),
        (primary(origin="0-11"), replica("m3", applied="0-1-12", received="0-1-12"), "0-1-10..12"),
        (primary(origin=""), replica("m3", applied="7-1-4", received="7-1-4"), "7-1-4"),
        (my("m1", f"{UUID_A}:1-5"), my("m3", f"{UUID_A}:1-6:blue:1-3"), ""),
        (my("m1", f"{UUID_A}:1-5"), my("m3", f"{OTHER}:blue:1"), f"{OTHER}:blue:1"),
        (my("m1", f"{UUID_A}:1-5,{OTHER}:blue:1"), my("m3", f"{OTHER}:blue:1"), ""),
    ],
)
def test_what_the_primary_issues_is_not_errant_in_any_stream(
    first: MemberState, second: MemberState, errant: str
) -> None:
    """The member was observed later than the primary."""
    assert str(errant_transactions(first, second)) == errant


def test_a_member_with_the_primary_s_newest_streams_is_neither_unseated_nor_passed_over() -> None:
    newer = replica("m3", applied="0-1-9,7-1-4", received="0-1-9,7-1-4")
    decision = decide(CLUSTER, RECORD, view(primary(), replica("m2"), newer))
    assert decision.well, decision
    dead = primary(last_applied="0-1-9")
    assert without_errants(RECORD, view(dead, newer), [newer, replica("m2")]) == [
        newer,
        replica("m2"),
    ]


def test_what_a_member_is_told_to_keep_includes_every_stream_of_the_primary() -> None:
    member = replica("m3", incarnation="b", applied="7-3-1", received="", replication=NOBODY)
    member = replace(member, judged="7-3-1")
    two = replace(RECORD, configurations=(Configuration(frozenset({("m1", "a"), ("m2", "a")}), 1),))
    decision = decide(CLUSTER, two, view(primary(), replica("m2"), member))
    (command,) = [step.command for step in decision.steps if isinstance(step, Send)]
    assert isinstance(command, Rewind)
    assert parse(Flavor.MARIADB, command.present).has("12-1", 99)
    assert str(with_everything_of(primary())) == "*-1"


def test_the_election_compares_each_domain_and_each_tag() -> None:
    ahead = replica("m2", applied="0-1-9,7-1-4", received="0-1-9,7-1-4")
    behind = replica("m3", applied="0-1-9,7-1-3", received="0-1-9,7-1-3")
    assert elect([behind, ahead], CLUSTER) == Elected(ahead, drained=True)
    crossed = replica("m3", applied="0-1-10,7-1-3", received="0-1-10,7-1-3")
    assert isinstance(elect([crossed, ahead], CLUSTER), NobodyElected)
    tagged = my("m2", f"{UUID_A}:1-5:blue:1-4")
    untagged = my("m3", f"{UUID_A}:1-5:blue:1-3")
    assert elect([untagged, tagged], CLUSTER) == Elected(tagged, drained=True)
    assert isinstance(elect([my("m3", f"{UUID_A}:1-6"), tagged], CLUSTER), NobodyElected)


def test_what_is_left_to_apply_is_counted_in_each_stream() -> None:
    both = replica("m2", received="0-1-12,7-1-1000004", applied="0-1-9,7-1-7")
    assert backlog(both) == 3 + 4
    tagged = replace(
        my("m2", f"{UUID_A}:1-5"), received=f"{UUID_A}:1-6:blue:1-4", replication=NOBODY
    )
    assert backlog(tagged) == 5


def gtids(flavor: Flavor) -> st.SearchStrategy[list[Gtid]]:
    """GTIDs of one server, in the order of its binlog, over several streams."""

    def numbered(streams: list[int]) -> list[Gtid]:
        counts = dict.fromkeys(range(3), 0)
        made: list[Gtid] = []
        for each in streams:
            counts[each] += 1
            tag = ("", "blue", "red")[each]
            if flavor is Flavor.MYSQL:
                made.append(MysqlGtid(UUID_A, tag, counts[each]))
            else:
                made.append(MariadbGtid(each, 7, counts[each]))
        return made

    return st.lists(st.integers(0, 2), min_size=2, max_size=14).map(numbered)


def set_of(flavor: Flavor, names: list[Gtid]) -> GtidSet:
    whole = parse(flavor, "")
    for each in names:
        whole = whole.union(GtidSet(flavor, {each.stream: ((each.sequence, each.sequence),)}))
    return whole


@pytest.mark.parametrize("flavor", list(Flavor))
@given(data=st.data())
def test_any_tail_is_found_cut_and_gone_in_whatever_streams(
    flavor: Flavor, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = data.draw(gtids(flavor))
    kept = data.draw(st.integers(1, len(names) - 1))
    folder = tmp_path_factory.mktemp("log")
    builder = Builder(flavor)
    for each in names:
        builder.transaction(each)
    builder.write(folder / "binlog.000001")
    index = folder / "binlog.index"
    index.write_text("./binlog.000001\n")
    present = set_of(flavor, names[:kept])

    found = inspect(index, lambda gtid: present.has(gtid.stream, gtid.sequence))
    assert isinstance(found, Pending)
    lacking = names[kept:]
    assert found.summary.transactions == len(lacking)
    assert (found.summary.first, found.summary.last) == (lacking[0], lacking[-1])
    assert found.summary.streams == {each.stream for each in lacking}
    undone = errant.find(index, present)
    assert undone.undone == set_of(flavor, lacking)
    cut(found)
    assert isinstance(inspect(index, lambda gtid: present.has(gtid.stream, gtid.sequence)), Clean)
    assert not errant.find(index, present).transactions


def test_a_whole_server_s_streams_are_never_cut(tmp_path: Path) -> None:
    """The primary has what it issued itself, under any tag."""
    builder = Builder(Flavor.MYSQL)
    for each in (mysql(1), mysql(1, "blue"), mysql(2, "blue")):
        builder.transaction(each)
    builder.write(tmp_path / "binlog.000001")
    (tmp_path / "binlog.index").write_text("./binlog.000001\n")
    present = parse(Flavor.MYSQL, f"{UUID_A}:*")
    found = inspect(tmp_path / "binlog.index", lambda gtid: present.has(gtid.stream, gtid.sequence))
    assert isinstance(found, Clean)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.end()


def test_the_domains_of_what_is_cut_are_kept_before_it_is_cut(world: World) -> None:
    builder = Builder(Flavor.MARIADB)
    for each in (MariadbGtid(0, 7, 1), MariadbGtid(0, 7, 2), MariadbGtid(8, 7, 1)):
        builder.transaction(each)
    data = world.folder / "data"
    builder.write(data / "binlog.000001")
    (data / "binlog.index").write_text("./binlog.000001\n")
    world.was_primary()
    assert world.done(3, Cut("b", "0-7-2")).state.tail.verdict is TailVerdict.CUT
    assert Domains(world.state_dir / "domains", Flavor.MARIADB).known() == {8}


def test_domains_are_remembered_and_a_damaged_file_is_no_empty_one(tmp_path: Path) -> None:
    kept = Domains(tmp_path / "domains", Flavor.MARIADB)
    assert kept.known() == frozenset()
    kept.note(["0-1", "7-1"])
    kept.note(["7-2", "8-2"])
    assert Domains(tmp_path / "domains", Flavor.MARIADB).known() == {0, 7, 8}
    (tmp_path / "domains").write_text("0\nx\n")
    with pytest.raises(Refused):
        kept.known()
    Domains(tmp_path / "none", Flavor.MYSQL).note([UUID_A, f"{UUID_A}:blue"])
    assert not (tmp_path / "none").exists()
