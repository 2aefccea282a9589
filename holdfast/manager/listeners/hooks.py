"""Calls the hooks of one cluster while this manager leads it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.config.hooks import HooksConfig, environment
from holdfast.core.calls import Called, HookOutcome, Phase, Ran
from holdfast.core.cluster import Cluster
from holdfast.core.record import Record
from holdfast.core.rules.attachment import attached
from holdfast.core.transition import Switchover, TransitionKind
from holdfast.core.view import Seen, View
from holdfast.endpoint import contract
from holdfast.endpoint.contract import HookLogin, PrimaryChange
from holdfast.endpoint.hooks import Execution, Hook
from holdfast.log import say
from holdfast.manager.leader.events import EventKind, EventLog
from holdfast.manager.listeners.addresses import Addresses

PROCEED = 10
"""MHA's exit code for: it did not work, continue."""

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 60.0
"""Seconds after which a hook that failed is called again; twice as many each time."""

KEPT_RUNS = 10

logger = logging.getLogger(__name__)


def configured(config: HooksConfig, key: str) -> dict[str, Hook]:
    """:raises BadInput: the environment file cannot be read"""
    file = config.environment_file
    further = environment(file, f"{key}.environment_file") if file else {}
    return {
        name: Hook(
            name, argv, config.report_timeout if name == "report" else config.timeout, further
        )
        for name, argv in config.executables.items()
    }


def verdict(ran: Ran) -> tuple[HookOutcome, str]:
    """What a run means, and the text to report of it."""
    if ran.code == 0:
        return HookOutcome.GOOD, ""
    what = f"{ran.hook} --command={ran.command}"
    said = f": {lines[-1].strip()}" if (lines := ran.output.strip().splitlines()) else ""
    if ran.code == PROCEED:
        return HookOutcome.GOOD, f"{what} warns (exit {PROCEED}){said[:300]}"
    return HookOutcome.BAD, f"{what}: {ran.trouble or f'exit {ran.code}'}{said[:300]}"


@dataclass(slots=True)
class _Call:
    """A call that is under way.

    :ivar executions: those that were begun; the last one may run
    :ivar complete: all have ended, and none of them badly
    """

    phase: Phase
    term: int
    executions: list[Execution]
    ended: bool = False
    complete: bool = False

    def end(self) -> None:
        self.ended = True
        for execution in self.executions[-1:]:
            execution.kill()


