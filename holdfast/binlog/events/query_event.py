"""The head of a Query event: the statement's beginning, and whether it carries a transaction id.

MySQL writes ``ddl_xid`` into the status variables of a DDL statement that is atomic, and its crash recovery rolls back
a prepared DDL whose id it does not find in the binlog (``Q_DDL_LOGGED_WITH_XID``, ``sql/binlog/recovery.cc``). A DDL
without one cannot be undone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_POST_HEADER = struct.Struct("<IIBHH")
_TEXT_BYTES = 200

_CATALOG, _TIME_ZONE, _CATALOG_NZ, _INVOKER, _UPDATED_DATABASES, _DDL_XID = 2, 5, 6, 11, 12, 17
_FIXED_BYTES = {
    0: 4,  # flags2
    1: 8,  # sql_mode
    3: 4,  # auto_increment
    4: 6,  # charset
    7: 2,  # lc_time_names
    8: 2,  # charset_database
    9: 8,  # table_map_for_update
    10: 4,  # master_data_written
    13: 3,  # microseconds
    16: 1,  # explicit_defaults_for_timestamp
    _DDL_XID: 8,
    18: 2,  # default_collation_for_utf8mb4
    19: 1,  # sql_require_primary_key
    20: 1,  # default_table_encryption
}
_TOO_MANY_DATABASES = 254


@dataclass(frozen=True, slots=True)
class QueryHead:
    """:ivar text: at most the first 200 bytes of the statement
    :ivar whole: that is all of it
    :ivar atomic_ddl: it carries a transaction id (MySQL); False also if that could not be decided
    """

    text: str
    atomic_ddl: bool
    whole: bool = False


def parse_query(body: bytes) -> QueryHead:
    """Decode the first bytes of a Query event's body; ValueError if they hold no query."""
    if len(body) < _POST_HEADER.size:
        raise ValueError("a query event shorter than its fixed part")
    _, _, database_bytes, _, status_bytes = _POST_HEADER.unpack_from(body)
    status_end = _POST_HEADER.size + status_bytes
    text_start = status_end + database_bytes + 1
    if text_start > len(body):
        raise ValueError("a query event whose statement cannot be found")
    text = body[text_start : text_start + _TEXT_BYTES].decode("utf-8", "replace")
    whole = len(body) - text_start < _TEXT_BYTES
    return QueryHead(text, _has_ddl_xid(body[_POST_HEADER.size : status_end]), whole)


def _has_ddl_xid(status: bytes) -> bool:
    position = 0
    try:
        while position < len(status):
            code = status[position]
            if code == _DDL_XID:
                return True
            position = _after_variable(status, code, position + 1)
    except (KeyError, IndexError, ValueError):
        return False  # an unknown variable: nothing after it can be read
    return False


def _after_variable(status: bytes, code: int, position: int) -> int:
    if code in (_TIME_ZONE, _CATALOG_NZ):
        return position + 1 + status[position]
    if code == _CATALOG:
        return position + 2 + status[position]
    if code == _INVOKER:
        position += 1 + status[position]
        return position + 1 + status[position]
    if code == _UPDATED_DATABASES:
        count = status[position]
        position += 1
        for _ in range(0 if count == _TOO_MANY_DATABASES else count):
            position = status.index(0, position) + 1
        return position
    return position + _FIXED_BYTES[code]


def parse_statement(body: bytes) -> tuple[str, str]:
    """Default schema and text of a Query event; ValueError if its body holds no query."""
    if len(body) < _POST_HEADER.size:
        raise ValueError("a query event shorter than its fixed part")
    _, _, database_bytes, _, status_bytes = _POST_HEADER.unpack_from(body)
    start = _POST_HEADER.size + status_bytes
    end = start + database_bytes
    return body[start:end].decode("utf-8", "replace"), body[end + 1 :].decode("utf-8", "replace")
