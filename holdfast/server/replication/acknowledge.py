"""Acknowledge once more what a replica has received.

Transactions that a replica received while it did not acknowledge (a learner), or whose acknowledgement was lost with
its connection, are not sent to it again: on a reconnect its source skips them without counting them. Commits that wait
for just these block other commits in the binlog, so no new transaction comes whose acknowledgement would cover them: a
primary whose only voter is such a replica hangs for good (seen on MariaDB 10.11.19 and MySQL 9.7.4).

A dump that *begins* at a file position counts as the acknowledgement of everything before it. So the replica's agent
requests one at the position up to which the receiver has read, and ends it at its first event.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pymysql
from pymysql.constants import COMMAND, ER

from holdfast.core.gtid import Flavor
from holdfast.core.view import Receiver
from holdfast.errors import OutcomeUnknown
from holdfast.server.base import Deadline, Source
from holdfast.server.connection import encryption
from holdfast.server.connection.login import SafeLogin

PATIENCE_SECONDS = 0.5
"""How long to continue while commits wait that this replica alone cannot release."""

ANSWER_SECONDS = 2.0
"""How long a source may take for one answer."""

CONNECT_SECONDS = 0.5
"""How long to wait for the connection of a receiver that was just started."""

AGAIN_SECONDS = 0.02
POLL_SECONDS = 0.02
"""How often a wait for the source checks whether it has been called off."""

LARGEST_POSITION = 2**32 - 1
"""The protocol has four bytes for it; a file beyond that ends in one huge transaction."""

STRANGER = 0x4000_0000
"""MariaDB ends the dump of a replica whose id appears again, and does not count replicas: so another id is used. MySQL
counts acknowledgements by id: there it must be the replica's own, or one would count as two."""


SETTINGS = {
    Flavor.MARIADB: (
        "SET @rpl_semi_sync_slave = 1, @mariadb_slave_capability = 4, "
        "@master_binlog_checksum = @@global.binlog_checksum"
    ),
    Flavor.MYSQL: (
        "SET @rpl_semi_sync_replica = 1, @source_binlog_checksum = @@global.binlog_checksum"
    ),
}

FilePosition = tuple[str, int]
"""File and offset in the source's binlog."""


def acknowledge_received(
    flavor: Flavor,
    source: Source,
    server_id: int,
    look: Callable[[], tuple[Receiver, FilePosition]],
    deadline: Deadline,
) -> None:
    """As :func:`acknowledge`. Does nothing if the source cannot be reached.

    :param look: the receiver's state, and the position up to which it has read
    """
    patience = deadline.within(CONNECT_SECONDS)

    def position() -> FilePosition | None:
        while True:
            receiver, reached = look()
            if receiver is Receiver.ON:
                return reached
            if receiver is Receiver.OFF or not patience.left:
                return None
            deadline.check("connecting the receiver")
            deadline.clock.sleep(0.002)

    acknowledge(flavor, source, server_id, position, deadline)


def acknowledge(
    flavor: Flavor,
    source: Source,
    server_id: int,
    position: Callable[[], FilePosition | None],
    deadline: Deadline,
) -> None:
    """Make ``source`` count what the replica ``server_id`` has received, if commits wait there.

    The caller guarantees the position: this releases commits.

    :param position: up to where the receiver has read now; None if it is not connected
    """
    what = f"acknowledging to {source.host}:{source.port} what was received"
    patience = deadline.within(PATIENCE_SECONDS)
    before: int | None = None
    if position() is None:
        return  # a source that its receiver cannot reach is not waited for here either
    try:
        with _connected(flavor, source, deadline) as wire:
            while (reached := position()) is not None:
                waiting, released = _progress(wire, flavor)
                if not waiting or before not in (None, released) or not patience.left:
                    return
                before = released
                with _connected(flavor, source, deadline) as another:
                    _dump(another, flavor, server_id, reached)
                    # a source would continue to count a connection that just closes as a replica
                    _end(wire, another.thread_id())
                deadline.check(what)
                deadline.clock.sleep(AGAIN_SECONDS)
    except (pymysql.err.MySQLError, OSError) as error:
        deadline.check(what)
        raise OutcomeUnknown(f"{what}: {error}") from error


