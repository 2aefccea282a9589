"""Whatever is late, lost, restarted or hangs, no other primary is named while the old one's server may still answer.

The agents' own classes keep the lease (``LeaseState``) and confirm it (``Vouch``); the manager's rule is that of
``core.lease`` and ``core.timing``. The agent of the primary and its keeper process hold the same lease, and one of them
may hang for a while. Each host has a clock of its own, which is faster or slower than the others; every message takes a
random time, or is lost; a killed server answers for as long as it is allowed to.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from holdfast.agent.lease.keeper_process import ASKS_AT, BEHIND_SECONDS
from holdfast.agent.lease.state import Due, LeaseState, Question
from holdfast.agent.lease.vouch import Vouch
from holdfast.agent.runtime.background import BackgroundWriter
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import Flavor
from holdfast.core.lease import Electorate, Quorum, revoked
from holdfast.core.timing import CLOCK_DRIFT, FENCE_SECONDS, surely_over
from holdfast.core.view import MemberState, Receiver, Replication, ServerStatus
from holdfast.http.wire import VouchRequest
from tests.unit.hand_clock import HandClock

LEASE = 1.2
HEARTBEAT = 0.25
PRIMARY = "10.0.0.1:3306"
RATES = (1.0, 1 + CLOCK_DRIFT / 2, 1 + CLOCK_DRIFT)
SECONDS = 8.0
RUNS = 1500


class AtOnce(BackgroundWriter):
    def do(self, work: Callable[[], object]) -> None:
        work()


class Voter:
    def __init__(self, folder: Path, name: str, clock: Callable[[], float]) -> None:
        self.folder = folder / name
        self.folder.mkdir(exist_ok=True)
        following = Replication(source=PRIMARY, receiver=Receiver.ON, applier=True)
        state = MemberState(name, Flavor.MYSQL, server=ServerStatus.UP, replication=following)
        self.published = PublishedState(state, HandClock(clock))
        self.name = name
        self.vouching = Vouch(self.folder, self.published, AtOnce())
        self.promises = 0
        self.run = 0

    def restart(self) -> None:
        """Restart only the agent: the server continues as it is."""
        self.vouching = Vouch(self.folder, self.published, AtOnce())
        self.published.change(promised=0)
        self.promises = 0
        self.run += 1

    def stop_receiver(self) -> None:
        receiver = replace(self.published.state.replication, receiver=Receiver.OFF)
        self.published.change(replication=receiver)


class Lives:
    """One run of the world, by events in the order of their time.

    :ivar ended: when the primary's server has ended
    :ivar deposes_at: when the manager begins to depose the primary, and grants nothing more
    :ivar named: when the manager first may name another primary
    """

    def __init__(self, seed: int, folder: Path, voters: int, need: int) -> None:
        self.chance = random.Random(seed)
        self.time = 0.0
        self.ended = math.inf
        self.named = math.inf
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._manager, self._primary = self._clock(), self._clock()
        names = [f"m{n}" for n in range(2, 2 + voters)]
        self.voters = [Voter(folder, name, self._clock()) for name in names]
        self._known = Electorate("m1", 1, 1, (Quorum(tuple(names), need),), address=PRIMARY)
        self._lease_state = LeaseState(self._known, LEASE)
        self._second = LeaseState(self._known, LEASE, ask_at=ASKS_AT)
        self._fencing = False
        self._hangs = self.chance.choice(["", "agent", "agent", "keeper"])
        self._hangs_from = self.chance.uniform(0, 4)
        self._hangs_until = self._hangs_from + self.chance.uniform(0, 5)
        self.upheld_alone = False
        self.deposes_at = self.chance.uniform(0, 4)
        # a manager before this one may have granted a lease a moment ago
        self._over = surely_over(self._manager(), LEASE)
        self._promised: dict[str, float] = {}
        now = self._primary()
        assert self._lease_state.grant(now, now + LEASE, LEASE)
        self._lease_state.enforce(now, grace=False)
        self._second.fed(self._lease_state.until)
        self._second.enforce(now, grace=False)
        self._lossy = self.chance.choice([0.0, 0.1, 0.5])
        self._slow = self.chance.choice([0.01, 0.3, 1.5])

    def go(self) -> None:
        self._keep()
        self._keep_second()
        self._poll()
        self._at(self.deposes_at, self._depose)
        for voter in self.voters:
            if self.chance.random() < 0.3:
                self._at(self.chance.uniform(0, SECONDS), voter.restart)
        while self._events and self._events[0][0] < SECONDS and self.named == math.inf:
            self.time, _, event = heapq.heappop(self._events)
            event()
            self._judge()

    def _clock(self) -> Callable[[], float]:
        rate, start = self.chance.choice(RATES), self.chance.uniform(0, 1e5)
        return lambda: start + self.time * rate

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time, self.time), next(self._numbers), event))

    def _send(self, event: Callable[[], None]) -> None:
        if self.chance.random() >= self._lossy:
            slow = self.chance.choice([0.0, 0.0, self._slow])
            self._at(self.time + self.chance.uniform(0, 0.01 + slow), event)

    # the primary's agent, and its keeper process

    def _hanging(self, who: str, event: Callable[[], None]) -> bool:
        """Whether that process hangs; then the event waits until it resumes."""
        if who != self._hangs or not self._hangs_from <= self.time < self._hangs_until:
            return False
        self._at(self._hangs_until, event)
        return True

    def _keep(self) -> None:
        if self._fencing or self._hanging("agent", self._keep):
            return
        self._lease_state.fed(self._second.until)
        match self._lease_state.due(self._primary()):
            case Due.FENCE:
                self._kill(FENCE_SECONDS)
                return
            case Due.ASK:
                self._ask(self._lease_state, "agent")
        self._wake(self._lease_state.next(), self._keep)

    def _keep_second(self) -> None:
        # an agent that resumes a moment after the end kills as well: the first of the two counts
        if self.time >= self.ended or self._hanging("keeper", self._keep_second):
            return
        now, lease_state = self._primary(), self._second
        lease_state.fed(self._lease_state.until)
        if not lease_state.held(now - BEHIND_SECONDS):
            self._kill(FENCE_SECONDS - BEHIND_SECONDS)
            return
        if lease_state.due(now) is Due.ASK:
            self._ask(lease_state, "keeper")
        end = lease_state.until + BEHIND_SECONDS
        due = lease_state.next()
        self._wake(end if due is None or not lease_state.held(now) else due, self._keep_second)

    def _kill(self, within: float) -> None:
        self._fencing = True
        self.ended = min(self.ended, self.time + within / RATES[-1])  # so long by any clock at most

    def _wake(self, due: float | None, event: Callable[[], None]) -> None:
        """A keeper wakes when something is due; there is always such a moment."""
        assert due is not None
        self._at(self.time + max(1e-6, (due - self._primary()) * (1 + CLOCK_DRIFT) / 2), event)

    def _ask(self, lease_state: LeaseState, who: str) -> None:
        question = lease_state.ask(self._primary())
        for voter in self.voters:
            self._send(partial(self._asked, voter, lease_state, question, who))

    def _asked(self, voter: Voter, lease_state: LeaseState, question: Question, who: str) -> None:
        request = VouchRequest(member="m1", address=PRIMARY, seconds=LEASE)
        if voter.vouching.asked(request).vouched:
            self._send(lambda: self._told(voter.name, lease_state, question, who))

    def _told(self, name: str, lease_state: LeaseState, question: Question, who: str) -> None:
        if self._fencing or self._hanging(
            who, lambda: self._told(name, lease_state, question, who)
        ):
            return
        if lease_state.vouched(name, question):
            self.upheld_alone |= lease_state is self._second and self._hangs == "agent"

    # the manager

    def _poll(self) -> None:
        clock = self._primary()
        if self._fencing or self._hanging("agent", self._poll):
            return
        self._send(lambda: self._answered(clock))
        self._at(self.time + HEARTBEAT, self._poll)

    def _answered(self, clock: float) -> None:
        if self.time >= self.deposes_at:
            return
        self._over = max(self._over, surely_over(self._manager(), LEASE))
        until = clock + LEASE
        self._send(lambda: self._granted(until))

    def _granted(self, until: float) -> None:
        if not (self._fencing or self._hanging("agent", lambda: self._granted(until))):
            self._lease_state.grant(self._primary(), until, LEASE)

    def _depose(self) -> None:
        for voter in self.voters:
            self._send(partial(self._submitted, voter))
        self._at(self.time + 0.5, self._depose)

    def _submitted(self, voter: Voter) -> None:
        """A promise waits for its turn, for a disk, for its server; it is kept, or it fails."""
        voter.vouching.promise_begins()
        run = voter.run
        takes = self.chance.choice([0.001, 0.3])
        self._at(self.time + takes * self.chance.random(), lambda: self._carried_out(voter, run))

    def _carried_out(self, voter: Voter, run: int) -> None:
        if run != voter.run:
            return
        kept = self.chance.random() < 0.7
        if kept:
            voter.stop_receiver()
            voter.published.change(promised=2)
            left = voter.vouching.left
            self._send(lambda: self._promise_came(voter.name, left))
        voter.vouching.promise_ends(kept)

    def _promise_came(self, name: str, vouched: float) -> None:
        until = self._manager() + vouched * (1 + CLOCK_DRIFT)
        self._promised.setdefault(name, until)
        # the wait for it ends at a moment of its own
        self._at(self.time + vouched, lambda: None)
        self._at(self.time + vouched * (1 + 2 * CLOCK_DRIFT), lambda: None)
        self._at(self.time + max(0.0, self._over - self._manager()) * 1.01, lambda: None)

    def _judge(self) -> None:
        if revoked(self._known, self._promised):
            until = max(self._over, *self._promised.values())
            if self._manager() >= until:
                self.named = self.time


@pytest.mark.parametrize(("voters", "need"), [(2, 1), (4, 2)])
def test_never_two_that_answer(voters: int, need: int, tmp_path: Path) -> None:
    named = upheld = alone = 0
    for seed in range(RUNS):
        lives = Lives(seed, tmp_path, voters, need)
        lives.go()
        assert lives.named == math.inf or lives.named >= lives.ended, f"seed {seed}"
        named += lives.named < math.inf
        alone += lives.upheld_alone
        upheld += lives.deposes_at + LEASE + HEARTBEAT < lives.ended < math.inf
    # the world is neither too kind nor too harsh for the test to mean anything
    assert named > RUNS / 4
    assert upheld > RUNS / 20
    assert alone > RUNS / 20
