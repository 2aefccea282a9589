"""Which managers an agent obeys: those of its cluster that mean it, in their term, by a record that follows its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.agent.disk.obeyed import own_identity
from holdfast.agent.disk.record_file import RecordFile
from holdfast.core.commands import Promise, Start
from holdfast.core.members.rollback import LONGEST_JUMP
from holdfast.core.observed.lineage import Memory, mark, stamped
from holdfast.core.quorum import Configuration
from holdfast.core.record import FORMAT, Record
from holdfast.http.wire import CommandReply, RecordReply, Told, WatchRequest
from tests.unit.agent_world import World

FIRST = stamped(Record(1, "a", 1, (Configuration(frozenset({("a", "x")}), 0),), 1), None, "one")
NEXT = stamped(replace(FIRST, term=2), FIRST, "two")
LATER = stamped(NEXT, NEXT, "two")
BACK = stamped(replace(FIRST, term=2), FIRST, "three")
"""A manager's next record from the first one, when that was put back."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.end()


def told(record: Record, **more: str) -> Told:
    text = Memory(record).text()
    said = Told(leader=record.leader, mark=mark(text), record=text)
    return said.model_copy(update=dict(more))


def asked(world: World, record: Record, **more: str) -> CommandReply:
    return world.command(record.term, Promise(), told(record, **more))


def remembered(world: World) -> RecordReply:
    answer = world.http.get("/v1/record")
    assert answer.status_code == 200, answer.text
    return RecordReply.model_validate_json(answer.content)


def watched(world: World, said: Told, status: int = 200) -> str:
    answer = world.http.post("/v1/watch", content=WatchRequest(told=said).model_dump_json())
    assert answer.status_code == status, answer.text
    return answer.text


def test_the_record_is_remembered_with_the_promise_and_found_again(world: World) -> None:
    reply = asked(world, NEXT)
    assert not reply.error
    assert (reply.state.term, reply.state.leader) == (2, "two")
    assert reply.state.record == told(NEXT).mark
    world.restart_agent()
    state = world.state().state
    assert (state.term, state.leader, state.record) == (2, "two", told(NEXT).mark)
    assert remembered(world).record == Memory(NEXT).text()
    assert world.command(1, Promise(), told(FIRST)).promised == 2


def test_an_equal_term_of_another_leadership_is_refused(world: World) -> None:
    asked(world, NEXT)
    reply = asked(world, BACK)
    assert (reply.error, reply.promised) == ("Refused", 2)
    assert "promised term 2 to another manager" in reply.message
    # a manager without a name does not take the term of one that has a name
    assert world.command(2, Promise()).promised == 2
    assert not asked(world, LATER).error


def test_a_higher_term_does_not_help_a_record_of_before(world: World) -> None:
    asked(world, LATER)
    climbed = replace(BACK, term=9)
    reply = asked(world, climbed)
    assert "does not follow it" in reply.message
    assert "holdfast store repair" in reply.message
    assert world.state().state.term == 2
    allowed = replace(climbed, forsaken=frozenset({"a"}))
    assert not asked(world, allowed).error, "an operator has decided that what it knew is void"


def test_a_term_that_is_too_far_above_is_refused(world: World) -> None:
    asked(world, NEXT)
    far = replace(LATER, term=LATER.term + LONGEST_JUMP + 1)
    assert "no manager comes so far" in asked(world, far).message
    assert world.state().state.term == 2


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"cluster": "other"}, "the manager is one of other"),
        ({"member": "b"}, "the manager expects b"),
        ({"identity": "f" * 32}, "another agent of a than the manager knows"),
    ],
)
def test_who_means_another_agent_is_refused(world: World, said: dict[str, str], why: str) -> None:
    reply = asked(world, NEXT, **said)
    assert reply.error == "Refused"
    assert why in reply.message
    assert world.state().state.term == 0, "nothing was promised to it"
    assert why in watched(world, told(NEXT, **said), 409)
    assert not remembered(world).record


def test_who_means_this_one_is_obeyed(world: World) -> None:
    identity = world.state().state.identity
    assert identity == own_identity(world.state_dir)
    config = world.config
    assert not asked(world, NEXT, cluster=config.cluster, member="a", identity=identity).error


def test_a_poll_brings_the_record_and_promises_nothing(world: World) -> None:
    asked(world, NEXT)
    watched(world, told(LATER))
    state = world.until(lambda state: state.record == told(LATER).mark)
    assert state.term == 2
    assert remembered(world).record == Memory(LATER).text()
    watched(world, told(NEXT))
    watched(world, told(BACK))
    world.restart_agent()
    assert world.state().state.record == told(LATER).mark


