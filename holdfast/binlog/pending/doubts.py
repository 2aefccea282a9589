"""Transactions at the end of a crashed server's binlog that its tables may not have, or the other way round.

A transaction on InnoDB is in both or in neither: recovery ensures that. These are not:

* *Changes of tables that know no transactions* are made before they are logged. MySQL keeps rows of a MyISAM table in
  memory until the statement has ended, including its wait for an acknowledgement: a server killed then has the GTID and
  not the row.
* *XA transactions of clients* on MariaDB: PREPARE, COMMIT and ROLLBACK are logged first and carried out when they are
  acknowledged, and recovery does not read them in the binlog. After a kill in between, a committed one is still
  prepared, and one that was just prepared is gone. MySQL's recovery carries out what is logged.

Only transactions that were under way can be affected: no more than there are sessions; :data:`IN_FLIGHT` is far more
than that. But they need not be in the binlog at all: a statement on tables that know no transactions is logged when it
has ended, and half of it is in its table by then. So after the crash of a primary all such tables are in doubt,
whatever is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from holdfast.binlog.events.changes import RowChange, Statement, changes
from holdfast.binlog.events.group import FileEnd, Group, GroupEnding
from holdfast.binlog.events.reader import STOP, Binlog, open_binlog
from holdfast.binlog.files.index import read_index
from holdfast.core.gtid import Flavor

IN_FLIGHT = 1000
"""This many transactions before the end may have been under way."""

_CHANGES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD")


class XaEnd(StrEnum):
    """The last entry of the binlog about an XA transaction."""

    PREPARED = "prepared"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class Doubts:
    """:ivar xa: MariaDB: by name, as ``xid.sql_form`` gives it
    :ivar tables: (schema, table) of tables that know no transactions
    :ivar unknown: a statement that changed such tables, if these are not known; or ""
    :ivar crashed: the server was not shut down in order
    """

    xa: Mapping[str, XaEnd] = field(default_factory=dict)
    tables: frozenset[tuple[str, str]] = frozenset()
    unknown: str = ""
    crashed: bool = False


def doubts(index: Path, check: Callable[[], None] = lambda: None) -> Doubts:
    """Read the end of the binlogs of a server that has ended, or of a server that has begun a new file since.

    :raises Refused: the index, or a file that it names, is missing, or cannot be read
    """
    xa: dict[str, XaEnd] = {}
    tables: set[tuple[str, str]] = set()
    unknown, left, newest = "", IN_FLIGHT, True
    for file in reversed(read_index(index)):
        with open_binlog(file) as log:
            groups: list[Group] = []
            for item in log.groups(log.last_transactions(left + 1)):  # one may be torn
                check()
                if isinstance(item, FileEnd):
                    if newest and item.last_type == STOP:
                        return Doubts()  # it was shut down: nothing was under way
                elif item.complete:
                    groups.append(item)
            del groups[:-left]
            newest = False
            for group in reversed(groups):
                if group.xid:
                    xa.setdefault(group.xid, _end(group))
                elif not group.xa:
                    found, statement = _unprotected(log, group)
                    tables |= found
                    unknown = unknown or statement
            left -= len(groups)
        if left <= 0:
            break
    return Doubts(xa, frozenset(tables), unknown, crashed=True)


def _end(group: Group) -> XaEnd:
    if group.ending is GroupEnding.XA_PREPARE:
        return XaEnd.PREPARED
    text = group.query.text if group.query is not None else ""
    return XaEnd.COMMITTED if text.startswith("XA COMMIT") else XaEnd.ROLLED_BACK


def _unprotected(log: Binlog, group: Group) -> tuple[frozenset[tuple[str, str]], str]:
    """The tables without transactions that the group changed, as far as it shows."""
    mariadb = log.format.flavor is Flavor.MARIADB
    if group.ddl or (group.transactional if mariadb else group.ending is not GroupEnding.COMMIT):
        return frozenset(), ""
    tables: set[tuple[str, str]] = set()
    unknown = ""
    for change in changes(log, group.offset, group.end):
        match change:
            case RowChange(table=table):
                tables.add((table.schema, table.table))
            case Statement(text=text) if text.lstrip("( ").upper().startswith(_CHANGES):
                unknown = unknown or text[:100]
    return frozenset(tables), unknown
