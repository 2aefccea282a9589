"""Whole clusters for tests: made once for each server, and used again while they are well."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError, Refused
from holdfast.sandbox.load.journal import WriteReport
from holdfast.sandbox.load.verification import WriteVerification, settle, verify
from holdfast.sandbox.load.workload import Workload
from holdfast.sandbox.local.cluster import Sandbox
from holdfast.sandbox.local.spec import CLUSTER, checked
from holdfast.sandbox.waiting import Status, remove_quietly
from tests.integration.ports import free_base_port

REPAIR_SECONDS = 15.0
WHOLE_SECONDS = 60.0
RATE = 400.0
"""Writes a second, unless a test sets another rate: there is always load, and processors are left for what is tested.
None: as many as possible.
"""
BUSY = 3
"""A step may take so many times longer on a machine that other work keeps busy."""


class PatientSandbox(Sandbox):
    """Limits are given in seconds of a machine that does nothing else; what must be quick is measured."""

    def wait_until(
        self, predicate: Callable[[Status], bool], seconds: float, what: str = "what was expected"
    ) -> Status:
        return super().wait_until(predicate, BUSY * seconds, what)

    def wait_whole(self, seconds: float = WHOLE_SECONDS) -> Status:
        return super().wait_whole(BUSY * seconds)


class Clusters:
    """At most one sandbox at a time: two would disturb each other on a small machine.

    :ivar runs: numbers workloads, so that each finds its own rows
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sandbox: Sandbox | None = None
        self._made = 0
        self.runs = 0

    def whole(
        self, flavor: Flavor, members: int = 3, settings: Mapping[str, Any] | None = None
    ) -> Sandbox:
        """A whole cluster of this server: the present one if it fits, else a new one."""
        found = self._sandbox
        if found is not None and _is_like(found, flavor, members, settings or {}):
            try:
                # a test may have ended while its manager was starting
                Sandbox.wait_until(found, lambda _: True, REPAIR_SECONDS)
                _forget_changes(found)
                Sandbox.wait_until(found, lambda status: bool(status["whole"]), REPAIR_SECONDS)
                return found
            except HoldfastError:
                pass
        return self.fresh(flavor, members, settings)

    def fresh(
        self,
        flavor: Flavor,
        members: int = 3,
        settings: Mapping[str, Any] | None = None,
        empty: bool = False,
    ) -> Sandbox:
        """A cluster in which nothing has happened yet.

        :param settings: with which it begins, by dotted key
        :param empty: from empty data directories: with no other accounts than Holdfast's own
        """
        self.remove()
        self._made += 1
        folder = self._folder / f"{flavor.value}{self._made}"
        base = free_base_port()
        self._sandbox = PatientSandbox.create(folder, flavor, members, base, settings=settings)
        if empty:
            for member in self._sandbox.spec.members:
                member.datadir.mkdir(parents=True)
        self._sandbox.up()
        return self._sandbox

    def remove(self) -> None:
        if self._sandbox is not None:
            remove_quietly(self._sandbox)
            self._sandbox = None

    def next_run(self) -> int:
        self.runs += 1
        return self.runs


def _is_like(sandbox: Sandbox, flavor: Flavor, members: int, settings: Mapping[str, Any]) -> bool:
    spec = sandbox.spec
    wanted = checked(settings, members)
    made = (spec.flavor, spec.size, spec.further, spec.settings)
    return made == (flavor, members, 0, wanted)


def _forget_changes(sandbox: Sandbox) -> None:
    """Undo what a test has set while the cluster ran.

    :raises Refused: a member was removed
    """
    if len(sandbox.manager.members(CLUSTER)) != sandbox.spec.size:
        raise Refused("a member is missing")
    found = sandbox.manager.settings(CLUSTER)["settings"]
    if changed := [each["key"] for each in found if each["source"] == "store"]:
        sandbox.manager.change_settings(CLUSTER, {}, changed)


