"""Logging in to a server that may not be the expected one: it must not learn the password.

In MySQL's protocol the server chooses how a client authenticates, in its greeting and by a switch after that. PyMySQL
obeys: for a switch to ``mysql_clear_password``, or a question of ``dialog``, it sends the password as it is, on any
connection; for ``mysql_old_password`` a hash that is reversed in seconds. For ``sha256_password`` and
``caching_sha2_password`` it sends the password encrypted with an RSA key that the server itself has sent, or as it is
under TLS, whether the certificate was checked or not. So a plugin is obeyed only if it is known not to reveal the
password *on this connection*; all others, also future ones, end the connection before anything is sent. Every
connection of Holdfast to a server is made here (``tests/unit/server/connection/test_login.py`` checks that).
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.constants import CLIENT

from holdfast.core.gtid import Flavor

CHALLENGED = frozenset({"mysql_native_password", "client_ed25519"})
"""The answer to a challenge: useful for that challenge only."""

PLAIN = {
    Flavor.MARIADB: CHALLENGED,
    Flavor.MYSQL: CHALLENGED | {"caching_sha2_password"},
}
"""Plugins that are obeyed over an unencrypted network: only those that accounts of that flavor need."""

PROTECTED = CHALLENGED | {"caching_sha2_password", "sha256_password"}
"""Plugins that are obeyed if the other side is known: a local socket, or TLS with a checked certificate."""

REFUSED_PLUGIN = 2061
"""The number that C clients give to errors of an authentication plugin (CR_AUTH_PLUGIN_ERR)."""
NO_TLS = 2026
ASK_FOR_KEY = b"\x02"

if TYPE_CHECKING:

    class PyMySQL(pymysql.connections.Connection[Any]):
        """A connection, with the attributes that PyMySQL's type stubs leave out."""

        ssl: bool
        salt: bytes
        server_capabilities: int
        server_public_key: bytes | None
        _auth_plugin_name: str
        server_version: str
        _secure: bool
        _sock: socket.socket
        _read_timeout: float
        _write_timeout: float

        def connect(self, sock: Any = None) -> None: ...
        def write_packet(self, payload: bytes) -> None: ...
        def _get_server_information(self) -> None: ...
        def _process_auth(self, plugin_name: bytes, *rest: Any) -> Any: ...
        def _request_authentication(self) -> None: ...
        def _execute_command(self, command: int, sql: bytes) -> None: ...
        def _read_packet(self, packet_type: Any = ...) -> Any: ...
        def _read_query_result(self, unbuffered: bool = False) -> int: ...
        def _read_bytes(self, size: int) -> bytes: ...
        def _write_bytes(self, data: bytes) -> None: ...
        def _force_close(self) -> None: ...
        def thread_id(self) -> int: ...

else:
    PyMySQL = pymysql.connections.Connection


class SafeLogin(PyMySQL):
    """PyMySQL's connection, which reveals the password to no server.

    If ``ssl`` is given, TLS is always used: otherwise PyMySQL would accept any certificate, and call that secure.

    :param flavor: of the expected server
    :param asks_for_key: if the password must be encrypted for the server, ask that server for its key. A server that
        stands in for it sends a key of its own: so this is used only if a receiver does the same, with the same
        password
    :param options: as PyMySQL takes them; ``ssl`` as a context that checks the other side, ``server_public_key`` if it
        is known from a trusted source
    """

    def __init__(
        self, *, flavor: Flavor | None = None, asks_for_key: bool = False, **options: Any
    ) -> None:
        context = options.get("ssl")
        if context is None:
            options["ssl_disabled"] = True
        elif not isinstance(context, ssl.SSLContext) or context.verify_mode != ssl.CERT_REQUIRED:
            raise ValueError("ssl: must be a context that wants a certificate, and checks it")
        protected = context is not None or bool(options.get("unix_socket"))
        if protected:
            self._obeyed = PROTECTED
        else:
            self._obeyed = PLAIN[flavor] if flavor is not None else PLAIN[Flavor.MYSQL]
        self._asks_for_key = asks_for_key
        self._logging_in = False
        super().__init__(**options)

    def connect(self, sock: Any = None) -> None:
        self._logging_in = True
        try:
            super().connect(sock)
        finally:
            self._logging_in = False

    def write_packet(self, payload: bytes) -> None:
        if self._logging_in and payload == ASK_FOR_KEY and not self._asks_for_key:
            raise pymysql.err.OperationalError(
                REFUSED_PLUGIN,
                "the server wants the password encrypted with its RSA key, which it would send itself: refused",
            )
        super().write_packet(payload)

    def _get_server_information(self) -> None:
        super()._get_server_information()
        if self.ssl and not self.server_capabilities & CLIENT.SSL:
            raise pymysql.err.OperationalError(NO_TLS, "the server offers no TLS")
        self._refuse(self._auth_plugin_name or "mysql_native_password")

    def _process_auth(self, plugin_name: bytes, *rest: Any) -> Any:
        self._refuse(plugin_name.decode("ascii", "replace"))
        return super()._process_auth(plugin_name, *rest)

    def _refuse(self, plugin: str) -> None:
        if plugin not in self._obeyed:
            raise pymysql.err.OperationalError(
                REFUSED_PLUGIN,
                f"the server wants the authentication plugin {plugin[:40]!r}, which could give it the "
                f"password: refused ({', '.join(sorted(self._obeyed))} would be taken)",
            )
