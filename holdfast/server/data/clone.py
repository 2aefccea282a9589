"""SQL for a server that is being cloned: MySQL's CLONE, and the GTID state of a copy."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.core.gtid import Flavor, GtidSet, parse
from holdfast.errors import Refused
from holdfast.server.base import Account, Deadline, Source
from holdfast.server.connection import encryption
from holdfast.server.connection.sql import Connection, StatementRefused

FILE_SYNC = "FILE SYNC"
"""The stage in which the recipient flushes the copy to disk: nothing comes from the donor meanwhile."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The progress of a CLONE.

    :ivar stage: as MySQL calls it: FILE COPY, PAGE COPY, REDO COPY …
    """

    stage: str
    done: int
    total: int


COPIED_OR_NOTHING = ("InnoDB", "MEMORY", "BLACKHOLE", "FEDERATED")
"""Engines whose tables MySQL's clone copies; or whose rows a restart would remove as well, or are stored elsewhere."""
LEFT_EMPTY = (
    "SELECT CONCAT(table_schema, '.', table_name) AS name FROM information_schema.tables "
    "WHERE table_type = 'BASE TABLE' AND table_rows > 0 AND engine NOT IN %s AND table_schema NOT IN "
    "('mysql', 'sys', 'performance_schema', 'information_schema') ORDER BY 1"
)


def left_empty(socket: Path, admin: Account, deadline: Deadline) -> list[str]:
    """MySQL, on the donor: tables that would be empty in a clone, although they hold rows. The clone's GTIDs would
    claim that it has these rows."""
    with contextlib.closing(Connection(socket, admin)) as session:
        session.run("SET SESSION information_schema_stats_expiry = 0", deadline)
        rows = session.look(LEFT_EMPTY, deadline, (COPIED_OR_NOTHING,))
    return [str(row["name"]) for row in rows]


def end_clones(socket: Path, admin: Account, account: str, deadline: Deadline) -> None:
    """MySQL, on the donor: end the clones that ``account`` has begun. While commits wait there, a server does not
    notice that the recipient is gone, and refuses other clones."""
    with contextlib.closing(Connection(socket, admin)) as session:
        rows = session.look(
            "SELECT ID AS id FROM performance_schema.processlist "
            "WHERE USER = %s AND COMMAND = 'clone'",
            deadline,
            (account,),
        )
        for row in rows:
            with contextlib.suppress(StatementRefused):  # it has ended meanwhile
                session.run(f"KILL {int(row['id'])}", deadline)


class Recipient:
    """Sessions of the administrator on a server that becomes a copy of another."""

    def __init__(self, flavor: Flavor, socket: Path, admin: Account) -> None:
        self._flavor = flavor
        self._commands = Connection(socket, admin)
        self._eyes = Connection(socket, admin)

    def close(self) -> None:
        for connection in (self._commands, self._eyes):
            connection.close()

    def ping(self, deadline: Deadline) -> None:
        """:raises Unreachable: the server does not accept connections yet"""
        self._commands.look("SELECT 1", deadline)

    def clone(self, source: Source, target: Path, deadline: Deadline) -> None:
        """MySQL: copy the donor's data into ``target``, which must not exist. This server keeps its own data.

        :raises Refused: MySQL's reason
        """
        place = f"{source.host}:{source.port}"
        with contextlib.suppress(StatementRefused):  # the option file may have loaded it already
            self._commands.run("INSTALL PLUGIN clone SONAME 'mysql_clone.so'", deadline)
        self._commands.run("SET GLOBAL clone_valid_donor_list = %s", deadline, (place,))
        required = ""
        if files := encryption.named(source.account.tls):
            # the donor's name is not checked: there is no option for that
            required = " REQUIRE SSL"
            self._commands.run(
                "SET GLOBAL clone_ssl_ca = %s, GLOBAL clone_ssl_cert = %s, GLOBAL clone_ssl_key = %s",
                deadline,
                files,
            )
        account = source.account
        self._commands.run(
            f"CLONE INSTANCE FROM %s@%s:{source.port} IDENTIFIED BY %s DATA DIRECTORY = %s{required}",
            deadline,
            (account.user, source.host, account.password, str(target)),
        )

    def whole(self, deadline: Deadline) -> None:
        """MySQL: make sure that the last copy is complete.

        :raises Refused: it is not
        """
        rows = self._eyes.look(
            "SELECT STATE AS state, ERROR_MESSAGE AS error FROM performance_schema.clone_status",
            deadline,
        )
        if not rows or rows[0]["state"] != "Completed":
            raise Refused(f"MySQL says of the clone: {_said(rows)}")

    def copied(self, deadline: Deadline) -> Copied | None:
        """MySQL: the progress of CLONE; None while it reports nothing."""
        rows = self._eyes.look(
            "SELECT STAGE AS stage, STATE AS state, ESTIMATE AS total, DATA AS done "
            "FROM performance_schema.clone_progress ORDER BY BEGIN_TIME",
            deadline,
        )
        begun = [row for row in rows if row["state"] in ("In Progress", "Completed")]
        if not begun:
            return None
        total = sum(int(row["total"] or 0) for row in begun)
        done = sum(int(row["done"] or 0) for row in begun)
        return Copied(str(begun[-1]["stage"]), done, max(done, total))

    def finish_clone(self, deadline: Deadline) -> GtidSet:
        """MySQL: after the start that ends a CLONE: make sure that the copy is complete, and follow no source.

        :returns: what the copy holds
        :raises Refused: it is not complete
        """
        rows = self._commands.look(
            "SELECT STATE AS state, ERROR_MESSAGE AS error, GTID_EXECUTED AS copied, "
            "@@global.gtid_executed AS executed FROM performance_schema.clone_status",
            deadline,
        )
        if not rows or rows[0]["state"] != "Completed":
            raise Refused(f"MySQL says of the clone: {_said(rows)}")
        copied, executed = (
            parse(self._flavor, str(rows[0][name] or "").replace("\n", ""))
            for name in ("copied", "executed")
        )
        if copied != executed:
            raise Refused(f"the server executed {executed}, and the copy was of {copied}")
        self._follow_nobody(deadline)
        return executed

    def adopt_history(self, state: str, deadline: Deadline) -> GtidSet:
        """MariaDB: a copy begins with an empty binlog; set the GTID state to what the data has.

        :param state: ``@@gtid_binlog_state`` of the donor at the moment of the copy
        """
        wanted = parse(self._flavor, state)
        self._follow_nobody(deadline)
        self._commands.run("RESET MASTER", deadline)
        self._commands.run("SET GLOBAL gtid_binlog_state = %s", deadline, (state,))
        head = self._commands.look("SELECT @@global.gtid_binlog_pos AS head", deadline)[0]["head"]
        self._commands.run("SET GLOBAL gtid_slave_pos = %s", deadline, (head,))
        found = self._commands.look("SELECT @@global.gtid_binlog_state AS state", deadline)[0]
        if parse(self._flavor, found["state"]) != wanted:
            raise Refused(f"the server's GTID state is {found['state']}, and was to be {state}")
        return wanted

    def _follow_nobody(self, deadline: Deadline) -> None:
        row = self._commands.look("SELECT @@global.read_only AS read_only", deadline)[0]
        if not row["read_only"]:
            raise Refused("the server takes writes: read_only is not in its option file")
        if self._commands.look("SHOW REPLICA STATUS", deadline):
            self._commands.run("STOP REPLICA", deadline)
            self._commands.run("RESET REPLICA ALL", deadline)


def _said(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{rows[0]['state']}: {rows[0]['error']}" if rows else "nothing"
