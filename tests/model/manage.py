"""Managers that come and go over a world. What they know of it may be old."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from holdfast.core import switchover
from holdfast.core.commands import Command
from holdfast.core.decide import decide
from holdfast.core.decision import Call, Save, Send
from holdfast.core.enforcement import Evidence, weighed
from holdfast.core.gtid import Flavor
from holdfast.core.preflight import SwitchOver, chosen, objections
from holdfast.core.pulse import Pulse, felt, lapses
from holdfast.core.record import Instant, Record, from_json, to_json
from holdfast.core.settings import Mode, Settings
from holdfast.core.view import Seen, ServerStatus, Sighting, Unseen, View
from holdfast.manager.leases import Leases
from tests.model.outsiders import Outsiders
from tests.model.world import MANAGER, World

PACES = [0.0] * 8 + [0.02] * 8 + [0.1, 0.1, 0.4]
"""Seconds that pass between two events."""

BOOTS = ["here", "there"]
"""Hosts of managers: the clock of one says nothing of what began by the clock of the other."""
STEPS = [0.0, 0.0, 3600.0, -3600.0, 1e7, -1e7]
"""How far the wall clock of the manager's host is off."""

STORM = {
    "write": 30,
    "replicate": 40,
    "manage": 30,
    "crash": 3,
    "agent": 1,
    "manager": 1,
    "late": 3,
    "freeze": 1,
    "cut": 1,
    "heal": 3,
    "halt": 1,
    "part": 1,
    "switch": 2,
}
"""What happens in a storm, and how often."""


