"""Whether members' accounts would be let in where they may be needed next: tried from their own hosts."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from holdfast.core.check.reaching import Reached
from holdfast.errors import HoldfastError
from holdfast.http.wire import AccountReply
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.leader.lead import Leader


@dataclass(frozen=True, slots=True)
class Tried:
    """:ivar admins: marks of agents' administrative accounts, by member: equal accounts have equal marks"""

    reached: Reached = field(default_factory=dict)
    admins: Mapping[str, str] = field(default_factory=dict)


async def tried(leader: Leader, targets: Collection[str], admins: bool = False) -> Tried:
    """Have each member log in at the servers of ``targets`` with its replication account, all at once.

    Members whose agents do not answer are left out: other findings report them.

    :param admins: compare their administrative accounts, too
    """
    view = leader.view()
    agents = {
        name: agent
        for name, agent in leader.agents.items()
        if (state := view.state(name)) and state.up
    }
    nonce = secrets.token_hex(16) if admins else ""
    wanted = agents if admins else {name: agents[name] for name in targets if name in agents}
    accounts = await _accounts(wanted, nonce)

    async def reach(name: str, to: str) -> tuple[tuple[str, str], str] | None:
        there = leader.cluster.member(to)
        key = accounts[to].public_key if to in accounts else ""
        try:
            reply = await agents[name].reach(
                there.host, there.port, key, leader.term, leader.told(name)
            )
        except HoldfastError:
            return None
        return (name, to), reply.error

    pairs = [(name, to) for to in targets if to in accounts for name in agents if name != to]
    answers = await asyncio.gather(*(reach(name, to) for name, to in pairs))
    marks = {name: reply.admin for name, reply in accounts.items() if reply.admin}
    return Tried(dict(filter(None, answers)), marks)


async def _accounts(agents: Mapping[str, AgentClient], nonce: str) -> dict[str, AccountReply]:
    async def ask(agent: AgentClient) -> AccountReply | None:
        try:
            return await agent.account(nonce)
        except HoldfastError:
            return None

    answers = await asyncio.gather(*(ask(agent) for agent in agents.values()))
    return {name: reply for name, reply in zip(agents, answers, strict=True) if reply is not None}
