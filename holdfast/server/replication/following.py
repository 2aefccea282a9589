"""How a server follows another: configuration and state, as the procedures need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pymysql.constants import ER

from holdfast.core.gtid import Flavor
from holdfast.core.view import Receiver
from holdfast.server.base import (
    RECEIVER_CONNECTING,
    RECEIVER_FAILED,
    RECEIVER_OFF,
    Deadline,
    Source,
)
from holdfast.server.connection import encryption, processlist
from holdfast.server.connection.sql import Connection, Row

CONNECT_RETRY_SECONDS = 1
"""The minimum of both servers."""

RECEIVER = {"Yes": Receiver.ON, "No": Receiver.OFF}
"""As SHOW REPLICA STATUS has it; all other values (Connecting, Preparing) mean that it is connecting."""


FILTERS_KEPT = ("Ignore_Server_Ids", "Do_Domain_Ids", "Ignore_Domain_Ids")
"""Set by MariaDB's CHANGE MASTER: they survive a restart. MySQL refuses the first with GTIDs, and has no domains."""
FILTERS = (
    *("Do_DB", "Ignore_DB", "Do_Table", "Ignore_Table", "Wild_Do_Table", "Wild_Ignore_Table"),
    *("Rewrite_DB", *FILTERS_KEPT),
)

RECEIVER_THREAD = {
    Flavor.MARIADB: "SELECT ID AS id FROM information_schema.PROCESSLIST WHERE COMMAND = 'Slave_IO'",
    Flavor.MYSQL: "SELECT PROCESSLIST_ID AS id FROM performance_schema.threads "
    "WHERE NAME = 'thread/sql/replica_io'",
}
"""A receiver's thread keeps its number while it restores a lost connection; an operator who restarts the receiver makes
a new one."""
RECEIVER_ERROR = {
    Flavor.MARIADB: "SHOW REPLICA STATUS",
    Flavor.MYSQL: "SELECT LAST_ERROR_NUMBER AS Last_IO_Errno FROM performance_schema.replication_connection_status "
    "WHERE CHANNEL_NAME = ''",
}


def receiver_thread(eyes: Connection, flavor: Flavor, deadline: Deadline) -> int:
    """See ``Server.receiver_thread``."""
    rows = processlist.look(
        eyes, RECEIVER_THREAD[flavor], deadline, lambda row: row["command"] == "Slave_IO"
    )
    if rows:
        return int(rows[0]["id"])
    for row in eyes.look(RECEIVER_ERROR[flavor], deadline):
        if row.get("Slave_IO_Running", "No") != "No":
            return RECEIVER_CONNECTING
        if row["Last_IO_Errno"]:
            return RECEIVER_FAILED
    return RECEIVER_OFF


def filters(row: Row, names: Sequence[str] = FILTERS) -> tuple[str, ...]:
    """What is left out according to a row of SHOW REPLICA STATUS, as ``option=value``."""
    return tuple(
        f"replicate_{name.lower()}={row[f'Replicate_{name}']}"
        for name in names
        if row.get(f"Replicate_{name}")
    )


def changed(variables: Row, wanted: Mapping[str, str]) -> tuple[str, ...]:
    """Those of a row of variables that are not as wanted, as ``name=value``."""
    return tuple(
        f"{name}={variables[name]}"
        for name, value in wanted.items()
        if str(variables[name]).upper() != value
    )


@dataclass(frozen=True, slots=True)
class Following:
    """How replication is configured and runs, as the procedures need it.

    :ivar host: of the source, or "" if none is configured
    :ivar connecting: the receiver has no connection: it may be in the pause of a second before it tries again
    :ivar tls: its certificates, as ``encryption.named`` gives them; empty if it is not encrypted
    :ivar by_file: MariaDB's relay log is read by file and position, not by GTID
    :ivar filtered: it is set up to leave out what some servers or domains issue (MariaDB), or to apply it later
    :ivar received: whole transactions that the receiver has fetched, in the server's own text
    """

    host: str
    port: int
    user: str
    receiver: bool
    connecting: bool
    applier: bool
    receiver_code: int
    applier_error: str
    received: str
    tls: tuple[str, ...] = ()
    by_file: bool = False
    filtered: bool = False

    def is_from(self, source: Source) -> bool:
        """Whether this is the same source, and the server accepted our account's login."""
        if self.filtered or (
            source.account.tls is not None and self.tls != encryption.named(source.account.tls)
        ):
            return False
        return (self.host, self.port, self.user) == (
            source.host,
            source.port,
            source.account.user,
        ) and self.receiver_code != ER.ACCESS_DENIED_ERROR
