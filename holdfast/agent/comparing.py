"""The Compare command: tables that a rewind touched are compared with the primary's, at one moment of its history.

The applier is held while the primary's agent chooses that moment, then it applies up to it; both ends take their
digests, and the applier runs on. The receiver is left alone: a voter goes on acknowledging. Called off or failed, the
tables stay suspect, and it is asked for again.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from holdfast.agent.cutting import Marker
from holdfast.agent.fitness import Fitness
from holdfast.agent.job import CalledOff, Job, Jobs
from holdfast.core.commands import Command, Compare
from holdfast.errors import DeadlinePassed, HoldfastError, Refused, Unreachable
from holdfast.server.base import Deadline, Server
from holdfast.server.digest import Digester, Place, parse_table, table_name
from holdfast.tls import Credentials, explain

DIGEST_SECONDS = 6 * 3600.0
HOLD_SECONDS = 5.0
SILENT_SECONDS = 5.0
"""The primary's agent says something four times a second."""
PAUSE_SECONDS = (10.0, 30.0, 120.0, 300.0)
"""After each attempt that did not work out: one may hold the primary's writers up for a second."""


class Comparing:
    """:ivar held: the applier is stopped on purpose, and will run on by itself"""

    def __init__(
        self,
        jobs: Jobs,
        server: Server,
        digester: Digester,
        fitness: Fitness,
        shown: Credentials,
        publish: Callable[[], None],
        state_dir: Path,
    ) -> None:
        self.held = False
        self._jobs = jobs
        self._server = server
        self._digester = digester
        self._fitness = fitness
        self._shown = shown
        self._publish = publish
        self._running = False
        self._holding = Marker(state_dir / "holding")

    def admit(self, command: Command, deadline: Deadline) -> None:
        """Called with every command before it is carried out: most need the applier, so they end a comparison.

        :raises DeadlinePassed: it does not end
        """
        if isinstance(command, Compare):
            return
        if not self._running:
            if self._holding.marked():  # the agent was killed amid a comparison
                with contextlib.suppress(HoldfastError):
                    self._let_run()
            return
        self._jobs.cancel(f"the command {type(command).__name__}")
        if not self._jobs.wait(min(HOLD_SECONDS, deadline.left)):
            raise DeadlinePassed("calling off the comparison", deadline.seconds)

    def begin(self, command: Compare) -> None:
        """Returns when it is under way; asked for again, it leaves that alone.

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
        with ExitStack() as stack:
            self._hold(stack)
            answers = stack.enter_context(
                _asked(job, command.agent, self._shown.to(command.agent), names)
            )
            place = Place(**next(answers)["place"])
            self._digester.apply_until(place, job.deadline(DIGEST_SECONDS))
            mine = self._digester.here(tables, job.deadline(DIGEST_SECONDS))
            theirs = next(answers)["digests"]
        different = [
            table_name(table) for table in tables if mine[table] != theirs[table_name(table)]
        ]
        if different:
            self._fitness.declare_unfit(
                f"after it was rewound it still differs from {command.primary} in {', '.join(different)}"
            )
        else:
            self._fitness.compared()

    def _hold(self, stack: ExitStack) -> None:
        """Stop the applier, which runs on at the end, whatever happens."""
        self.held = True
        stack.callback(self._let_run)
        self._holding.mark()
        self._server.hold_applier(Deadline(HOLD_SECONDS))

    def _let_run(self) -> None:
        try:
            self._server.hold_applier(
                Deadline(HOLD_SECONDS)
            )  # it may still be on its way to a place
            self._digester.release(Deadline(HOLD_SECONDS))
            self._publish()
        except Unreachable:
            pass  # a server that ended holds nothing any more
        finally:
            self.held = False
        self._holding.clear()


@contextlib.contextmanager
def _asked(
    job: Job, agent: str, shown: Credentials, names: tuple[str, ...]
) -> Iterator[Iterator[dict[str, Any]]]:
    """What the primary's agent answers; see ``digesting.py``. To leave it calls its work off."""
    timeout = httpx.Timeout(SILENT_SECONDS)
    try:
        with (
            httpx.Client(
                headers=shown.headers, verify=shown.verify, timeout=timeout, trust_env=False
            ) as http,
            http.stream("POST", f"{agent}/v1/digest", json={"tables": names}) as response,
        ):
            if response.is_error:
                raise Refused(f"{agent} answers {response.status_code}")
            yield _answers(job, response)
    except (httpx.TransportError, ssl.SSLError) as error:
        raise Unreachable(f"{agent}: {explain(error) or error or type(error).__name__}") from None


def _answers(job: Job, response: httpx.Response) -> Iterator[dict[str, Any]]:
    """:raises Refused: as it did there; :raises Unreachable: it ends too early"""
    for line in response.iter_lines():
        job.check()
        if line.strip():
            said: dict[str, Any] = json.loads(line)
            if "error" in said:
                raise Refused(f"the primary: {said['error']}")
            yield said
    raise Unreachable("the primary's agent ended in the middle of its answer")
