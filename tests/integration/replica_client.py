"""A replica that is no server: it streams a binlog, and acknowledges what it receives or does not."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

import pymysql
from pymysql.constants import COMMAND

from holdfast.core.gtid import Flavor
from holdfast.server.base import Account
from holdfast.server.connection.login import PyMySQL

MAGIC = 0xEF
ROTATE = 4
HEADER = 19

Place = tuple[str, int]
"""File and offset in a binlog."""


class ReplicaClient:
    """:ivar events: how many it has received; :ivar acknowledged: how many of them it has acknowledged
    :ivar ended: set once its source has closed the connection; :ivar failure: how
    """

    def __init__(
        self,
        flavor: Flavor,
        port: int,
        account: Account,
        place: Place,
        *,
        semi_sync: bool,
        server_id: int = 99,
        uuid: str = "",
        host: str = "127.0.0.1",
    ) -> None:
        self.events = self.acknowledged = 0
        self.failure = ""
        self.ended = threading.Event()
        self.began_at = self.ended_at = 0.0
        self._wire = PyMySQL(host=host, port=port, user=account.user, password=account.password)
        self._file = place[0]
        with self._wire.cursor() as cursor:
            for statement in _settings(flavor, semi_sync, uuid):
                cursor.execute(statement)
        request = struct.pack("<IHI", place[1], 0, server_id) + place[0].encode()
        self.began_at = time.monotonic()
        self._wire._execute_command(COMMAND.COM_BINLOG_DUMP, request)
        self._semi_sync = semi_sync
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def __enter__(self) -> ReplicaClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        # the reading thread holds a lock that closing waits for: the end of the stream releases it
        with suppress(OSError, AttributeError):  # closed already
            self._wire._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        with suppress(OSError):
            self._wire._force_close()

    def _receive(self) -> None:
        try:
            while True:
                packet = self._packet()
                wanted = False
                if self._semi_sync:
                    assert packet[0] == MAGIC
                    wanted, packet = bool(packet[1]), packet[2:]
                self._take(packet, wanted)
        except (pymysql.err.MySQLError, OSError, AttributeError, ValueError) as error:
            self.failure = repr(error)
            self.ended_at = time.monotonic()
            self.ended.set()

    def _packet(self) -> bytes:
        """Without the first byte. MariaDB numbers packets anew after each acknowledgement, which PyMySQL refuses."""
        header = self._wire._read_bytes(4)
        body = self._wire._read_bytes(int.from_bytes(header[:3], "little"))
        if body[0]:
            raise ValueError(body.decode(errors="replace"))
        return body[1:]

    def _take(self, event: bytes, wanted: bool) -> None:
        self.events += 1
        if event[4] == ROTATE:
            self._file = event[HEADER + 8 :].decode()
        if wanted:
            (end,) = struct.unpack_from("<I", event, 13)
            reply = struct.pack("<BQ", MAGIC, end) + self._file.encode()
            header = struct.pack("<I", len(reply))[:3] + b"\0"
            self._wire._write_bytes(header + reply)
            self.acknowledged += 1


def _settings(flavor: Flavor, semi_sync: bool, uuid: str) -> Iterator[str]:
    if flavor is Flavor.MYSQL:
        yield "SET @source_binlog_checksum = 'NONE'"
        if semi_sync:
            yield "SET @rpl_semi_sync_replica = 1"
        if uuid:
            yield f"SET @replica_uuid = '{uuid}'"
        return
    yield "SET @master_binlog_checksum = 'NONE', @mariadb_slave_capability = 4"
    if semi_sync:
        yield "SET @rpl_semi_sync_slave = 1"
