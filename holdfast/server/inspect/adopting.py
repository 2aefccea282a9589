"""What a server that was started and set up by hand needs before Holdfast takes it over."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pymysql
from pymysql.constants import ER

from holdfast.core.gtid import Flavor
from holdfast.errors import Refused, Unreachable
from holdfast.server.authentication import identified
from holdfast.server.base import Account, Deadline, Source
from holdfast.server.connection import encryption
from holdfast.server.connection.sql import Connection, StatementRefused
from holdfast.server.process.optionfile import NET_TIMEOUT_SECONDS
from holdfast.server.replication.barring import GRANTED

PLUGINS = {
    "rpl_semi_sync_source": "semisync_source.so",
    "rpl_semi_sync_replica": "semisync_replica.so",
}


class Adopter:
    """Runs statements on the server in a session of its own, which is opened when it is needed.

    :param encrypted: accounts that it creates must log in with a certificate, beside their password. (REQUIRE SSL would
        not be enough: MySQL's receivers encrypt anyway, and so would anybody who has the password)
    """

    def __init__(
        self, flavor: Flavor, socket: Path, admin: Account, encrypted: bool = False
    ) -> None:
        self._flavor = flavor
        self._required = " REQUIRE X509" if encrypted else ""
        self._connection = Connection(socket, admin)

    def relaxed(self, deadline: Deadline) -> bool:
        """Whether the server accepts writes that it does not flush."""
        look = (
            "SELECT @@global.read_only AS read_only, @@global.sync_binlog AS binlog, "
            "@@global.innodb_flush_log_at_trx_commit AS redo"
        )
        row = self._connection.look(look, deadline)[0]
        return not row["read_only"] and (int(row["binlog"]), int(row["redo"])) != (1, 1)

    def equip(self, deadline: Deadline) -> None:
        """Load and set what its option file would have: semi-sync, durable flushing of a primary, time-outs.

        No row is written, and nothing goes to the binary log. A replica's flushing is left alone: it is relaxed as soon
        as the member follows.
        """
        if self._flavor is Flavor.MYSQL:
            _load_plugins(self._connection, deadline)
            wanted = {"replica_net_timeout": NET_TIMEOUT_SECONDS}
        else:
            wanted = {
                "slave_net_timeout": NET_TIMEOUT_SECONDS,
                "rpl_semi_sync_slave_kill_conn_timeout": 1,
            }
        look = "SELECT @@global.read_only AS read_only"
        if not self._connection.look(look, deadline)[0]["read_only"]:
            wanted |= {"sync_binlog": 1, "innodb_flush_log_at_trx_commit": 1}
        settings = ", ".join(f"GLOBAL {name} = {value}" for name, value in wanted.items())
        self._connection.run(f"SET {settings}", deadline)

    def ensure_account(self, user: str, authentication: str, deadline: Deadline) -> None:
        """Create the replication account ``user``, or give it this password; binlogged, so that replicas have it too.

        If it exists for other hosts as well, one of those may be the one that counts: all get the password.
        """
        clause = identified(self._flavor, authentication) + self._required
        self._make(user, self._hosts(user, deadline) | {"%"}, clause, deadline)

    def mend_logged(self, user: str, authentication: str, deadline: Deadline) -> None:
        """The same for the hosts for which the account already exists; expects that no commit waits in vain.

        :raises Refused: it does not exist
        """
        clause = identified(self._flavor, authentication) + self._required
        hosts = self._hosts(user, deadline)
        if not hosts:
            raise Refused(f"there is no account {user} on this server")
        self._make(user, hosts, clause, deadline)

    def _hosts(self, user: str, deadline: Deadline) -> set[str]:
        look = "SELECT Host AS host FROM mysql.user WHERE User = %s"
        return {str(row["host"]) for row in self._connection.look(look, deadline, (_named(user),))}

    def _make(self, user: str, hosts: set[str], clause: str, deadline: Deadline) -> None:
        statements: list[str] = []
        for host in sorted(hosts):
            name = f"'{_named(user)}'@'{_named(host)}'"
            statements += [
                f"CREATE USER IF NOT EXISTS {name} {clause}",
                f"ALTER USER {name} {clause}",
                f"GRANT {GRANTED[self._flavor]} ON *.* TO {name}",
            ]
        for statement in statements:
            try:
                self._connection.run(statement, deadline)
            except StatementRefused as error:
                # the statement is not shown: it holds what a server stores instead of the password
                what = f"making the replication account {user}"
                raise StatementRefused(what, error.code, error.message) from None

    def close(self) -> None:
        self._connection.close()


def reached(
    flavor: Flavor, source: Source, seconds: float, public_key: str = ""
) -> tuple[int, str]:
    """Log in to ``source``: its server id, and on MySQL its UUID.

    :param public_key: of the expected server, from its agent: another server at that address learns no password
    :raises Unreachable: it refuses the login
    """
    uuid = "@@server_uuid" if flavor is Flavor.MYSQL else "''"
    try:
        with (
            contextlib.closing(
                encryption.log_in(
                    flavor, source, seconds, server_public_key=public_key.encode() or None
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"SELECT @@server_id, {uuid}")
            found = cursor.fetchone()
    except (pymysql.err.MySQLError, OSError) as error:
        raise Unreachable(
            f"{source.host}:{source.port} refuses the login of {source.account.user}: {error.args[-1]}"
        ) from None
    server_id, name = found or (0, "")
    return int(server_id), str(name)


def public_key(connection: Connection, deadline: Deadline) -> str:
    """The key with which a MySQL server has passwords encrypted without TLS, in PEM; "" if it has none."""
    look = "SHOW GLOBAL STATUS LIKE 'Caching_sha2_password_rsa_public_key'"
    rows = connection.look(look, deadline)
    return str(rows[0]["Value"]) if rows else ""


def _named(text: str) -> str:
    """A user's or a host's name, which becomes part of a statement."""
    if not text or any(each in text for each in "'\\\0") or len(text) > 255:
        raise Refused(f"{text!r} cannot be the name of a replication account")
    return text


def _load_plugins(connection: Connection, deadline: Deadline) -> None:
    """MySQL keeps them for later starts. It refuses while it is super-read-only; the server stays read-only without
    that."""
    rows = connection.look("SELECT PLUGIN_NAME AS name FROM information_schema.plugins", deadline)
    loaded = {str(row["name"]).lower() for row in rows}
    missing = {name: file for name, file in PLUGINS.items() if name not in loaded}
    if not missing:
        return
    look = "SELECT @@global.super_read_only AS super"
    closed = bool(connection.look(look, deadline)[0]["super"])
    if closed:
        connection.run("SET GLOBAL super_read_only = 0", deadline)
    try:
        for name, file in missing.items():
            try:
                connection.run(f"INSTALL PLUGIN {name} SONAME '{file}'", deadline)
            except StatementRefused as error:
                if error.code != ER.UDF_EXISTS:
                    raise
    finally:
        if closed:
            connection.run("SET GLOBAL super_read_only = 1", deadline)
