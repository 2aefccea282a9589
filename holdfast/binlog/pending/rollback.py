"""Which transactions disappear from the tables if they are cut from the binlog before crash recovery."""

from __future__ import annotations

import re

from holdfast.binlog.events.group import Group, GroupEnding
from holdfast.binlog.events.statements import changes_nothing
from holdfast.core.gtid import Flavor

_COMMENTS = re.compile(r"(?:\s+|/\*(?![!+]).*?\*/)*", re.DOTALL)
_REVERSIBLE_DDL = re.compile(
    r"(?:"
    r"CREATE\s+(?:TABLE|(?:UNIQUE\s+|FULLTEXT\s+|SPATIAL\s+)?INDEX|USER|ROLE)"
    r"|ALTER\s+(?:TABLE|USER)"
    r"|DROP\s+(?:TABLE|INDEX|VIEW|TRIGGER|PROCEDURE|FUNCTION|EVENT|USER|ROLE)"
    r"|(?:CREATE|ALTER)\s+(?:OR\s+REPLACE\s+)?(?:ALGORITHM\s*=\s*\w+\s+)?(?:DEFINER\s*=\s*\S+\s+)?"
    r"(?:SQL\s+SECURITY\s+\w+\s+)?(?:VIEW|TRIGGER|PROCEDURE|FUNCTION|EVENT)"
    r"|TRUNCATE|RENAME\s+(?:TABLE|USER)|GRANT|REVOKE"
    r")\b",
    re.IGNORECASE,
)


def obstacle(flavor: Flavor, group: Group) -> str | None:
    """Why the tables would keep this group's changes after it is cut; None if they would not.

    Only what is known to be safe is accepted: while a transaction waits for an acknowledgement, the engine has it only
    prepared, and crash recovery rolls a prepared transaction back if the binlog does not name its id. That needs an XID
    event, or (MySQL) a data definition that carries an id and leaves no files behind. Everything else is in the tables
    before it is in the binlog.

    A torn group was never prepared *and* logged: the server itself drops it. On MariaDB its first event says whether it
    wrote to tables that cannot roll back; MySQL's does not, and there the server's own recovery loses such rows in the
    same way.

    A transaction that changes nothing leaves nothing behind: an empty one, or a statement like FLUSH.
    """
    if leaves_nothing(group):
        return None
    what = str(group.gtid) if group.gtid is not None else f"the transaction at {group.offset}"
    if group.xa or group.ending is GroupEnding.XA_PREPARE:
        return f"{what} is part of an XA transaction"
    if group.ending is GroupEnding.COMPRESSED:
        return f"{what} is compressed, so how it ends cannot be read"
    if flavor is Flavor.MARIADB and group.ddl:
        return f"{what} is a data definition, which MariaDB does not roll back"
    if not group.transactional:
        return f"{what} changed tables that cannot roll back"
    if group.ending in (GroupEnding.XID, GroupEnding.TORN):
        return None
    if flavor is Flavor.MYSQL and group.ending is GroupEnding.STATEMENT and group.query is not None:
        return None if _rolls_back(group) else f"{what} is a statement that cannot roll back"
    return f"{what} does not end as a transaction that can roll back"


def leaves_nothing(group: Group) -> bool:
    """Whether this transaction, as far as its outside shows, changes nothing at all."""
    if group.empty:
        return True
    alone = group.ending is GroupEnding.STATEMENT and not group.xa
    return (
        alone
        and group.query is not None
        and group.query.whole
        and changes_nothing(group.query.text)
    )


def _rolls_back(group: Group) -> bool:
    if group.query is None or not group.query.atomic_ddl:
        return False
    start = _COMMENTS.match(group.query.text)
    statement = group.query.text[start.end() if start else 0 :]
    return _REVERSIBLE_DDL.match(statement) is not None
