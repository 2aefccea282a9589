"""One member that leaves and is admitted again under load: carried out, watched, measured, and checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import pymysql

from holdfast.errors import DeadlinePassed, HoldfastError, OutcomeUnknown
from holdfast.http.manager_client import ManagerClient
from holdfast.sandbox.load.crash import Load
from holdfast.sandbox.load.events import Follower, SeenEvent
from holdfast.sandbox.load.journal import Gap, WriteReport
from holdfast.sandbox.load.states import States
from holdfast.sandbox.load.verification import WriteVerification, settle, verify
from holdfast.sandbox.load.workload import Workload
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER
from holdfast.sandbox.waiting import Status
from holdfast.server.base import Account

WHOLE_SECONDS = 120.0
LEFT_SECONDS = 30.0
LOOK_SECONDS = 0.1
AFTERWARDS_SECONDS = 0.3
"""How long an admission may still delay writes after its last step."""
WARM_SECONDS = 0.5
"""Writers that have just begun are not measured."""

ROW_BYTES = 64 * 1024
ROWS = 16
"""In one transaction of the bulk: 1 MB."""

BULK = """\
CREATE TABLE IF NOT EXISTS app.bulk (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, body MEDIUMTEXT NOT NULL
) ENGINE=InnoDB"""


@dataclass(frozen=True, slots=True)
class Look:
    """The member as one status shows it. ``at`` is in Unix seconds."""

    at: float
    stage: str
    bytes_behind: int | None
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which writers were watched. Unix seconds.

    :ivar longest: the longest time without any acknowledged write that lies in it at least in part
    :ivar one_writer_ms: the longest time in which one of the writers got no acknowledgement
    """

    begin: float
    end: float
    longest: Gap | None
    one_writer_ms: float

    @classmethod
    def of(
        cls, report: WriteReport, writers: int, begin: float, end: float, beyond: bool = True
    ) -> Window:
        """:param writers: the number of writers; further journals are those of searches for the primary
        :param beyond: count gaps that reach beyond the end; else what happened at the end would count here
        """
        last = float("inf") if beyond else end
        own = [
            _longest(_gaps(list(journal.times), begin, end, last))
            for journal in report.journals[:writers]
        ]
        return cls(
            begin,
            end,
            _longest(_gaps(report.times(), begin, end, last)),
            max((gap.ms for gap in own if gap), default=0.0),
        )

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def ms(self) -> float | None:
        return self.longest.ms if self.longest else None


@dataclass(frozen=True, slots=True)
class Admission:
    """The results of one admission.

    :ivar quiet: as long as ``admission``, shortly before: what the machine itself does to writers
    :ivar leaving: from the kill until the member is no voter; None where that was before the writers began
    :ivar catching_up: from when it could come back until it was admitted
    :ivar admission: from the decision that it votes until 0.3 s after the last step of it
    :ivar looks: one for each change
    :ivar events: of the admission
    :ivar states: how many writers waited for what in the longest gap of the admission, if requested
    """

    victim: str
    report: WriteReport
    quiet: Window
    leaving: Window | None
    catching_up: Window
    admission: Window
    looks: tuple[Look, ...]
    events: tuple[SeenEvent, ...]
    states: dict[str, float]
    whole_ms: float
    verification: WriteVerification

    @property
    def stage_ms(self) -> dict[str, float]:
        """How long each stage was shown, in order; the last, which lasts, is left out."""
        found: dict[str, float] = {}
        for look, after in pairwise(self.looks):
            name = look.stage or "not following"
            found[name] = found.get(name, 0.0) + (after.at - look.at) * 1000
        return found

    @property
    def step_ms(self) -> dict[str, float]:
        """Milliseconds of each command of the admission and of its parts, the slowest member's."""
        found: dict[str, float] = {}
        for event in self.events:
            if event.kind == "command" and event.ms is not None:
                for name, ms in {"": event.ms, **event.steps}.items():
                    key = f"{event.name}.{name}" if name else event.name
                    found[key] = max(ms, found.get(key, 0.0))
        return found


class _Watched:
    """Writers and the manager's events, during a whole round."""

    def __init__(self, sandbox: Sandbox, load: Load, run: int) -> None:
        token = sandbox.spec.token_file.read_text().strip()
        self.sandbox = sandbox
        self.follower = Follower(ManagerClient(sandbox.spec.manager_url, token), CLUSTER)
        self.workload = Workload.on(sandbox, load.writers, load.rate, run)
        self._load = load
        self._begun = 0.0

    def begin(self) -> None:
        """Returns after a time of undisturbed writing."""
        self._begun = time.time() + WARM_SECONDS
        self.workload.start()
        time.sleep(WARM_SECONDS + self._load.before_seconds)

    def end(self) -> WriteReport:
        self.follower.stop()
        return self.workload.stop() if self._begun else self.workload.report()

    def window(self, begin: float, end: float, beyond: bool = True) -> Window:
        return Window.of(self.workload.report(), self._load.writers, begin, end, beyond)

    def quiet(self, until: float, seconds: float) -> Window:
        return self.window(max(self._begun, until - seconds), until, beyond=False)

    def event(self, since: float, what: Callable[[SeenEvent], bool]) -> SeenEvent | None:
        """The first event of that kind, if there is one."""
        return next((e for e in list(self.follower.events) if e.at >= since and what(e)), None)


