"""A server that is not what it should be asks for the password, in all the ways that the protocol has."""

from __future__ import annotations

import ast
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pymysql
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import holdfast
from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError, OutcomeUnknown, Refused, Unreachable
from holdfast.server.base import Account, Deadline, Source
from holdfast.server.connection.login import SafeLogin
from holdfast.server.connection.sql import Connection
from holdfast.server.inspect.adopting import reached
from holdfast.server.replication.acknowledge import acknowledge
from tests.unit.rogue import FULL_AUTHENTICATION, PEM, Rogue, deciphered, listening, on_loopback

PASSWORD = "very-s3cret-password"
ROOT = Path(holdfast.__file__).parent.parent

LOW = (
    "mysql_clear_password",
    "dialog",
    "mysql_old_password",
    "sha256_password",
    "auth_gssapi",
    "x",
)
ROGUES: dict[str, Callable[[], Rogue]] = {
    **{f"greets with {each}": partial(Rogue, each) for each in LOW},
    **{f"switches to {each}": partial(Rogue, "mysql_native_password", each) for each in LOW},
    "dialog that asks": lambda: Rogue(
        "mysql_native_password", "dialog", (b"\x02Password: ", b"\x02Password: ")
    ),
    "switches twice": lambda: Rogue(
        "mysql_native_password", "mysql_native_password", (b"\xfemysql_clear_password\0",)
    ),
    "switches as before plugins had names": lambda: Rogue("mysql_native_password", "", (b"\xfe",)),
    "sends its key": lambda: Rogue(
        "caching_sha2_password", "", (FULL_AUTHENTICATION, b"\x01" + PEM)
    ),
    "switches and sends its key": lambda: Rogue(
        "mysql_native_password",
        "caching_sha2_password",
        (FULL_AUTHENTICATION, b"\x01" + PEM),
    ),
}


def reach(flavor: Flavor, port: int) -> object:
    return reached(flavor, source(port), 2)


def plainly(flavor: Flavor, port: int) -> object:
    return SafeLogin(
        flavor=flavor, host="127.0.0.1", port=port, user="u", password=PASSWORD, read_timeout=2
    )


def source(port: int) -> Source:
    return Source("127.0.0.1", port, Account("repl_m1", PASSWORD))


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("connect", [reach, plainly])
@pytest.mark.parametrize("make", ROGUES.values(), ids=ROGUES)
def test_a_rogue_server_learns_no_password(
    flavor: Flavor, connect: Callable[[Flavor, int], object], make: Callable[[], Rogue]
) -> None:
    rogue = make()
    with (
        on_loopback(rogue) as port,
        pytest.raises((Unreachable, pymysql.err.OperationalError)) as caught,
    ):
        connect(flavor, port)
    assert rogue.told is not None
    assert PASSWORD.encode() not in rogue.told
    assert not deciphered(rogue.told, PASSWORD)
    assert PASSWORD not in str(caught.value)
    assert "refused" in str(caught.value) or "switch" in str(caught.value)


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("switch", ["mysql_clear_password", "dialog"])
def test_nor_does_one_to_which_a_replica_would_acknowledge(flavor: Flavor, switch: str) -> None:
    rogue = Rogue("mysql_native_password", switch, (b"\x02Password: ",))
    with on_loopback(rogue) as port, pytest.raises(OutcomeUnknown, match="refused"):
        acknowledge(flavor, source(port), 2, lambda: ("binlog.1", 4), Deadline(5))
    assert rogue.told
    assert PASSWORD.encode() not in rogue.told


def test_nor_does_one_behind_the_local_socket(tmp_path: Path) -> None:
    """Where the administrator's password would be sent."""
    for number, switch in enumerate(("mysql_clear_password", "dialog", "mysql_old_password")):
        rogue = Rogue("mysql_native_password", switch, (b"\x02Password: ",))
        path = tmp_path / f"s{number}"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        connection = Connection(path, Account("holdfast", PASSWORD))
        with (
            listening(rogue, listener),
            pytest.raises((Refused, Unreachable), match="could give it"),
        ):
            connection.look("SELECT 1", Deadline(5))
        assert rogue.told
        assert PASSWORD.encode() not in rogue.told


def test_a_password_that_was_encrypted_for_the_right_server_is_of_no_use_to_another() -> None:
    """The key comes from the member's agent; what the rogue sends is not used."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = other.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    rogue = Rogue("caching_sha2_password", "", (FULL_AUTHENTICATION, b"\x01" + PEM))
    with on_loopback(rogue) as port, pytest.raises(HoldfastError):
        reached(Flavor.MYSQL, source(port), 2, pem.decode())
    assert len(rogue.told) > 256, "the encrypted password was sent"
    assert not deciphered(rogue.told, PASSWORD)


def test_the_rogue_deciphers_what_a_client_sends_that_asks_for_its_key() -> None:
    """Shows that the tests above could fail: a client that asks for the key loses its password."""
    rogue = Rogue("caching_sha2_password", "", (FULL_AUTHENTICATION, b"\x01" + PEM))
    with on_loopback(rogue) as port, pytest.raises(pymysql.err.OperationalError):
        SafeLogin(
            flavor=Flavor.MYSQL,
            asks_for_key=True,
            host="127.0.0.1",
            port=port,
            user="u",
            password=PASSWORD,
            read_timeout=2,
        )
    assert deciphered(rogue.told, PASSWORD)


def test_tls_is_neither_left_out_nor_spoken_with_just_anybody() -> None:
    import ssl

    with on_loopback(Rogue("mysql_native_password")) as port:
        where: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": port,
            "user": "u",
            "password": PASSWORD,
        }
        with pytest.raises(pymysql.err.OperationalError, match="TLS"):
            SafeLogin(ssl=ssl.create_default_context(), **where)
        lenient = ssl.create_default_context()
        lenient.check_hostname = False
        lenient.verify_mode = ssl.CERT_NONE
        with pytest.raises(ValueError, match="checks it"):
            SafeLogin(ssl=lenient, **where)


def test_nobody_connects_to_a_server_in_another_way() -> None:
    """Neither the product nor its sandbox and benches."""
    found = []
    for folder in ("holdfast", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name == "login.py":
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call | ast.ClassDef | ast.ImportFrom):
                    continue
                called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                bases = (
                    [ast.unparse(b) for b in node.bases] if isinstance(node, ast.ClassDef) else []
                )
                if called in (
                    "pymysql.connect",
                    "pymysql.Connection",
                    "pymysql.Connect",
                    "PyMySQL",
                ) or any(base.startswith(("pymysql.conn", "PyMySQL")) for base in bases):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
                if isinstance(node, ast.ImportFrom) and node.module == "pymysql":
                    assert {each.name for each in node.names} <= {"err"}, path
    assert not found
