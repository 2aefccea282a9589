"""For how long a replica has received nothing from its source, computed from look to look."""

from __future__ import annotations

from holdfast.core.view import Receiver, Replication

LATE_SECONDS = 0.5
"""Maximum silence that one pair of looks can add. If more time lies between them, the agent, or the whole host, may not
have run meanwhile, and what the source sent then waits to be read."""


class Hearing:
    """Counts silence, and never more of it than there was.

    Something was received when its traces have changed from one look to the next, or the receiver has connected. It
    came before the *end* of the look that shows it, and nothing came until the *beginning* of a look that shows no
    change: only that time is reported.

    A receiver that is OFF receives nothing on purpose: the count stands still. It begins anew with another source.
    """

    def __init__(self) -> None:
        self.unheard = 0.0
        self._source = ""
        self._connected = False
        self._traces: tuple[object, ...] = ()
        self._counted_until = 0.0

    def heard(
        self, begun: float, ended: float, replication: Replication, traces: tuple[object, ...]
    ) -> float:
        """For how long nothing has been received.

        :param begun, ended: of this look, on a monotonic clock
        """
        connected = replication.receiver is Receiver.ON
        came = (
            not replication.source
            or replication.source != self._source
            or traces != self._traces
            or (connected and not self._connected)
        )
        if came:
            self.unheard, self._counted_until = 0.0, ended
        elif replication.receiver is Receiver.OFF:
            self._counted_until = ended
        else:
            silence = max(0.0, begun - self._counted_until)
            self.unheard += min(silence, LATE_SECONDS)
            self._counted_until = max(begun, self._counted_until)
        self._source, self._connected, self._traces = replication.source, connected, traces
        return round(self.unheard, 3)
