"""A connection to the local server: persistent, reconnecting automatically, and never without a deadline."""

from __future__ import annotations

import contextlib
import select
import socket
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pymysql
from pymysql.constants import COMMAND
from pymysql.cursors import DictCursor

from holdfast.errors import DeadlinePassed, HoldfastError, OutcomeUnknown, Refused, Unreachable
from holdfast.server.base import Account, Crowded, Deadline, NotListening, SocketGone
from holdfast.server.connection import ways_in
from holdfast.server.connection.hangup import peer
from holdfast.server.connection.login import SafeLogin
from holdfast.server.connection.session_settings import NOT_ALLOWED, session_settings, statement

Row = Mapping[str, Any]

MUST_CHANGE_PASSWORD = 1820

POLL_SECONDS = 0.02
"""How often a statement that waits checks whether it has been called off."""

WHAT_LENGTH = 120
"""How much of a statement a message shows."""

LOST = frozenset({2006, 2013, 2014, 2055})
"""Client-side errors: the connection ended."""

GOING = frozenset({1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 3169, 4031})
"""Server-side errors: the connection or the server is ending."""

CROWDED = frozenset({1040, 1203, 1226})
"""All connections, or all of this account, are in use."""


KEPT_OUT = frozenset({1044, 1045, 1142, 1227, 1820, 1862, 3118, 4151})
"""The account is not allowed: it lacks a privilege, is locked, or its password has expired."""

NOT_ACCEPTING = frozenset({1129, 2002, 2003, 3032}) | LOST | GOING


class StatementRefused(Refused):
    """The server answered a statement with an error.

    :ivar code: the server's error number; :ivar message: its text
    """

    def __init__(self, what: str, code: int, message: str) -> None:
        super().__init__(f"{what}: error {code}: {message}")
        self.code = code
        self.message = message


class LoginRefused(StatementRefused):
    """The server lives, and refuses the account's login."""


def keeps_out(error: Exception) -> bool:
    """Whether the server lives, and refuses the account itself, whatever the statement."""
    return isinstance(error, LoginRefused) or (
        isinstance(error, StatementRefused) and error.code in KEPT_OUT
    )


