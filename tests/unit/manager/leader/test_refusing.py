"""A record that breaks a rule is not written: an event reports it, and the manager leads as before."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.core.decide import decide
from holdfast.core.decision import Decision, Save
from holdfast.core.gtid import Flavor
from holdfast.core.record import Record
from holdfast.errors import Refused
from holdfast.manager.leader import lead
from holdfast.manager.leader.desired import Given
from holdfast.manager.leader.events import EventKind
from holdfast.manager.leader.lead import Leader
from holdfast.store.base import Stored
from holdfast.store.sqlite import SqliteStore
from tests.model.world import World
from tests.unit.memory_agent import connecting, managing, until


def alone(record: Record) -> Record:
    """The primary continues without its voters, which are not barred."""
    target = replace(record.target, voters=record.target.voters - record.target.without("m1"))
    return replace(record, configurations=(replace(target, acks=0),), serial=record.serial + 1)


def older(record: Record) -> Record:
    return replace(record, term=record.term - 1)


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "store.db")


def leader(store: SqliteStore) -> Leader:
    world = World(random.Random(3), 3, Flavor.MARIADB)
    given = Given("c", world.cluster.members)
    return Leader(given, connecting(world), store)


async def whole(one: Leader, store: SqliteStore) -> Stored:
    """What is stored once nothing changes any more: the identity of each agent is recorded last."""
    members = len(one.cluster.members)
    await until(
        one, lambda s: s.whole and len(one.record.identities if one.record else ()) == members
    )
    return store.load("c")


@pytest.mark.parametrize("mistake", [alone, older])
def test_a_decision(
    store: SqliteStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mistake: Callable[[Record], Record],
) -> None:
    def wrong(_cluster: object, record: Record, _view: object) -> Decision:
        return Decision("a mistake", (Save(mistake(record), "a mistake"),))

    async def scenario() -> None:
        with contextlib.closing(store):
            one = leader(store)
            async with managing(one):
                before = await whole(one, store)
                monkeypatch.setattr(lead, "decide", wrong)
                refused = await until(one, lambda status: "breaks a rule" in status.reason)
                one.look_again()
                await asyncio.sleep(lead.LOOK_AGAIN_SECONDS * 3)
                assert store.load("c") == before
                assert one.record == before.record
                events = await one.events.since(0, 0)
                alarms = [each.text for each in events if each.kind is EventKind.ALARM]
                assert alarms == [refused.reason]
                assert "of c (term" in refused.reason
                errors = [each for each in caplog.records if each.levelno == logging.ERROR]
                assert [each.getMessage() for each in errors] == alarms
                assert one.place.leads
                monkeypatch.setattr(lead, "decide", decide)
                await until(one, lambda status: status.whole)

    asyncio.run(scenario())


def test_an_order(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with contextlib.closing(store):
            one = leader(store)
            async with managing(one):
                before = await whole(one, store)
                assert before.record
                async with one.deciding:
                    with pytest.raises(Refused, match="breaks a rule and is not saved"):
                        await one.decided(Save(alone(before.record), "an operator wants it"))
                    assert store.load("c") == before
                    assert one.record == before.record
                kinds = [each.kind for each in await one.events.since(0, 0)]
                assert kinds.count(EventKind.ALARM) == 1
                assert [each.levelno for each in caplog.records].count(logging.ERROR) == 1
                await until(one, lambda status: status.whole)

    asyncio.run(scenario())
