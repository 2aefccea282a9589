"""A transaction in a binlog: where it begins, how it ends, and what that shows about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from holdfast.binlog.events.gtid_event import MARIADB_GTID, GroupOpening, Gtid, MariadbFlags
from holdfast.binlog.events.query_event import QueryHead

_BEGIN_AND_COMMIT = 2


class GroupEnding(Enum):
    """How a transaction ends in the binlog; it decides whether crash recovery rolls it back."""

    XID = "xid"
    COMMIT = "commit"
    STATEMENT = "statement"
    XA_PREPARE = "xa prepare"
    COMPRESSED = "compressed"
    TORN = "torn"


@dataclass(frozen=True, slots=True)
class Group:
    """One transaction (or one statement outside of any): from its GTID event to its last event.

    :ivar gtid: None if anonymous, or if the file is torn within the GTID event
    :ivar own: issued by the server whose binlog this is, not applied from another
    :ivar transactional: on MariaDB, what the GTID event says; MySQL's says nothing, and it is true
    :ivar query: the first query event in it, if it has one
    :ivar xid: MariaDB: the name of the XA transaction that it prepares or ends, or ""
    :ivar empty: it was committed, and contains nothing (MySQL)
    """

    gtid: Gtid | None
    own: bool
    offset: int
    end: int
    ending: GroupEnding
    transactional: bool
    ddl: bool
    xa: bool
    query: QueryHead | None
    xid: str = ""
    empty: bool = False

    @property
    def complete(self) -> bool:
        return self.ending is not GroupEnding.TORN


@dataclass(frozen=True, slots=True)
class FileEnd:
    """The last thing that :meth:`Binlog.groups` yields.

    :ivar last_type: type of the last whole event: ROTATE and STOP mean that the file was closed
    :ivar size: bytes in the file
    :ivar checkpoint: MariaDB: the last note of the oldest file that crash recovery needs; everything in older files is
        committed
    """

    last_type: int
    size: int
    checkpoint: str | None


class OpenGroup:
    """A group whose end has not been reached."""

    __slots__ = (
        "events",
        "flags",
        "gtid",
        "mysql",
        "offset",
        "own",
        "query",
        "standalone",
        "xid",
    )

    def __init__(self, offset: int, opening_type: int, opening: GroupOpening, own: bool) -> None:
        self.offset = offset
        self.own = own
        self.mysql = opening_type != MARIADB_GTID
        self.gtid = opening.gtid
        self.flags = opening.flags
        self.xid = opening.xid
        self.standalone = bool(opening.flags & MariadbFlags.STANDALONE)
        self.query: QueryHead | None = None
        self.events = 0

    def closed(self, end: int, ending: GroupEnding) -> Group:
        return Group(
            gtid=self.gtid,
            own=self.own,
            offset=self.offset,
            end=end,
            ending=ending,
            transactional=self.mysql or bool(self.flags & MariadbFlags.TRANSACTIONAL),
            ddl=bool(self.flags & MariadbFlags.DDL)
            or (self.mysql and ending is GroupEnding.STATEMENT),
            xa=bool(self.flags & MariadbFlags.XA) or ending is GroupEnding.XA_PREPARE,
            query=self.query,
            xid=self.xid,
            empty=self.mysql and ending is GroupEnding.COMMIT and self.events == _BEGIN_AND_COMMIT,
        )