def test_a_command_of_the_term_is_answered_with_the_record_on_disk(world: World) -> None:
    asked(world, NEXT)
    world.done(2, Start(), told(LATER))
    assert RecordFile(world.state_dir).text == Memory(LATER).text()
    assert world.state().state.record == told(LATER).mark


@pytest.mark.parametrize("with_record", [True, False])
def test_what_was_decided_before_what_was_obeyed_is_not_done(
    with_record: bool, world: World
) -> None:
    asked(world, NEXT)
    said = told(NEXT) if with_record else told(NEXT).model_copy(update={"record": ""})
    assert not world.command(2, Promise(), said).error, "that once more"
    asked(world, LATER)
    reply = world.command(2, Promise(), said)
    assert reply.error == "Refused"
    assert "it is out of date" in reply.message
    assert world.state().state.record == told(LATER).mark
    assert not asked(world, LATER).error


def test_a_command_without_the_record_is_refused_where_it_is_not_known(world: World) -> None:
    asked(world, FIRST)
    bare = told(NEXT).model_copy(update={"record": ""})
    assert "send it" in world.command(2, Promise(), bare).message
    forged = told(NEXT).model_copy(update={"record": Memory(FIRST).text()})
    assert "not the one that is named" in world.command(2, Promise(), forged).message
    assert world.state().state.term == 1


def test_a_memory_that_cannot_be_read_is_none_and_the_promise_holds(world: World) -> None:
    asked(world, NEXT)
    world.done(2, Start(), told(LATER))
    world.stop_agent()
    for path in world.state_dir.glob("record.*"):
        path.write_bytes(path.read_bytes()[:-9])
    world.start_agent()
    assert world.state().state.record == told(NEXT).mark, "what was written with the promise"


def test_a_record_of_an_earlier_version_is_remembered_and_a_later_one_counts(world: World) -> None:
    asked(world, NEXT)
    world.stop_agent()
    (world.state_dir / "record").write_text(Memory(LATER).text() + "\n")
    world.start_agent()
    assert world.state().state.record == told(LATER).mark
    again = stamped(LATER, LATER, "two")
    world.done(2, Start(), told(again))
    world.restart_agent()
    assert world.state().state.record == told(again).mark


def test_a_term_file_of_an_earlier_version_is_read(world: World) -> None:
    world.stop_agent()
    (world.state_dir / "term").write_text("term 4\n")
    world.start_agent()
    state = world.state().state
    assert (state.term, state.leader, state.record.revision) == (4, "", 0)
    assert world.command(4, Promise()).error == "", "its manager is of that version, too"
    assert world.command(4, Promise(), told(replace(NEXT, term=4))).promised == 4
    assert not world.command(5, Promise(), told(replace(NEXT, term=5))).error


def test_an_identity_is_made_once(tmp_path: Path) -> None:
    first = own_identity(tmp_path)
    assert len(first) == 32
    assert own_identity(tmp_path) == first
    (tmp_path / "other").mkdir()
    assert own_identity(tmp_path / "other") != first


def later(record: Record) -> Told:
    """As a manager of a later version sends it, whose records this agent cannot read."""
    data = json.loads(Memory(record).text())
    data["record"]["format"] = FORMAT + 1
    text = json.dumps(data)
    return Told(leader=record.leader, mark=mark(text), record=text)


def test_a_record_of_a_later_version_is_not_obeyed_and_the_answer_says_what_to_do(
    world: World,
) -> None:
    assert not asked(world, FIRST).error
    reply = world.command(NEXT.term, Promise(), later(NEXT))
    assert reply.error == "Refused"
    assert "a cannot read the record of the manager: it has format" in reply.message
    assert "install a later version on this host" in reply.message
    assert reply.state.term == FIRST.term


def test_what_was_remembered_in_a_later_version_is_kept_and_nothing_older_is_obeyed(
    world: World,
) -> None:
    """The agent was replaced by an earlier version."""
    found = later(NEXT)
    RecordFile(world.state_dir).write(found.record)
    world.restart_agent()
    assert remembered(world).record == found.record
    reply = asked(world, BACK)
    assert reply.error == "Refused"
    assert (
        "has obeyed revision 2 of term 2, and the record of that manager does not follow it"
        in reply.message
    )
