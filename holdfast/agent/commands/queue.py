"""The command queue: one command at a time, a newer manager's before an older one's."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from holdfast.agent.commands.execute import CommandExecutor
from holdfast.agent.disk.obeyed import Obeyed
from holdfast.agent.disk.term import TermFile
from holdfast.agent.lease.vouch import Vouch
from holdfast.agent.observe.observer import ServerObserver
from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.agent.runtime.steps import Steps
from holdfast.core.commands import Command, Drain, Fence, Freeze, Promise
from holdfast.errors import HoldfastError, OutcomeUnknown, Refused, StaleTerm
from holdfast.http.wire import CommandReply, Told, command_name, consequence
from holdfast.log import say

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Job:
    term: int
    command: Command
    told: Told
    reply: Future[CommandReply] = field(default_factory=Future)
    cancelled: bool = False


class CommandQueue:
    """Carries out commands in the order of their arrival, in one thread.

    A command cancels every running or waiting command of a lower term; a fence also those of its own term. A command
    that equals the last one in the queue shares its answer.

    :ivar steering: context around each command: the command may restart the server's receiver
    """

    def __init__(
        self,
        executor: CommandExecutor,
        term: TermFile,
        obeyed: Obeyed,
        server_run: ServerRun,
        observer: ServerObserver,
        published: PublishedState,
        vouch: Vouch,
    ) -> None:
        self._executor = executor
        self._term = term
        self._obeyed = obeyed
        self._server_run = server_run
        self._observer = observer
        self._published = published
        self._clock = published.clock
        self._vouch = vouch
        self.steering: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        self._jobs: deque[_Job] = deque()
        self._more = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Cancel the running command and accept no more; the server is left as it is. Never blocks."""
        with self._more:
            self._stopped = True
            for job in self._jobs:
                job.cancelled = True
            self._more.notify()

    def submit(self, term: int, command: Command, told: Told | None = None) -> Future[CommandReply]:
        """Append a command to the queue; never blocks. The reply says how it ended, also when it failed.

        :param told: the sender, and its record
        """
        fence = isinstance(command, Fence)
        told = told or Told()
        if refusal := self._obeyed.refusal(term, told):
            return self._answered(refusal)
        with self._more:
            if self._stopped:
                return self._answered(Refused("the agent is stopping"))
            last = self._jobs[-1] if self._jobs else None
            same = last and (last.term, last.told.leader, last.command) == (
                term,
                told.leader,
                command,
            )
            if last and same and not last.cancelled:
                return last.reply
            job = _Job(term, command, told)
            job.reply.set_running_or_notify_cancel()  # the client may disconnect, the work continues
            for other in self._jobs:
                other.cancelled |= other.term < term or (fence and other.term == term)
            if fence:
                # at once: a fence waits neither for disks nor for SQL. The command itself makes sure of it
                self._server_run.kill(f"fenced by term {term}")
            if isinstance(command, Promise):
                self._vouch.promise_begins()
            self._jobs.append(job)
            self._more.notify()
        return job.reply

    def _run(self) -> None:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._jobs or self._stopped)
                if not self._jobs:
                    return
                job = self._jobs[0]
            try:
                reply = self._carry_out(job)
            except Exception as error:  # the queue must continue, whatever error a command raised
                logger.exception("a command failed unexpectedly")
                reply = self._reply(Steps(self._clock), OutcomeUnknown(repr(error)))
            if isinstance(job.command, Promise):
                self._vouch.promise_ends(kept=not reply.error)
            with self._more:
                self._jobs.popleft()
            job.reply.set_result(reply)

    def _carry_out(self, job: _Job) -> CommandReply:
        steps = Steps(self._clock)
        begun = self._clock.monotonic()
        error: HoldfastError | None = None
        with self._busy(command_name(job.command)):
            try:
                self._promise(job, steps)
                with self.steering(), self._freeing(job, steps):
                    self._executor.perform(job.term, job.command, lambda: job.cancelled, steps)
            except HoldfastError as raised:
                error = raised
            except OSError as raised:
                error = OutcomeUnknown(str(raised))
            if error is not None or not isinstance(job.command, Freeze):
                # a frozen server's positions were read already, and writers wait
                error = self._look(job, error, steps)
            self._obeyed.settle()
            if error is None and isinstance(job.command, Promise):
                self._published.change(promised=job.term)
        self._tell(job, error, steps, (self._clock.monotonic() - begun) * 1000)
        return self._reply(steps, error)

    def _freeing(self, job: _Job, steps: Steps) -> AbstractContextManager[None]:
        return self._observer.freeing.during(job.term, job.command, steps)

    def _promise(self, job: _Job, steps: Steps) -> None:
        if refusal := self._obeyed.refusal(job.term, job.told):
            raise refusal
        if job.cancelled:
            raise Refused("called off by a newer command")
        if job.term > self._term.promised:
            try:
                self._obeyed.raise_to(job.term, job.told)
            except Refused as error:
                if isinstance(job.command, Fence):
                    raise OutcomeUnknown(f"the server was killed, but {error}") from error
                raise
            self._published.change(term=job.term, leader=job.told.leader)
            steps.done("term on disk")
        else:
            self._obeyed.remember(job.told)

    def _look(self, job: _Job, error: HoldfastError | None, steps: Steps) -> HoldfastError | None:
        """Observe the server: the reply shows it as it is after the command."""
        if isinstance(error, StaleTerm):
            return error
        try:
            self._observer.look()
            steps.done("observed")
        except HoldfastError as unseen:
            # an earlier look does not show what the member had received when its receiver stopped
            if (
                error is None
                and self._published.state.up
                and isinstance(job.command, Promise | Drain)
            ):
                return OutcomeUnknown(f"done, but its positions cannot be read: {unseen}")
        return error

    def _reply(self, steps: Steps, error: HoldfastError | None) -> CommandReply:
        state, version = self._published.seen()
        return CommandReply(
            state=state,
            version=version,
            steps=steps.ms,
            error=consequence(error) if error else "",
            message=str(error) if error else "",
            promised=error.promised if isinstance(error, StaleTerm) else 0,
        )

    def _answered(self, error: HoldfastError) -> Future[CommandReply]:
        reply: Future[CommandReply] = Future()
        reply.set_result(self._reply(Steps(self._clock), error))
        return reply

    def _tell(self, job: _Job, error: HoldfastError | None, steps: Steps, ms: float) -> None:
        what = f"{command_name(job.command)} of term {job.term}"
        if error is None:
            say(logger, f"{what}: done in {ms:.1f} ms ({steps})")
        else:
            say(
                logger,
                f"{what}: {error}",
                logging.WARNING,
                consequence=consequence(error),
                ms=round(ms, 1),
            )

    @contextlib.contextmanager
    def _busy(self, name: str) -> Iterator[None]:
        self._published.change(busy=name)
        try:
            yield
        finally:
            self._published.change(busy="")
