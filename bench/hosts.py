"""A primary that is lost in the lab of hosts: what clients see, and what it answers when it wakes up.

Two kinds of clients measure. *Callers*, one for each member, try to write there every few milliseconds from first to
last, and wait for an answer for a second: the outage is the longest time without any acknowledgement around the fault.
*Loyal* ones stay connected to the old primary all the time, send reads and writes, and wait for an answer as long as it
takes. Once another primary has acknowledged something, the old one must acknowledge nothing more, and answer no read.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import pymysql

from holdfast.core.gtid import Flavor
from holdfast.errors import DeadlinePassed, HoldfastError
from holdfast.sandbox.demo import SIGNALS, on_stderr
from holdfast.sandbox.lab.lab import Lab
from holdfast.sandbox.lab.plan import CLIENT, LabPlan, LabShape
from holdfast.sandbox.load.crash import EVENTS_SECONDS, WHOLE_SECONDS, Crash, Load
from holdfast.sandbox.load.events import SeenEvent
from holdfast.sandbox.load.journal import Gap, Journal, WriteReport
from holdfast.sandbox.load.locator import READ_ONLY_ERRORS, error_code, insert
from holdfast.sandbox.load.verification import settle, verify
from holdfast.sandbox.load.workload import Workload
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.sandbox.waiting import remove_quietly
from holdfast.server.connection.login import SafeLogin

CALL_SECONDS = 0.005
IDLE_SECONDS = 0.2
SLACK_SECONDS = 0.3
ANSWER_SECONDS = 1.0
LOYAL = 6
LOYAL_PAUSE_SECONDS = 0.05
LOYAL_SECONDS = 60.0
TAKEN_OVER_SECONDS = 30.0
ERRORS = (pymysql.err.MySQLError, OSError)


class Fault(StrEnum):
    KILL9 = "kill9"
    FREEZE_SERVER = "freeze-server"
    FREEZE_HOST = "freeze-host"
    CUT = "cut"
    MANAGER_AND_PRIMARY = "manager+primary"


class Hosts(Lab):
    """A lab, where a sandbox on loopback is expected."""

    @property
    def spec(self) -> LabPlan:
        return self.plan


@contextmanager
def temporary_hosts(
    flavor: str, binary: Path | None, managers: int, settings: Mapping[str, Any], gate: bool = True
) -> Iterator[Hosts]:
    """A whole cluster in a lab of its own, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    hosts: Lab | None = None
    try:
        hosts = Hosts.create(
            folder / "lab",
            LabShape(
                Flavor(flavor),
                managers=managers,
                binary=binary,
                settings={"failovers_per_hour": 0, **settings},
                gate=gate,
            ),
            on_stderr,
        )
        assert isinstance(hosts, Hosts)
        hosts.up()
        yield hosts
    finally:
        ignored = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
        if hosts is not None:
            remove_quietly(hosts)
        shutil.rmtree(folder, ignore_errors=True)
        for number, handler in ignored.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class Answers:
    """What the old primary answered to the clients that stayed connected. Moments are Unix seconds.

    :ivar acknowledged, read: when each answer came, and when it was requested
    """

    acknowledged: list[tuple[float, float]] = field(default_factory=list)
    read: list[tuple[float, float]] = field(default_factory=list)
    sent: int = 0

    def late(self, struck: float, taken_over: float) -> list[tuple[float, float]]:
        """Writes that were acknowledged after another member had taken over: when each was sent, and answered, in ms
        after the fault began."""
        return [
            (round((asked - struck) * 1000, 1), round((answered - struck) * 1000, 1))
            for asked, answered in self.acknowledged
            if answered > taken_over
        ]

    def after(self, moment: float) -> tuple[int, int]:
        """How many writes it acknowledged after that moment, and how many reads sent after it it answered."""
        return (
            sum(answered > moment for _, answered in self.acknowledged),
            sum(asked > moment for asked, _ in self.read),
        )


