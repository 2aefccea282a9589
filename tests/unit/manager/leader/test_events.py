"""Programs read an event's fields: they get the same result whatever its text says."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from holdfast.cli.switchover import _opened
from holdfast.core.history.changed import RecordChange
from holdfast.core.history.entry import Entry, Outcome, Sort, What
from holdfast.core.transition import TransitionKind
from holdfast.errors import Refused
from holdfast.http.manager_client import ManagerClient
from holdfast.manager.api.app import _EVENTS
from holdfast.manager.leader.events import AskedCommand, Event, EventKind, EventLog
from holdfast.manager.listeners.pages import heard
from holdfast.sandbox.load.events import SeenEvent
from holdfast.sandbox.load.timeline import line
from holdfast.store.sqlite import SqliteStore
from tests.unit.hand_clock import PacedClock
from tests.unit.manager.listeners.test_history_managers import leading, manager, new_world
from tests.unit.memory_agent import until

ENTRY = Entry(What.FAILOVER, "m1 is gone", 1000.0, "m1", 7, new="m2")
TEXTS = ("m1: rewind", "m1: clone, as ordered", "anything else, worded anew", "")


def added(kind: EventKind, text: str, about: AskedCommand | RecordChange | None = None) -> Event:
    async def add() -> list[Event]:
        log = EventLog("c")
        log.add(kind, text, "m1", 5.0, about=about)
        return await log.since(0, 0)

    (event,) = asyncio.run(add())
    return event


def wire(event: Event) -> dict[str, Any]:
    """As the manager's clients get it."""
    (found,) = json.loads(_EVENTS.dump_json({"events": [event]}))["events"]
    assert found["text"] == event.text
    return dict(found)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("ordered", [False, True])
def test_the_history_knows_a_command_by_its_name(text: str, ordered: bool) -> None:
    event = added(EventKind.COMMAND, text, AskedCommand("rewind", ordered, {"read": 3.0}))
    entry = heard(ENTRY, event)
    assert entry.returned.rewound
    assert not entry.returned.cloned
    (moment,) = entry.moments
    assert moment.text == ("rewind, as ordered" if ordered else "rewind")
    assert (moment.sort, moment.member, moment.steps) == (Sort.COMMAND, "m1", {"read": 3.0})


@pytest.mark.parametrize("text", TEXTS)
def test_the_sandbox_knows_a_command_by_its_name(text: str) -> None:
    event = SeenEvent.of(wire(added(EventKind.COMMAND, text, AskedCommand("promise"))))
    assert event.name == "promise"
    assert "promised the term" in line(event, event.at)


@pytest.mark.parametrize("text", TEXTS)
def test_the_sandbox_knows_what_a_record_changed(text: str) -> None:
    change = RecordChange(TransitionKind.FAILOVER, Outcome.DONE, True, ("m2",), ("m3",), True)
    event = SeenEvent.of(wire(added(EventKind.DECIDED, text, change)))
    assert event.name == "decided"
    assert (event.named, event.ended, event.settled) == (True, "failover", True)
    assert (event.admitted, event.dismissed) == (("m2",), ("m3",))


class Client:
    """A manager whose switchover has ended, as one event says."""

    def __init__(self, event: Event) -> None:
        self._events = [wire(event)]

    def status(self, cluster: str) -> dict[str, Any]:
        return {"under_way": "", "primary": "m1", "writable": True, "reason": "all is well"}

    def events(self, cluster: str, since: int, wait: float) -> list[dict[str, Any]]:
        return [each for each in self._events if each["id"] > since]


@pytest.mark.parametrize("text", [*TEXTS[:-1], "the switchover to m2 is undone: its time is over"])
def test_a_switchover_that_was_undone_is_refused_with_what_was_said_of_that(text: str) -> None:
    change = RecordChange(TransitionKind.SWITCHOVER, Outcome.UNDONE)
    client = Client(added(EventKind.DECIDED, text, change))
    with pytest.raises(Refused) as refused:
        _opened(cast(ManagerClient, client), "c", "m2", 0, 1.0)
    assert str(refused.value) == text


@pytest.mark.parametrize("kind", [TransitionKind.FAILOVER, None])
def test_no_other_event_is_taken_for_that_whatever_it_says(kind: TransitionKind | None) -> None:
    change = RecordChange(kind, Outcome.UNDONE if kind else None)
    client = Client(added(EventKind.DECIDED, "the switchover to m2 is undone: why", change))
    with pytest.raises(Refused, match="did not come about: all is well"):
        _opened(cast(ManagerClient, client), "c", "m2", 0, 1.0)


def test_the_history_of_a_failover_is_complete_whatever_events_say(tmp_path: Path) -> None:
    async def scenario(pool: ThreadPoolExecutor) -> Entry:
        world = new_world()
        with closing(SqliteStore(tmp_path / "s.db")) as store:
            led = manager(world, store, pool, clock=PacedClock(15))
            hearers = list(led.leader.events.hearers)

            def reword(event: Event) -> None:
                for hear in hearers:
                    hear(replace(event, text="worded anew"))

            led.leader.events.hearers[:] = [reword]
            async with leading(led):
                world.hosts["m1"].crash()
                await until(led.leader, lambda s: s.whole and s.primary != "m1")
                (entry,) = await led.entries(lambda all_: bool(all_) and not all_[-1].live)
                return entry

    with ThreadPoolExecutor(2) as pool:
        entry = asyncio.run(scenario(pool))
    assert entry.outcome is Outcome.DONE
    assert entry.cause == "worded anew"
    done = {(m.member, m.text) for m in entry.moments if m.sort is Sort.COMMAND}
    assert {("m2", "promise"), ("m3", "promise"), (entry.new, "promote")} <= done
