"""Leads one cluster: begins a term, then decides and acts, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.answers.status import Status, status
from holdfast.core.change import bootstrap, invariants
from holdfast.core.cluster import Cluster, Member
from holdfast.core.decide import decide
from holdfast.core.decision import Call, Decision, Save, Send
from holdfast.core.history.changed import changed
from holdfast.core.members.identity import pinned
from holdfast.core.members.rollback import last_states, regained
from holdfast.core.record import Record
from holdfast.core.transition import Instant
from holdfast.core.view import Sighting, View
from holdfast.errors import Conflict, HoldfastError, Refused, Unreachable
from holdfast.http.wire import Told
from holdfast.log import say
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.agents.agents import Agents
from holdfast.manager.agents.estimate import Estimates
from holdfast.manager.agents.observe import AgentObserver
from holdfast.manager.leader.act import Actor, given_up
from holdfast.manager.leader.boot import kernel_boot
from holdfast.manager.leader.decision_log import DecisionLog, level
from holdfast.manager.leader.desired import Configured, Given
from holdfast.manager.leader.events import EventKind, EventLog
from holdfast.manager.leader.leadership import LeadershipContest
from holdfast.manager.leader.listener import Caller, Listener, NoHooks
from holdfast.manager.leader.looking import Looks
from holdfast.manager.leader.standing import Standing
from holdfast.manager.leader.waiting import Waiting
from holdfast.store.base import LeadershipCandidate, Store

LOOK_AGAIN_SECONDS = 0.2
"""Time alone may change a decision (patience, pauses), so one is made at least this often."""

logger = logging.getLogger(__name__)


class Leader:
    """One cluster in this manager.

    Nothing is kept here that the next manager would need: the record is in the store, the rest is observed anew.

    :ivar place: whether this manager leads, and else which one does; :ivar clock: for all parts of this cluster
    :ivar configured: what operators want of the cluster; :meth:`adopt` follows it
    :ivar connect: makes a client of a member's agent
    :ivar listeners: are called with every look and every change of the record
    :ivar waiting: the switchover that waits until it can begin
    :ivar deciding: a lock held while a decision is made and saved; take it where neither may change meanwhile
    """

    def __init__(
        self,
        given: Given,
        connect: Callable[[Member], AgentClient],
        store: Store,
        who: LeadershipCandidate = LeadershipCandidate("a manager"),  # noqa: B008 (frozen)
        listeners: Sequence[Listener] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.clock = clock
        self.place = LeadershipContest(store, given.name, who, clock)
        self.configured = Configured(given, store)
        self.events = EventLog(given.name, clock)
        self.listeners = tuple(listeners)
        self.hooks: Caller = NoHooks()
        self.waiting: Waiting | None = None
        self._decision_log = DecisionLog(self.events)
        self.deciding = asyncio.Lock()
        self.connect = connect
        self._store = store
        self._observer = AgentObserver(clock)
        self._observer.told = self.told
        self._all = Agents(connect, self._observer)
        self._agents = self._all.clients
        self._standing: Standing | None = None
        self._actor: Actor | None = None
        self._record: Record | None = None
        self._version = self._highest = 0
        self._decision = Decision(f"this manager is starting: it does not lead {given.name} yet")
        self._looks = Looks(self._observer, clock)
        self._estimates = Estimates()

    @property
    def cluster(self) -> Cluster:
        return self.configured.cluster

    @property
    def record(self) -> Record | None:
        """None, too, if its primary is no member that is configured: such a record says nothing."""
        known = self._record is not None and self.cluster.has(self._record.primary)
        return self._record if known else None

    @property
    def decision(self) -> Decision:
        """The last decision."""
        return self._decision

    @property
    def agents(self) -> Mapping[str, AgentClient]:
        return self._agents

    def view(self) -> View:
        """What is known now, and for how long each member has owed an acknowledgement."""
        return self._looks.now(self.cluster, self.record, list(self._agents), self.hooks)

    def status(self) -> Status:
        """Decided anew, so that its text on the cluster fits its texts on the members."""
        view = self.view()
        decides = self._actor and (self._record is None or self._decides)
        decision = self._decided(self.record, view) if decides else self._decision
        waits = self.waiting.text if self.waiting else ""
        failed = self._actor.failures(self.term) if self._actor else {}
        known = (self._estimated(view), waits, failed)
        return status(self.cluster, self.record, view, decision, *known)

    async def run(self) -> None:
        """Observe, and lead whenever no other manager does, until cancelled."""
        watching = asyncio.create_task(self._observer.run())
        try:
            await self.place.run(self)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            await self._all.close()
            await asyncio.gather(*(each.close() for each in self.listeners))

    def adopt(self) -> None:
        """Observe and command the members that are configured now, and no others."""
        forget = self._actor.forget if self._actor else lambda _: None
        self._all.adopt(self.cluster.members, forget)

    def _taken_over(self, record: Record) -> Record:
        return record.taken_over(Instant(kernel_boot(), self.clock.monotonic()))

    def look_again(self) -> None:
        """Decide again: something outside has changed that a decision depends on."""
        self._observer.changed.set()

    def refuse_elsewhere(self) -> None:
        """:raises Unreachable: another manager leads: the request must go to that one"""
        if not self.place.leads:
            leads = f"ask {self.place.leader}" if self.place.leader else self._decision.reason
            raise Unreachable(f"this manager does not lead {self.cluster.name}: {leads}")

    def leading(self) -> tuple[Actor, Record | None]:
        """What an operator's order needs; call it with ``deciding`` held.

        :raises Unreachable: this manager does not lead the cluster, or has not asked its agents yet
        :raises Refused: agents contradict the record
        """
        if self._actor is None:
            self.refuse_elsewhere()
            raise Unreachable(f"this manager does not lead: {self._decision.reason}")
        if self._record is not None and not self._decides:
            refused = self._standing is not None and self._standing.refused
            raise (Refused if refused else Unreachable)(self._decision.reason)
        return self._actor, self._record

    @property
    def _decides(self) -> bool:
        return self._standing is not None and self._standing.begun and not self._standing.refused

    def told(self, name: str) -> Told:
        """The record by which this manager decides, for that member's agent."""
        if self._standing is None:
            return Told()
        return self._standing.told(self.cluster, self._record, name, self._observer.view())

    @property
    def mistaken(self) -> bool:
        """Whether agents contradict the record in the store, or remember one and the store has none."""
        if self._record is None:
            return any(each.term for each in last_states(self._observer.view()).values())
        return self._standing is not None and bool(self._standing.refused)

    def answering(self, name: str) -> Sighting | None:
        """Which agent answers for that member, whether it is accepted as the member's or not."""
        return self._observer.view().members.get(name)

    async def restore(self, record: Record, why: str) -> None:
        """Continue from this record, in place of the store's; call it with ``deciding`` held, while this manager
        leads."""
        kept, self._record = self._record, record
        try:
            await self._replace(self._taken_over(record))
        except HoldfastError:
            self._record = kept
            raise
        self._highest = self._version
        if self._standing:
            self._standing.put_back = self._standing.refused = ""
        self._begin_leases(record)
        self.events.add(EventKind.ORDERED, f"{why} (term {self.term})", record.primary)
        self._observer.changed.set()

    async def decided(self, step: Save) -> None:
        """Save the record that an operator's order begins with; call it with ``deciding`` held."""
        await self.save(step.record, step.why)
        self._observer.changed.set()

    async def carry_out(self, step: Send) -> None:
        """Have a command carried out in the present term, in addition to what is decided; see also
        ``manager/people/founding.py``.

        :raises Unreachable: this manager does not lead the cluster
        :raises HoldfastError: by consequence
        """
        actor, _ = self.leading()
        await actor.order(self.term, step)

    def primary_host(self) -> str:
        members = {each.name: each.host for each in self.cluster.members}
        return members.get(self._record.primary, "") if self._record else ""

    def steady(self) -> bool:
        return self._decision.well and not (self._record and self._record.transition)

    async def follow(self, trouble: str) -> None:
        """Load the record and the configuration, to be ready, and to answer requests."""
        leader = self.place.leader
        reason = f"another manager leads it: {leader}" if leader else "no manager leads it now"
        if trouble:
            self._decide_nothing(trouble)
            return
        try:
            async with self.deciding:
                await self.configured.load()
                self.adopt()
                stored = await asyncio.to_thread(self._store.load, self.cluster.name)
                self._record, self._version = stored.record, stored.version
                self._highest = max(self._highest, stored.version)
        except HoldfastError as error:
            reason = f"{reason}; {error}"
        self._decide_nothing(reason)

    async def lead(self) -> None:
        """Lead until the store says that another manager does, or fails; cancelled when the leadership is over."""
        actor = Actor(self._agents, self._observer, self.events, self.clock)
        self._standing = Standing(self.configured)
        try:
            async with self.deciding:
                await self._begin()
                self._observer.lead(True)
                self._actor = actor
            while True:
                self._observer.changed.clear()
                if not await self._step(actor):
                    with contextlib.suppress(TimeoutError):
                        async with self.clock.timeout(self._pause()):
                            await self._observer.changed.wait()
        except Conflict:
            self._decide_nothing("another manager has changed the record")
        except HoldfastError as error:
            self._decide_nothing(str(error))
        finally:
            self._actor = self._standing = None
            self.hooks.stop()
            self._observer.leases.stop()
            self._observer.lead(False)
            await actor.close()

    def _pause(self) -> float:
        """How long to wait for news until time alone may have changed the decision."""
        again = self._decision.again
        return LOOK_AGAIN_SECONDS if again is None else min(again, LOOK_AGAIN_SECONDS)

    async def _begin(self) -> None:
        """Begin. The manager's term begins with the first look that supports the record; see :meth:`_stand`."""
        await self.configured.load()
        self.adopt()
        if misfit := self.configured.misfit():
            text = f"the settings of file and store do not fit together: {misfit}"
            self.events.add(EventKind.FAILED, text)
        stored = await asyncio.to_thread(self._store.load, self.cluster.name)
        self._record, self._version = stored.record, stored.version
        if self._standing:
            self._standing.loaded(self.cluster, stored, self._highest)
        if self._record:
            self._begin_leases(self._record)

    def _begin_leases(self, record: Record) -> None:
        longest = max(record.lease, self.cluster.settings.timing.lease)
        # another manager may have granted leases until it noticed that it leads no more
        leadership = self.place.leadership
        overlap = leadership.alone_from - self.clock.monotonic() if leadership else 0.0
        self._observer.leases.begin(longest + max(0.0, overlap))

    async def _stand(self, standing: Standing, record: Record, view: View) -> bool:
        """Begin a new term: what an older leading manager still orders is void from then on. Returns whether this
        manager may decide by the record that it has."""
        why = standing.waits(self.cluster, view)
        if not why and (why := standing.look(self.cluster, record, view)):
            stored = await asyncio.to_thread(self._store.load, self.cluster.name)
            if stored.version != self._version:
                raise Conflict(self.cluster.name, self._version)  # another manager leads by now
        if why:
            self._observer.leases.stop()
            if standing.refused and why != self._decision.reason:
                self.events.add(EventKind.FAILED, why)
            self._decide_nothing(why)
            return False
        if not standing.begun:
            await self._replace(self._taken_over(record))
            self.events.add(EventKind.LED, f"leading {self.cluster.name} in term {self.term}")
        return True

    async def _step(self, actor: Actor) -> bool:
        """Decide once and begin what was decided; returns whether the record was changed."""
        async with self.deciding:
            return await self._decide(actor)

    async def _decide(self, actor: Actor) -> bool:
        if not self.place.leads:
            raise Unreachable(
                "this manager no longer leads: the store has not confirmed it in time"
            )
        view = self.view()
        self._observer.timing = self.cluster.settings.timing
        if self._standing and self._record:
            if not await self._stand(self._standing, self._record, view):
                return False
            news = regained(self._record, view) or pinned(self._record, view)
            if news is not None:
                await self._replace(news, view)
                return True
        self._observer.leases.allow(self.cluster, self._record, self.place.until)
        if back := given_up(self._record, actor):
            await self.save(back.record, back.why, view)
            return True
        decision = self._decided(self._record, view)
        self._decision_log.decided(self.cluster, self._record, view, self._decision, decision)
        self._decision = decision
        self._estimated(view)
        for listener in self.listeners:
            listener.looked(self.cluster, self._record, view)
        for step in decision.steps:
            match step:
                case Save(record=record, why=why):
                    self._decision_log.saving(self.cluster, self._record, record, view)
                    await self.save(record, why, view)
                    return True
                case Send():
                    actor.send(self.term, step)
                case Call(phase=phase) if self._record is not None:
                    self.hooks.call(phase, self.cluster, self._record, view)
        return False

    def _decided(self, record: Record | None, view: View) -> Decision:
        decision = decide(self.cluster, record, view)
        return invariants.checked(self.cluster, record, view, decision)

    @property
    def term(self) -> int:
        return self._record.term if self._record else bootstrap.TERM

    async def save(self, record: Record, why: str, view: View | None = None) -> None:
        """Replace the record, and log it; call it with ``deciding`` held.

        :param view: by which it was decided; None: by the present one
        :raises Refused: the record breaks a rule of ``core/change/invariants.py``
        """
        before = self._record
        await self._replace(record, view)
        text, how = f"{why} (term {record.term})", level(before, record)
        change = changed(before, record)
        self.events.add(EventKind.DECIDED, text, record.primary, level=how, about=change)
        for listener in self.listeners:
            listener.saved(self.cluster, before, record, why, self.view())

    async def _replace(self, record: Record, view: View | None = None) -> None:
        name, version = self.cluster.name, self._version
        if self._standing is None:
            raise Unreachable(f"this manager does not lead {name} any more")
        record = self._standing.next(record, self._record)
        if why := invariants.broken(self.cluster, self._record, record, view or self.view()):
            text = invariants.refusal(self.cluster, self._record, record, why)
            self.events.add(EventKind.ALARM, text, record.primary)
            raise Refused(text)
        self._version = await asyncio.to_thread(self._store.replace, name, record, version)
        self._record, self._highest = record, max(self._highest, self._version)
        self._standing.begun = True

    def _estimated(self, view: View) -> dict[str, float]:
        """Seconds until each learner has caught up, where that can be estimated."""
        return self._estimates.look(self.cluster, self.record, view, self._agents)

    def _decide_nothing(self, reason: str) -> None:
        if reason != self._decision.reason:
            say(logger, reason, logging.WARNING, cluster=self.cluster.name)
        self._decision = Decision(reason)
