"""Reports every change of primary, and what prevents one, to the report hook and the webhooks."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

from holdfast.core.calls import HookOutcome, Phase, Ran
from holdfast.core.cluster import Cluster
from holdfast.core.record import Record
from holdfast.core.transition import Failover, Step, Switchover, TransitionKind
from holdfast.core.view import Seen, View
from holdfast.endpoint import contract
from holdfast.endpoint.contract import PrimaryChange
from holdfast.endpoint.hooks import Execution, Hook
from holdfast.endpoint.webhook import WebhookSender
from holdfast.manager.leader.events import EventKind, EventLog
from holdfast.manager.listeners.addresses import Addresses
from holdfast.manager.listeners.hooks import described, replicas, verdict

MOST_WAITING = 100
"""Undelivered reports per target; beyond them, the newest is dropped."""


class Result(StrEnum):
    """DONE: another primary takes writes. GIVEN_UP: no new primary was named, the former one continues or must come
    back. HELD_UP: the stop hook failed. START_FAILED: the primary takes writes, and the start hook failed."""

    DONE = "done"
    GIVEN_UP = "given_up"
    HELD_UP = "held_up"
    START_FAILED = "start_failed"


@dataclass(frozen=True, slots=True)
class ChangeReport:
    """:ivar number: identifies the report, also when it is sent again"""

    number: str
    result: Result
    change: PrimaryChange
    ran: tuple[Ran, ...]
    at: float

    @property
    def subject(self) -> str:
        """The subject of a report, as MHA words it."""
        change = self.change
        to = f" to {_info(change.new)}" if change.new and change.new != change.old else ""
        ending = "succeeded" if self.result is Result.DONE else self.result.replace("_", " ")
        return f"{change.cluster}: MySQL Master {change.kind} {_info(change.old)}{to} {ending}"

    @property
    def body(self) -> str:
        lines = [f"{self.change.reason}.", ""]
        lines += [f"{place.host}: replicates from it." for place in self.change.replicas]
        for ran in self.ran:
            outcome, text = verdict(ran)
            lines.append(text or f"{ran.hook} --command={ran.command}: {outcome}")
        return "\n".join(lines) + "\n"

    def document(self, ran: Sequence[Ran]) -> bytes:
        told = {"id": self.number, "result": self.result.value, "subject": self.subject}
        return contract.document("report", self.change, self.at, ran, **told)


class ReportTarget:
    """A receiver of reports: one report after the other, sent by a separate thread that begins with the first."""

    def __init__(self, tell: Callable[[ChangeReport], None]) -> None:
        self._tell = tell
        self._waiting: queue.Queue[ChangeReport | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def put(self, report: ChangeReport) -> bool:
        """Whether the report was accepted; never blocks."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="report", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(report)
        except queue.Full:
            return False
        return True

    def _run(self) -> None:
        while report := self._waiting.get():
            self._tell(report)


