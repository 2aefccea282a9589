"""One crash of the primary under load: carried out, watched, measured, and checked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.errors import DeadlinePassed
from holdfast.http.manager_client import ManagerClient
from holdfast.sandbox.load.events import Follower, SeenEvent
from holdfast.sandbox.load.journal import Gap, WriteReport
from holdfast.sandbox.load.locator import WriteTarget
from holdfast.sandbox.load.verification import WriteVerification, settle, verify
from holdfast.sandbox.load.workload import Workload
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.sandbox.waiting import Status

WHOLE_SECONDS = 60.0
EVENTS_SECONDS = 0.1
"""How long, after the cluster is whole, the last events may take to arrive."""


@dataclass(frozen=True, slots=True)
class Load:
    """:ivar rate: writes a second, of all writers together; None for full speed
    :ivar before_seconds: of writing before the crash
    :ivar after_seconds: of writing after the cluster is whole again
    :ivar through: how many additional writers write through HAProxy, where there is one"""

    writers: int = 8
    rate: float | None = None
    before_seconds: float = 1.5
    after_seconds: float = 0.3
    through: int = 0


@dataclass(frozen=True, slots=True)
class Through:
    """What the writers through HAProxy saw; as of :class:`Crash`."""

    report: WriteReport
    outage: Gap | None
    lost: int | None


@dataclass(frozen=True, slots=True)
class Crash:
    """The results of one crash. Times in ms are counted from the kill.

    :ivar outage: from the last acknowledged write before the crash to the first one by a search for a server; None if
        there was none
    :ivar stall: the longest time without an acknowledged write after that
    :ivar whole_ms: when every member was primary or voter again; None if that was not seen
    :ivar why_not_whole: the last state that was seen instead
    """

    victim: str
    primary: str
    killed_at: float
    report: WriteReport
    outage: Gap | None
    stall: Gap | None
    whole_ms: float | None
    why_not_whole: str
    events: tuple[SeenEvent, ...]
    verification: WriteVerification | None
    through: Through | None = None

    def ms(self, at: float) -> float:
        return (at - self.killed_at) * 1000

    @property
    def first_write_ms(self) -> float | None:
        return self.ms(self.outage.end) if self.outage else None

    @property
    def good(self) -> bool:
        """Nothing lost, all tables the same, and the cluster whole again."""
        if self.through is not None and (self.through.lost or self.through.outage is None):
            return False
        return bool(self.verification and self.verification.good and self.whole_ms is not None)

    @property
    def lost(self) -> int | None:
        """Acknowledged and missing; None where that was not checked."""
        if self.verification is None:
            return None
        return self.verification.lost + ((self.through.lost or 0) if self.through else 0)

    def step_times(self) -> dict[str, float]:
        """Milliseconds of each part of each command begun before the first write, the slowest member's.

        Named ``promise`` or ``promise.stop_receiver``; ``detected`` is counted from the kill.
        """
        found: dict[str, float] = {}
        end = self.outage.end if self.outage else float("inf")
        for event in self.events:
            if event.at - (event.ms or 0.0) / 1000 > end:
                continue
            if event.kind == "detected":
                found.setdefault("detected", self.ms(event.at))
            elif event.kind == "command":
                parts = {f"{event.name}.{part}": ms for part, ms in event.steps.items()}
                if event.ms is not None:
                    parts = {event.name: event.ms, **parts}
                for name, ms in parts.items():
                    found[name] = max(ms, found.get(name, 0.0))
        return found


def crash_primary(
    sandbox: Sandbox,
    load: Load,
    run: int = 1,
    on_event: Callable[[SeenEvent], None] = lambda event: None,
    checksums: bool = True,
) -> Crash:
    """Run writers, kill the primary with SIGKILL, wait until all is whole, stop, and verify.

    :param on_event: called with the manager's events, the kill and the first acknowledged write after it
    :raises HoldfastError: it could not be done; the writers have ended
    """
    before = sandbox.wait_whole()
    victim = str(before["primary"])
    client = ManagerClient(sandbox.spec.manager_url, sandbox.spec.token_file.read_text().strip())
    follower = Follower(client, CLUSTER, on_event)
    workload = Workload.on(sandbox, load.writers, load.rate, run)
    through = Workload.through(sandbox, load.through, load.rate, run) if load.through else None
    found: list[float] = []
    found_through: list[float] = []

    def heard(target: WriteTarget, at: float) -> None:
        found.append(at)
        on_event(_first_write(target, at))

    def heard_through(target: WriteTarget, at: float) -> None:
        found_through.append(at)
        on_event(_first_write(target, at))

    workload.start()
    if through is not None:
        through.start()
    try:
        follower.start()
        server = sandbox.server(victim)
        time.sleep(load.before_seconds)
        workload.on_found(heard)
        if through is not None:
            through.on_found(heard_through)
        killed_at = time.time()
        server.kill()
        on_event(SeenEvent(killed_at, "killed", "SIGKILL to the primary's server", victim))
        whole_ms, last = _wait_whole(sandbox, before, victim, killed_at, follower)
        time.sleep(load.after_seconds)
    finally:
        report = workload.stop()
        report_through = through.stop() if through is not None else None
        follower.stop()
    outage, stall = _gaps(report, killed_at, found)
    outage_through = _gaps(report_through, killed_at, found_through)[0] if report_through else None
    lost_through = None
    verification = None
    primary = ""
    if whole_ms is not None:
        primary = str(settle(sandbox)["primary"])
        verification = verify(sandbox, report, checksums)
        if report_through is not None:
            lost_through = verify(sandbox, report_through, checksums=False).lost
    return Crash(
        victim=victim,
        primary=primary,
        killed_at=killed_at,
        report=report,
        outage=outage,
        stall=stall,
        whole_ms=whole_ms,
        why_not_whole=last,
        events=tuple(event for event in follower.events if event.at >= killed_at),
        verification=verification,
        through=Through(report_through, outage_through, lost_through) if report_through else None,
    )


def _gaps(
    report: WriteReport, killed_at: float, found: list[float]
) -> tuple[Gap | None, Gap | None]:
    """The outage and the longest stall after it.

    Acknowledgements that were on their way arrive after the kill, so the outage ends with the first write of a search.
    """
    first = next((at for at in found if at > killed_at), None)
    if first is None:
        return None, None
    gaps = report.gaps_after(killed_at)
    outage = next((gap for gap in gaps if gap.begin < first <= gap.end), None)
    return outage, next((gap for gap in gaps if outage and gap.begin >= outage.end), None)


def _first_write(target: WriteTarget, at: float) -> SeenEvent:
    return SeenEvent(at, "write", "first acknowledged write after the crash", target.name)


def _wait_whole(
    sandbox: Sandbox, before: Status, victim: str, killed_at: float, follower: Follower
) -> tuple[float | None, str]:
    """When the cluster was whole again, in ms after the kill, with the victim in another incarnation."""
    killed = _incarnation(before, victim)

    def again(status: Status) -> bool:
        return bool(status["whole"]) and _incarnation(status, victim) not in ("", killed)

    try:
        sandbox.wait_until(again, WHOLE_SECONDS, "the cluster to be whole again")
    except DeadlinePassed as error:
        return None, str(error)
    seen = time.time()
    time.sleep(EVENTS_SECONDS)
    said = [event.at for event in follower.events if event.kind == "whole" and event.at > killed_at]
    return (min([seen, *said[-1:]]) - killed_at) * 1000, ""


def _incarnation(status: Status, name: str) -> str:
    return next(str(each["incarnation"]) for each in status["members"] if each["name"] == name)
