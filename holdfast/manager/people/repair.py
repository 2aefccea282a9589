"""Rebuilds the record of a store that was lost, or restored from a backup, from what the agents remember."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from holdfast.core.cluster import Member
from holdfast.core.decision import Save
from holdfast.core.members.rollback import Rebuilt, Remembered, rebuilt
from holdfast.core.observed.lineage import Memory, memory
from holdfast.core.view import Seen
from holdfast.errors import HoldfastError, Refused
from holdfast.http.guarding import asker
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.leader.events import EventKind
from holdfast.manager.leader.lead import Leader


@dataclass(frozen=True, slots=True)
class RepairReply:
    """:ivar source: the member whose memory it is; "" where the store's own record is the newest
    :ivar doubts: what is not known; empty: it is proved that this is the newest record that had an effect
    :ivar done: it is in the store from now on
    :ivar needless: why nothing is to be repaired, or \"\"
    """

    cluster: str
    term: int
    primary: str
    source: str
    doubts: tuple[str, ...] = ()
    done: bool = False
    needless: str = ""


class StoreRepair:
    """One cluster's store."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    async def run(self, dry_run: bool, accept_loss: bool, source: str) -> RepairReply:
        """Rebuild record and settings, or (``dry_run``) only say what would be done.

        :param accept_loss: also where it is not proved that this is the newest record
        :param source: whose memory to use; "": the newest
        :raises Refused: with all that is not known; nothing was changed
        """
        leader = self._leader
        leader.refuse_elsewhere()
        async with leader.deciding:
            if not leader.mistaken:
                return _needless(leader, dry_run)
            found = await self._rebuilt(source)
            if isinstance(found, str):
                raise Refused(f"{leader.cluster.name} cannot be repaired: {found}")
            if not dry_run:
                if found.doubts and not accept_loss:
                    raise Refused(_asked(leader.cluster.name, found))
                await self._restore(found)
            # the term in which this manager continues: the remembered one was another leadership's
            kept = leader.record
            term = kept.term if kept and not dry_run else found.memory.record.term + 1
        record = found.memory.record
        return RepairReply(
            leader.cluster.name,
            term,
            record.primary,
            found.source,
            found.doubts,
            not dry_run,
        )

    async def _rebuilt(self, source: str) -> Rebuilt | str:
        leader = self._leader
        heard, silent = await _asked_all(dict(leader.agents))
        known = {name: url for each in heard.values() for name, url in _agents(each).items()}
        others = {name: url for name, url in known.items() if name not in leader.agents and url}
        if others:  # the settings are older, too: these members came later
            clients = {
                name: leader.connect(Member(name, "", 0, url)) for name, url in others.items()
            }
            more, missing = await _asked_all(clients)
            await asyncio.gather(*(each.close() for each in clients.values()))
            heard, silent = heard | more, silent | missing
        stored = Memory(leader.record) if leader.record else None
        return rebuilt(leader.cluster, stored, heard, silent, source)

    async def _restore(self, found: Rebuilt) -> None:
        leader, best = self._leader, found.memory
        if found.source and best.version:
            await leader.configured.restore(best.settings)
            leader.adopt()
        why = f"the record is rebuilt from what {found.source or 'the store'} remembers"
        if found.doubts:
            why += f"; an operator accepted the risk: {'; '.join(found.doubts)}"
        await leader.restore(best.record, f"{why}, by {asker()}")


def _needless(leader: Leader, dry_run: bool) -> RepairReply:
    """:raises Refused: a repair was requested"""
    name, record = leader.cluster.name, leader.record
    why = f"the record of {name} agrees with what its agents obeyed: there is nothing to repair"
    if not dry_run or record is None:
        raise Refused(why)
    return RepairReply(name, record.term, record.primary, "", needless=why)


async def _asked_all(
    agents: Mapping[str, AgentClient],
) -> tuple[dict[str, Remembered], dict[str, str]]:
    """What each agent remembers, and why the others did not answer."""
    names = list(agents)
    answers = await asyncio.gather(*(_asked_one(agents[name]) for name in names))
    heard: dict[str, Remembered] = {}
    silent: dict[str, str] = {}
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, str):
            silent[name] = answer
        else:
            heard[name] = answer
    return heard, silent


async def _asked_one(agent: AgentClient) -> Remembered | str:
    try:
        reply = await agent.record()
    except HoldfastError as error:
        return str(error)
    found = Remembered(reply.term, reply.identity, reply.mark)
    try:
        return replace(found, memory=memory(reply.record)) if reply.record else found
    except ValueError as error:
        return f"what it remembers cannot be read: {error}"


def _agents(said: Remembered) -> Mapping[str, str]:
    return said.memory.agents if said.memory else {}


def _asked(cluster: str, found: Rebuilt) -> str:
    record = found.memory.record
    return (
        f"{cluster} is not repaired: {'; '.join(found.doubts)}. Have the missing agents answer. Where they "
        f"never will, make sure that the servers of these members are down, and take the risk with --accept-loss "
        f"{cluster}: {record.primary} is then taken for the primary, and what was acknowledged by a later record may "
        "be lost"
    )


async def confirm(leader: Leader, name: str) -> str:
    """Accept the agent that now answers for that member as its agent, whatever it has obeyed before.

    :raises Refused: it is known as another member's, or nothing answers
    """
    leader.refuse_elsewhere()
    async with leader.deciding:
        _, record = leader.leading()
        if record is None:
            raise Refused(
                f"{leader.cluster.name} has no record yet: every agent is accepted as it is"
            )
        sighting = leader.answering(name)
        if not isinstance(sighting, Seen) or not sighting.state.identity:
            raise Refused(f"no agent with an identity answers for {name} now")
        found = sighting.state.identity
        others = {who: known for who, known in record.identities if who != name}
        for who, known in others.items():
            if known == found:
                raise Refused(
                    f"the agents of {name} and {who} have the same identity: one of the hosts is a copy of the other; "
                    "end the copy's agent, remove its state_dir, and start it"
                )
        told = f"the agent that answers for {name} is {name}'s from now on, by {asker()}"
        pinned = frozenset({*others.items(), (name, found)})
        forsaken = record.forsaken | {name}
        changed = replace(record, identities=pinned, forsaken=forsaken)
        leader.events.add(EventKind.CONFIGURED, told, name)
        await leader.decided(Save(changed, told))
    return told