class Reporter:
    """Implements ``listening.Listener``. What was not delivered when this manager ends is given up. What was not begun,
    because the manager ended in the middle of a change, the next manager reports."""

    def __init__(
        self,
        addresses: Addresses,
        events: EventLog,
        hook: Hook | None,
        senders: Sequence[WebhookSender],
        ended: threading.Event,
    ) -> None:
        """:param ended: is set when this manager ends; the senders check it"""
        self._addresses = addresses
        self._events = events
        self._loop: asyncio.AbstractEventLoop | None = None
        self._change: PrimaryChange | None = None
        self._told: set[tuple[Phase, int]] = set()
        self._ended = ended
        self._targets = [ReportTarget(partial(self._send, sender)) for sender in senders]
        if hook is not None:
            self._targets.append(ReportTarget(partial(self._run, hook)))

    def looked(self, cluster: Cluster, record: Record | None, view: View) -> None:
        self._addresses.prepare(cluster)
        if record is None:
            return
        for phase, called in view.called.items():
            once = (phase, record.term)
            bad = called.outcome is HookOutcome.BAD and called.term == record.term
            if bad and once not in self._told:
                self._told = {once}
                result = Result.HELD_UP if phase is Phase.STOP else Result.START_FAILED
                change = described(phase, cluster, record, view, self._addresses)
                self._report(result, replace(change, reason=called.text), view, record.term)
        if self._change and _over(record, view):
            found = replicas(cluster, record, view, self._addresses)
            change = replace(self._change, term=record.term, replicas=found)
            self._change = None
            self._report(Result.DONE, change, view, record.term)

    def saved(
        self, cluster: Cluster, before: Record | None, record: Record, why: str, view: View
    ) -> None:
        if before is None:
            return
        was, now = before.transition, record.transition
        if before.primary != record.primary:
            self._change = self._described(cluster, before.primary, record, view, why)
        elif self._change is None and isinstance(was, Failover | Switchover):
            if was.step is Step.OPEN and now is None and was.deposed not in ("", record.primary):
                # another manager named it
                self._change = self._described(cluster, was.deposed, record, view, why, was.kind)
            elif was.step is not Step.OPEN and not isinstance(now, Failover | Switchover):
                change = self._described(cluster, record.primary, record, view, why, was.kind)
                self._report(Result.GIVEN_UP, change, view, before.term)

    async def close(self) -> None:
        self._ended.set()

    def _described(
        self,
        cluster: Cluster,
        before: str,
        record: Record,
        view: View,
        why: str,
        kind: TransitionKind | None = None,
    ) -> PrimaryChange:
        members = {member.name: member for member in cluster.members}
        new = members[record.primary]
        if kind is None:
            kind = record.transition.kind if record.transition else TransitionKind.FAILOVER
        return PrimaryChange(
            cluster.name,
            kind,
            record.term,
            old=self._addresses.place(members.get(before, new)),
            new=self._addresses.place(new),
            reachable=isinstance(view.members.get(before), Seen),
            reason=why,
        )

    def _report(self, result: Result, change: PrimaryChange, view: View, since: int) -> None:
        """:param since: the first term in which hooks were called for it"""
        calls = [called for called in view.called.values() if called.term >= since]
        ran = tuple(run for called in calls for run in called.ran)
        number = f"{change.cluster}-{change.term}-{change.kind}-{result}"
        report = ChangeReport(number, result, change, ran, view.date)
        self._loop = asyncio.get_running_loop()
        for target in self._targets:
            if not target.put(report):
                self._events.add(
                    EventKind.FAILED, f"{report.subject}: not reported, as too many reports wait"
                )

    def _send(self, sender: WebhookSender, report: ChangeReport) -> None:
        done = sender.deliver(report.number, report.document(contract.without_output(report.ran)))
        to = f"webhook at {done.host}"
        if done.trouble:
            self._note(EventKind.FAILED, f"{to}: not told after {done.tries} tries: {done.why}")
        else:
            self._note(EventKind.HOOK, f"{to}: told ({report.number})")

    def _run(self, hook: Hook, report: ChangeReport) -> None:
        arguments = contract.report_arguments(report.change, report.subject, report.body)
        ran = Execution(hook).run("report", arguments, report.document(report.ran))
        outcome, text = verdict(ran)
        if outcome is HookOutcome.GOOD:
            self._note(EventKind.HOOK, text or f"hook report: exit 0 ({report.number})")
        else:
            self._note(EventKind.FAILED, text)

    def _note(self, kind: EventKind, text: str) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._events.add, kind, text)


def _over(record: Record, view: View) -> bool:
    """Whether the change is over as far as clients are concerned: a failed start hook is not awaited."""
    if isinstance(record.transition, Failover | Switchover):
        return False
    start = view.called.get(Phase.START)
    failed = start is not None and start.term == record.term and start.outcome is HookOutcome.BAD
    return record.owed is None or failed


def _info(place: contract.MemberPlace) -> str:
    return f"{place.host}({place.ip}:{place.port})"
