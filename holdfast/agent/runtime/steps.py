"""How long a command may take, and how long its parts took."""

from __future__ import annotations

import time

from holdfast.core.commands import (
    Bar,
    Clone,
    Close,
    Command,
    CommitEmpty,
    Compare,
    Cut,
    Drain,
    EndReplicas,
    EndSessions,
    EnsureAccount,
    Equip,
    Fence,
    Fetch,
    Follow,
    Forget,
    Freeze,
    Initialise,
    Inventory,
    Judge,
    MendAccount,
    Promise,
    Promote,
    Prove,
    Restart,
    Rewind,
    SetAcks,
    Start,
    Unbar,
    Verify,
)

SECONDS: dict[type[Command], float] = {
    Promise: 1.0,
    Drain: 10.0,
    Follow: 15.0,
    Promote: 15.0,
    SetAcks: 3.0,
    Prove: 5.0,
    Fence: 2.0,
    Cut: 60.0,
    Start: 5.0,
    Fetch: 15.0,
    Bar: 2.0,
    Unbar: 1.0,
    Restart: 120.0,
    Rewind: 120.0,
    Judge: 20.0,
    Forget: 20.0,
    CommitEmpty: 5.0,
    Compare: 5.0,
    Verify: 8.0,
    Clone: 30.0,
    Inventory: 60.0,
    Equip: 5.0,
    EnsureAccount: 5.0,
    MendAccount: 3.0,
    Initialise: 300.0,
    Freeze: 5.0,
    Close: 10.0,
    EndSessions: 5.0,
    EndReplicas: 2.0,
}
"""How long each command may take."""


class Steps:
    """Milliseconds of each part of the work, in order."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._begun = time.monotonic()
        self._last = self._begun

    def done(self, what: str) -> None:
        now = time.monotonic()
        self.ms[what] = round((now - self._last) * 1000, 2)
        self._last = now

    def __str__(self) -> str:
        return ", ".join(f"{what} {ms:g}" for what, ms in self.ms.items())
