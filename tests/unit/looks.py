"""A cluster of three MariaDB members, its record, and what is seen of its members."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holdfast.core.cluster import Cluster, Member
from holdfast.core.commands import Command
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.gtid import Flavor
from holdfast.core.quorum import Configuration
from holdfast.core.record import Record
from holdfast.core.view import (
    MemberState,
    Receiver,
    Replication,
    Seen,
    SemiSync,
    ServerStatus,
    Unseen,
    View,
)

NOW = 100.0
CLUSTER = Cluster("c", tuple(Member(f"m{i}", "127.0.0.1", 3300 + i) for i in (1, 2, 3)))
VOTERS = Configuration(frozenset({("m1", "a"), ("m2", "a"), ("m3", "a")}), 1)
RECORD = Record(term=4, primary="m1", elected=3, configurations=(VOTERS,), serial=7, lease=1.2)


def primary(**changes: Any) -> MemberState:
    state = MemberState(
        "m1",
        Flavor.MARIADB,
        4,
        0,
        ServerStatus.UP,
        "a",
        origin="0-1",
        writable=True,
        received="0-1-9",
        applied="0-1-9",
        semi_sync=SemiSync(source=True, acks=1, clients=2),
    )
    return replace(state, **changes)


def replica(name: str, **changes: Any) -> MemberState:
    state = MemberState(
        name,
        Flavor.MARIADB,
        4,
        0,
        ServerStatus.UP,
        "a",
        origin=f"0-{name[1]}",
        received="0-1-9",
        applied="0-1-9",
        replication=Replication("127.0.0.1:3301", Receiver.ON, True),
        semi_sync=SemiSync(replica=True),
    )
    return replace(state, **changes)


def down(name: str, **changes: Any) -> MemberState:
    return replace(MemberState(name, Flavor.MARIADB, 4), **changes)


def unseen(name: str, since: float = NOW) -> Unseen:
    return Unseen("connection refused", since)


def view(*members: MemberState | tuple[str, Unseen], **changes: Any) -> View:
    sightings = {
        each[0] if isinstance(each, tuple) else each.name: each[1]
        if isinstance(each, tuple)
        else Seen(each, NOW)
        for each in members
    }
    return replace(View(sightings, NOW), **changes)


def commands(decision: Decision) -> list[Command]:
    """The commands of a decision that has no other steps."""
    sends = [step for step in decision.steps if isinstance(step, Send)]
    assert len(sends) == len(decision.steps)
    return [each.command for each in sends]


def saved(decision: Decision) -> Record:
    (step,) = decision.steps
    assert isinstance(step, Save)
    return step.record