class Connection:
    """One session of an administrative account; statements of several threads run one after another.

    If the account is refused, its password is read again: it may have been changed. If the socket's file was removed, a
    server that still listens there is reached by TCP on this host.

    Errors are distinguished by consequence: :meth:`look` changes nothing, so a lost connection is ``Unreachable``;
    after :meth:`run` it is ``OutcomeUnknown``. Both raise ``StatementRefused`` when the server says no,
    ``DeadlinePassed`` when it does not answer in time (the session is then given up; the server still carries out the
    statement), and ``CalledOff`` when the deadline was called off.

    Messages show a statement without its arguments: those may be passwords.

    :param settings: the settings with which each of its sessions begins, as after ``SET SESSION``
    """

    def __init__(self, path: Path, account: Account, settings: str = "") -> None:
        self._path = path
        self._account = account
        self._settings = settings
        self._pinned = False
        self._turn = threading.Lock()
        self._wire: _Wire | None = None

    def look(self, sql: str, deadline: Deadline, args: Sequence[object] = ()) -> list[Row]:
        """Ask for rows; the statement must change nothing."""
        return self._ask(sql, deadline, args, Unreachable)

    def run(self, sql: str, deadline: Deadline, args: Sequence[object] = ()) -> None:
        """Carry out a statement that changes something."""
        self._ask(sql, deadline, args, OutcomeUnknown)

    def set_global(self, values: Mapping[str, int | str], deadline: Deadline) -> None:
        """Variables, in this order and in one statement; nothing is done where there are none."""
        if values:
            settings = ", ".join(f"GLOBAL {name} = {value}" for name, value in values.items())
            self.run(f"SET {settings}", deadline)

    @contextlib.contextmanager
    def one_session(self, deadline: Deadline) -> Iterator[None]:
        """Within it no other session is opened: what this session holds (locks, settings) is held throughout.

        The session is dropped at the end, with everything that it holds. For one thread.
        """
        self.look("SELECT 1", deadline)
        self._pinned = True
        try:
            yield
        finally:
            self._pinned = False
            self.close()

    @property
    def session_id(self) -> int:
        """The server's number of the session; 0 while none is open."""
        wire = self._wire
        return wire.thread_id() if wire is not None else 0

    def server_pid(self) -> int:
        """The server's process, as far as the kernel knows it; 0 while no session is open."""
        wire = self._wire
        return wire.server_pid() if wire is not None else 0

    def close(self) -> None:
        """Drop the session; the next statement opens another. This also ends a statement that waits."""
        if self._turn.acquire(blocking=False):
            self._discard()
            self._turn.release()
        elif (wire := self._wire) is not None:
            wire.interrupt()

    def _discard(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.drop()

    def _ask(
        self, sql: str, deadline: Deadline, args: Sequence[object], lost: type[HoldfastError]
    ) -> list[Row]:
        what = textwrap.shorten(sql.replace("%s", "…"), WHAT_LENGTH)
        if not self._turn.acquire(timeout=deadline.left):
            raise DeadlinePassed(f"{what}: waiting for an earlier statement", deadline.seconds)
        try:
            wire = self._connected(deadline)
            try:
                return wire.ask(what, sql, args, deadline)
            except HoldfastError:
                self._discard()
                raise
            except pymysql.err.MySQLError as error:
                code, message = _parts(error)
                if code in LOST or code in GOING:
                    self._discard()
                    deadline.check(what)
                    raise lost(f"{what}: the connection was lost: {message}") from error
                # not from the server: the session is out of step. Or it began with an expired password, and can do
                # nothing but set a new one, even after another session has done that
                if not code or code == MUST_CHANGE_PASSWORD:
                    self._discard()
                raise StatementRefused(what, code, message) from error
            except OSError as error:
                self._discard()
                raise lost(f"{what}: the connection was lost: {error}") from error
        finally:
            self._turn.release()

    def _connected(self, deadline: Deadline) -> _Wire:
        if self._wire is not None and self._wire.is_stale():
            self._discard()
        if self._wire is None:
            if self._pinned:
                raise OutcomeUnknown(f"{self._path}: the session was lost")
            deadline.check(f"connecting to {self._path}")
            self._wire = self._opened(deadline)
        return self._wire

    def _opened(self, deadline: Deadline) -> _Wire:
        try:
            return _connect(self._path, self._account, self._settings, deadline)
        except LoginRefused:
            fresh = self._account.fresh()
            if fresh == self._account:
                raise
            made = _connect(self._path, fresh, self._settings, deadline)
            self._account = fresh
            return made


class _Wire(SafeLogin):
    """PyMySQL's connection, with a wait for an answer that can be called off."""

    deadline: Deadline
    what = ""
    local = True

    def connect(self, sock: socket.socket | None = None) -> None:
        self._secure = self.local  # a local socket: the password may be sent as it is
        super().connect(sock)

    def settle(self, settings: str) -> None:
        """Make the session independent of the server's global defaults.

        :param settings: further ones, which must be accepted
        """
        ours = session_settings(self.server_version)
        further = (settings,) if settings else ()
        try:
            self.query(statement((*ours, *further)))
        except pymysql.err.MySQLError as error:
            if _parts(error)[0] not in NOT_ALLOWED:
                raise
            for each in ours:
                self._set_if_possible(each)
            if settings:
                self.query(statement(further))

    def _set_if_possible(self, setting: str) -> None:
        try:
            self.query(statement((setting,)))
        except pymysql.err.MySQLError as error:
            if _parts(error)[0] not in NOT_ALLOWED:
                raise

    def ask(self, what: str, sql: str, args: Sequence[object], deadline: Deadline) -> list[Row]:
        self.what, self.deadline = what, deadline
        with self.cursor(DictCursor) as cursor:
            cursor.execute(sql, tuple(args) or None)
            return list(cursor.fetchall())

    def query(self, sql: str | bytes, unbuffered: bool = False) -> int:
        """Send, then wait in slices: a socket's own time-out could not be called off."""
        if isinstance(sql, str):
            sql = sql.encode(self.encoding, "surrogateescape")
        self._write_timeout = self._read_timeout = max(self.deadline.left, 0.001)
        self._execute_command(COMMAND.COM_QUERY, sql)
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while not poll.poll(1000 * min(POLL_SECONDS, self.deadline.left)):
            self.deadline.check(self.what)
        self._affected_rows = self._read_query_result(unbuffered=unbuffered)
        return self._affected_rows

    def is_stale(self) -> bool:
        """Whether the server has ended the session: on an idle one there is nothing to read."""
        if not self.open:
            return True
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | select.POLLHUP)
        return bool(poll.poll(0))

    def interrupt(self) -> None:
        """End the session from another thread: the thread that waits sees it end, and drops it."""
        with contextlib.suppress(OSError, AttributeError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def server_pid(self) -> int:
        with contextlib.suppress(OSError, AttributeError):
            return peer(self._sock)
        return 0

    def drop(self) -> None:
        """Close the socket without a goodbye, which could block."""
        self._force_close()


def _connect(path: Path, account: Account, settings: str, deadline: Deadline) -> _Wire:
    """:raises LoginRefused: the server's own error
    :raises SocketGone, NotListening, Crowded, Unreachable: no session could be opened
    """
    try:
        opened = _open(path, deadline)
    except FileNotFoundError as error:
        return _by_loopback(path, account, settings, deadline, error)
    except OSError as error:
        raise Unreachable(f"{path}: {error}") from error
    return _log_in(path, opened, account, settings, deadline)


def _by_loopback(
    path: Path, account: Account, settings: str, deadline: Deadline, missing: OSError
) -> _Wire:
    """Log in by TCP on this host after the socket is gone: the server has closed it, or its file was removed."""
    if not ways_in.listens(path):
        raise NotListening(f"{path}: {missing.strerror}") from missing
    said = "it takes no TCP connections of its own host"
    for host, port in ways_in.loopback(path):
        try:
            made = socket.create_connection((host, port), max(deadline.left, 0.001))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _log_in(path, made, account, settings, deadline)
        except (OSError, HoldfastError) as error:
            said = f"{host}:{port}: {_own_words(error)}"
    raise SocketGone(f"error 2002: its socket {path} was removed, and {said}") from missing


def _own_words(error: Exception) -> str:
    if isinstance(error, LoginRefused):
        return f"error {error.code}: {error.message}"
    return str(error)


def _log_in(
    path: Path, opened: socket.socket, account: Account, settings: str, deadline: Deadline
) -> _Wire:
    local = opened.family == socket.AF_UNIX
    wire = _Wire(
        unix_socket=str(path),
        user=account.user,
        password=account.password,
        charset="utf8mb4",
        autocommit=True,
        cursorclass=DictCursor,
        defer_connect=True,
        # the kernel has said whose socket that is
        asks_for_key=not local,
    )
    wire.local = local
    wire.deadline, wire.what = deadline, f"connecting to {path}"
    wire._read_timeout = wire._write_timeout = max(deadline.left, 0.001)
    try:
        wire.connect(opened)
        wire.settle(settings)
    except pymysql.err.MySQLError as error:
        wire.drop()
        code, message = _parts(error)
        if code in CROWDED:
            raise Crowded(f"{path}: {message}") from error
        if code in NOT_ACCEPTING or not code:
            raise Unreachable(f"{path}: {message}") from error
        raise LoginRefused(f"logging in to {path} as {account.user}", code, message) from error
    except (OSError, HoldfastError) as error:
        wire.drop()
        raise Unreachable(f"{path}: {error}") from error
    return wire


def _open(path: Path, deadline: Deadline) -> socket.socket:
    """Open the socket. PyMySQL would leave a socket open that no server accepts."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(max(deadline.left, 0.001))
    try:
        made.connect(str(path))
    except OSError:
        made.close()
        raise
    return made


def _parts(error: pymysql.err.MySQLError) -> tuple[int, str]:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    return code, str(error.args[-1]) if error.args else repr(error)