class Writers:
    """A workload that is under way; `check` ends it and looks for every acknowledged write."""

    def __init__(self, sandbox: Sandbox, workload: Workload) -> None:
        self.sandbox = sandbox
        self.workload = workload
        self._report: WriteReport | None = None

    def wait_for(self, more: int, seconds: float = 30.0) -> None:
        """Wait until that many more writes were acknowledged."""
        wanted = self.workload.acknowledged() + more
        end = time.monotonic() + BUSY * seconds
        while self.workload.acknowledged() < wanted:
            assert time.monotonic() < end, (
                f"no {more} writes in {BUSY * seconds} s; {explain(self.sandbox)}"
            )
            time.sleep(0.01)

    def stop(self) -> WriteReport:
        if self._report is None:
            self._report = self.workload.stop()
        return self._report

    def check(self) -> WriteVerification:
        """Every acknowledged write is on every member, and all tables are the same."""
        report = self.stop()
        self.sandbox.wait_whole()
        settle(self.sandbox)
        found = verify(self.sandbox, report)
        assert found.lost == 0, {member.name: member.lost[:20] for member in found.members}
        assert found.identical, {member.name: member.checksums for member in found.members}
        return found


@contextmanager
def writing(
    sandbox: Sandbox, run: int, writers: int = 4, rate: float | None = RATE
) -> Iterator[Writers]:
    """Writers on a whole cluster, ended at the latest at the end of the block."""
    workload = Workload.on(sandbox, writers, rate, run)
    workload.start()
    running = Writers(sandbox, workload)
    try:
        running.wait_for(writers)
        yield running
    finally:
        running.stop()


def assert_identical(sandbox: Sandbox) -> None:
    """All members hold the same, by the checksums of their tables; no client may be writing."""
    settle(sandbox)
    found = verify(sandbox, WriteReport(0, ()))
    assert found.identical, {member.name: member.checksums for member in found.members}


def member_of(status: Status, name: str) -> dict[str, Any]:
    return next(each for each in status["members"] if each["name"] == name)


def again_whole(name: str, run: str) -> Callable[[Status], bool]:
    """Whether the cluster is whole, with this member in another run than that."""
    return lambda status: status["whole"] and member_of(status, name)["incarnation"] != run


def replicas(status: Status) -> list[str]:
    return [str(each["name"]) for each in status["members"] if each["name"] != status["primary"]]


def explain(sandbox: Sandbox) -> str:
    """Everything that a failed test should show."""
    try:
        return f"{sandbox.status()}\n{sandbox.logs(15)}"
    except HoldfastError as error:
        return f"{error}\n{sandbox.logs(15)}"


def wait_failed_over(sandbox: Sandbox, deposed: str) -> str:
    """The new primary, once it takes writes."""
    status = sandbox.wait_until(
        lambda s: s["writable"] and s["primary"] != deposed, 20, "another primary"
    )
    return str(status["primary"])


def admin(sandbox: Sandbox, member: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements as the administrator; returns the rows of the last."""
    with (
        sandbox.connect(member, sandbox.accounts.admin) as connection,
        connection.cursor() as cursor,
    ):
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


def by_hand(sandbox: Sandbox, member: str, *statements: str) -> None:
    """As an administrator writes on a replica although it is read-only."""
    free = ("SET GLOBAL super_read_only = 0",) if sandbox.spec.flavor is Flavor.MYSQL else ()
    admin(sandbox, member, *free, *statements)


@contextmanager
def hung_agent(sandbox: Sandbox, member: str) -> Iterator[None]:
    """The agent hangs: for so short a time that its server keeps its lease."""
    pid = sandbox._crew._daemons[member].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def events(sandbox: Sandbox) -> list[str]:
    return [str(each["text"]) for each in sandbox.manager.events(CLUSTER, 0, 0)]


def take_away(sandbox: Sandbox, name: str) -> None:
    """End its agent and its server, so that it does not come back by itself."""
    sandbox.kill_agent(name)
    with suppress(Refused):  # it was down already
        sandbox.kill_server(name)
