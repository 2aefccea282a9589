"""Warns where a server that this agent starts would have lower limits than the one that runs now; see
``core/check/limits.py``."""

from __future__ import annotations

from holdfast.agent.observe.server_run import ServerRun
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.check.limits import too_few
from holdfast.server.process import limits


class Limits:
    def __init__(self, server_run: ServerRun, published: PublishedState) -> None:
        self._server_run = server_run
        self._published = published
        self._looked_at = 0

    def looked(self) -> None:
        """Called at each look; checks once for each run."""
        running = self._server_run.current()
        if running is None or running.pid == self._looked_at:
            return
        self._looked_at = running.pid
        server = limits.of_server(running.pid)
        found = too_few(server, limits.inherited()) if server else None
        self._published.concern("limits", "; ".join(found or ()))