class Clients:
    """Callers and loyal clients; made before the fault.

    :ivar urgent: from now on callers try as often as they can
    """

    def __init__(self, hosts: Hosts, victim: str, run: int) -> None:
        self._hosts = hosts
        self._victim = victim
        self._run = run
        self._stopped = threading.Event()
        self.urgent = threading.Event()
        self.answers = Answers()
        self.journals = [Journal(900 + number) for number in range(len(hosts.members()) + LOYAL)]
        names = [member.name for member in hosts.members()]
        jobs: list[Callable[[], None]] = []
        for name, journal in zip(names, self.journals, strict=False):
            jobs.append(partial(self._call, name, journal))
        for number, journal in enumerate(self.journals[len(names) :]):
            writes = number % 2 == 0
            jobs.append(partial(self._stay, journal, writes))
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]

    def start(self) -> None:
        with self._hosts.inside(CLIENT):
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(ANSWER_SECONDS * 3)

    def _connect(self, name: str, seconds: float) -> SafeLogin:
        """Connect; the thread is in the clients' network already."""
        member = self._hosts.spec.member(name)
        app = self._hosts.accounts.app
        return SafeLogin(
            asks_for_key=True,
            host=member.host,
            port=member.port,
            user=app.user,
            password=app.password,
            autocommit=True,
            connect_timeout=1,
            read_timeout=seconds,
            write_timeout=seconds,
        )

    def _call(self, name: str, journal: Journal) -> None:
        number = 0
        while not self._stopped.is_set():
            try:
                connection = self._connect(name, ANSWER_SECONDS)
            except ERRORS:
                time.sleep(CALL_SECONDS)
                continue
            while not self._stopped.is_set():
                number += 1
                try:
                    connection.query(insert(self._run, journal.writer, number))
                    journal.acknowledge(number, time.time())
                except ERRORS as error:
                    if error_code(error) not in READ_ONLY_ERRORS:
                        journal.fail(number, error_code(error))
                        break
                self.urgent.wait(IDLE_SECONDS)
                time.sleep(CALL_SECONDS)
            connection._force_close()

    def _stay(self, journal: Journal, writes: bool) -> None:
        """Stay until the connection breaks: it was to the primary, and the client does not know of another one."""
        try:
            connection = self._connect(self._victim, LOYAL_SECONDS)
        except ERRORS:
            return
        number = 0
        while not self._stopped.wait(LOYAL_PAUSE_SECONDS):
            number += 1
            asked = time.time()
            self.answers.sent += 1
            try:
                if writes:
                    connection.query(insert(self._run, journal.writer, number))
                    answered = time.time()
                    journal.acknowledge(number, answered)
                    self.answers.acknowledged.append((asked, answered))
                else:
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT MAX(n) FROM app.writes")
                        cursor.fetchall()
                    self.answers.read.append((asked, time.time()))
            except ERRORS as error:
                if error_code(error) in READ_ONLY_ERRORS:
                    continue
                if writes:
                    journal.fail(number, error_code(error))
                break
        connection._force_close()


def strike(
    hosts: Hosts, load: Load, fault: Fault, run: int, hold_seconds: float
) -> tuple[Crash, dict[str, Any]]:
    """One round. ``whole_ms`` of the result is counted from the heal (from the kill where nothing is healed).

    :param hold_seconds: how long the fault lasts after another primary has acknowledged
    :raises HoldfastError: it could not be done
    """
    hosts.wait_whole()
    victim = hosts.primary()
    workload = Workload.on(hosts, load.writers, load.rate, run)
    clients = Clients(hosts, victim, run)
    with hosts.inside(CLIENT):
        workload.start()
    clients.start()
    found: list[float] = []
    try:
        act, undo = _prepared(hosts, fault, victim)
        time.sleep(load.before_seconds)
        workload.on_found(lambda target, at: found.append(at) if target.name != victim else None)
        clients.urgent.set()
        struck = time.time()
        act()
        taken_over = _taken_over(clients, victim, hosts, found)
        healed = struck
        if fault is not Fault.KILL9:
            time.sleep(hold_seconds)
            undo()
            healed = time.time()
        whole_ms, why = _whole(hosts, healed, victim)
        time.sleep(load.after_seconds)
    finally:
        clients.stop()
        report = workload.stop()
    report = WriteReport(run, (*report.journals, *clients.journals))
    gaps = report.gaps_after(struck)
    outage = _outage(gaps, struck, taken_over)
    crash = Crash(
        victim=victim,
        primary=hosts.primary() if whole_ms is not None else "",
        killed_at=struck,
        report=report,
        outage=outage,
        stall=next((gap for gap in gaps if outage and gap.begin >= outage.end), None),
        whole_ms=whole_ms,
        why_not_whole=why,
        events=tuple(_events(hosts, struck)),
        verification=_verified(hosts, report) if whole_ms is not None else None,
    )
    writes, reads = clients.answers.after(taken_over) if taken_over else (0, 0)
    more = {
        "fault": fault.value,
        "healed_ms": round((healed - struck) * 1000, 1),
        "stale_writes": writes,
        "stale_reads": reads,
        "loyal_sent": clients.answers.sent,
        "late": clients.answers.late(struck, taken_over) if taken_over else [],
    }
    return crash, more


