"""Whether a virtual address belongs on this host now. Pure: time is an argument.

While the agent lives, its order counts, but no longer than the lease that came with it. Where the agent is gone its
server continues to run (``agent/lease/keeper.py``), and the address stays: as long as that very server lives, no other
host announces the address, and ``linger`` is not over.
"""

from __future__ import annotations

import math

UNATTENDED_SECONDS = 2
"""The lifetime in the kernel while the agent is gone: when the whole host stands still, nothing else ends the
address."""
RENEW_UNATTENDED_SECONDS = 0.5


class Claim:
    """:ivar until: the address belongs here until then
    :ivar attended: there is an agent
    """

    def __init__(self, linger: float) -> None:
        self.until = -math.inf
        self.attended = True
        self._linger = linger
        self._renew_at = -math.inf

    def holds(self, now: float) -> bool:
        return now < self.until

    def held(self, until: float) -> None:
        """The agent says that its server is the open primary, under a lease until then."""
        self.until = until
        self._renew_at = -math.inf

    def upheld(self, until: float) -> None:
        """The lease under which the address is held lasts longer than the agent has said."""
        if math.isfinite(self.until) and until > self.until:
            self.held(until)

    def dropped(self) -> None:
        """The agent says that its server is not the open primary; or the server has ended."""
        self.until = -math.inf

    def abandoned(self, now: float) -> None:
        """The agent is gone."""
        self.attended = False
        if self.holds(now):
            self.until = now + self._linger
            self._renew_at = -math.inf

    def contested(self) -> None:
        """Another host announces the address. Without an agent nothing here shows which host is right, so this one
        yields."""
        if not self.attended:
            self.until = -math.inf

    def renewal(self, now: float) -> int | None:
        """The lifetime in whole seconds to give the address in the kernel now; None: not yet.

        It is counted from each renewal of the lease, and is no longer than what is left of that, if possible: so on a
        host that stands still the address ends with the lease. The kernel's unit is one second.
        """
        if not self.holds(now) or now < self._renew_at:
            return None
        if not self.attended:
            self._renew_at = now + RENEW_UNATTENDED_SECONDS
            return UNATTENDED_SECONDS
        self._renew_at = math.inf
        return max(1, int(self.until - now))

    def next(self, now: float) -> float | None:
        """The time at which something will be due; None: time alone makes nothing due, as when the held server has
        ended."""
        if not self.holds(now):
            return None
        return min(self.until, max(self._renew_at, now))
