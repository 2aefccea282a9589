"""Replication over TLS: a receiver's settings, and how an agent logs in to the server that its receiver follows."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from holdfast.core.gtid import Flavor
from holdfast.errors import Refused
from holdfast.server.base import Account, Source
from holdfast.server.connection.login import SafeLogin
from holdfast.server.connection.sql import Row
from holdfast.tls import Files

_OPTIONS = {
    Flavor.MARIADB: (
        ", master_ssl = 1, master_ssl_ca = %s, master_ssl_cert = %s, master_ssl_key = %s, "
        "master_ssl_verify_server_cert = 1"
    ),
    Flavor.MYSQL: (
        ", SOURCE_SSL = 1, SOURCE_SSL_CA = %s, SOURCE_SSL_CERT = %s, SOURCE_SSL_KEY = %s, "
        "SOURCE_SSL_VERIFY_SERVER_CERT = 1"
    ),
}


def named(files: Files | None) -> tuple[str, ...]:
    """The files in the order of statements; empty if there are none."""
    return tuple(map(str, (files.ca, files.cert, files.key))) if files is not None else ()


def options(flavor: Flavor, account: Account) -> str:
    """What is added to a CHANGE of the source, with :func:`named` as its arguments.

    Nothing without certificates: what was set up by hand stays as it is.
    """
    return _OPTIONS[flavor] if account.tls is not None else ""


def set_up(row: Row, names: tuple[str, str, str, str]) -> tuple[str, ...]:
    """What a receiver is set up with now, as :func:`named`.

    :param names: of the columns: whether it is encrypted, and the three files
    """
    encrypted, *files = (str(row.get(name) or "") for name in names)
    return tuple(files) if encrypted.upper() == "YES" else ()


def context(account: Account) -> ssl.SSLContext | None:
    """The TLS context for PyMySQL. Like the receiver, it checks the host's name and the CA.

    :raises Refused: the agent cannot read the files
    """
    files = account.tls
    if files is None:
        return None
    try:
        made = ssl.create_default_context(cafile=files.ca)
        made.load_cert_chain(files.cert, files.key, password=lambda: "")
    except OSError as error:  # ssl.SSLError is an OSError
        what = ", ".join(named(files))
        raise Refused(f"server.tls: the certificates of replication ({what}): {error}") from None
    return made


def option_file(files: Files | None) -> Mapping[str, str]:
    """The options with which the server itself shows its certificate."""
    return dict(zip(("ssl_ca", "ssl_cert", "ssl_key"), named(files), strict=False))


def log_in(flavor: Flavor, source: Source, seconds: float, **options: Any) -> SafeLogin:
    """Log in to the receiver's source by the receiver's account; ``seconds`` for each answer.

    :param options: further ones of :class:`SafeLogin`
    """
    return SafeLogin(
        flavor=flavor,
        host=source.host,
        port=source.port,
        user=source.account.user,
        password=source.account.password,
        connect_timeout=seconds,
        read_timeout=seconds,
        write_timeout=seconds,
        ssl=context(source.account),
        **options,
    )
