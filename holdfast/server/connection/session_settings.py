"""The settings with which each session of Holdfast begins: otherwise it inherits the server's global defaults, which an
operator may tighten.

``transaction_read_only``, a small ``max_join_size``, ``sql_select_limit = 1``, a ``sql_mode`` by which CHAR columns are
padded, a statement's time limit: set globally they are meant for clients, and have broken a promotion or a look. So
everything that decides what our statements mean, what they may do, and how long they may take is set to literal values:
``DEFAULT`` would be the global value again.

A variable that a later version no longer has, or that the account may not set, is left out; the others still apply.
Passwords, limits of connections and ``max_allowed_packet`` cannot be set by a session.
"""

from __future__ import annotations

from collections.abc import Iterable

from pymysql.constants import ER

IDLE_SECONDS = 31536000
"""How long a session may be idle: the maximum of both servers."""

SIDE_SETTINGS = "sql_log_bin = 0, lock_wait_timeout = 1, innodb_lock_wait_timeout = 1"
"""For a session beside the one for commands: it writes nothing that is replicated, and does not wait for locks."""

NOT_ALLOWED = frozenset({ER.UNKNOWN_SYSTEM_VARIABLE, 1227, 1238, 3566})
"""Unknown, a privilege is missing, a read-only variable."""

_MOST = 18446744073709551615

_COMMON: tuple[tuple[str, str], ...] = (
    ("wait_timeout", str(IDLE_SECONDS)),
    # MySQL's answer to a login says that it is on, whatever the global value: PyMySQL does not set it then
    ("autocommit", "1"),
    ("sql_mode", "'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"),
    ("completion_type", "'NO_CHAIN'"),
    ("lock_wait_timeout", "31536000"),
    ("innodb_lock_wait_timeout", "50"),
    ("sql_safe_updates", "0"),
    ("sql_select_limit", str(_MOST)),
    ("max_join_size", str(_MOST)),
    ("sql_big_selects", "1"),
    ("sql_auto_is_null", "0"),
    ("max_sort_length", "1024"),
    ("group_concat_max_len", "1048576"),
    ("net_read_timeout", "30"),
    ("net_write_timeout", "60"),
    ("default_storage_engine", "InnoDB"),
)
_MARIADB = (
    ("tx_read_only", "0"),
    ("tx_isolation", "'REPEATABLE-READ'"),
    ("max_statement_time", "0"),
    ("idle_transaction_timeout", "0"),
    ("idle_readonly_transaction_timeout", "0"),
    ("idle_write_transaction_timeout", "0"),
)
_MYSQL = (
    ("transaction_read_only", "0"),
    ("transaction_isolation", "'REPEATABLE-READ'"),
    ("max_execution_time", "0"),
    # a table without a primary key has a hidden one there, which clients do not see by default: binlogs have it, and so
    # have the replicas
    ("show_gipk_in_create_table_and_information_schema", "1"),
)


def session_settings(version: str) -> tuple[str, ...]:
    """The assignments of the ``SET SESSION`` with which a session begins.

    :param version: as the server's greeting has it
    """
    own = _MARIADB if "mariadb" in version.lower() else _MYSQL
    return tuple(f"{name} = {value}" for name, value in (*_COMMON, *own))


def statement(settings: Iterable[str]) -> str:
    return "SET SESSION " + ", ".join(settings)
