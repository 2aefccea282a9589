"""The Compare command: tables that a rewind touched are compared with the primary's, at one moment of its history.

The applier is held while the primary's agent chooses that moment, then it applies up to it; both agents compute their
digests, and the applier continues. The receiver keeps running: a voter continues to acknowledge. If the comparison is
cancelled or fails, the tables stay suspect, and the manager orders it again.
"""

from __future__ import annotations

from holdfast.agent.rewind.applier_hold import HOLD_SECONDS, ApplierHold
from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.runtime.answers import answers_of
from holdfast.agent.runtime.job import Job, Jobs
from holdfast.core.commands import Command, Compare, Judge, Verify
from holdfast.errors import CalledOff, DeadlinePassed, HoldfastError, Refused
from holdfast.server.base import Deadline
from holdfast.server.data.digest import Digester, HistoryPlace, parse_table, table_name
from holdfast.tls import Credentials

DIGEST_SECONDS = 6 * 3600.0
PAUSE_SECONDS = (10.0, 30.0, 120.0, 300.0)
"""Pauses after failed attempts: each attempt may hold the primary's writers up for a second."""


class Comparing:
    """Compares the tables of ``Fitness.suspects``, and has the result recorded there."""

    def __init__(
        self,
        jobs: Jobs,
        hold: ApplierHold,
        digester: Digester,
        fitness: Fitness,
        shown: Credentials,
    ) -> None:
        self._jobs = jobs
        self._hold = hold
        self._digester = digester
        self._fitness = fitness
        self._shown = shown
        self._running = False

    def admit(self, command: Command, deadline: Deadline) -> None:
        """Called with every command before it is carried out: most need the applier, so they end a comparison.

        :raises DeadlinePassed: it does not end
        """
        if isinstance(command, Compare | Judge | Verify):
            return
        if not self._running:
            self._hold.let_run_what_is_left()
            return
        self._jobs.cancel(f"the command {type(command).__name__}")
        if not self._jobs.wait(min(HOLD_SECONDS, deadline.left)):
            raise DeadlinePassed("calling off the comparison", deadline.seconds)

    def begin(self, command: Compare) -> None:
        """Returns when the comparison is under way; a repeated request leaves it alone.

        :raises Refused: something else is under way
        """
        if self._running or not self._fitness.suspects:
            return
        self._running = True
        try:
            self._jobs.start(
                f"comparing with {command.primary}", lambda job: self._work(job, command)
            )
        except Refused:
            self._running = False
            raise

    def _work(self, job: Job, command: Compare) -> None:
        try:
            for pause in (*PAUSE_SECONDS, None):
                try:
                    return self._compare(job, command)
                except CalledOff:
                    raise
                except HoldfastError as error:
                    job.check()
                    if pause is None:
                        raise
                    job.stage(f"comparing with {command.primary} once more: {error}")
                    job.pause(pause)
        finally:
            self._running = False

    def _compare(self, job: Job, command: Compare) -> None:
        names = self._fitness.suspects
        tables = [parse_table(name) for name in names]
        job.stage(f"comparing {', '.join(names)} with {command.primary}")
        shown = self._shown.to(command.agent)
        with (
            self._hold.stopped(),
            answers_of(job, command.agent, "/v1/digest", shown, {"tables": names}) as answers,
        ):
            place = HistoryPlace(**next(answers)["place"])
            self._digester.apply_until(place, job.deadline(DIGEST_SECONDS))
            mine = self._digester.here(tables, job.deadline(DIGEST_SECONDS))
            theirs = next(answers)["digests"]
        different = [
            table_name(table) for table in tables if mine[table] != theirs[table_name(table)]
        ]
        if different:
            self._fitness.declare_unfit(
                f"after a rewind or a crash it differs from {command.primary} in {', '.join(different)}"
            )
        else:
            self._fitness.compared()