class Run:
    """One world and its managers.

    :ivar stored: the record, as text, as the store keeps it
    :ivar steps: how many steps were begun so far
    :ivar boot: names the kernel of the manager's host; :ivar clock_off: how far its wall clock is off, in seconds
    :ivar outsiders: what hooks move, where there are some
    :ivar failovers: how often another primary was named; :ivar switchovers: how often because a person wanted it
    """

    def __init__(
        self, seed: int, members: int, flavor: Flavor, settings: Settings | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.mishaps = random.Random(f"mishaps {seed}")
        self.world = World(self.rng, members, flavor, settings)
        self.pulses: dict[str, Pulse] = {}
        self.leases = Leases(lambda: self.world.now)
        self.evidence: Evidence | None = None
        self.boot = BOOTS[0]
        self.clock_off = 0.0
        self.stored = ""
        self.known: dict[str, Sighting] = {}
        self.late: list[tuple[str, int, Command]] = []
        self.reason = ""
        self.well = False
        self.steps = 0
        self.failovers = 0
        self.switchovers = 0
        self.outsiders: Outsiders | None = None

    @property
    def record(self) -> Record | None:
        return from_json(self.stored) if self.stored else None

    def look(self, name: str) -> None:
        host, now = self.world.hosts[name], self.world.now
        known = self.known.get(name)
        if self.world.reachable(name):
            self.world.watch(name, self.leases.grant(name))
            self.known[name] = Seen(host.state(now), now)
            self.leases.answered(name, str(host.agent_run), now)
        elif isinstance(known, Unseen):
            self.known[name] = replace(known, agent_gone=known.agent_gone or not host.agent_up)
        else:
            since, last = (known.at, known.state) if known else (now, None)
            self.known[name] = Unseen("gone", since, last, not host.agent_up)

    def steps_now(self) -> tuple[Save | Send | Call, ...]:
        """What the manager decides, on what it knows."""
        record = self.record
        over = self.leases.over(list(self.world.hosts))
        date = self.world.now + self.clock_off
        view = View(dict(self.known), self.world.now, leases=over, boot=self.boot, date=date)
        if self.outsiders:
            view = replace(view, hooked=True, called=self.outsiders.look())
        self.leases.allow(self.world.cluster, record, math.inf)
        if record:
            self.pulses = felt(self.pulses, record.primary, view)
            self.evidence = known = weighed(self.evidence, self.world.cluster, record, view)
            enforced = known.enforced(self.world.timing.detection) if known else None
            view = replace(view, lapses=lapses(self.pulses), enforced=enforced)
        decision = decide(self.world.cluster, record, view)
        assert decision.reason
        assert len(decision.steps) < 2 or not any(isinstance(s, Save) for s in decision.steps)
        self.reason, self.well = decision.reason, decision.well
        return decision.steps

    def take(self, step: Save | Send | Call, interrupted: bool = False) -> None:
        record = self.record
        self.steps += 1
        match step:
            case Save(record=new):
                named = bool(record and record.primary != new.primary)
                self.failovers += named
                self.switchovers += named and switchover.under_way(record)
                if record and record.transition and record.transition.lossy:
                    self._lose(record, new)
                self.stored = to_json(new)
            case Send(member=name, command=command):
                self.send(name, record.term if record else 0, command, interrupted)
            case Call(phase=phase):
                assert self.outsiders
                assert record
                self.outsiders.call(phase, record)

    def _lose(self, before: Record, after: Record) -> None:
        """A failover that a person allowed to lose something: only where nothing was promised."""
        assert before.mode is not Mode.STRONG
        assert self.world.settings.allow_loss
        if before.primary != after.primary:
            kept = set(self.world.hosts[after.primary].binlog)
            self.world.acknowledged = [t for t in self.world.acknowledged if t in kept]

    def send(self, name: str, term: int, command: Command, interrupted: bool) -> None:
        try:
            if self.world.reachable(name):
                self.world.watch(name, self.leases.grant(name))
            self.world.execute(name, term, command, interrupted)
        except ValueError:
            return
        self.look(name)

    def manage(self) -> None:
        """Look at everything, decide, carry it out."""
        self.world.pass_time(0.2)
        for name in self.world.hosts:
            self.look(name)
        for step in self.steps_now():
            self.take(step)

    def manage_badly(self) -> None:
        """Look at some, decide; some steps are lost, delayed, or broken off in the middle."""
        for name in self.world.hosts:
            if self.rng.random() < 0.6:
                self.look(name)
        term = self.record.term if self.record else 0
        for step in self.steps_now():
            chance = self.rng.random()
            if chance < 0.1:
                continue
            if chance < 0.2 and isinstance(step, Send):
                self.late.append((step.member, term, step.command))
            else:
                self.take(step, interrupted=chance < 0.3)

    def order_switchover(self, seconds: float = 30.0) -> bool:
        """A person wants another primary; whether nothing stood against it."""
        record = self.record
        view = View(dict(self.known), self.world.now, boot=self.boot)
        order = SwitchOver(seconds=seconds)
        if record is None or objections(self.world.cluster, record, view, order):
            return False
        to = chosen(self.world.cluster, record, view, order)
        self.take(switchover.begun(self.world.cluster, record, view, to, seconds))
        return True

    def new_manager(self) -> None:
        """The one before it may still have commands under way."""
        self.known = {}
        self.pulses = {}
        self.evidence = None
        self.leases = Leases(lambda: self.world.now)
        if self.outsiders:
            self.outsiders.new_manager()
        self.boot = self.mishaps.choice(BOOTS)
        self.clock_off = self.mishaps.choice(STEPS)
        if record := self.record:
            self.leases.begin(max(record.lease, self.world.timing.lease))
            record = record.taken_over(Instant(self.boot, self.world.now))
            self.stored = to_json(replace(record, term=record.term + 1))

    def storm(self) -> None:
        """One random event."""
        world, rng = self.world, self.rng
        world.pass_time(rng.choice(PACES))
        self.mishap()
        for each in world.hosts.values():
            if rng.random() < 0.03:
                each.halted = each.hung = False
                if not each.agent_up:
                    each.begin_agent(world.now)
        host = rng.choice(list(world.hosts.values()))
        match rng.choices(
            [*STORM],
            [*STORM.values()],
        )[0]:
            case "write":
                world.write()
            case "replicate":
                world.replicate()
            case "manage":
                self.manage_badly()
            case "crash" if host.status is not ServerStatus.DOWN:
                host.crash()
            case "agent" if world.reachable(host.name):
                # not while it is cut off: then nobody knows that its lease is not enforced
                host.agent_up = False
                self.look(host.name)
            case "manager":
                self.new_manager()
            case "freeze" if host.up:
                host.frozen = not host.frozen
            case "cut":
                pair = frozenset(rng.sample(sorted(world.hosts), min(2, len(world.hosts))))
                world.cut ^= {pair}
            case "heal":
                self.mend()
            case "halt" if host.agent_up:
                host.halted = True
            case "part" if host.agent_up:
                world.cut |= {frozenset({host.name, MANAGER})}
                if rng.random() < 0.6:
                    world.part(host.name)
            case "switch":
                self.order_switchover(rng.choice([0.5, 3.0, 30.0]))
            case "late" if self.late:
                self.send(*self.late.pop(rng.randrange(len(self.late))), interrupted=False)

    def mishap(self) -> None:
        """An agent hangs alone, or the wall clock of the manager's host is stepped, now and then."""
        hosts = [each for each in self.world.hosts.values() if each.attended]
        match self.mishaps.random():
            case chance if chance < 0.01 and hosts:
                self.mishaps.choice(hosts).hung = True
            case chance if chance > 0.99:
                self.clock_off = self.mishaps.choice(STEPS)

    def check(self) -> None:
        """One writer, the recorded one, and it has everything that was ever acknowledged."""
        record = self.record
        answering = [h for h in self.world.hosts.values() if h.answers(self.world.now)]
        assert len(answering) <= 1, f"two primaries: {[h.name for h in answering]}"
        for host in answering:
            missing = set(self.world.acknowledged) - set(host.binlog)
            assert not missing, f"{host.name} is open without acknowledged {missing}"
            assert record
            assert host.name == record.primary

    def same(self) -> None:
        """When all is well, nobody holds a GTID with another content than the primary."""
        record = self.record
        assert record
        mine = {t.gtid: t for t in self.world.hosts[record.primary].binlog}
        for host in self.world.hosts.values():
            assert all(mine.get(t.gtid) == t for t in host.binlog), (
                f"{host.name} has diverged unseen"
            )

    def mend(self) -> None:
        """Nothing is frozen or cut off any more."""
        self.world.cut.clear()
        for host in self.world.hosts.values():
            host.frozen = host.halted = host.hung = False

    def calm(self) -> None:
        """Everything is mended: the cluster must become well, but for members with errant data."""
        self.mend()
        for host in self.world.hosts.values():
            if not host.agent_up:
                host.begin_agent(self.world.now)
        for _ in range(400):
            self.manage()
            for _ in range(20):
                self.world.replicate()
            self.check()
            if self.well:
                return self.same()
        return None
