"""A real server that crashed, and whose binlog must not be cut, or need not be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.binlog.events.gtid_event import Gtid
from holdfast.binlog.pending.tail import Clean, Remedy, Unsafe, inspect
from holdfast.sandbox.servers import trees
from tests.integration.test_binlog_crash import (
    Make,
    Server,
    crash_with_pending,
    flavor,
    insert,
    known,
    new_server,
)

__all__ = ["flavor", "new_server"]
"""Fixtures that pytest looks up here by name."""


def assert_unsafe(server: Server, has: Callable[[Gtid], bool], remedy: Remedy, said: str) -> None:
    tail = inspect(server.index, has)
    assert isinstance(tail, Unsafe), tail
    assert tail.remedy is remedy, tail
    assert said in tail.reason


def test_a_server_without_pending_transactions_is_clean(
    flavor: trees.Flavor, new_server: Make
) -> None:
    server = new_server(flavor)
    has = known(flavor, server.executed())
    server.crash()
    assert inspect(server.index, has) == Clean()
    server.start()
    assert inspect(server.index, has) == Clean()
    server.shut_down()
    assert inspect(server.index, has) == Clean()


def test_a_start_after_the_crash_commits_the_tail_and_it_is_not_cut(
    flavor: trees.Flavor, new_server: Make
) -> None:
    server = new_server(flavor)
    _, has = crash_with_pending(server, insert("pending 1"))
    server.start()
    assert "pending 1" in server.names()
    server.crash()
    assert_unsafe(server, has, Remedy.REWIND, "started again")
    server.start()
    server.shut_down()
    assert_unsafe(server, has, Remedy.REWIND, "started again")


def test_unacknowledged_rows_of_a_server_that_was_shut_down_are_not_cut(
    flavor: trees.Flavor, new_server: Make
) -> None:
    server = new_server(flavor)
    has = known(flavor, server.executed())
    server.sql(insert("only here"))
    server.shut_down()
    assert_unsafe(server, has, Remedy.REWIND, "shut down")


def test_rows_of_tables_that_cannot_roll_back_are_not_cut(
    flavor: trees.Flavor, new_server: Make
) -> None:
    server = new_server(flavor)
    server.sql("CREATE TABLE test.m (a INT) ENGINE=MyISAM")
    _, has = crash_with_pending(server, "INSERT INTO test.m VALUES (1)")
    assert_unsafe(server, has, Remedy.CLONE, "roll back")


def test_an_xa_transaction_is_not_cut(flavor: trees.Flavor, new_server: Make) -> None:
    server = new_server(flavor)
    has = known(flavor, server.executed())
    server.sql("XA START 'a'", insert("in doubt"), "XA END 'a'", "XA PREPARE 'a'")
    server.crash()
    assert_unsafe(server, has, Remedy.CLONE, "XA")


def test_a_data_definition_is_not_cut_on_mariadb(new_server: Make) -> None:
    server = new_server("mariadb")
    _, has = crash_with_pending(server, "ALTER TABLE test.t ADD extra INT")
    assert_unsafe(server, has, Remedy.CLONE, "data definition")


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE test.n (a INT) ENGINE=MyISAM", "CREATE DATABASE other"]
)
def test_another_data_definition_is_not_cut_on_mysql(new_server: Make, statement: str) -> None:
    server = new_server("mysql")
    _, has = crash_with_pending(server, statement)
    assert_unsafe(server, has, Remedy.CLONE, "statement that cannot roll back")


def test_compressed_transactions_are_not_cut_on_mysql(new_server: Make) -> None:
    server = new_server("mysql", "--binlog-transaction-compression=ON")
    _, has = crash_with_pending(server, insert("pending 1"))
    assert_unsafe(server, has, Remedy.CLONE, "compressed")
