"""Whether a virtual address belongs on this host now. Pure: time is an argument.

While the agent lives, its word counts, and no longer than the lease that came with it. Where the agent is gone its
server goes on (``agent/lease/keeper.py``), and so does the address: for as long as that very server lives, nobody else
says to have the address, and ``linger`` is not over.
"""

from __future__ import annotations

import math

UNATTENDED_SECONDS = 2
"""The lifetime in the kernel while the agent is gone: nothing else of the host ends it when all of it stands still."""
RENEW_UNATTENDED_SECONDS = 0.5


class Claim:
    """:ivar until: it belongs here until then
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
        """The agent says: its server is the open primary, by a lease until then."""
        self.until = until
        self._renew_at = -math.inf

    def upheld(self, until: float) -> None:
        """The lease by which it is held lasts longer than the agent has said."""
        if math.isfinite(self.until) and until > self.until:
            self.held(until)

    def dropped(self) -> None:
        """The agent says that it is not; or the server has ended."""
        self.until = -math.inf

    def abandoned(self, now: float) -> None:
        """The agent is gone."""
        self.attended = False
        if self.holds(now):
            self.until = now + self._linger
            self._renew_at = -math.inf

    def contested(self) -> None:
        """Another host says to have it. Without an agent nobody knows here who is right, so it is left to that one."""
        if not self.attended:
            self.until = -math.inf

    def renewal(self, now: float) -> int | None:
        """The lifetime in whole seconds to give the address in the kernel now; None: not yet.

        It is counted from each renewal of the lease and no longer than what is left of that, if possible: so on a host
        that stands still the address goes when the lease does. Less than a second cannot be had.
        """
        if not self.holds(now) or now < self._renew_at:
            return None
        if not self.attended:
            self._renew_at = now + RENEW_UNATTENDED_SECONDS
            return UNATTENDED_SECONDS
        self._renew_at = math.inf
        return max(1, int(self.until - now))

    def next(self, now: float) -> float | None:
        """When something will be due; None: not by time alone, as when what held has ended."""
        if not self.holds(now):
            return None
        return min(self.until, max(self._renew_at, now))
