"""Has commands carried out: one at a time for each member, and a failing one at growing intervals."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.answers.status import FailedCommand
from holdfast.core.change import switchover
from holdfast.core.commands import Command, Freeze, Restart, name_of
from holdfast.core.decision import Save, Send
from holdfast.core.record import Record
from holdfast.core.transition import RestartInPlace, Step, Switchover
from holdfast.errors import HoldfastError, OutcomeUnknown, Refused
from holdfast.http.wire import CommandReply, Told, command_name
from holdfast.manager.agents.agent_client import AgentClient
from holdfast.manager.agents.observe import AgentObserver
from holdfast.manager.leader.events import AskedCommand, EventKind, EventLog

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds before the same command is sent again: doubled each time it is wanted again within FORGET."""
AT_ONCE = 3
LONGEST_PAUSE_OF_ANOTHER = 1.0
"""A different command of the same kind is sent at once, as it may repair the cluster; unless AT_ONCE have failed in
turn: two commands that are refused alternately would otherwise follow each other without a pause."""
STILL_ASKED = LONGEST_PAUSE + 2.0
"""A command that failed so long ago, and was not sent again, is no longer wanted."""
FORGET = 15.0


@dataclass(slots=True)
class _Last:
    term: int
    command: Command
    ended: float = 0.0
    times: int = 1
    told: str = ""
    refused: str = ""
    failed: str = ""


class Actor:
    """Sends what was decided. Deciding again while a command is under way sends nothing twice."""

    def __init__(
        self,
        agents: dict[str, AgentClient],
        observer: AgentObserver,
        events: EventLog,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._clock = clock
        self._agents = agents
        self._observer = observer
        self._events = events
        self._under_way: dict[str, tuple[int, Command, asyncio.Task[Any]]] = {}
        self._last: dict[tuple[str, type[Command]], _Last] = {}

    def send(self, term: int, step: Send) -> None:
        """Send the command, unless the member is busy with a command of this term, or it was sent just now."""
        busy = self._under_way.get(step.member)
        if (busy and busy[0] >= term) or step.member not in self._agents:
            return
        if not self._due(term, step):
            return
        # the record of this decision: another may be saved before the task begins
        told = self._observer.told(step.member)
        task = asyncio.create_task(self._carry_out(term, step, told))
        self._under_way[step.member] = (term, step.command, task)

    async def order(self, term: int, step: Send) -> CommandReply:
        """Carry out an operator's order, after what is under way, and return the result.

        :raises HoldfastError: by consequence
        """
        while busy := self._under_way.get(step.member):
            await asyncio.wait([busy[2]])
        begun = self._clock.monotonic()
        task = asyncio.create_task(self._ordered(term, step))
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._under_way[step.member] = (term, step.command, task)
        name = command_name(step.command)
        what = f"{step.member}: {name}, as ordered"
        try:
            # the client may disconnect: the member is busy with the command until it has ended
            reply = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise OutcomeUnknown(f"{what}: called off; look at the status") from None
            raise
        reply.fail(step.member, term)
        took = (self._clock.monotonic() - begun) * 1000
        asked = AskedCommand(name, ordered=True, steps=reply.steps)
        self._events.add(EventKind.COMMAND, what, step.member, took, about=asked)
        return reply

    async def _ordered(self, term: int, step: Send) -> CommandReply:
        try:
            reply = await self._command(term, step, self._observer.told(step.member))
            self._observer.accept(reply.state, reply.version)
            return reply
        finally:
            self._over(step.member)

    async def _command(self, term: int, step: Send, told: Told) -> CommandReply:
        grant = self._observer.leases.grant(step.member)
        return await self._agents[step.member].command(term, step.command, grant, told)

    def _over(self, member: str) -> None:
        """The task for ``member`` has ended."""
        if self._under_way.get(member, (0, None, None))[2] is asyncio.current_task():
            del self._under_way[member]
        self._observer.changed.set()

    def refusal(self, member: str, kind: type[Command]) -> str:
        """Why the last command of that kind was refused there, or ""."""
        last = self._last.get((member, kind))
        return last.refused if last else ""

    def failures(self, term: int) -> dict[str, list[FailedCommand]]:
        """By member: why its last command of this term was refused, or failed, for each kind that is still wanted."""
        now = self._clock.monotonic()
        found: dict[str, list[FailedCommand]] = {}
        for (member, kind), last in self._last.items():
            asked_lately = now - last.ended < STILL_ASKED
            if last.term == term and last.failed and asked_lately:
                found.setdefault(member, []).append(FailedCommand(name_of(kind), last.failed))
        return found

    def forgive(self, member: str, kind: type[Command]) -> None:
        """Forget the results of commands of that kind there."""
        self._last.pop((member, kind), None)

    def forget(self, member: str) -> None:
        """The member was removed: what is under way there is cancelled."""
        _, _, task = self._under_way.pop(member, (0, None, None))
        if task is not None:
            task.cancel()

    def _due(self, term: int, step: Send) -> bool:
        key = (step.member, type(step.command))
        last = self._last.get(key)
        now = self._clock.monotonic()
        if last is None or last.term != term or now - last.ended > FORGET:
            self._last[key] = _Last(term, step.command)
            return True
        another = last.command != step.command
        if another and not last.told:
            last.command, last.times = step.command, 1
            return True
        longest = LONGEST_PAUSE_OF_ANOTHER if another else LONGEST_PAUSE
        at_once = another and last.times < AT_ONCE
        pause = min(longest, FIRST_PAUSE * 2 ** (last.times - 1))
        if not at_once and now - last.ended < pause:
            return False
        last.command, last.times = step.command, last.times + 1
        return True

    async def _carry_out(self, term: int, step: Send, told: Told) -> None:
        begun = self._clock.monotonic()
        name = command_name(step.command)
        try:
            reply = await self._command(term, step, told)
            self._observer.accept(reply.state, reply.version)
            reply.fail(step.member, term)
            self._told(step, "")
            self._last[step.member, type(step.command)].failed = ""
            self._events.add(
                EventKind.COMMAND,
                f"{step.member}: {name}",
                step.member,
                (self._clock.monotonic() - begun) * 1000,
                about=AskedCommand(name, steps=reply.steps),
            )
        except HoldfastError as error:
            text = f"{step.member}: {name} failed: {error}"
            self._last[step.member, type(step.command)].failed = error.own
            if isinstance(error, Refused):
                self._last[step.member, type(step.command)].refused = str(error)
            if self._told(step, text):
                took = (self._clock.monotonic() - begun) * 1000
                asked = AskedCommand(name)
                self._events.add(EventKind.FAILED, text, step.member, took, about=asked)
        finally:
            self._last[step.member, type(step.command)].ended = self._clock.monotonic()
            self._over(step.member)

    def _told(self, step: Send, text: str) -> bool:
        """Whether the outcome differs from the last one of that command: the same failure is logged once."""
        last = self._last[step.member, type(step.command)]
        if last.told == text:
            return False
        last.told = text
        return True

    async def close(self) -> None:
        tasks = [task for _, _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def given_up(record: Record | None, actor: Actor) -> Save | None:
    """If the primary refuses to be restarted, or to stop taking writes, it continues as before: returns that record."""
    if record is None:
        return None
    match record.transition:
        case RestartInPlace(step=Step.CLOSE) if refusal := actor.refusal(record.primary, Restart):
            why = f"{record.primary} stays primary: {refusal}"
            return Save(replace(record, transition=None), why)
        case Switchover(step=Step.FREEZE) if refusal := actor.refusal(record.primary, Freeze):
            return switchover.undone(record, refusal)
        case _:
            return None
