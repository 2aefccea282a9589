"""One epoch: clients at work, faults in all lanes, everything healed, and the history checked."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import DeadlinePassed, HoldfastError
from holdfast.sandbox.lab.lab import Lab
from holdfast.sandbox.lab.plan import CLIENT
from tests.chaos.checker import WHOLE_SECONDS, check
from tests.chaos.clients import TABLES, Orders
from tests.chaos.doing import do, heal_all, victims
from tests.chaos.faults import Fault, Harm, Lane, schedule
from tests.chaos.hands import OWN_TABLE, Hands
from tests.chaos.history import Ending, History, load
from tests.chaos.verdict import Verdict
from tests.chaos.witness import Look, Witness, ending, reigns

WARM_SECONDS = 1.5
CALM_SECONDS = 1.0
POLL_SECONDS = 0.1
SETTLED_SECONDS = 1.2
"""The leading manager must report it for that long: by then it has learned of the latest events."""
CLIENTS_SECONDS = 60.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Struck:
    """A fault as it happened. Moments are CLOCK_MONOTONIC.

    :ivar error: why it could not be done, or undone
    """

    fault: Fault
    at: float
    hosts: tuple[str, ...] = ()
    primary: bool = False
    healed: float = 0.0
    error: str = ""


@dataclass(slots=True)
class Epoch:
    """:ivar begun: moment of the begin; faults count from ``begun``
    :ivar waits: how long the members' lane waited for the cluster to be whole again, each time
    """

    number: int
    begun: float
    struck: list[Struck]
    looks: list[Look]
    history: History
    ending: Ending
    verdict: Verdict
    waits: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)


class Runner:
    """Runs the epochs of one lab.

    :param beyond: members are harmed whatever state the others are in
    :param without: these are left out of the schedule
    """

    def __init__(
        self, lab: Lab, folder: Path, beyond: bool = False, without: frozenset[Harm] = frozenset()
    ) -> None:
        self._lab = lab
        self._folder = folder
        self._beyond = beyond
        self._without = without
        self._begun = 0.0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._struck: list[Struck] = []
        self._waits: list[float] = []
        self._hands = Hands(lab, ())

    def run(self, number: int, seed: str, seconds: float, orders: dict[str, Any]) -> Epoch:
        """:raises HoldfastError: it could not begin: the cluster is not whole"""
        lab = self._lab
        term = int(lab.wait_whole(WHOLE_SECONDS)["term"])
        table = f"app.chaos_{number}"
        self._make(table)
        self._hands = Hands(lab, (table, *_others(table)))
        managers = sum(host.startswith("manager") for host in lab.hosts())
        plan = schedule(seed, seconds, managers, self._beyond)
        plan = tuple(fault for fault in plan if fault.harm not in self._without)
        files = self._folder / f"epoch-{number}.history", self._folder / f"orders-{number}.json"
        clients = self._clients(table, seed, files[0], files[1], orders)
        witness = Witness(lab)
        witness.start()
        self._struck, self._waits = [], []
        self._ended.clear()
        try:
            time.sleep(WARM_SECONDS)
            self._begun = time.monotonic()
            self._strike(plan, seconds)
            whole, why = self._whole()
            time.sleep(CALM_SECONDS)
        finally:
            errors = _stopped(clients)
            witness.stop()
        reigned = reigns(lab, term)
        history = load([files[0]]).excused(self._hands.excuses)
        end = ending(lab, table, whole, why, reigned)
        verdict = check(history, end)
        if verdict.good:
            self._drop(table)
            files[0].unlink()
        struck = sorted(self._struck, key=lambda each: each.at)
        return Epoch(
            number,
            self._begun,
            struck,
            witness.looks,
            history,
            end,
            verdict,
            self._waits,
            errors,
        )

    # -- faults -----------------------------------------------------------------------------------

    def _strike(self, plan: Sequence[Fault], seconds: float) -> None:
        """Run all lanes at the same time, then heal what is left."""
        lanes = [
            threading.Thread(
                target=self._lane,
                args=([fault for fault in plan if fault.lane is lane], seconds),
                name=lane,
            )
            for lane in {fault.lane for fault in plan}
        ]
        for thread in lanes:
            thread.start()
        for thread in lanes:
            thread.join()
        heal_all(self._lab, self._hands)
        self._say("all healed")

    def _lane(self, faults: Sequence[Fault], seconds: float) -> None:
        last_heal = time.monotonic()
        for fault in faults:
            self._ended.wait(max(0.0, self._begun + fault.at - time.monotonic()))
            if fault.lane is Lane.MEMBERS and not self._beyond and not self._permitted(last_heal):
                return
            if self._ended.is_set() or time.monotonic() > self._begun + seconds:
                return
            self._one(fault)
            last_heal = time.monotonic()

    def _permitted(self, last_heal: float) -> bool:
        """Wait until no vote is missing. If that takes too long, everything is healed, and the epoch is over."""
        since = float("inf")
        while not self._ended.is_set():
            now = time.monotonic()
            if not self._is_whole():
                since = float("inf")
            elif now > (since := min(since, now)) + SETTLED_SECONDS:
                self._waits.append(since - last_heal)
                return True
            if time.monotonic() > last_heal + WHOLE_SECONDS:
                self._say(
                    f"not whole {WHOLE_SECONDS:.0f} s after the last harm to a member: the epoch ends"
                )
                self._ended.set()
            time.sleep(POLL_SECONDS)
        return False

    def _is_whole(self) -> bool:
        try:
            status = self._lab.status()
        except HoldfastError:
            return False
        return bool(status["whole"] and status["writable"])

    def _one(self, fault: Fault) -> None:
        found = Struck(fault, time.monotonic())
        try:
            found.hosts, found.primary = victims(self._lab, fault)
            found.at = time.monotonic()
            undo = do(self._lab, fault, found.hosts, found.primary, self._hands).undo
        except HoldfastError as error:
            found.error = str(error)
            self._say(f"{fault}: not done: {error}")
            return
        finally:
            with self._lock:
                self._struck.append(found)
        self._say(f"{fault.lane}: {fault} ({', '.join(found.hosts)})")
        self._ended.wait(fault.seconds)
        try:
            undo()
        except HoldfastError as error:
            found.error = str(error)
            self._say(f"{fault}: not undone: {error}")
        found.healed = time.monotonic()

    def _whole(self) -> tuple[float | None, str]:
        """How long the cluster took to be whole after the last heal; why not, if it was not."""
        healed = time.monotonic()

        def whole(status: dict[str, Any]) -> bool:
            return bool(status["whole"] and status["writable"])

        try:
            self._lab.wait_until(whole, WHOLE_SECONDS, "the cluster to be whole")
        except DeadlinePassed as error:
            return None, str(error)
        return time.monotonic() - healed, ""

    # -- clients ----------------------------------------------------------------------------------

    def _clients(
        self, table: str, seed: str, out: Path, path: Path, more: dict[str, Any]
    ) -> subprocess.Popen[str]:
        app = self._lab.accounts.app
        servers = tuple((each.name, each.host, each.port) for each in self._lab.members())
        orders = Orders(servers, app.user, app.password, table, str(out), **{"seed": seed, **more})
        orders.write(path)
        argv = [sys.executable, "-m", "tests.chaos.clients", str(path)]
        return subprocess.Popen(
            self._lab.command(CLIENT, argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def _make(self, table: str) -> None:
        with closing(self._lab.connect(self._lab.primary())) as connection:
            for statement in TABLES:
                connection.query(statement.format(table))

    def _drop(self, table: str) -> None:
        with closing(self._lab.connect(self._lab.primary())) as connection:
            connection.query(
                f"DROP TABLE IF EXISTS {', '.join((table, *_others(table), OWN_TABLE))}"
            )

    def _say(self, text: str) -> None:
        print(f"  +{time.monotonic() - self._begun:6.1f} s  {text}", flush=True)


def _others(table: str) -> tuple[str, str]:
    """The tables that go with it, as in ``clients.TABLES``."""
    return f"{table}_registers", f"{table}_counters"


def _stopped(clients: subprocess.Popen[str]) -> dict[str, int]:
    """End the clients; returns the errors that they met.

    :raises HoldfastError: they ended with an error: what they were told is not known
    """
    try:
        told, _ = clients.communicate(timeout=CLIENTS_SECONDS)
    except subprocess.TimeoutExpired:
        clients.kill()
        clients.wait()
        raise HoldfastError("the clients did not end") from None
    if clients.returncode:
        raise HoldfastError(f"the clients ended with status {clients.returncode}")
    return dict(json.loads(told)["errors"])
