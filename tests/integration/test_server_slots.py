"""Clients use all connections, and take each that becomes free: replicas and the agent get in, one after another."""

from __future__ import annotations

from contextlib import ExitStack, closing

import pymysql

from holdfast.core.gtid import Flavor
from holdfast.server.base import Account, Deadline
from holdfast.server.replication.barring import GRANTED
from tests.integration.servers import CLIENT, BareServer, bare_servers, wait_until

REPLICA = Account("rep", "rep")
LIMIT = 12
TOO_MANY = 1040


def refused(server: BareServer, account: Account) -> bool:
    """Whether the login fails because too many are connected."""
    try:
        server.connect(account).close()
    except pymysql.err.OperationalError as error:
        if error.args[0] != TOO_MANY:
            raise
        return True
    return False


def limit(server: BareServer) -> int:
    return server.adapter.keep_slot(LIMIT, False, Deadline(5)).limit


def test_who_replicates_gets_in_and_no_client_more(flavor: Flavor) -> None:
    with bare_servers(flavor, 1) as (server,), ExitStack() as held:
        if flavor is Flavor.MYSQL:
            server.sql("SET GLOBAL super_read_only = 0")
        server.sql("CREATE USER rep@'%' IDENTIFIED BY 'rep'")
        server.sql(f"GRANT {GRANTED[flavor]} ON *.* TO rep@'%'")
        server.sql(f"SET GLOBAL max_connections = {LIMIT}")
        adapter = server.adapter
        adapter.ping(Deadline(5))
        while not refused(server, CLIENT):
            held.enter_context(closing(server.connect(CLIENT)))

        first = server.connect(REPLICA)
        assert refused(server, REPLICA), "one is reserved, and in use"
        crowd = adapter.keep_slot(LIMIT, False, Deadline(5))
        assert (crowd.used, crowd.limit) == (LIMIT + 1, LIMIT + 1)
        assert refused(server, CLIENT)
        with closing(server.connect(REPLICA)):
            adapter.keep_slot(LIMIT, False, Deadline(5))
        first.close()
        wait_until(lambda: limit(server) == LIMIT, 5, "those who left are gone")
        assert refused(server, CLIENT), "what a replica leaves is none for clients"

        adapter.close()  # an agent that was restarted
        while not refused(server, CLIENT):
            held.enter_context(closing(server.connect(CLIENT)))
        adapter.ping(Deadline(5))
        adapter.observe(Deadline(5))

        held.close()
        wait_until(lambda: limit(server) == LIMIT, 5, "there is room again")
