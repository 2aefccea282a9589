"""After a crash: what the binlog holds and the tables may not is made equal, compared, or a reason to clone.

While the server is down its agent records this on disk (:meth:`Settling.doubt`); it settles it before the server
follows any other or is opened (:meth:`Settling.settle`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.binlog.pending.doubts import XaEnd, doubts
from holdfast.core.gtid import Flavor
from holdfast.errors import Refused
from holdfast.log import say
from holdfast.server.base import Deadline
from holdfast.server.data.digest import table_name
from holdfast.server.data.xa import PreparedTransactions

SYSTEM = frozenset({"mysql", "sys", "performance_schema"})
"""MariaDB keeps accounts in tables without transactions; statements on them are logged as such."""

logger = logging.getLogger(__name__)

Done = Callable[[str], None]


class Settling:
    """One member.

    :param was_open: whether the last run of the server took writes
    """

    def __init__(
        self,
        published: PublishedState,
        fitness: Fitness,
        prepared: PreparedTransactions,
        index: Path,
        was_open: Callable[[], bool],
    ) -> None:
        self._published = published
        self._fitness = fitness
        self._prepared = prepared
        self._index = index
        self._was_open = was_open
        self._settled = ""

    def doubt(self, deadline: Deadline) -> None:
        """Record what the stopped server may lack although it has logged it.

        :raises Refused: it cannot be read, or recorded
        """
        if not self._index.exists():
            return
        found = doubts(self._index, lambda: deadline.check("reading the binlog"))
        if found.unknown:
            self._fitness.declare_unfit(
                "its server crashed, and may have lost what its binlog holds of a table that knows no transactions: "
                f"{found.unknown}"
            )
        tables = [table_name(each) for each in found.tables if each[0] not in SYSTEM]
        # a replica has what it applied in part in its relay log, and applies it again
        self._fitness.doubt(tables, found.xa, found.crashed and self._was_open())

    def settle(self, deadline: Deadline, done: Done) -> None:
        """Call before a server that was just started follows any other, or is opened.

        :raises Refused: it must be cloned
        """
        state = self._published.state
        unlogged = self._fitness.unlogged
        if state.incarnation == self._settled or state.writable:
            return
        if state.replication.source and not unlogged:
            return
        noted = bool(self._fitness.xa)
        if state.flavor is Flavor.MARIADB and (noted or state.prepared):
            self._settle_xa(noted, deadline, done)
        found = self._prepared.unprotected(deadline) if unlogged else frozenset()
        needless = self._prepared.in_memory(deadline) if self._fitness.suspects else frozenset()
        if noted or needless or unlogged:
            self._fitness.settled([table_name(each) for each in found], needless)
        self._settled = state.incarnation

    def _settle_xa(self, noted: bool, deadline: Deadline, done: Done) -> None:
        """MariaDB: carry out what its binlog says and recovery did not. A transaction that is prepared there and not
        here cannot be recreated."""
        now = self._prepared.now(deadline)
        said: Mapping[str, str] = self._fitness.xa
        if now and not noted:  # a primary that comes back in place: its binlog was not read yet
            said = doubts(self._index, lambda: deadline.check("reading the binlog")).xa
        for xid, end in sorted(said.items()):
            if xid in now and end != XaEnd.PREPARED:
                self._prepared.end(xid, end == XaEnd.COMMITTED, deadline)
                say(logger, f"the XA transaction {xid} was {end} in the binlog, and is here now")
                done(f"{xid} {end}")
        lost = sorted(xid for xid, end in said.items() if end == XaEnd.PREPARED and xid not in now)
        if not lost:
            return
        why = f"its server crashed, and has lost prepared XA transactions ({'; '.join(lost)})"
        if noted:
            self._fitness.declare_unfit(f"{why} that others have")
            raise Refused(why)
        say(logger, f"{why}: end them on its replicas", logging.WARNING)
