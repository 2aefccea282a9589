"""The event that opens a transaction in a binlog, and the GTID that it names.

Layouts: MySQL ``Gtid_log_event`` (type 33) and ``Gtid_tagged_log_event`` (42, since 8.3, in the
variable-length encoding of ``libs/mysql/serialization/readme.md``); MariaDB ``Gtid_log_event``
(162).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from holdfast.core.observed.xid import sql_form

MYSQL_GTID = 33
MYSQL_ANONYMOUS = 34
MYSQL_GTID_TAGGED = 42
MARIADB_GTID = 162

OPENING_TYPES = frozenset({MYSQL_GTID, MYSQL_ANONYMOUS, MYSQL_GTID_TAGGED, MARIADB_GTID})

_MYSQL_BODY = struct.Struct("<B16sq")
_MARIADB_BODY = struct.Struct("<QIB")
_XID_HEAD = struct.Struct("<IBB")
"""Of an XID: format, bytes of its first and of its second part."""

_TAGGED_VERSION = 1
_FIELD_FLAGS, _FIELD_UUID, _FIELD_GNO, _FIELD_TAG = range(4)


@dataclass(frozen=True, slots=True, order=True)
class MysqlGtid:
    """One MySQL GTID; ``tag`` is empty for most."""

    uuid: str
    tag: str
    sequence: int

    @property
    def stream(self) -> str:
        """The name of its stream in a :class:`holdfast.core.gtid.GtidSet`."""
        return f"{self.uuid}:{self.tag}" if self.tag else self.uuid

    def __str__(self) -> str:
        return f"{self.stream}:{self.sequence}"


@dataclass(frozen=True, slots=True, order=True)
class MariadbGtid:
    """One MariaDB GTID."""

    domain: int
    server_id: int
    sequence: int

    @property
    def stream(self) -> str:
        """The name of its stream in a :class:`holdfast.core.gtid.GtidSet`."""
        return f"{self.domain}-{self.server_id}"

    def __str__(self) -> str:
        return f"{self.stream}-{self.sequence}"


Gtid = MysqlGtid | MariadbGtid


class MariadbFlags:
    """``flags2`` of MariaDB's ``Gtid_log_event`` (log_event.h). Plain numbers: they are tested several times for each
    transaction of a large file, and Python's flags take longer than all the rest of its GTID event."""

    STANDALONE = 1
    GROUP_COMMIT_ID = 2
    TRANSACTIONAL = 4
    ALLOW_PARALLEL = 8
    WAITED = 16
    DDL = 32
    PREPARED_XA = 64
    COMPLETED_XA = 128
    XA = PREPARED_XA | COMPLETED_XA


@dataclass(frozen=True, slots=True)
class GroupOpening:
    """What the opening event says; ``gtid`` is None for an anonymous transaction (MySQL).

    :ivar flags: as :class:`MariadbFlags`: only MariaDB says beforehand what the transaction will be
    :ivar xid: MariaDB: the name of the XA transaction that it prepares or ends, as ``xid.sql_form`` gives it; or ""
    """

    gtid: Gtid | None
    flags: int
    xid: str = ""


def parse_opening(event_type: int, server_id: int, body: bytes) -> GroupOpening:
    """Decode the body (without header and checksum); ValueError if it is too short or unknown."""
    try:
        match event_type:
            case _ if event_type == MARIADB_GTID:
                sequence, domain, flags = _MARIADB_BODY.unpack_from(body)
                xid = _mariadb_xid(flags, body) if flags & MariadbFlags.XA else ""
                return GroupOpening(MariadbGtid(domain, server_id, sequence), flags, xid)
            case _ if event_type == MYSQL_GTID:
                _, sid, number = _MYSQL_BODY.unpack_from(body)
                return GroupOpening(MysqlGtid(str(UUID(bytes=sid)), "", number), 0)
            case _ if event_type == MYSQL_GTID_TAGGED:
                return GroupOpening(_parse_tagged(body), 0)
            case _:
                return GroupOpening(None, 0)
    except (struct.error, IndexError) as error:
        raise ValueError("the GTID event is shorter than its fields") from error


def _mariadb_xid(flags: int, body: bytes) -> str:
    """After the commit id, if there is one (``Gtid_log_event::write``)."""
    start = _MARIADB_BODY.size + (8 if flags & MariadbFlags.GROUP_COMMIT_ID else 0)
    format_id, first, second = _XID_HEAD.unpack_from(body, start)
    data = body[start + _XID_HEAD.size :]
    return sql_form(format_id, data[:first], data[first : first + second])


def _parse_tagged(body: bytes) -> MysqlGtid:
    version, position = _varlen(body, 0)
    if version != _TAGGED_VERSION:
        raise ValueError(f"tagged GTID event in an unknown serialization version {version}")
    _, position = _varlen(body, position)  # size of the message
    _, position = _varlen(body, position)  # last field that a reader must know
    position = _expect_field(body, position, _FIELD_FLAGS)
    _, position = _varlen(body, position)
    position = _expect_field(body, position, _FIELD_UUID)
    sid = bytearray()
    for _ in range(16):
        byte, position = _varlen(body, position)
        sid.append(byte)
    position = _expect_field(body, position, _FIELD_GNO)
    zigzag, position = _varlen(body, position)
    position = _expect_field(body, position, _FIELD_TAG)
    length, position = _varlen(body, position)
    tag = body[position : position + length]
    if len(tag) != length or zigzag & 1:
        raise ValueError("the tagged GTID event holds no valid GTID")
    return MysqlGtid(str(UUID(bytes=bytes(sid))), tag.decode("ascii"), zigzag >> 1)


def _expect_field(body: bytes, position: int, wanted: int) -> int:
    field, after = _varlen(body, position)
    if field != wanted:
        raise ValueError(f"tagged GTID event: field {field} where {wanted} belongs")
    return after


def _varlen(body: bytes, position: int) -> tuple[int, int]:
    """One number: as many trailing one-bits in the first byte as bytes follow it."""
    first = body[position]
    extra = 0
    while extra < 8 and first >> extra & 1:
        extra += 1
    end = position + 1 + extra
    if end > len(body):
        raise IndexError(position)
    raw = int.from_bytes(body[position:end], "little")
    return raw >> (8 if extra == 8 else extra + 1), end