class Hooks:
    """Implements ``listening.Caller``. One call at a time: a new call ends what still runs of the former.

    :ivar hooked: there are any that are called on the way
    """

    def __init__(
        self,
        hooks: Mapping[str, Hook],
        login: HookLogin,
        addresses: Addresses,
        events: EventLog,
        look_again: Callable[[], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """:param look_again: is called in the event loop when a call has ended"""
        self._clock = clock
        self._hooks = {name: hook for name, hook in hooks.items() if name != "report"}
        self._login = login
        self._addresses = addresses
        self._events = events
        self._look_again = look_again
        self._called: dict[Phase, Called] = {}
        self._due: dict[Phase, float] = {}
        self._pauses: dict[Phase, float] = {}
        self._call: _Call | None = None

    @property
    def hooked(self) -> bool:
        return bool(self._hooks)

    @property
    def called(self) -> Mapping[Phase, Called]:
        return self._called

    def call(self, phase: Phase, cluster: Cluster, record: Record, view: View) -> None:
        last = self._called.get(phase)
        again = last if last and last.term == record.term else None
        if again and (
            again.outcome is not HookOutcome.BAD or self._clock.monotonic() < self._due[phase]
        ):
            return
        if again is None:
            self._pauses[phase] = FIRST_PAUSE
        change = described(phase, cluster, record, view, self._addresses)
        names = [name for name in contract.hooks_of(phase, change) if name in self._hooks]
        if not names:
            self._set(phase, Called(record.term, HookOutcome.GOOD))
            self._look_again()
            return
        if self._call:
            self._call.end()
        before = (again.text, again.ran) if again else ("", ())
        self._set(phase, Called(record.term, HookOutcome.RUNNING, *before))
        self._call = _Call(phase, record.term, [])
        self._begin(self._call, change, [self._hooks[name] for name in names])

    def stop(self) -> None:
        """End the running call: another manager calls it anew, and two calls would disturb each other."""
        if self._call:
            self._call.end()

    def _begin(self, call: _Call, change: PrimaryChange, hooks: Sequence[Hook]) -> None:
        loop = asyncio.get_running_loop()
        asked = contract.command(call.phase, change)
        event = contract.document(asked, change, self._clock.now())
        login = self._login

        def run() -> None:
            ran: list[Ran] = []
            try:
                for hook in hooks:
                    execution = Execution(hook)
                    call.executions.append(execution)
                    if call.ended:
                        break
                    arguments = contract.arguments(hook.name, asked, change, login)
                    ran.append(execution.run(asked, arguments, event))
                    if verdict(ran[-1])[0] is HookOutcome.BAD:
                        break
                else:
                    call.complete = True
            finally:
                if not loop.is_closed():  # else nothing waits for it
                    loop.call_soon_threadsafe(self._ended, call, tuple(ran))

        # not a thread of the pool: those save the record
        threading.Thread(target=run, name=f"hook {call.phase}", daemon=True).start()

    def _ended(self, call: _Call, ran: tuple[Ran, ...]) -> None:
        if call is not self._call or call.ended:
            return
        self._call = None
        phase, before = call.phase, self._called[call.phase]
        verdicts = [verdict(each) for each in ran]
        text = "; ".join(text for _, text in verdicts if text)
        for each in ran:
            self._tell(each)
        if not call.complete:
            text = text or "it could not be run: see the manager's log"
            pause = self._pauses[phase]
            self._due[phase] = self._clock.monotonic() + pause
            self._pauses[phase] = min(pause * 2, LONGEST_PAUSE)
        outcome = HookOutcome.GOOD if call.complete else HookOutcome.BAD
        kept = (*before.ran, *ran)[-KEPT_RUNS:]
        self._set(phase, Called(call.term, outcome, text, kept))
        self._look_again()

    def _tell(self, ran: Ran) -> None:
        outcome, text = verdict(ran)
        kind = EventKind.FAILED if outcome is HookOutcome.BAD else EventKind.HOOK
        what = text or f"{ran.hook} --command={ran.command}: exit {ran.code}"
        self._events.add(kind, f"hook {what}", ms=ran.seconds * 1000)
        if ran.output:
            say(logger, f"hook {ran.hook} printed: {ran.output}", hook=ran.hook)

    def _set(self, phase: Phase, called: Called) -> None:
        """Replace the mapping: readers may still use the old one."""
        self._called = {**self._called, phase: called}


def described(
    phase: Phase, cluster: Cluster, record: Record, view: View, addresses: Addresses
) -> PrimaryChange:
    """The change of primary for which a hook is called."""
    owed = record.owed
    primary = addresses.place(cluster.member(record.primary))
    if phase is Phase.START:
        before = cluster.member(_known(cluster, owed.before if owed else "", record.primary))
        return PrimaryChange(
            cluster.name,
            owed.kind if owed else TransitionKind.FAILOVER,
            record.term,
            old=addresses.place(before),
            new=primary,
            reachable=isinstance(view.members.get(before.name), Seen),
            replicas=replicas(cluster, record, view, addresses),
        )
    switchover = isinstance(record.transition, Switchover)
    wish = _known(cluster, record.wish, "")
    return PrimaryChange(
        cluster.name,
        TransitionKind.SWITCHOVER if switchover else TransitionKind.FAILOVER,
        record.term,
        old=primary,
        new=addresses.place(cluster.member(wish)) if switchover and wish else None,
        reachable=isinstance(view.members.get(record.primary), Seen),
    )


def replicas(
    cluster: Cluster, record: Record, view: View, addresses: Addresses
) -> tuple[contract.MemberPlace, ...]:
    return tuple(
        addresses.place(member)
        for member in cluster.others(record.primary)
        if (state := view.state(member.name)) and state.up and attached(cluster, record, state)
    )


def _known(cluster: Cluster, name: str, otherwise: str) -> str:
    """The name if it is still a member's, else ``otherwise``."""
    return name if any(member.name == name for member in cluster.members) else otherwise
