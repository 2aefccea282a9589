"""What operators change in a cluster: its settings, its members, and work on one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from holdfast.clock import Clock
from holdfast.core.cluster import Member
from holdfast.core.commands import Bar, EnsureAccount, Promise
from holdfast.core.decision import Save, Send
from holdfast.core.gtid import Flavor
from holdfast.core.members import destroyed
from holdfast.core.members.identity import identity_of
from holdfast.core.members.rollback import fits
from holdfast.core.rules.seats import may_be_alone
from holdfast.core.view import MemberState, Receiver, View
from holdfast.errors import Conflict, HoldfastError, OutcomeUnknown, Refused
from holdfast.http.guarding import asker
from holdfast.http.wire import AccountReply, Identity, Told
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.leader.desired import MOST_MEMBERS, Changed, prices
from holdfast.manager.leader.events import EventKind
from holdfast.manager.leader.lead import Leader

DEFAULT_PORT = 3306
CONNECT_SECONDS = 2.0
WAITS_SECONDS = 1.0
"""Commits that have waited for so long wait for more than the next acknowledgement."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A future member; fields that are "" or 0 are asked of its agent."""

    name: str
    agent: str
    host: str = ""
    port: int = 0


class People:
    """Operators' requests on one cluster. Every change is checked as a whole, and made or not made."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    def settings(self) -> dict[str, Any]:
        """Every setting, where it comes from, and the version of what the store holds."""
        configured = self._leader.configured
        return {
            "version": configured.version,
            "settings": [asdict(item) for item in configured.items()],
        }

    async def set(
        self, pairs: Mapping[str, Any], unset: Sequence[str], expected: int | None
    ) -> dict[str, Any]:
        """Set and unset, all or nothing; returns what the chosen values give up, too.

        :param expected: the version that the change is based on; None: any version
        :raises BadInput: naming the key; :raises Conflict: another version is there
        """
        leader = self._leader
        leader.refuse_elsewhere()
        async with leader.deciding:
            configured = leader.configured
            if expected is not None and expected != configured.version:
                raise Conflict(leader.cluster.name, expected, "settings")
            changed = configured.with_settings(pairs, unset, _flavor(leader.view()))
            if changed != configured.changed:
                what = [f"{key} = {value}" for key, value in pairs.items()]
                what += [f"{key} as before" for key in unset if key not in pairs]
                await self._save(changed, f"set: {', '.join(what)}")
        notes = prices(pairs)
        record = leader.record
        if record and pairs and not configured.cluster.setting(record.primary).voter:
            notes.append(
                f"members.{record.primary}.voter: {record.primary} is the primary, which always votes; it holds once "
                "another has taken over (holdfast switchover)"
            )
        return {"version": configured.version, "notes": notes}

    def members(self) -> dict[str, Any]:
        return {"members": [asdict(member) for member in self._leader.cluster.members]}

    async def add(self, newcomer: Newcomer) -> dict[str, Any]:
        """Make it a member; the manager then brings it into the cluster by itself.

        :raises Refused: with all that stands against it
        :raises Unreachable: its agent does not answer
        """
        leader = self._leader
        leader.refuse_elsewhere()
        _refuse_mistaken(leader)
        _refuse_known(leader, newcomer.name)
        probe = leader.connect(Member(newcomer.name, "", 0, newcomer.agent))
        try:
            identity, state, account = await _asked(probe)
        finally:
            await probe.close()
        host = newcomer.host or identity.host or urlsplit(newcomer.agent).hostname or ""
        port = newcomer.port or identity.port or DEFAULT_PORT
        member = Member(newcomer.name, host, port, newcomer.agent, account.user)
        _refuse_misfit(leader, member, identity, state)
        if leader.record:
            _refuse_while_commits_wait(leader, member.name)
            made = EnsureAccount(account.user, account.authentication)
            await leader.carry_out(Send(leader.record.primary, made))
        async with leader.deciding:
            _refuse_known(leader, newcomer.name)
            _refuse_misfit(leader, member, identity, state)
            configured = leader.configured
            changed = configured.changed.with_member(configured.given, member)
            await self._save(changed, f"{member.name} ({member.address}) is a member from now on")
        return asdict(member)

    async def remove(self, name: str, is_destroyed: bool = False) -> dict[str, Any]:
        """Remove it, or begin to: a voter loses its vote first. Repeat the request until it is removed.

        :param is_destroyed: its host will never answer again (``core/members/destroyed.py``)
        :raises Refused: it is the primary, or cannot be done without; or the operator says it is destroyed, and it
            lives
        """
        leader = self._leader
        if is_destroyed:
            await _lock_out(leader, name)
        async with leader.deciding:
            leader.leading()  # a record that cannot be trusted does not show which members vote
            _refuse_leaving(leader, name, is_destroyed)
            configured = leader.configured
            if leader.cluster.setting(name).voter:
                changed = configured.with_settings({f"members.{name}.voter": False}, [], None)
                await self._save(changed, f"{name} will be removed, after its vote")
            waiting = _still_counts(leader, name, is_destroyed)
            if waiting:
                return {"removed": False, "waiting": waiting}
            record = leader.record
            if is_destroyed and record and (after := destroyed.forgotten(record, name)) != record:
                await leader.decided(
                    Save(after, f"{name} was destroyed, as {asker()} says: it is forgotten")
                )
            member = leader.cluster.member(name)
            changed = configured.changed.without_member(configured.given, name)
            how = ", its host is destroyed" if is_destroyed else ""
            await self._save(changed, f"{name} is no longer a member{how}")
            term = leader.record.term if leader.record else 0
            told = leader.told(name)
        if is_destroyed:
            back = f"if the host of {name} returns: end its agent and server at once, and remove their data"
            return {"removed": True, "waiting": "", "notes": [back]}
        notes = await _parting(leader.connect(member), name, term, told)
        return {"removed": True, "waiting": "", "notes": notes}

    async def _save(self, changed: Changed, event: str) -> None:
        leader = self._leader
        _refuse_mistaken(leader)
        try:
            await leader.configured.save(changed)
        except (Conflict, OutcomeUnknown):
            # what the store holds counts, whichever manager wrote it
            await leader.configured.load()
            leader.adopt()
            raise
        leader.adopt()
        leader.events.add(EventKind.CONFIGURED, f"{event}, by {asker()}")


async def _asked(agent: AgentClient) -> tuple[Identity, MemberState, AccountReply]:
    identity, reply, account = await asyncio.gather(
        agent.identity(), agent.state(None, 0), agent.account()
    )
    return identity, reply.state, account


def _refuse_known(leader: Leader, name: str) -> None:
    if name in {member.name for member in leader.cluster.members}:
        raise Refused(f"{name} is a member already")


def _refuse_mistaken(leader: Leader) -> None:
    """Refuse while the record cannot be trusted: its repair puts back the settings and members that agents remember."""
    leader.leading()
    if leader.mistaken:
        raise Refused(
            leader.status().reason
        )  # the last decision may be older than what agents said


def _refuse_misfit(leader: Leader, member: Member, identity: Identity, state: MemberState) -> None:
    against = _against(leader, member, identity, state)
    if against:
        raise Refused(f"{member.name} cannot become a member: {'; '.join(against)}")


def _refuse_while_commits_wait(leader: Leader, name: str) -> None:
    """Refuse while no commit succeeds: a server that makes an account then lets in nobody, not even voters, until one
    does."""
    record, view = leader.record, leader.view()
    if record is None or not record.acks:
        return
    primary, lapse = view.state(record.primary), view.lapses.get(record.primary)
    waits = lapse is not None and lapse.seconds >= WAITS_SECONDS
    answering = sum(
        state is not None
        and (state.incarnation, state.silent_seconds) == (incarnation, 0)
        and state.replication.receiver is Receiver.ON
        for name, incarnation in record.target.without(record.primary)
        for state in [view.state(name)]
    )
    if waits or primary is None or primary.silent_seconds or answering < record.acks:
        raise Refused(
            f"{name} cannot become a member now: its account is made on {record.primary}, where no commit comes "
            "through: see holdfast status, and ask again"
        )


def _against(leader: Leader, member: Member, identity: Identity, state: MemberState) -> list[str]:
    cluster, view = leader.cluster, leader.view()
    found = []
    if len(cluster.members) >= MOST_MEMBERS:
        found.append(f"{cluster.name} has {MOST_MEMBERS} members, and no more can be")
    if identity.cluster != cluster.name:
        found.append(f"its agent is of the cluster {identity.cluster}, not {cluster.name}")
    if state.name != member.name:
        found.append(f"the agent at {member.agent} is that of {state.name}")
    flavor = _flavor(view)
    if flavor and state.flavor is not flavor:
        found.append(f"it runs {state.flavor.value}, the cluster {flavor.value}")
    if state.up and state.writable:
        found.append("its server takes writes: set it read-only first")
    if leader.record and not fits(leader.record, state):
        found.append(
            "its agent has obeyed another manager than those of this cluster: end it, remove its state_dir, start it"
        )
    server_id = identity.server_id or state.server_id
    for other in cluster.members:
        if other.agent == member.agent:
            found.append(f"{other.name} has that agent already")
        if other.address == member.address:
            found.append(f"{other.name} has the address {member.address} already")
        if other.account == member.account:
            found.append(f"{other.name} replicates with the account {member.account} already")
        seen = view.state(other.name)
        if state.identity and (
            state.identity == identity_of(leader.record, other.name)
            or (seen and seen.identity == state.identity)
        ):
            found.append(
                f"its agent has the identity of that of {other.name}: its host is a copy; end the agent, remove its "
                "state_dir, and start it"
            )
        if seen and server_id and seen.server_id == server_id:
            found.append(f"its server_id is {server_id}, as that of {other.name}")
    return found


def _refuse_leaving(leader: Leader, name: str, is_destroyed: bool) -> None:
    cluster, record = leader.cluster, leader.record
    found = []
    if record and record.primary == name:
        instead = f"holdfast failover --accept-loss {cluster.name}"
        found.append(f"it is the primary{f': first {instead}' if is_destroyed else ''}")
    elif is_destroyed:
        found += destroyed.signs_of_life(cluster, leader.view(), name)
    if record and record.planned and record.planned.to == name:
        found.append(f"{record.planned} is planned: cancel it with holdfast switchover --cancel")
    voters = {voter for voter, _ in record.target.voters} if record else set()
    alone = may_be_alone(cluster.settings)
    if record and not alone and voters == {record.primary, name}:
        found.append(
            f"it is the last voter beside {record.primary}, which cannot commit without it: add another member "
            "first, or holdfast config set when_alone serve"
        )
    if found:
        raise Refused(f"{name} cannot be removed: {'; '.join(found)}")


async def _lock_out(leader: Leader, name: str) -> None:
    """Have the primary refuse the server of a destroyed host, before the member is forgotten."""
    record = leader.record
    _refuse_leaving(leader, name, True)
    member = leader.cluster.member(name)
    if await _connects(member.host, member.port, leader.clock):
        raise Refused(f"{name} cannot be removed: something takes connections at {member.address}")
    if record is None or record.transition or record.names(name):
        return
    if destroyed.lacks_lock(leader.cluster, record, leader.view(), name):
        await leader.carry_out(Send(record.primary, Bar(leader.cluster.account(name))))


async def _connects(host: str, port: int, clock: Clock) -> bool:
    """Whether something listens there; nothing is sent."""
    try:
        async with clock.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _still_counts(leader: Leader, name: str, is_destroyed: bool) -> str:
    """Why the member cannot be forgotten yet, or \"\"."""
    record = leader.record
    if record is None:
        return ""
    if is_destroyed:
        return destroyed.waits(leader.cluster, record, leader.view(), name)
    if any(name in each.names() for each in record.configurations):
        return "it votes until the change of voters that is under way is done"
    if any(stray.name == name for stray in record.strays):
        return (
            "it had a vote, and does not know yet that this is over: its agent must answer once; if its host is "
            f"gone for good: holdfast member remove {name} --destroyed"
        )
    return ""


async def _parting(agent: AgentClient, name: str, term: int, told: Told) -> list[str]:
    """Stop its receiver: no manager will look after it any more."""
    try:
        reply = await agent.command(term, Promise(), told=told)
        reply.fail(name, term)
    except HoldfastError as error:
        return [f"its server may still follow the primary: {error}"]
    finally:
        await agent.close()
    return []


def _flavor(view: View) -> Flavor | None:
    for name in view.members:
        state = view.state(name)
        if state:
            return state.flavor
    return None
