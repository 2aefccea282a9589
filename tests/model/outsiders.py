"""What hooks move: an address of the clients, which the model's hooks take from one primary and give to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from holdfast.core.calls import Called, HookOutcome, Phase
from holdfast.core.record import Record


@dataclass
class Outsiders:
    """:ivar address: who has it, or ""
    :ivar failing: how often the next calls of a phase fail
    :ivar calls: phase, and the primary then, of each that has ended well
    :ivar slow: for how many looks a call goes on
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
        """Time passes for those that run."""
        for phase, (looks, primary) in list(self.running.items()):
            if looks:
                self.running[phase] = (looks - 1, primary)
            else:
                del self.running[phase]
                self._end(phase, primary)
        return dict(self.called)

    def new_manager(self) -> None:
        """Of what was called it knows nothing. What ran for the one before may have done its work, or not: the one or
        the other by who is primary, so that both are seen."""
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