def admit_again(
    sandbox: Sandbox, load: Load, run: int = 1, behind_mb: int = 0, explain: bool = False
) -> Admission:
    """Run writers, have a replica leave and come back, wait until all is whole, stop, and verify.

    :param behind_mb: how much is written to the binlog while it is away; with 0 only its server is killed, and its
        agent brings it back
    :param explain: observe what the writers wait for
    :raises HoldfastError: it could not be done; the writers have ended
    """
    status = sandbox.wait_whole()
    replicas = [str(each["name"]) for each in status["members"] if each["role"] != "primary"]
    victim = replicas[run % len(replicas)]
    watched = _Watched(sandbox, load, run)
    looks: list[Look] = []
    states = States(sandbox, str(status["primary"]))
    if explain:
        states.start()
    watched.follower.start()
    try:
        if behind_mb:
            leave_behind(sandbox, victim, behind_mb)
            watched.begin()
            back_at = time.time()
            sandbox.start_agent(victim)
        else:
            server = sandbox.server(victim)
            watched.begin()
            back_at = time.time()
            server.kill()
        whole_at = _wait_whole(watched, victim, back_at, looks, bool(behind_mb))
        time.sleep(AFTERWARDS_SECONDS + 0.2)
    finally:
        report = watched.end()
        if explain:
            states.stop()
    begin, end, steps = _admission(watched.follower.events, victim, back_at, whole_at)
    left = watched.event(back_at, lambda event: victim in event.dismissed)
    settle(sandbox)
    verification = verify(sandbox, report, checksums=False)
    if behind_mb:
        _clean_up(sandbox)
    admission = watched.window(begin, end)
    longest = admission.longest
    return Admission(
        victim=victim,
        report=report,
        quiet=watched.quiet(back_at, end - begin),
        leaving=watched.window(back_at, left.at) if left else None,
        catching_up=watched.window(left.at if left else back_at, begin, beyond=False),
        admission=admission,
        states=states.within(longest.begin, longest.end) if longest else {},
        looks=tuple(looks),
        events=steps,
        whole_ms=(whole_at - back_at) * 1000,
        verification=verification,
    )


def leave_behind(sandbox: Sandbox, victim: str, megabytes: int) -> None:
    """End agent and server of a replica, and once it is no voter write so much to the primary's binlog."""
    server = sandbox.server(victim)
    sandbox.kill_agent(victim)
    server.kill()
    sandbox.wait_until(
        lambda status: not _of(status, victim)["votes"], LEFT_SECONDS, f"{victim} to lose its vote"
    )
    row = f"(REPEAT(SHA2(RAND(), 256), {ROW_BYTES // 64}))"  # MySQL 9.7 has no MD5 by itself
    insert = f"INSERT INTO app.bulk (body) VALUES {', '.join([row] * ROWS)}"
    _run(sandbox, sandbox.primary(), BULK, *[insert] * (megabytes * 2**20 // (ROW_BYTES * ROWS)))


def _clean_up(sandbox: Sandbox) -> None:
    """Remove the bulk, lest each round need as much of the disk again."""
    _run(sandbox, sandbox.primary(), "DROP TABLE app.bulk")
    settle(sandbox)
    purge = ("FLUSH LOCAL BINARY LOGS", "PURGE BINARY LOGS BEFORE NOW()")
    for member in sandbox.members():
        _run(sandbox, member.name, *purge, account=sandbox.accounts.admin)


def _run(sandbox: Sandbox, member: str, *statements: str, account: Account | None = None) -> None:
    try:
        with closing(sandbox.connect(member, account)) as connection:
            for statement in statements:
                connection.query(statement)
    except (pymysql.err.MySQLError, OSError) as error:
        raise OutcomeUnknown(f"writing to {member}: {error}") from None


def _wait_whole(
    watched: _Watched, victim: str, since: float, looks: list[Look], watch: bool
) -> float:
    """When the cluster was whole again with the member voting. Events show it; a status is requested only where it is
    itself wanted, as the answer costs the manager time."""
    end = time.monotonic() + WHOLE_SECONDS
    while True:
        admitted = watched.event(since, lambda event: victim in event.admitted)
        if (
            admitted
            and (whole := watched.event(admitted.at, lambda event: event.kind == "whole"))
            # the cluster may be whole before the command that made it so has ended
            and watched.event(admitted.at, lambda e: e.name == "follow" and e.member == victim)
        ):
            if looks:
                looks.append(_look(watched.sandbox, victim))
            return whole.at
        if watch:
            look = _look(watched.sandbox, victim)
            if not looks or (look.stage, look.bytes_behind) != (
                looks[-1].stage,
                looks[-1].bytes_behind,
            ):
                looks.append(look)
        if time.monotonic() > end:
            raise DeadlinePassed(f"admitting {victim}\n{watched.sandbox.logs()}", WHOLE_SECONDS)
        time.sleep(LOOK_SECONDS)


def _admission(
    events: Sequence[SeenEvent], victim: str, since: float, whole_at: float
) -> tuple[float, float, tuple[SeenEvent, ...]]:
    """Begin and end of the admission, and its events."""
    begin = next(e.at for e in events if e.at >= since and victim in e.admitted)
    last = [
        event.at
        for event in events
        if event.at >= begin
        and (event.settled or (event.name == "follow" and event.member == victim))
    ]
    end = max([*last, whole_at]) + AFTERWARDS_SECONDS
    return begin, end, tuple(event for event in events if begin <= event.at <= end)


def _look(sandbox: Sandbox, name: str) -> Look:
    try:
        member = _of(sandbox.status(), name)
    except HoldfastError:
        return Look(time.time(), "", None, None)
    return Look(time.time(), member["stage"], member["bytes_behind"], member["eta_seconds"])


def _of(status: Status, name: str) -> Status:
    return next(each for each in status["members"] if each["name"] == name)


def _gaps(times: Sequence[float], begin: float, end: float, last: float) -> list[Gap]:
    return [Gap(a, b) for a, b in pairwise(times) if b > begin and a < end and b <= last]


def _longest(gaps: Sequence[Gap]) -> Gap | None:
    return max(gaps, key=lambda gap: gap.ms, default=None)
