"""Takes over a cluster that runs already, when an operator orders it.

The steps in order, each harmless by itself and repeated by the next attempt: equip servers; make accounts on the
primary, and try them from each host; have each replica follow with its own account; save the record. From then on the
cluster is managed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from holdfast.core.change.adopt import (
    AdoptionPlan,
    Refusals,
    diverged,
    first_record,
    known_before,
    plan,
)
from holdfast.core.check.facts import Facts
from holdfast.core.check.together import check
from holdfast.core.commands import EnsureAccount, Equip, Follow, SetAcks
from holdfast.core.decision import Send
from holdfast.errors import DeadlinePassed, OutcomeUnknown, Refused
from holdfast.http.guarding import asker
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.leader.events import EventKind
from holdfast.manager.leader.lead import Leader
from holdfast.manager.people.founding import found as found_cluster
from holdfast.manager.people.founding import prepare

OBSERVED_SECONDS = 10.0
"""How long agents may take to observe servers that have just been equipped."""

ATTACHED_SECONDS = 60.0
"""How long replicas may take to receive the new accounts, and to follow with them."""

LOOK_SECONDS = 0.2

Gather = Callable[[Mapping[str, AgentClient]], Awaitable[tuple[dict[str, Facts], dict[str, str]]]]


@dataclass(frozen=True, slots=True)
class AdoptReply:
    """:ivar against: all that stands against it, in the words of a check; then ``plan`` may be missing
    :ivar done: the cluster is managed from now on
    """

    cluster: str
    plan: AdoptionPlan | None = None
    against: tuple[str, ...] = ()
    done: bool = False


class Adoption:
    """One cluster's adoption."""

    def __init__(self, leader: Leader, gather: Gather) -> None:
        self._leader = leader
        self._gather = gather
        self._one_at_a_time = asyncio.Lock()

    async def run(self, dry_run: bool, primary: str, members: Mapping[str, str]) -> AdoptReply:
        """:raises Refused: not on a dry run: with all that stands against it
        :raises HoldfastError: a step failed; what was done is harmless, and repeated by the next attempt
        """
        leader = self._leader
        leader.refuse_elsewhere()
        if self._one_at_a_time.locked():
            raise Refused(f"{leader.cluster.name} is being adopted already: look at its status")
        async with self._one_at_a_time:
            planned, against = await self._look(members)
            if dry_run:
                return AdoptReply(leader.cluster.name, planned, against)
            if against or planned is None:
                raise Refused(f"{leader.cluster.name} is not adopted: {'; '.join(against)}")
            if primary and primary != planned.primary:
                raise Refused(f"{planned.primary} is primary now, not {primary}: look again")
            # the client may disconnect: a half is finished
            await asyncio.shield(asyncio.create_task(self._carry_out(planned)))
            return AdoptReply(leader.cluster.name, planned, done=True)

    async def _look(
        self, members: Mapping[str, str]
    ) -> tuple[AdoptionPlan | None, tuple[str, ...]]:
        leader = self._leader
        if leader.record is not None:
            primary = leader.record.primary
            return None, (f"{leader.cluster.name} is managed already: {primary} is its primary",)
        configured = {member.name: member.agent for member in leader.cluster.members}
        if members and dict(members) != configured:
            has = ", ".join(f"{name}={url}" for name, url in configured.items())
            return None, (
                f"the manager's file has other members ({has}): name the same members in both",
            )
        found, silent = await self._gather(leader.agents)
        against = [f"{name}: {why}" for name, why in silent.items()]
        report = check(leader.cluster.name, tuple(found.values()), {}, adopting=True)
        against += report.wrong()
        planned = plan(leader.cluster, found)
        if isinstance(planned, Refusals):
            return None, (*against, *planned.reasons)
        if before := known_before(leader.cluster, leader.view()):
            against += before.reasons
        return planned, tuple(against)

    async def _carry_out(self, planned: AdoptionPlan) -> None:
        leader = self._leader
        cluster, primary = leader.cluster, planned.primary
        leader.events.add(
            EventKind.ORDERED, f"{cluster.name} is being adopted, by {asker()}", primary
        )
        await asyncio.gather(
            *(prepare(leader, Send(member.name, Equip())) for member in cluster.members)
        )
        await self._until_observed()
        if errant := diverged(cluster, leader.view(), primary):
            raise Refused(f"{cluster.name} is not adopted: {'; '.join(errant)}")
        for agent in list(leader.agents.values()):
            account = await agent.account()
            step = EnsureAccount(account.user, account.authentication)
            await prepare(leader, Send(primary, step))
        await self._try(planned)
        head = leader.view().state(primary)
        if head is not None and head.semi_sync.source:
            # replicas stop acknowledging when they are repointed: until they vote, no commit waits for them
            await prepare(leader, Send(primary, SetAcks(0)))
        source = cluster.member(primary)
        for name in planned.replicas:
            await self._repoint(name, Follow(primary, source.host, source.port, semi_sync=False))
        await self._found(primary)

    async def _try(self, planned: AdoptionPlan) -> None:
        """Try the accounts first: a replica that was ordered to follow a wrong address would follow no server any more.

        :raises Refused: with all that stands against it
        """
        leader = self._leader
        source = leader.cluster.member(planned.primary)
        against = []
        key = (await leader.agents[planned.primary].account()).public_key
        for name in planned.replicas:
            there = await leader.agents[name].reach(source.host, source.port, key)
            if there.error:
                against.append(f"from the host of {name}, {there.error}")
            elif (there.server_id, there.uuid) != (planned.server_id, planned.uuid):
                against.append(
                    f"from the host of {name}, {source.address} is another server (server_id "
                    f"{there.server_id} {there.uuid})"
                )
        if against:
            raise Refused(f"{leader.cluster.name} is not adopted: {'; '.join(against)}")

    async def _until_observed(self) -> None:
        """Wait: a MySQL server is observed as up only when semi-sync is loaded."""
        end = self._leader.clock.monotonic() + OBSERVED_SECONDS
        while True:
            view = self._leader.view()
            names = [member.name for member in self._leader.cluster.members]
            late = [name for name in names if not ((state := view.state(name)) and state.up)]
            if not late:
                return
            if self._leader.clock.monotonic() > end:
                raise DeadlinePassed(f"waiting for {', '.join(late)} to be seen", OBSERVED_SECONDS)
            await self._leader.clock.pause(LOOK_SECONDS)

    async def _repoint(self, name: str, step: Follow) -> None:
        """Repoint one replica after the other, so that the other replicas have what the primary commits meanwhile.

        A replica that is behind applies what it has received first.
        """
        end = self._leader.clock.monotonic() + ATTACHED_SECONDS
        while True:
            try:
                return await prepare(self._leader, Send(name, step))
            except OutcomeUnknown:
                if self._leader.clock.monotonic() > end:
                    raise

    async def _found(self, primary: str) -> None:
        leader = self._leader
        end = self._leader.clock.monotonic() + ATTACHED_SECONDS
        why = f"{leader.cluster.name} is adopted with {primary} as primary"
        while True:
            async with leader.deciding:
                record = first_record(leader.cluster, leader.view(), primary)
                if not isinstance(record, Refusals):
                    return await found_cluster(leader, record, why)
            if self._leader.clock.monotonic() > end:
                raise OutcomeUnknown(
                    f"replicas follow {primary} with their own accounts now, but the cluster is not adopted yet: "
                    f"{'; '.join(record.reasons)}; fix that, and adopt again"
                )
            await self._leader.clock.pause(LOOK_SECONDS)
