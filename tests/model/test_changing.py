"""Storms over clusters that an operator keeps changing: durability, mode, which members vote, what happens when
alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from holdfast.core.gtid import Flavor
from holdfast.core.settings import (
    Durability,
    MemberSettings,
    Mode,
    Settings,
    WaitPoint,
    WhenAlone,
)
from tests.model.manage import Run
from tests.model.test_promise import SEEDS

FEW_SEEDS = 8
"""With so few seeds, as when each rule is broken in turn, perhaps no storm costs the primary."""
PLACES = {
    "m1": MemberSettings(zone="a"),
    "m2": MemberSettings(zone="a", priority=200),
    "m3": MemberSettings(zone="b"),
    "m4": MemberSettings(zone="b", priority=0),
    "m5": MemberSettings(zone="c"),
    "m6": MemberSettings(zone="c"),
    "m7": MemberSettings(zone="c"),
}
STRONG = [
    Settings(members=PLACES),
    Settings(members=PLACES, durability=Durability.ALL),
    Settings(members=PLACES, durability=Durability.ZONES),
    Settings(members=PLACES, when_alone=WhenAlone.SERVE),
    Settings(members=PLACES, ack_count=3, wait_point=WaitPoint.AFTER_COMMIT),
    Settings(members=PLACES | {"m3": MemberSettings(voter=False)}),
]
MODES = [replace(each, mode=mode) for each in STRONG[:4] for mode in Mode]
LOSSY = [replace(each, allow_loss=True) for each in MODES]


def storm(run: Run, choices: list[Settings], events: int) -> Iterator[None]:
    for _ in range(events):
        if run.rng.random() < 0.02:
            run.world.settings = run.rng.choice(choices)
        run.storm()
        run.check()
        yield


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("members", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("choices", [STRONG, MODES, LOSSY], ids=["strong", "modes", "lossy"])
def test_whatever_is_set_meanwhile(flavor: Flavor, members: int, choices: list[Settings]) -> None:
    if members == 2:  # both are in one zone: with durability zones nothing would be acknowledged
        choices = [each for each in choices if each.durability is not Durability.ZONES]
    failovers = changes = 0
    for seed in range(SEEDS // 3):
        run = Run(seed, members, flavor, choices[0])
        run.calm()
        seen = set()
        for _ in storm(run, choices, 500):
            if run.record:
                seen.add((run.record.mode, run.record.acks, run.record.target.names()))
        run.calm()
        primary = next((h for h in run.world.hosts.values() if h.up and h.writable), None)
        if choices is LOSSY and "came back without transactions" in run.reason:
            assert run.record
            assert run.record.mode is not Mode.STRONG
            continue  # came back with less than another has: an operator decides
        assert primary, f"seed {seed}: nobody is open at the end: {run.reason}"
        assert set(run.world.acknowledged) <= set(primary.binlog), f"seed {seed}"
        assert run.well, f"seed {seed}: {run.reason}"
        failovers += run.failovers
        changes += len(seen)
    if SEEDS > FEW_SEEDS and members in (3, 5) and choices[-1].mode is Mode.STRONG:
        assert failovers, "the storms did not make the cluster fail over"
    assert changes > SEEDS // 4, "the settings changed nothing"


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("settings", STRONG + MODES, ids=lambda s: f"{s.mode}-{s.durability}")
def test_the_wanted_mode_and_voters_are_reached(flavor: Flavor, settings: Settings) -> None:
    run = Run(1, 5, flavor)
    run.calm()
    run.world.settings = settings
    run.calm()
    record = run.record
    assert run.well, run.reason
    assert record
    assert record.mode is settings.mode
    primary = run.world.hosts[record.primary]
    if settings.mode is Mode.ASYNC:
        assert record.acks == 0
        assert not primary.source_on
        return
    assert record.acks == primary.acks
    assert primary.timeout == (10.0 if settings.mode is Mode.SEMI_SYNC else 0.0)
    assert primary.wait_point is settings.wait_point
    if flavor is Flavor.MARIADB:
        assert record.acks == 1
        assert len(record.target.voters) == (2 if settings.durability is Durability.ALL else 3)
    elif settings.ack_count:
        assert record.acks == settings.ack_count
    elif settings.durability is Durability.ALL:
        assert (record.acks, len(record.target.voters)) == (4, 5)
    zones = [settings.member(name).zone for name in record.target.names() - {record.primary}]
    if settings.durability is Durability.ZONES:
        near = zones.count(settings.member(record.primary).zone)
        assert near < record.acks, "k of them could all be in the primary's own zone"
    assert not any(settings.member(n).voter is False for n in record.target.names())
