"""Whether a server accepts a new login of an account: tried, because an existing session says nothing about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import pymysql

from holdfast.core.gtid import Flavor
from holdfast.errors import Unreachable
from holdfast.server.base import Deadline, Source
from holdfast.server.connection import encryption
from holdfast.server.connection.sql import Connection, StatementRefused
from holdfast.server.replication.barring import RIGHTS
from holdfast.server.replication.progress import NOT_LET_IN


def own_login(connection: Connection, deadline: Deadline) -> str:
    """Why the server refuses this account's login, or "".

    :param connection: one without a session; it has none afterwards
    :raises HoldfastError: the server does not answer, or accepts no more connections: that says nothing about the
        account
    """
    try:
        connection.look("SELECT 1", deadline)
    except StatementRefused as error:
        return str(error)
    finally:
        connection.close()
    return ""


def let_in(flavor: Flavor, source: Source, seconds: float) -> str:
    """Why ``source`` refuses its account's login, or its right to replicate, or "".

    Used only if the receiver is connected with the same password: MySQL's server is asked for its key, as the receiver
    does.

    :raises Unreachable: that cannot be known
    """
    try:
        with (
            contextlib.closing(
                encryption.log_in(flavor, source, seconds, asks_for_key=True)
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SHOW GRANTS")
            lacking = _lacking(flavor, (str(row[0]) for row in cursor.fetchall()))
    except (pymysql.err.MySQLError, OSError) as error:
        code = error.args[0] if error.args else 0
        said = f"{source.host}:{source.port}: {error.args[-1] if error.args else error!r}"
        if code in NOT_LET_IN:
            return f"error {code}, {said}"
        raise Unreachable(said) from None
    return f"it may not {lacking} there" if lacking else ""


def _lacking(flavor: Flavor, grants: Iterable[str]) -> str:
    """Which of a replication account's privileges are missing."""
    found = " ".join(grants).upper()
    if "ALL PRIVILEGES ON *.*" in found:
        return ""
    return ", ".join(right for right in RIGHTS[flavor].split(", ") if right not in found)