@contextmanager
def _connected(flavor: Flavor, source: Source, deadline: Deadline) -> Iterator[SafeLogin]:
    seconds = max(min(deadline.left, ANSWER_SECONDS), 0.001)
    # the receiver asks for the key, too, and it is connected there with the same password
    wire = encryption.log_in(flavor, source, seconds, asks_for_key=True, defer_connect=True)
    with _ended_when_called_off(_open(source, deadline), deadline) as made:
        try:
            wire.connect(made)
            yield wire
        finally:
            wire._force_close()


def _open(source: Source, deadline: Deadline) -> socket.socket:
    """A connection to the first of its addresses that accepts one."""
    patience = deadline.within(ANSWER_SECONDS)
    failed: OSError = TimeoutError(f"{source.host} does not answer")
    for family, kind, _, _, address in socket.getaddrinfo(
        source.host, source.port, type=socket.SOCK_STREAM
    ):
        made = socket.socket(family, kind)
        made.setblocking(False)
        begun = made.connect_ex(address)
        poll = select.poll()
        poll.register(made, select.POLLOUT)
        while begun == errno.EINPROGRESS and not poll.poll(1000 * POLL_SECONDS):
            if patience.cancelled() or not patience.left:
                made.close()
                patience.check(f"connecting to {source.host}:{source.port}")
        code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or begun
        if code in (0, errno.EINPROGRESS):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setblocking(True)
            return made
        made.close()
        failed = OSError(code, os.strerror(code))
    raise failed


@contextmanager
def _ended_when_called_off(made: socket.socket, deadline: Deadline) -> Iterator[socket.socket]:
    """A source that was frozen must not delay the promise that calls this off."""
    over = threading.Event()
    mine = made.dup()  # the number of a closed socket may belong to another

    def watch() -> None:
        while not deadline.clock.wait(over, POLL_SECONDS):
            if deadline.cancelled():
                with suppress(OSError):
                    mine.shutdown(socket.SHUT_RDWR)
                return

    watcher = threading.Thread(target=watch, name="called off", daemon=True)
    watcher.start()
    try:
        yield made
    finally:
        over.set()
        watcher.join()
        mine.close()


def _progress(wire: SafeLogin, flavor: Flavor) -> tuple[int, int]:
    """How many sessions wait for an acknowledgement, and how many transactions were released so far."""
    side = "master" if flavor is Flavor.MARIADB else "source"
    with wire.cursor() as cursor:
        cursor.execute(f"SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_{side}_%'")
        status = {str(name): value for name, value in cursor.fetchall()}
    prefix = f"Rpl_semi_sync_{side}"
    return int(status.get(f"{prefix}_wait_sessions", 0)), int(status.get(f"{prefix}_yes_tx", 0))


def _dump(wire: SafeLogin, flavor: Flavor, server_id: int, reached: FilePosition) -> None:
    """Request the dump and read up to the first event: the acknowledgement has been counted before that is sent."""
    file, offset = reached
    if not file or offset > LARGEST_POSITION:
        return
    with wire.cursor() as cursor:
        cursor.execute(SETTINGS[flavor])
    shown_id = server_id + STRANGER if flavor is Flavor.MARIADB else server_id
    request = struct.pack("<IHI", offset, 0, shown_id) + file.encode()
    wire._execute_command(COMMAND.COM_BINLOG_DUMP, request)
    wire._read_packet()


def _end(wire: SafeLogin, thread_id: int) -> None:
    """KILL, which an account may use on its own sessions."""
    try:
        with wire.cursor() as cursor:
            cursor.execute(f"KILL {thread_id}")
    except pymysql.err.MySQLError as error:
        if error.args[0] != ER.NO_SUCH_THREAD:
            raise
