"""Puts a server together from its parts, by its flavor."""

from __future__ import annotations

from pathlib import Path

from holdfast.core.gtid import Flavor
from holdfast.server import mariadb, mysql
from holdfast.server.base import Account
from holdfast.server.connection.sessions import Sessions
from holdfast.server.local_server import LocalServer
from holdfast.server.replication.dumps import DumpSessions

PARTS = {Flavor.MARIADB: mariadb.parts, Flavor.MYSQL: mysql.parts}


def local_server(flavor: Flavor, socket: Path, admin: Account) -> LocalServer:
    """:param socket: where it listens; :param admin: the account that administers it"""
    sessions = Sessions(socket, admin)
    return LocalServer(sessions, PARTS[flavor](sessions), DumpSessions(flavor, socket, admin))
