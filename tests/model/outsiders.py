"""What hooks move: an address of the clients, which the model's hooks remove from one primary and give to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from holdfast.core.calls import Called, HookOutcome, Phase
from holdfast.core.record import Record


@dataclass
class Outsiders:
    """:ivar address: the member that has it, or ""
    :ivar failing: how many of the next calls of a phase fail
    :ivar calls: phase, and the primary then, of each call that succeeded
    :ivar slow: for how many looks a call lasts
    :ivar closing: what the stop hook does to the server of the primary
    """

    address: str
    failing: dict[Phase, int] = field(default_factory=dict)
    calls: list[tuple[Phase, str]] = field(default_factory=list)
    slow: int = 2
    closing: Callable[[str], None] | None = None
    called: dict[Phase, Called] = field(default_factory=dict)
    running: dict[Phase, tuple[int, str]] = field(default_factory=dict)

    def call(self, phase: Phase, record: Record) -> None:
        last = self.called.get(phase)
        if last and last.term == record.term and last.outcome is not HookOutcome.BAD:
            return
        before = last.text if last and last.term == record.term else ""
        self.called[phase] = Called(record.term, HookOutcome.RUNNING, before)
        self.running[phase] = (self.slow, record.primary)

    def look(self) -> Mapping[Phase, Called]:
        """Time passes for the calls that run."""
        for phase, (looks, primary) in list(self.running.items()):
            if looks:
                self.running[phase] = (looks - 1, primary)
            else:
                del self.running[phase]
                self._end(phase, primary)
        return dict(self.called)

    def new_manager(self) -> None:
        """The new manager knows nothing about earlier calls. A call that ran for the previous manager may have done its
        work or not: which of the two depends on who is primary, so that both cases occur."""
        for phase, (_, primary) in self.running.items():
            if primary in ("m1", "m3"):
                self._move(phase, primary)
        self.running = {}
        self.called = {}

    def _end(self, phase: Phase, primary: str) -> None:
        called = self.called[phase]
        if phase is Phase.STOP and self.closing:
            self.closing(primary)
        if self.failing.get(phase, 0):
            self.failing[phase] -= 1
            self.called[phase] = replace(called, outcome=HookOutcome.BAD, text="exit 1")
            return
        self._move(phase, primary)
        self.calls.append((phase, primary))
        self.called[phase] = replace(called, outcome=HookOutcome.GOOD)

    def _move(self, phase: Phase, primary: str) -> None:
        if phase is Phase.START:
            self.address = primary
        elif self.address == primary:
            self.address = ""
