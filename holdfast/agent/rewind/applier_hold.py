"""Stops the applier on purpose while tables are compared with the primary's at one place in its history.

The receiver keeps running: a voter continues to acknowledge. A marker on disk says that the applier is held, so that
the successor of an agent that was killed meanwhile starts it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.agent.disk.marker import Marker
from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.errors import HoldfastError, Unreachable
from holdfast.server.base import Deadline, Server
from holdfast.server.data.digest import Digester

HOLD_SECONDS = 5.0


class ApplierHold:
    """:ivar held: the applier is stopped on purpose, and will continue by itself"""

    def __init__(
        self,
        server: Server,
        digester: Digester,
        publish: Callable[[], None],
        state_dir: Path,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._clock = clock
        self.held = False
        self._server = server
        self._digester = digester
        self._publish = publish
        self._holding = Marker(state_dir / "holding")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Context in which the applier is stopped, except for what the digester has it apply; it continues at the
        end."""
        self.held = True
        try:
            self._holding.mark()
            self._server.hold_applier(self._deadline())
            yield
        finally:
            self._let_run()

    def let_run_what_is_left(self) -> None:
        """Start the applier that a killed agent left stopped amid a comparison."""
        if not self.held and self._holding.marked():
            with contextlib.suppress(HoldfastError):
                self._let_run()

    def _deadline(self) -> Deadline:
        return Deadline(HOLD_SECONDS, clock=self._clock)

    def _let_run(self) -> None:
        try:
            # the applier may still be on its way to a place
            self._server.hold_applier(self._deadline())
            self._digester.release(self._deadline())
            self._publish()
        except Unreachable:
            pass  # a server that ended holds no applier any more
        finally:
            self.held = False
        self._holding.clear()
