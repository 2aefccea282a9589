"""The Verify command: all tables are compared with the primary's, a piece at a time, while both servers are at work.

For each piece the applier is held while the primary's agent chooses the piece's end and its place in the history,
applies up to that place, and continues once the piece is read. That takes a fraction of a second. The progress is on
disk: after any other command, or the end of the agent, has cancelled a verification, the next request continues it
there.

A piece that differs is compared once more before it is reported. Nothing is repaired here.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from holdfast.agent.disk.term import replace_durably
from holdfast.agent.rewind.applier_hold import HOLD_SECONDS, ApplierHold
from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.rewind.table_results import Findings, TableResult
from holdfast.agent.runtime.answers import answers_of
from holdfast.agent.runtime.job import Job, Jobs
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.commands import Command, Verify
from holdfast.errors import CalledOff, DeadlinePassed, HoldfastError, Refused
from holdfast.log import say
from holdfast.server.base import Deadline
from holdfast.server.data.chunks import Chunk, ChunkDigester, Key, described, rows_of
from holdfast.server.data.digest import HistoryPlace, parse_table, table_name
from holdfast.tls import Credentials

CHUNK_SECONDS = 60.0
"""How long one piece may take; a table without a primary key is one piece."""
WANTED_SECONDS = 0.2
"""Approximate time that the applier is held for a piece: it determines the number of its rows."""
FIRST_ROWS, LEAST_ROWS, MOST_ROWS = 2_000, 1_000, 200_000
SAVE_SECONDS = 2.0
ATTEMPTS = 20
ATTEMPT_SECONDS = 1.0
"""Pause between two attempts at a piece, where commits wait or the table is locked."""
BUSY_SECONDS = 0.5
ENDED = "ended by an operator"
"""Pause between two looks at a primary that is too busy."""
logger = logging.getLogger(__name__)


class UnknownTable(Refused):
    """Neither server has the table: another attempt would not help."""


class Verifying:
    def __init__(
        self,
        published: PublishedState,
        jobs: Jobs,
        hold: ApplierHold,
        digester: ChunkDigester,
        fitness: Fitness,
        shown: Credentials,
        state_dir: Path,
    ) -> None:
        self._published = published
        self._clock = published.clock
        self._jobs = jobs
        self._hold = hold
        self._digester = digester
        self._fitness = fitness
        self._shown = shown
        self._path = state_dir / "verification"
        self.findings = self._read()
        if self.findings.under_way and not self.findings.halted:
            self.findings = replace(self.findings, halted="its agent ended")
        self._repair = self.findings.repair
        self._saved_at = 0.0
        self._running = False
        self._ended_at: float | None = None
        self._publish()

    def admit(self, command: Command, deadline: Deadline) -> None:
        """Called with every command before it is carried out: any other command interrupts the verification, which
        continues later.

        :raises DeadlinePassed: it does not end
        """
        if isinstance(command, Verify) or not self._running:
            return
        self._jobs.cancel(f"the command {type(command).__name__}")
        if not self._jobs.wait(min(HOLD_SECONDS, deadline.left)):
            raise DeadlinePassed("interrupting the verification", deadline.seconds)

    def begin(self, command: Verify) -> None:
        """Returns when the verification is under way. An interrupted one continues; one that is under way is left
        alone.

        :raises Refused: something else is under way
        """
        if command.stop:
            return self._stop()
        if self._running:
            self._repair = self._repair or command.repair
            return None
        found = replace(
            self.findings,
            primary=command.primary,
            halted="",
            failed=False,
            interrupted=self.findings.interrupted + 1,
            repair=self.findings.repair or command.repair,
        )
        if not found.under_way or command.anew or command.tables not in ((), found.wanted):
            found = Findings(
                began=self._clock.now(),
                primary=command.primary,
                wanted=command.tables,
                rate=command.rate,
                max_load=command.max_load,
                ordered=command.ordered,
                repair=command.repair,
            )
        self._running, self._repair = True, found.repair
        self._ended_at = None
        try:
            self._jobs.start(
                f"verifying against {command.primary}",
                lambda job: self._work(job, command.agent, found),
            )
        except Refused:
            self._running = False
            raise

    def forget(self) -> None:
        """The data was replaced: former results are void."""
        self._repair = False
        self._keep(Findings())

    def _stop(self) -> None:
        """Stop; a verification that has ended stays as it was reported."""
        if self._running:
            self._ended_at = (
                self._clock.now()
            )  # also where the work takes longer to end than is waited for
            self._jobs.cancel("an operator")
            self._jobs.wait(HOLD_SECONDS)
        if self.findings.under_way:
            why = self.findings.halted if self.findings.failed else ENDED
            self._keep(
                replace(self.findings, ended=self._ended_at or self._clock.now(), halted=why)
            )

    def _work(self, job: Job, agent: str, found: Findings) -> None:
        try:
            self._keep(found)
            for table in self._tables(job, agent):
                if table not in self.findings.finished:
                    self._table(job, agent, table)
            self._fitness.verified(self.findings.different(), self.findings.wanted)
            self._keep(replace(self.findings, ended=self._clock.now(), table="", after=(), last=()))
        except UnknownTable as error:
            self._halt(str(error), failed=True, ended=self._clock.now())
        except HoldfastError as error:
            # the member is well even if it failed: the failure is reported separately, and it is tried again
            if job.called_off and self._ended_at is not None:
                self._halt(ENDED, failed=False, ended=self._ended_at)
            else:
                self._halt(job.called_off or str(error), failed=not job.called_off)
            say(logger, str(error), logging.INFO if job.called_off else logging.WARNING)
        except Exception as error:
            self._halt(repr(error), failed=True)
            raise
        finally:
            self._running = False

    def _halt(self, why: str, failed: bool, ended: float = 0.0) -> None:
        """Report the end at once, also where it cannot be written to disk."""
        self.findings = replace(
            self.findings, halted=why, failed=failed, repair=self._repair, ended=ended
        )
        self._publish()
        self._save()

    def _tables(self, job: Job, agent: str) -> list[str]:
        """The tables of the primary and of this member; tables that are not compared are recorded with the reason."""
        shown = self._shown.to(agent)
        with answers_of(job, agent, "/v1/verify/tables", shown, {}) as answers:
            listed = next(answers)["tables"]
        own = [
            (table_name(each.table), each.skipped)
            for each in self._digester.tables(job.deadline(CHUNK_SECONDS))
        ]
        skipped = dict([*own, *((each["table"], each["skipped"]) for each in listed)])
        wanted = self.findings.wanted
        if unknown := [name for name in wanted if name not in skipped]:
            raise UnknownTable(f"there is no table {', '.join(unknown)}")
        chosen = sorted(wanted or skipped)
        results = dict(self.findings.results)
        results |= {name: TableResult(skipped=skipped[name]) for name in chosen if skipped[name]}
        self._keep(replace(self.findings, results=results))
        return [name for name in chosen if not skipped[name]]

    def _table(self, job: Job, agent: str, name: str) -> None:
        goes_on = self.findings.table == name
        after = self.findings.after if goes_on else ()
        result = self.findings.results.get(name, TableResult()) if goes_on else TableResult()
        rows = FIRST_ROWS
        while True:
            job.stage(
                f"verifying against {self.findings.primary}: {name}, {result.rows} rows so far"
            )
            begun = self._clock.monotonic()
            chunk, count, difference = self._piece(job, agent, name, after, rows)
            took = self._clock.monotonic() - begun
            result = result.with_piece(count, difference)
            over = not chunk.upto
            finished = (*self.findings.finished, name) if over else self.findings.finished
            self.findings = replace(
                self.findings,
                table="" if over else name,
                after=chunk.upto,
                finished=finished,
                results={**self.findings.results, name: result},
            )
            if difference:
                self._fitness.verified(self.findings.different(), self.findings.results)
            self._keep(self.findings, at_once=over or bool(difference))
            if over:
                return
            after = chunk.upto
            rows = min(max(int(rows * WANTED_SECONDS / took), LEAST_ROWS, rows // 4), 4 * rows)
            rows = min(rows, MOST_ROWS)
            # at most half of the time, and no more rows a second than is allowed
            job.pause(max(took, count / self.findings.rate - took if self.findings.rate else 0.0))

    def _piece(
        self, job: Job, agent: str, name: str, after: Key, rows: int
    ) -> tuple[Chunk, int, str]:
        """Compare the piece behind ``after``: return the piece, its number of rows, and how it differs, or \"\"."""
        differed = False
        for attempt in range(ATTEMPTS):
            try:
                self._wait_for_quiet(job, agent)
                chunk, mine, theirs, key = self._read_both(job, agent, name, after, rows)
            except CalledOff:
                raise
            except HoldfastError as error:
                job.check()
                if attempt == ATTEMPTS - 1:
                    raise
                job.stage(
                    f"verifying against {self.findings.primary}: {name} is tried again: {error}"
                )
                job.pause(ATTEMPT_SECONDS)
                continue
            if mine == theirs:
                return chunk, rows_of(mine), ""
            if differed:
                return chunk, rows_of(mine), described(chunk, key)
            differed = True
        raise Refused(f"{name} could not be compared")

    def _read_both(
        self, job: Job, agent: str, name: str, after: Key, rows: int
    ) -> tuple[Chunk, str, str, tuple[str, ...]]:
        last = self.findings.last if after else ()
        asked = {"table": name, "after": after, "last": last, "rows": rows}
        shown = self._shown.to(agent)
        with (
            self._hold.stopped(),
            answers_of(job, agent, "/v1/verify/piece", shown, asked) as answers,
        ):
            first = next(answers)
            self.findings = replace(self.findings, last=tuple(first["last"]))
            self._digester.apply_until(HistoryPlace(**first["place"]), job.deadline(CHUNK_SECONDS))
            chunk = Chunk(parse_table(name), after, tuple(first["upto"]))
            mine = self._digester.chunk_here(chunk, job.deadline(CHUNK_SECONDS))
            theirs = next(answers)
        return chunk, mine, str(theirs["digest"]), tuple(theirs["key"])

    def _wait_for_quiet(self, job: Job, agent: str) -> None:
        """Wait as long as either server is too busy."""
        while self.findings.max_load:
            shown = self._shown.to(agent)
            with answers_of(job, agent, "/v1/verify/load", shown, {}) as answers:
                there = int(next(answers)["running"])
            here = self._digester.running(job.deadline(CHUNK_SECONDS))
            if max(there, here) <= self.findings.max_load:
                return
            job.stage(
                f"verifying against {self.findings.primary}: paused, {max(there, here)} threads are at work "
                f"and max-load is {self.findings.max_load}"
            )
            job.pause(BUSY_SECONDS)

    # -- what is on disk --------------------------------------------------------------------------

    def _keep(self, findings: Findings, at_once: bool = True) -> None:
        self.findings = replace(findings, repair=self._repair)
        if at_once or self._clock.monotonic() - self._saved_at > SAVE_SECONDS:
            self._save()
        self._publish()

    def _save(self) -> None:
        """A piece that is compared twice does no harm."""
        try:
            replace_durably(self._path, self.findings.to_json() + "\n")
        except OSError as error:
            raise Refused(f"cannot write {self._path}: {error.strerror}") from error
        self._saved_at = self._clock.monotonic()

    def _publish(self) -> None:
        self._published.change(verified=self.findings.told() if self.findings.began else None)

    def _read(self) -> Findings:
        """A file that cannot be read is begun anew."""
        try:
            return Findings.of_json(self._path.read_text())
        except (OSError, ValueError):
            return Findings()
