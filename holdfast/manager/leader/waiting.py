"""An order that waits until it can begin: who gave it, what it waits for, and whether it is still wanted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from holdfast.clock import SYSTEM_CLOCK, Clock
from holdfast.core.change.preflight import Objection, SwitchoverOrder
from holdfast.core.history.entry import clipped
from holdfast.core.wording import Reason, joined, key_of

Gone = Callable[[], Awaitable[bool]]
"""Whether the client that gave an order has disconnected."""

LONGEST_TEXT = 400


async def never() -> bool:
    """For an order that no client waits for."""
    return False


@dataclass(slots=True)
class Waiting:
    """A switchover that was ordered, and has touched nothing yet.

    It exists only in the memory of the leading manager: if that ends, so does the order.

    :ivar who: gave the order; :ivar gone: whether that client has disconnected; the order is cancelled then
    :ivar against: what it waits for; :ivar ended: whose sessions were ended for it
    :ivar cancelled: who cancelled it, or \"\"
    """

    order: SwitchoverOrder
    who: str
    gone: Gone = never
    clock: Clock = SYSTEM_CLOCK
    against: Sequence[Objection] = ()
    ended: list[str] = field(default_factory=list)
    cancelled: str = ""
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.clock.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has waited."""
        return self.clock.monotonic() - self._since

    @property
    def what(self) -> str:
        to = f" to {self.order.to}" if self.order.to else ""
        return f"the switchover{to} that was ordered by {self.who}"

    @property
    def text(self) -> str:
        """The text for status."""
        why = joined("; ", (each.text for each in self.against))
        why = Reason(clipped(why, LONGEST_TEXT), clipped(key_of(why), LONGEST_TEXT))
        return f"{self.what} waits, {self.order.seconds:g} s at most{self._ends()}: " + why

    def _ends(self) -> str:
        """What --kill-long has done, or will do."""
        if self.order.kill_after is None:
            return ""
        if self.ended:
            return f" (ended for it: {'; '.join(self.ended)})"
        return f" (after {self.order.kill_after:g} s it ends the connections that hold it up)"