def _prepared(
    hosts: Hosts, fault: Fault, victim: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The fault, and its end."""
    match fault:
        case Fault.KILL9:
            return hosts.server(victim).kill, lambda: None
        case Fault.FREEZE_SERVER:
            return lambda: hosts.freeze_server(victim), lambda: hosts.thaw_server(victim)
        case Fault.FREEZE_HOST:
            return lambda: hosts.freeze(victim), lambda: hosts.thaw(victim)
        case Fault.CUT:
            return lambda: hosts.cut(victim, "all"), lambda: hosts.heal(victim)
    leader = hosts.leader()
    lost = (victim, leader)

    def lose() -> None:
        # their power fails: nothing leaves them any more, not even the closing of a connection
        hosts.cut(",".join(lost), "all")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(hosts.kill_host, lost))

    def restore() -> None:
        for host in lost:
            hosts.heal(host)
            hosts.start_host(host)

    return lose, restore


def _taken_over(clients: Clients, victim: str, hosts: Hosts, heard: list[float]) -> float:
    """When another server acknowledged first; 0.0: none did, for long.

    :param heard: when writers found another server
    """
    names = [member.name for member in hosts.members()]
    others = [j for n, j in zip(names, clients.journals, strict=False) if n != victim]
    end = time.monotonic() + TAKEN_OVER_SECONDS
    while time.monotonic() < end:
        if heard or any(len(journal.times) for journal in others):
            time.sleep(SLACK_SECONDS)  # callers have found the first one by now
            first = [journal.times[0] for journal in others if len(journal.times)]
            return min([*heard, *first])
        time.sleep(CALL_SECONDS)
    return 0.0


def _outage(gaps: list[Gap], struck: float, taken_over: float) -> Gap | None:
    """From the last acknowledgement of the old primary to the first of the new one."""
    return next((gap for gap in gaps if gap.begin < taken_over <= gap.end), None)


def _whole(hosts: Hosts, healed: float, victim: str) -> tuple[float | None, str]:
    def whole(status: dict[str, Any]) -> bool:
        return bool(status["whole"] and status["writable"])

    try:
        hosts.wait_until(whole, WHOLE_SECONDS, "the cluster to be whole again")
    except DeadlinePassed as error:
        return None, str(error)
    return (time.time() - healed) * 1000, ""


def _events(hosts: Hosts, since: float) -> list[SeenEvent]:
    """The events of all managers since then."""
    time.sleep(EVENTS_SECONDS)
    found = []
    with hosts.inside():
        for manager in hosts.plan.managers:
            with suppress(HoldfastError):
                found += [
                    SeenEvent.of(each) for each in hosts.manager(manager).events(CLUSTER, 0, 0.0)
                ]
    return sorted((each for each in found if each.at >= since), key=lambda each: each.at)


def _verified(hosts: Hosts, report: WriteReport) -> Any:
    settle(hosts)
    return verify(hosts, report, checksums=False)
