"""Finds out which transactions of its binlog's end the engine of a stopped server has committed."""

from __future__ import annotations

from pathlib import Path

from holdfast.agent.observe.server_run import ServerRun
from holdfast.binlog.pending.tail import Pending, reaches_into
from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError
from holdfast.server.base import Deadline
from holdfast.server.data.committed import last_commits

PATIENCE_SECONDS = 45.0
"""An engine that needs longer to recover counts as one that has committed everything."""


class Engine:
    """:param state_dir: what the server's program logs meanwhile is written there"""

    def __init__(
        self, flavor: Flavor, server_run: ServerRun, datadir: Path, state_dir: Path
    ) -> None:
        self._flavor = flavor
        self._server_run = server_run
        self._datadir = datadir
        self._said = state_dir.absolute() / "engine.out"

    def committed(self, tail: Pending, deadline: Deadline) -> str:
        """Why something of ``tail`` is committed, or may be; "" where nothing is.

        MySQL's engine shows it only after the start (``server/data/committed.py``): what it has committed, and what was
        cut, is then in ``gtid_executed``, and nowhere in its binlogs, so that the member is cloned.

        :raises Refused: cancelled
        """
        if self._flavor is Flavor.MYSQL:
            return ""
        process = self._server_run.process
        patience = deadline.within(PATIENCE_SECONDS)

        def ask() -> list[tuple[str, int]]:
            known = last_commits(
                process.command, process.option_file, self._datadir, self._said, patience
            )
            return [(each.file, each.end) for each in known]

        try:
            return reaches_into(tail, self._server_run.alone(ask))
        except HoldfastError as error:
            if deadline.cancelled():
                raise
            return f"what its engine has committed is not known ({error})"
