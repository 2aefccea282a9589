"""The live timeline of a crash: one line for each event, in the order of time."""

from __future__ import annotations

import sys
import threading
import time
from typing import TextIO

from holdfast.agent.runtime.steps import KnownStep
from holdfast.core.commands import (
    Cut,
    Drain,
    Fence,
    Follow,
    Promise,
    Promote,
    Prove,
    SetAcks,
    Start,
    name_of,
)
from holdfast.sandbox.load.events import SeenEvent

HOLD_SECONDS = 0.08
"""Lines are held back this long: an event from elsewhere may have happened earlier."""
WIDTH = 150
MEANINGS = {
    name_of(kind): meaning
    for kind, meaning in {
        Promise: "promised the term",
        Follow: "follows the primary",
        Promote: "promoted and opened",
        Cut: "pending log saved and cut",
        Start: "server started, read-only",
        Prove: "a commit of the term's own acknowledged",
        SetAcks: "acknowledgements set",
        Fence: "fenced",
        Drain: "applied all that was received",
    }.items()
}


class Timeline:
    """Prints events from several threads, counted in ms from the kill."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._held: list[SeenEvent] = []
        self._killed_at: float | None = None
        self._detected = ("", "")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timeline", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, event: SeenEvent) -> None:
        with self._lock:
            if event.kind == "killed":
                self._killed_at = event.at
            self._held.append(event)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(HOLD_SECONDS / 4):
            self._print(time.time() - HOLD_SECONDS)
        self._print(float("inf"))

    def _print(self, until: float) -> None:
        with self._lock:
            due = sorted((e for e in self._held if e.at <= until), key=lambda event: event.at)
            self._held = [event for event in self._held if event.at > until]
            killed_at = self._killed_at
        for event in due:
            same = (event.kind, event.text)
            repeated = event.kind == "detected" and same == self._detected
            self._detected = same if event.kind == "detected" else self._detected
            if killed_at is not None and event.at >= killed_at and not repeated:
                print(line(event, killed_at), file=self._out, flush=True)


def line(event: SeenEvent, killed_at: float) -> str:
    """``+  34 ms  promise    m2  ...``: when it was done, what, on which member, and where its time went."""
    text = event.text
    if event.kind == "command":
        meaning = MEANINGS.get(event.name, text)
        if KnownStep.RECEIVER_STOPPED in event.steps:
            meaning += ", receiver stopped"
        took = [f"{event.ms:.0f} ms"] if event.ms is not None else []
        parts = ", ".join(f"{name} {ms:.0f}" for name, ms in event.steps.items() if ms >= 0.5)
        took += [f"({parts})"] if parts else []
        text = f"{meaning}: {' '.join(took)}" if took else meaning
    ms = (event.at - killed_at) * 1000
    shown = f"  +{ms:6.0f} ms  {event.name:<10} {event.member:<4} {text}".rstrip()
    return shown if len(shown) <= WIDTH else shown[: WIDTH - 1] + "…"
