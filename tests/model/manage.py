"""Managers that come and go over a world. What they know about it may be old."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from holdfast.core.change import switchover
from holdfast.core.change.invariants import broken
from holdfast.core.change.preflight import SwitchoverOrder, chosen, objections
from holdfast.core.commands import (
    Clone,
    Command,
    Drain,
    Fetch,
    Follow,
    Freeze,
    Promise,
    Promote,
    Prove,
    SetAcks,
)
from holdfast.core.decide import decide
from holdfast.core.decision import Call, Save, Send
from holdfast.core.gtid import Flavor, parse
from holdfast.core.members.rollback import Rebuilt, contradicted, rebuilt
from holdfast.core.observed.lineage import Memory, mark, stamped
from holdfast.core.record import Record, from_json, to_json
from holdfast.core.rules.enforcement import Evidence, weighed
from holdfast.core.rules.pulse import OpeningPulse, Pulse, felt, lapses, opening
from holdfast.core.settings import Mode, Settings
from holdfast.core.transition import Failover, Instant, RestartInPlace
from holdfast.core.view import MemberState, Seen, ServerStatus, Sighting, Unseen, View
from holdfast.http.wire import Told
from holdfast.manager.agents.leases import Leases
from tests.model.outsiders import Outsiders
from tests.model.reasons import unclear
from tests.model.world import MANAGER, World
from tests.unit.hand_clock import HandClock

PACES = [0.0] * 8 + [0.02] * 8 + [0.1, 0.1, 0.4]
"""Seconds that pass between two events."""

BOOTS = ["here", "there"]
"""Hosts of managers: the clock of one says nothing about what began by the clock of the other."""
STEPS = [0.0, 0.0, 3600.0, -3600.0, 1e7, -1e7]
"""How far the wall clock of the manager's host is off."""
SLOW = (Promise, Drain, Follow, Fetch, Promote, Freeze, SetAcks, Prove)
"""Commands with parts between which other hosts' commands may come."""

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
    "at once": 4,
    "rollback": 1,
    "repair": 1,
    "go on": 20,
    "kill waiters": 0,
    "weaken": 0,
    "start by hand": 0,
    "stranger": 0,
}
"""What happens in a storm, and how often."""


BELIEF_SECONDS = 1.2
"""For so long a manager that was deposed may believe that it leads (``store/session.py``)."""
BACKUPS = 40
"""A backup is at most this many changes of the record old."""


@lru_cache(64)
def _text(record: Record) -> str:
    return Memory(record).text()


@dataclass
class Manager:
    """What one manager knows; nothing of it outlives the manager.

    :ivar until: until then it believes that it leads
    :ivar version: of the record that it read or wrote last
    :ivar view: the view of its last decision
    :ivar begun: it has a term of its own; :ivar refused: why it decides nothing, or ""
    """

    leader: str
    boot: str
    leases: Leases
    version: int
    record: Record | None
    until: float = math.inf
    begun: bool = False
    refused: str = ""
    known: dict[str, Sighting] = field(default_factory=dict)
    pulses: dict[str, Pulse] = field(default_factory=dict)
    evidence: Evidence | None = None
    opening: OpeningPulse | None = None
    view: View = field(default_factory=lambda: View({}, 0.0))


