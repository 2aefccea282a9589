"""The promise, under random crashes of servers, agents and managers, at any step, with late and lost commands."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest

from holdfast.core.commands import Command
from holdfast.core.decide import decide
from holdfast.core.decision import Save, Send
from holdfast.core.gtid import Flavor
from holdfast.core.record import Record, from_json, to_json
from holdfast.core.view import Seen, ServerStatus, Sighting, Unseen, View
from tests.model.world import World

SEEDS = int(os.environ.get("HOLDFAST_MODEL_SEEDS", "25"))
"""Storms for each flavor and size; raise it for a long search."""


class Run:
    """Managers that come and go over one world. What they know of it may be old."""

    def __init__(self, seed: int, members: int, flavor: Flavor) -> None:
        self.rng = random.Random(seed)
        self.world = World(self.rng, members, flavor)
        self.stored = ""
        self.known: dict[str, Sighting] = {}
        self.late: list[tuple[str, int, Command]] = []
        self.now = 0.0
        self.reason = ""
        self.well = False
        self.failovers = 0

    @property
    def record(self) -> Record | None:
        return from_json(self.stored) if self.stored else None

    def look(self, name: str) -> None:
        host = self.world.hosts[name]
        if host.agent_up:
            self.known[name] = Seen(host.state(), self.now)
        elif not isinstance(self.known.get(name), Unseen):
            self.known[name] = Unseen("gone", self.now)

    def manage(self, calm: bool) -> None:
        """One decision; in a storm, some of its steps are lost, delayed, or broken off."""
        self.now += 0.2
        for name in self.world.hosts:
            if calm or self.rng.random() < 0.6:
                self.look(name)
        record = self.record
        decision = decide(self.world.cluster, record, View(dict(self.known), self.now))
        assert decision.reason
        self.reason, self.well = decision.reason, decision.well
        term = record.term if record else 0
        for step in decision.steps:
            chance = 1.0 if calm else self.rng.random()
            if chance < 0.1:
                continue
            match step:
                case Save(record=new):
                    assert len(decision.steps) == 1
                    self.failovers += bool(record and record.primary != new.primary)
                    self.stored = to_json(new)
                case Send(member=name, command=command) if chance < 0.2:
                    self.late.append((name, term, command))
                case Send(member=name, command=command):
                    self.send(name, term, command, interrupted=chance < 0.3)

    def send(self, name: str, term: int, command: Command, interrupted: bool) -> None:
        try:
            self.world.execute(name, term, command, interrupted)
        except ValueError:
            return
        self.look(name)

    def new_manager(self) -> None:
        """The one before it may still have commands under way."""
        self.known = {}
        if record := self.record:
            self.stored = to_json(replace(record, term=record.term + 1))

    def storm(self) -> None:
        """One random event."""
        world, rng = self.world, self.rng
        host = rng.choice(list(world.hosts.values()))
        match rng.choices(
            ["write", "replicate", "manage", "crash", "agent", "manager", "late"],
            [30, 40, 30, 2, 1, 1, 3],
        )[0]:
            case "write":
                world.write()
            case "replicate":
                world.replicate()
            case "manage":
                self.manage(calm=False)
            case "crash" if host.status is not ServerStatus.DOWN:
                host.crash()
            case "agent":
                host.agent_up = not host.agent_up
            case "manager":
                self.new_manager()
            case "late" if self.late:
                self.send(*self.late.pop(rng.randrange(len(self.late))), interrupted=False)

    def check(self) -> None:
        record = self.record
        open_hosts = [h for h in self.world.hosts.values() if h.up and h.writable]
        assert len(open_hosts) <= 1, f"two writers: {[h.name for h in open_hosts]}"
        for host in open_hosts:
            missing = set(self.world.acknowledged) - set(host.binlog)
            assert not missing, f"{host.name} is open without acknowledged {missing}"
            assert record
            assert host.name == record.primary

    def calm(self) -> None:
        """Everything is mended: the cluster must become whole."""
        for host in self.world.hosts.values():
            host.agent_up = True
        for _ in range(400):
            self.manage(calm=True)
            for _ in range(20):
                self.world.replicate()
            self.check()
            if self.well:
                return


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("members", [2, 3, 5])
def test_nothing_acknowledged_is_lost_and_one_writes(flavor: Flavor, members: int) -> None:
    failovers = acknowledged = 0
    for seed in range(SEEDS):
        run = Run(seed, members, flavor)
        run.calm()
        for _ in range(600):
            run.storm()
            run.check()
        run.calm()
        world = run.world
        primary = next((h for h in world.hosts.values() if h.up and h.writable), None)
        assert primary, f"seed {seed}: nobody is open at the end: {run.reason}"
        assert set(world.acknowledged) <= set(primary.binlog), f"seed {seed}"
        failovers += run.failovers
        acknowledged += len(world.acknowledged)
    assert failovers > SEEDS // 2, "the storms did not make the cluster fail over: they prove nothing"
    assert acknowledged > 20 * SEEDS, "too little was written for a loss to show"
