"""Memory shared by agent and keeper process: each writes there until when it upholds the lease.

Either of them may stand still for any time. The other one then reads its last value, and writes its own, which is read
once the first continues. A channel of messages would be full by then.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os

_WORDS = 3


class LeaseWords:
    """Moments on the clock of leases; each has one writer. A value is written in one step, never in halves.

    :ivar fd: of the memory, to be handed to the other process
    """

    def __init__(self, fd: int | None = None) -> None:
        """:param fd: the other process's memory; None: new memory"""
        new = fd is None
        self.fd = os.memfd_create("holdfast-lease") if fd is None else fd
        size = _WORDS * ctypes.sizeof(ctypes.c_double)
        if new:
            os.ftruncate(self.fd, size)
        self._map = mmap.mmap(self.fd, size)
        # one aligned store of the processor for each assignment
        self._words = (ctypes.c_double * _WORDS).from_buffer(self._map)
        if new:
            self._words[:] = [-math.inf] * _WORDS

    @property
    def agent_until(self) -> float:
        """The end of the lease as the agent upholds it: by a manager's grant, or by its peers."""
        return self._words[0]

    @agent_until.setter
    def agent_until(self, until: float) -> None:
        self._words[0] = max(self._words[0], until)

    @property
    def keeper_until(self) -> float:
        """The end of the lease as voters have confirmed it to the keeper process."""
        return self._words[1]

    @keeper_until.setter
    def keeper_until(self, until: float) -> None:
        self._words[1] = max(self._words[1], until)

    @property
    def looked_at(self) -> float:
        """When the keeper process looked at its clock for the last time."""
        return self._words[2]

    @looked_at.setter
    def looked_at(self, moment: float) -> None:
        self._words[2] = moment