class Run:
    """One world and its managers; the last but one may believe for a while that it still leads.

    :ivar steps: how many steps were begun so far
    :ivar boot: names the kernel of the manager's host; :ivar clock_off: error of its wall clock, in seconds
    :ivar clones: how many were begun
    :ivar outsiders: what hooks move, if there are hooks
    :ivar happens: the events of a storm, and how often each comes
    :ivar doubts: how often a stranger's acknowledgements were taken into the record
    :ivar failovers: how often another primary was named; :ivar switchovers: how often because an operator wanted it
    :ivar rolls_back: storms put the store back from backups
    :ivar backups: what the store held, the oldest first; :ivar restored: what it holds may be one of them
    """

    def __init__(
        self, seed: int, members: int, flavor: Flavor, settings: Settings | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.mishaps = random.Random(f"mishaps {seed}")
        self.world = World(self.rng, members, flavor, settings)
        self.boot = BOOTS[0]
        self.clock_off = 0.0
        self.version = 0
        self.backups = [""]
        self.restored = False
        self.rollbacks = self.refusals = self.repairs = self.conflicts = 0
        self.former: Manager | None = None
        self.mind = self._manager()
        self.late: list[tuple[str, int, Command, Told]] = []
        self.reason = ""
        self.well = False
        self.steps = 0
        self.failovers = 0
        self.switchovers = 0
        self.clones = 0
        self.outsiders: Outsiders | None = None
        self.happens = dict(STORM)
        self.doubts = 0
        self.rolls_back = False

    def _manager(self) -> Manager:
        leader = f"{self.rng.getrandbits(64):016x}"
        leases = Leases(HandClock(lambda: self.world.now))
        return Manager(leader, self.boot, leases, self.version, self.record)

    @property
    def leases(self) -> Leases:
        return self.mind.leases

    @property
    def stored(self) -> str:
        """The record, as the text that the store holds."""
        return self.backups[-1]

    @stored.setter
    def stored(self, text: str) -> None:
        """Something else writes into the store while its manager looks."""
        self.backups.append(text)
        self.version += 1
        self.mind.version, self.mind.record = self.version, self.record

    @property
    def record(self) -> Record | None:
        return from_json(self.stored) if self.stored else None

    def told(self, name: str) -> Told:
        """The record by which the manager at work decides."""
        mind = self.mind
        if mind.record is None or not mind.begun or mind.refused:
            return Told()
        text = _text(mind.record)
        known = mark(text)
        sighting = mind.known.get(name)
        has = isinstance(sighting, Seen) and sighting.state.record == known
        return Told(leader=mind.leader, mark=known, record="" if has else text)

    def look(self, name: str) -> None:
        host, now, mind = self.world.hosts[name], self.world.now, self.mind
        known = mind.known.get(name)
        if self.world.reachable(name):
            self.world.watch(name, mind.leases.grant(name), self.told(name))
            mind.known[name] = Seen(host.state(now), now)
            mind.leases.answered(name, str(host.agent_run), now)
        elif isinstance(known, Unseen):
            gone = known.agent_gone or not host.agent_up
            mind.known[name] = replace(known, agent_gone=gone)
        else:
            since, last = (known.at, known.state) if known else (now, None)
            mind.known[name] = Unseen("gone", since, last, not host.agent_up)

    def steps_now(self) -> tuple[Save | Send | Call, ...]:
        """What the manager at work decides from what it knows."""
        mind = self.mind
        over = mind.leases.over(list(self.world.hosts))
        date = self.world.now + self.clock_off
        for name in self.world.forgotten:
            mind.known.pop(name, None)
        view = View(dict(mind.known), self.world.now, leases=over, boot=mind.boot, date=date)
        if not self._stands(view):
            mind.leases.stop()
            self.reason, self.well = mind.refused or "asking", False
            return ()
        record = mind.record
        if self.outsiders:
            view = replace(view, hooked=True, called=self.outsiders.look())
        mind.leases.allow(self.world.cluster, record, mind.until)
        if record:
            mind.pulses = felt(mind.pulses, record.primary, view)
            mind.evidence = known = weighed(mind.evidence, self.world.cluster, record, view)
            enforced = known.enforced(self.world.timing.detection) if known else None
            mind.opening = opens = opening(mind.opening, record, view)
            view = replace(
                view,
                lapses=lapses(mind.pulses),
                enforced=enforced,
                opening=view.now - opens.since if opens else 0.0,
            )
        mind.view = view
        decision = decide(self.world.cluster, record, view)
        for said in {decision.reason, *(s.why for s in decision.steps if isinstance(s, Save))}:
            assert not (wrong := unclear(str(said), self.world.cluster.name)), f"{said!r} {wrong}"
        assert len(decision.steps) < 2 or not any(isinstance(s, Save) for s in decision.steps)
        self._one_clone(view, decision.steps)
        self.reason, self.well = decision.reason, decision.well
        return decision.steps

    def _stands(self, view: View) -> bool:
        """As ``manager/leader/standing.py``: no term before all members were asked, and no decision on a record that
        agents contradict."""
        mind = self.mind
        if mind.record is None:
            return True
        if not mind.begun and len(mind.known) < len(self.world.cluster.members):
            return False
        first = mind.record.taken_over(Instant(mind.boot, self.world.now))
        mine = mind.record if mind.begun else stamped(first, mind.record, mind.leader)
        refused = contradicted(self.world.cluster, mine, view)
        self.refusals += bool(refused) and not mind.refused
        mind.refused = refused
        if mind.refused:
            return False
        return mind.begun or self.save(first)

    def save(self, record: Record) -> bool:
        """By compare-and-set; a manager whose save fails no longer leads."""
        mind = self.mind
        after = stamped(record, mind.record, mind.leader)
        assert not (why := broken(self.world.cluster, mind.record, after, mind.view)), why
        # the store itself checks whether this manager leads
        if mind is self.former or mind.version != self.version:
            self.conflicts += 1
            mind.until = -math.inf
            return False
        self.stored = to_json(after)
        mind.begun = True
        return True

    def _one_clone(self, view: View, steps: Sequence[Save | Send | Call]) -> None:
        """Two members' data are never given up at once, and none for a copy that cannot be made."""
        begun = {s.member: s.command for s in steps if isinstance(s, Send)}
        clones = {name: c for name, c in begun.items() if isinstance(c, Clone)}
        assert len(clones) <= 1, f"two are cloned at once: {clones}"
        for name, clone in clones.items():
            busy = [n for n in view.members if n != name and (s := view.state(n)) and s.cloning]
            assert not busy, f"{name} is to be cloned while {busy} are"
            donor = view.state(clone.donor)
            assert donor
            waits = donor.semi_sync.source and not donor.semi_sync.timeout_seconds
            alone = donor.writable and waits and not self._ackers(donor, name)
            assert not alone, f"{name} is to be cloned from {clone.donor}, which waits for it"
            self.clones += 1

    def _ackers(self, donor: MemberState, name: str) -> int:
        source = self.world.hosts[donor.name]
        seen = [s.state for s in self.mind.known.values() if isinstance(s, Seen)]
        return sum(
            1
            for state in seen
            if state.name not in (name, donor.name)
            and state.semi_sync.replica
            and state.replication.source == f"{source.name}:3306"
        )

    def take(self, step: Save | Send | Call, interrupted: bool = False) -> None:
        mind = self.mind
        record = mind.record
        self.steps += 1
        match step:
            case Save(record=new):
                if not self.save(new):
                    return
                named = bool(record and record.primary != new.primary)
                self.failovers += named
                self.switchovers += bool(named and record and switchover.under_way(record))
                begun = record.transition if record else None
                if record and isinstance(begun, Failover | RestartInPlace) and begun.lossy:
                    self._lose(record, new)
                self._noted(record, new)
            case Send(member=name, command=command):
                self.send(name, record.term if record else 0, command, interrupted, self.told(name))
            case Call(phase=phase):
                assert self.outsiders
                assert record
                self.outsiders.call(phase, record)

    def _noted(self, before: Record | None, after: Record) -> None:
        """From now on what a stranger acknowledged is kept like what voters acknowledged."""
        if before and after.doubt and after.doubt != before.doubt:
            self.doubts += 1
            host = self.world.hosts[after.primary]
            noted = parse(host.flavor, after.doubt)
            self.world.acknowledged += [t for t in host.doubtful if noted.has(*t.gtid)]
            host.doubtful = [t for t in host.doubtful if not noted.has(*t.gtid)]

    def _lose(self, before: Record, after: Record) -> None:
        """A failover that an operator allowed to lose something: only if nothing was promised. Or a primary that came
        back was opened with what it has."""
        if isinstance(before.transition, RestartInPlace):
            assert before.primary == after.primary
            return
        assert before.mode is not Mode.STRONG
        assert self.world.settings.allow_loss
        if before.primary != after.primary:
            kept = set(self.world.hosts[after.primary].binlog)
            self.world.acknowledged = [t for t in self.world.acknowledged if t in kept]

    def send(
        self,
        name: str,
        term: int,
        command: Command,
        interrupted: bool,
        told: Told | None = None,
    ) -> None:
        told = told or self.told(name)
        try:
            if self.world.reachable(name):
                self.world.watch(name, self.mind.leases.grant(name), told)
            self.world.execute(name, term, command, interrupted, told)
        except ValueError:
            return
        self.look(name)

    def begin(self, name: str, term: int, command: Command) -> None:
        """As :meth:`send`, but it continues while other things happen."""
        told = self.told(name)
        with contextlib.suppress(ValueError):
            if self.world.reachable(name):
                self.world.watch(name, self.mind.leases.grant(name), told)
            self.world.begin(name, term, command, told)

    def manage(self) -> None:
        """Look at everything, decide, carry it out."""
        self.world.pass_time(0.2)
        for name in self.world.hosts:
            self.look(name)
        for step in self.steps_now():
            self.take(step)

    def manage_badly(self) -> None:
        """Look at some members, decide; some steps are lost, delayed, or interrupted in the middle."""
        for name in self.world.hosts:
            if self.rng.random() < 0.6:
                self.look(name)
        for step in self.steps_now():
            chance = self.rng.random()
            if chance < 0.1:
                continue
            if chance < 0.2 and isinstance(step, Send):
                term = self.mind.record.term if self.mind.record else 0
                self.late.append((step.member, term, step.command, self.told(step.member)))
            elif chance < 0.4 and isinstance(step, Send) and isinstance(step.command, SLOW):
                self.steps += 1
                term = self.mind.record.term if self.mind.record else 0
                self.begin(step.member, term, step.command)
            else:
                self.take(step, interrupted=chance < 0.3)

    def manage_at_once(self) -> None:
        """The manager that was deposed does not know it yet, and decides as well."""
        present, former = self.mind, self.former
        if former is None or self.world.now >= former.until:
            return
        reason, well = self.reason, self.well
        self.mind = former
        try:
            self.manage_badly()
        finally:
            self.mind = present
            self.reason, self.well = reason, well

    def order_switchover(self, seconds: float = 30.0) -> bool:
        """An operator wants another primary; whether nothing stood against it."""
        record = self.mind.record
        view = View(dict(self.mind.known), self.world.now, boot=self.mind.boot)
        order = SwitchoverOrder(seconds=seconds)
        if record is None or not self.mind.begun or self.mind.refused:
            return False
        if objections(self.world.cluster, record, view, order):
            return False
        self.mind.view = view
        to = chosen(self.world.cluster, record, view, order)
        self.take(switchover.begun(self.world.cluster, record, view, to, seconds))
        return True

    def new_manager(self) -> None:
        """The previous manager may still have commands under way, and believe that it leads."""
        former = self.mind
        former.until = min(former.until, self.world.now + BELIEF_SECONDS)
        self.former = former
        if self.outsiders:
            self.outsiders.new_manager()
        self.boot = self.mishaps.choice(BOOTS)
        self.clock_off = self.mishaps.choice(STEPS)
        self.mind = self._manager()
        if record := self.record:
            longest = max(record.lease, self.world.timing.lease)
            self.leases.begin(longest + max(0.0, former.until - self.world.now))

    def roll_back(self) -> None:
        """The store is put back from a backup, or is lost, while no manager runs."""
        self.mind.until = -math.inf
        known = len(self.backups)
        back = self.rng.randrange(max(0, known - BACKUPS), known)
        text = "" if self.rng.random() < 0.1 else self.backups[back]
        self.restored |= text != self.backups[-1]
        self.rollbacks += text != self.backups[-1]
        self.backups.append(text)
        self.version += 1
        self.new_manager()

    def _rebuilt(self) -> Rebuilt | str | None:
        """What a repair would store, or why there can be none; None if there is nothing to repair."""
        mind, world = self.mind, self.world
        lost = mind.record is None and any(host.term for host in world.hosts.values())
        if not mind.refused and not lost:
            return None
        heard = {n: host.remembered() for n, host in world.hosts.items() if world.reachable(n)}
        silent = {name: "gone" for name in world.hosts if name not in heard}
        stored = Memory(mind.record) if mind.record else None
        return rebuilt(world.cluster, stored, heard, silent)

    @property
    def parted(self) -> bool:
        """Agents have obeyed two managers that did not know about each other: an operator must choose."""
        found = self._rebuilt()
        return isinstance(found, Rebuilt) and any("another manager" in d for d in found.doubts)

    def repair(self) -> bool:
        """An operator has the store repaired, if the repair is proved to be right."""
        mind, world = self.mind, self.world
        found = self._rebuilt()
        if found is None or isinstance(found, str) or found.doubts:
            return False
        mind.record = found.memory.record.taken_over(Instant(mind.boot, world.now))
        mind.refused = ""
        assert self.save(mind.record)
        mind.leases.begin(max(found.memory.record.lease, world.timing.lease) + BELIEF_SECONDS)
        self.repairs += 1
        self.restored = False
        return True

    def storm(self) -> None:
        """One random event."""
        world, rng = self.world, self.rng
        world.pass_time(rng.choice(PACES))
        self.mishap()
        for each in world.hosts.values():
            if rng.random() < 0.03 and each.name not in world.destroyed:
                each.halted = each.hung = False
                if not each.agent_up:
                    each.begin_agent(world.now)
        host = rng.choice(list(world.hosts.values()))
        match rng.choices([*self.happens], [*self.happens.values()])[0]:
            case "write":
                world.write()
            case "replicate":
                world.replicate()
            case "manage":
                self.manage_badly()
            case "crash" if host.status is not ServerStatus.DOWN:
                host.crash()
            case "power" if self.record and not self.record.transition and not host.promised:
                # a member that is just being named, and still has relaxed flushing, would have to be repaired by an
                # operator
                if host.name != self.record.primary:
                    host.tear()
            case "agent" if world.reachable(host.name):
                # not while it is cut off: then no manager knows that its lease is not enforced
                host.agent_up = False
                self.look(host.name)
            case "manager":
                self.new_manager()
            case "at once":
                self.manage_at_once()
            case "rollback" if self.rolls_back:
                self.roll_back()
            case "repair" if self.rolls_back:
                self.repair()
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
            case "go on":
                for name in rng.sample(sorted(world.hosts), rng.randint(1, len(world.hosts))):
                    world.go_on(name)
            case "kill waiters":
                world.kill_waiters(host)
            case "weaken":
                world.weaken(host)
            case "start by hand" if not host.agent_up:
                world.start_by_hand(host)
            case "stranger" if host.up and not host.frozen:
                host.stranger = True
                world.judge(host)
            case "late" if self.late:
                name, term, command, told = self.late.pop(rng.randrange(len(self.late)))
                self.send(name, term, command, False, told)

    def mishap(self) -> None:
        """Now and then an agent hangs alone, or the wall clock of the manager's host is stepped."""
        hosts = [each for each in self.world.hosts.values() if each.attended]
        match self.mishaps.random():
            case chance if chance < 0.01 and hosts:
                self.mishaps.choice(hosts).hung = True
            case chance if chance > 0.99:
                self.clock_off = self.mishaps.choice(STEPS)

    def check(self) -> None:
        """There is one writer, the recorded one, and it has everything that was ever acknowledged."""
        record = self.record
        answering = [h for h in self.world.hosts.values() if h.answers(self.world.now)]
        assert len(answering) <= 1, f"two primaries: {[h.name for h in answering]}"
        for host in answering:
            missing = set(self.world.acknowledged) - set(host.binlog)
            assert not missing, f"{host.name} is open without acknowledged {missing}"
            assert record or self.restored
            assert self.restored or (record and host.name == record.primary)

    def same(self) -> None:
        """When all is well, no member holds a GTID with another content than the primary, and the primary follows no
        source."""
        record = self.record
        assert record
        primary = self.world.hosts[record.primary]
        assert not primary.source, f"{primary.name} follows {primary.source}"
        mine = {t.gtid: t for t in (*primary.binlog, *primary.orphans)}
        for host in self.world.hosts.values():
            if host.name in {*self.world.destroyed, *self.world.forgotten}:
                continue
            assert all(mine.get(t.gtid) == t for t in host.binlog), (
                f"{host.name} has diverged unseen"
            )
            # what is in no member's binlog will not come to members that lack it
            unlike = set(host.orphans) ^ set(primary.orphans) - set(host.binlog)
            assert not unlike, f"{host.name} and {primary.name} differ in {unlike}, unseen"

    def mend(self) -> None:
        """End every freeze and every cut."""
        self.world.cut.clear()
        for host in self.world.hosts.values():
            if host.name in self.world.destroyed:
                continue
            host.frozen = host.halted = host.hung = False
            host.stranger = host.stranger and host.source_on

    def calm(self) -> None:
        """After everything is repaired the cluster must become well, except for members with errant data."""
        self.mend()
        for host in self.world.hosts.values():
            while host.under_way:
                self.world.go_on(host.name)
            if not host.agent_up and host.name not in self.world.destroyed:
                host.begin_agent(self.world.now)
        for _ in range(400):
            self.manage()
            self.repair()
            for _ in range(20):
                self.world.replicate()
            self.check()
            if self.well:
                return self.same()
        return None
