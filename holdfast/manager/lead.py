"""Leads one cluster: a term of its own, then decide, act, and decide again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

from holdfast.core import bootstrap
from holdfast.core.cluster import Cluster
from holdfast.core.decide import decide
from holdfast.core.decision import Decision, Save, Send
from holdfast.core.record import Record
from holdfast.core.status import Status, status
from holdfast.core.view import ServerStatus
from holdfast.errors import Conflict, HoldfastError
from holdfast.log import say
from holdfast.manager.act import Actor
from holdfast.manager.client import AgentClient
from holdfast.manager.events import EventKind, EventLog
from holdfast.manager.observe import Observer
from holdfast.store.base import Store

LOOK_AGAIN_SECONDS = 0.2
"""Time itself may change a decision (patience, pauses), so one is made at least this often."""
ASK_AGAIN_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Leader:
    """One cluster in this manager.

    Nothing is kept here that the next manager would need: the record is in the store, the rest is seen anew.
    """

    def __init__(self, cluster: Cluster, agents: dict[str, AgentClient], store: Store) -> None:
        self.cluster = cluster
        self.events = EventLog(cluster.name)
        self._agents = agents
        self._store = store
        self._observer = Observer(agents)
        self._record: Record | None = None
        self._version = 0
        self._leading = False
        self._decision = Decision(f"this manager does not lead {cluster.name} yet")

    def status(self) -> Status:
        """Decided anew, so that what it says of the whole fits what it says of the members."""
        view = self._observer.view()
        decision = decide(self.cluster, self._record, view) if self._leading else self._decision
        return status(self.cluster, self._record, view, decision)

    async def run(self) -> None:
        """Observe, and lead whenever no other manager does, until cancelled."""
        watching = asyncio.create_task(self._observer.run())
        try:
            while True:
                with self._store.lead(self.cluster.name) as mine:
                    if mine:
                        await self._lead()
                    else:
                        self._decide_nothing("another manager leads it")
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            for agent in self._agents.values():
                await agent.close()

    async def _lead(self) -> None:
        """Lead until the store says that another manager does, or fails."""
        actor = Actor(self._agents, self._observer, self.events)
        try:
            await self._begin()
            self._leading = True
            while True:
                self._observer.changed.clear()
                if not await self._step(actor):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                            await self._observer.changed.wait()
        except Conflict:
            self._decide_nothing("another manager has changed the record")
        except HoldfastError as error:
            self._decide_nothing(str(error))
        finally:
            self._leading = False
            await actor.close()

    async def _begin(self) -> None:
        """A new leading manager, a new term: what an older one still asks for is void from now on."""
        stored = await asyncio.to_thread(self._store.load, self.cluster.name)
        self._record, self._version = stored.record, stored.version
        if self._record:
            await self._save(replace(self._record, term=self._record.term + 1))
            self.events.add(EventKind.LED, f"leading {self.cluster.name} in term {self._term}")

    async def _step(self, actor: Actor) -> bool:
        """Decide once and begin what was decided; whether the record was changed."""
        decision = decide(self.cluster, self._record, self._observer.view())
        self._note(decision)
        for step in decision.steps:
            match step:
                case Save(record=record, why=why):
                    self._detected(record)
                    await self._save(record)
                    self.events.add(
                        EventKind.DECIDED, f"{why} (term {record.term})", record.primary
                    )
                    return True
                case Send():
                    actor.send(self._term, step)
        return False

    @property
    def _term(self) -> int:
        return self._record.term if self._record else bootstrap.TERM

    async def _save(self, record: Record) -> None:
        name, version = self.cluster.name, self._version
        self._version = await asyncio.to_thread(self._store.replace, name, record, version)
        self._record = record

    def _detected(self, record: Record) -> None:
        """Tell of the primary's death when the first step against it is taken."""
        before = self._record
        if before is None or before.transition or not record.transition:
            return
        state = self._observer.view().state(before.primary)
        if state and state.server is ServerStatus.DOWN:
            text = f"the server of {before.primary}, the primary, is gone"
            self.events.add(EventKind.DETECTED, text, before.primary)

    def _note(self, decision: Decision) -> None:
        if decision.well and not self._decision.well:
            self.events.add(EventKind.WHOLE, decision.reason)
        elif decision.reason != self._decision.reason and not decision.steps:
            say(logger, decision.reason, cluster=self.cluster.name)
        self._decision = decision

    def _decide_nothing(self, reason: str) -> None:
        if reason != self._decision.reason:
            say(logger, reason, logging.WARNING, cluster=self.cluster.name)
        self._decision = Decision(reason)
