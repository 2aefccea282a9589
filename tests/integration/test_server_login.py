"""How an agent logs in to another member's server where there is no TLS, and what it refuses to do for that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast.core.gtid import Flavor
from holdfast.errors import Unreachable
from holdfast.server.base import Account, Deadline, Source
from holdfast.server.connection.sql import Connection
from holdfast.server.inspect.adopting import public_key, reached
from tests.integration.servers import ADMIN, BareServer, bare_servers, replication


@pytest.fixture(scope="module")
def server(flavor: Flavor) -> Iterator[BareServer]:
    with bare_servers(flavor, 1) as made:
        yield made[0]


def test_a_member_is_let_in_without_giving_its_password_away(server: BareServer) -> None:
    """After each start MySQL wants the password encrypted: with the key that its own agent reports, not one from the
    network. Then it caches a hash, and the answer to a challenge is enough. MariaDB never wants more than that."""
    connection = Connection(server.socket, ADMIN)
    key = public_key(connection, Deadline(5))
    connection.close()
    source = Source("127.0.0.1", server.port, replication(0))
    if server.flavor is Flavor.MARIADB:
        assert key == ""
    else:
        assert key.startswith("-----BEGIN PUBLIC KEY-----")
        with pytest.raises(Unreachable, match="RSA key, which it would send itself: refused"):
            reached(server.flavor, source, 3)
        assert reached(server.flavor, source, 3, key)[1] == server.value("SELECT @@server_uuid")
    assert reached(server.flavor, source, 3)[0] == 1
    wrong = Source("127.0.0.1", server.port, Account(source.account.user, "another"))
    with pytest.raises(Unreachable, match="refuses the login of repl0"):
        reached(server.flavor, wrong, 3, key)


def test_an_account_whose_plugin_gives_the_password_away_is_refused(server: BareServer) -> None:
    """The server asks for it in the ordinary way; MariaDB's old hash is reversed in seconds."""
    server.adapter.prepare_primary(0, Deadline(5))
    server.adapter.open(Deadline(5))
    if server.flavor is Flavor.MARIADB:
        server.sql("SET GLOBAL secure_auth = 0")
        how = "VIA mysql_old_password USING '0123456789abcdef'"
        refusal = "unknown auth switch request"  # the protocol has no name for it
    else:
        how = "WITH sha256_password BY 'x'"
        refusal = "'sha256_password', which could give it the password: refused"
    server.sql(f"CREATE USER plain@'%' IDENTIFIED {how}")
    with pytest.raises(Unreachable, match=refusal):
        reached(server.flavor, Source("127.0.0.1", server.port, Account("plain", "x")), 3)
