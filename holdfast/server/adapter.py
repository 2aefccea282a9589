"""The adapter of a server, chosen by its flavor."""

from __future__ import annotations

from pathlib import Path

from holdfast.core.gtid import Flavor
from holdfast.server.base import Account, Server
from holdfast.server.mariadb import MariadbServer
from holdfast.server.mysql import MysqlServer


def adapter(flavor: Flavor, socket: Path, admin: Account) -> Server:
    match flavor:
        case Flavor.MARIADB:
            return MariadbServer(socket, admin)
        case Flavor.MYSQL:
            return MysqlServer(socket, admin)
