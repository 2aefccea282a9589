"""What differs between MariaDB and MySQL: ``server/mariadb.py`` and ``server/mysql.py`` have one of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.core.gtid import Flavor, GtidSet
from holdfast.core.view import Receiver, Replication
from holdfast.server.base import Deadline, Source
from holdfast.server.connection.sql import Connection, Row
from holdfast.server.replication.acknowledge import FilePosition
from holdfast.server.replication.barring import Catalog
from holdfast.server.replication.following import Following
from holdfast.server.replication.waiting import Names

RELAXED = {"sync_binlog": 0, "innodb_flush_log_at_trx_commit": 2}
"""Of a replica, which falls behind at 1/1. Flush 2, not 0: with 0 a killed server would lose from InnoDB what its
binlog has."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Names, and statements that depend on no state of the agent. Settings are global variables with their values.

    :ivar names: of semi-sync; :ivar catalog: queries for accounts, sessions and GTIDs
    :ivar refuse_writes: the variable that makes the server refuse writes
    :ivar refuses_all: whether it refuses those of every account
    :ivar holding_tables: returns a row if the global read lock would wait for more than must be waited for anyway; ""
        if it never does
    :ivar replica_settings: of a replica; :ivar open_settings: of a primary that takes writes
    :ivar shutting_out: see ``Observation``
    :ivar administrator_writes: let the agent's account write, while other accounts stay read-only
    :ivar parting_settings: before an orderly shutdown
    :ivar hung_up_seconds: how long a new primary waits for the former one to hang up
    :ivar following: how the server follows, and what it has received
    :ivar position: the receiver's state, and the position up to which it has read its source's binlog
    :ivar wait_applied: wait at most so many seconds until these GTIDs are applied, and return whether they are
    :ivar position_of: a set of GTIDs in the form that ``wait_applied`` takes
    :ivar stop_applier: stop a drained applier at once, even one that holds half a transaction
    :ivar switch_off: no commit waits for an acknowledgement any more; none does now
    :ivar switch_redo_log_on: InnoDB's, if it is off
    :ivar commit_empty: see ``Server.commit_empty``
    """

    flavor: Flavor
    names: Names
    catalog: Catalog
    refuse_writes: str
    refuses_all: bool
    holding_tables: str
    replica_settings: Mapping[str, int]
    open_settings: Mapping[str, int]
    shutting_out: tuple[str, ...]
    administrator_writes: Mapping[str, int]
    parting_settings: Mapping[str, int]
    hung_up_seconds: float
    following: Callable[[Connection, Deadline], Following]
    position: Callable[[Connection, Deadline], tuple[Receiver, FilePosition]]
    wait_applied: Callable[[Connection, str, float, Deadline], bool]
    position_of: Callable[[GtidSet], str]
    stop_applier: Callable[[Connection, Deadline], None]
    switch_off: Callable[[Connection, Deadline], None]
    switch_redo_log_on: Callable[[Connection, Deadline], None]
    commit_empty: Callable[[Connection, Sequence[str], Deadline], None]


@dataclass(frozen=True, slots=True)
class ServerLook:
    """A look at the server by statements of its flavor; see ``Observation``.

    :ivar row: with ``Names.columns``, version, server_id, origin, read_only, applied, replica_side, sync_binlog,
        redo_flush
    :ivar received: by the receiver, whether it is applied or not
    """

    row: Row
    applied: str
    received: str
    replication: Replication
    traces: tuple[object, ...]


class Repointing(Protocol):
    """How a server of one flavor is made to follow another source, so that nothing received is lost."""

    def begin(self) -> None:
        """From now on it may be another run of the server."""

    def change_source(
        self, source: Source, now: Following, deadline: Deadline, anew: bool = False
    ) -> None:
        """Make the server follow another source; on return the receiver is stopped. Drains if it must: not with
        ``anew``."""

    def before_start(self, deadline: Deadline, anew: bool) -> None:
        """Called when receiver and applier are stopped, and both will be started.

        :param anew: what is not applied was not acknowledged, and cannot be applied: it is fetched again
        """

    def resume(self, now: Following, deadline: Deadline) -> None:
        """Start the stopped applier."""


class ProofWriter(Protocol):
    """Writes rows of ``holdfast.proof``."""

    def promoted(self, domains: frozenset[int]) -> None:
        """The next row is the first of a promotion. :param domains: see ``Server.prepare_primary``"""

    def commit(self, term: int, serial: int, deadline: Deadline) -> None:
        """Commit a row, also on a read-only primary."""


@dataclass(frozen=True, slots=True)
class FlavorParts:
    """What differs between the servers of two flavors.

    :ivar look: by statements that cannot hang behind a waiting commit
    """

    dialect: Dialect
    look: Callable[[Deadline], ServerLook]
    repointing: Repointing
    rows: ProofWriter
