"""Global defaults that an operator has tightened are for clients: no session of the agent's uses them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from pymysql.connections import Connection as PyMySQL

from holdfast.core.commands import Bar, Promote, Prove, Unbar
from holdfast.core.gtid import Flavor
from holdfast.server.base import Deadline
from holdfast.server.connection.session_settings import session_settings
from holdfast.server.data.chunks import ChunkDigester, Key
from holdfast.server.data.digest import Digester, HistoryPlace
from holdfast.server.data.rewind import Rewinder
from holdfast.server.primary.probe import Probe, WriteLocked
from tests.integration import servers
from tests.integration.test_agent_real import Member, hosts

HOSTILE = {
    "completion_type": "'RELEASE'",
    "autocommit": "0",
    "sql_safe_updates": "1",
    "sql_select_limit": "1",
    "max_join_size": "1",
    "sql_big_selects": "0",
    "lock_wait_timeout": "1",
    "innodb_lock_wait_timeout": "1",
    "group_concat_max_len": "4",
    "max_sort_length": "64",
    "div_precision_increment": "0",
    "time_zone": "'+13:00'",
    "character_set_client": "latin1",
    "character_set_connection": "latin1",
    "foreign_key_checks": "0",
}
OWN = {
    Flavor.MARIADB: {
        "tx_read_only": "1",
        "tx_isolation": "'READ-UNCOMMITTED'",
        "max_statement_time": "0.001",
        "idle_transaction_timeout": "1",
        "default_storage_engine": "Aria",
        "sql_mode": "'ORACLE,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'",
    },
    Flavor.MYSQL: {
        "transaction_read_only": "1",
        "transaction_isolation": "'READ-UNCOMMITTED'",
        "max_execution_time": "1",
        "default_storage_engine": "MyISAM",
        "sql_require_primary_key": "1",
        "sql_generate_invisible_primary_key": "1",
        "show_gipk_in_create_table_and_information_schema": "0",
        "sql_mode": "'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'",
    },
}


@pytest.fixture
def member(flavor: Flavor) -> Iterator[Member]:
    with hosts(flavor, 1) as (made,):
        yield made


def connect(member: Member) -> PyMySQL:
    """As the administrator, with the server's defaults, except what a client must set."""
    return PyMySQL(
        unix_socket=str(member.folder / "s"),
        user=servers.ADMIN.user,
        password=servers.ADMIN.password,
        init_command="SET SESSION sql_mode = '', sql_select_limit = 999, completion_type = 0",
    )


def run(member: Member, *statements: str) -> list[tuple[object, ...]]:
    """In one session."""
    with closing(connect(member)) as session, session.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


def digest(member: Member) -> str:
    def begun(place: HistoryPlace, upto: Key, last: Key) -> None:
        assert place.gtids

    made = ChunkDigester(Digester(member.flavor, member.folder / "s", servers.ADMIN))
    found, rows = made.take_chunk(("app", "padded"), Key(), 100, Deadline(30), begun, Key())
    assert rows
    return found


def test_what_keeps_clients_from_an_open_primary_is_put_back(member: Member) -> None:
    """Its agent's own sessions work meanwhile: status once said that all is well, with no client let in."""
    member.boot(1)
    member.do(1, Promote(acks=0, serial=1))
    mysql = member.flavor is Flavor.MYSQL
    names = ["transaction_read_only", "offline_mode"] if mysql else ["tx_read_only"]
    for name in names:
        run(member, f"SET GLOBAL {name} = 1")
        member.until(lambda state, name=name: any(name in each for each in state.concerns))
        assert run(member, f"SELECT @@global.{name}") == [(0,)]
    assert any("kept clients from writing" in each for each in member.seen().state.concerns)


@pytest.mark.parametrize("flavor", [Flavor.MYSQL], indirect=True, ids=["mysql"])
def test_a_redo_log_that_was_switched_off_is_switched_on_again(member: Member) -> None:
    """Killed without one, the server refuses to start: "Server was killed when InnoDB redo logging was disabled"."""
    member.boot(1)
    member.do(1, Promote(acks=0, serial=1))
    for opens in (True, False):
        if not opens:
            run(member, "SET GLOBAL super_read_only = 1")
            member.until(lambda state: not state.writable)
        before = member.seen().state.concerns
        run(member, "ALTER INSTANCE DISABLE INNODB REDO_LOG")
        state = member.until(lambda state, before=before: state.concerns != before)
        assert "no redo log (ALTER INSTANCE DISABLE INNODB REDO_LOG) was set by hand" in str(
            state.concerns
        )
        shown = run(member, "SHOW GLOBAL STATUS LIKE 'Innodb_redo_log_enabled'")
        assert shown == [("Innodb_redo_log_enabled", "ON")]


def test_a_lock_that_writes_wait_for_is_told_as_long_as_it_is_held(member: Member) -> None:
    """As a backup takes it. It is no reason to replace the primary, and commits do not come through."""
    member.boot(1)
    member.do(1, Promote(acks=0, serial=1))
    run(member, "SET autocommit = 1", "CREATE TABLE app.t (n INT)")
    with (
        closing(Probe(member.flavor, member.folder / "s", servers.ADMIN)) as probe,
        closing(connect(member)) as backup,
        backup.cursor() as cursor,
    ):
        assert probe.write(Deadline(5))
        cursor.execute("FLUSH TABLES WITH READ LOCK")
        with pytest.raises(WriteLocked):
            probe.write(Deadline(5))
        client = threading.Thread(
            target=run, args=(member, "SET autocommit = 1", "INSERT INTO app.t VALUES (1)")
        )
        client.start()
        state = member.until(lambda state: state.locked_seconds >= 2)
        assert state.stuck_seconds == 0
        cursor.execute("UNLOCK TABLES")
        client.join()
        member.until(lambda state: not state.locked_seconds)


def test_a_server_with_hostile_defaults_is_seen_promoted_and_digested(member: Member) -> None:
    member.boot(1)
    member.do(1, Promote(acks=0, serial=1))
    run(
        member,
        "SET autocommit = 1",
        "CREATE TABLE app.padded (c CHAR(9) PRIMARY KEY, d CHAR(9)) ENGINE=InnoDB",
        "INSERT INTO app.padded VALUES ('a', 'b'), ('c', 'd\\\\')",
        "COMMIT",
    )
    before = digest(member)
    hostile = HOSTILE | OWN[member.flavor]
    for name, value in hostile.items():
        run(member, f"SET GLOBAL {name} = {value}")
    member.kill_agent()
    member.start_agent()
    member.until(lambda state: state.up)
    member.do(2, Promote(acks=0, serial=2))
    state = member.do(2, Prove(serial=3)).state
    assert state.writable
    assert state.proved == 3
    member.do(2, Bar(servers.replication(1).user))
    member.until(lambda state: state.barred)
    member.do(2, Unbar(servers.replication(1).user))
    with closing(Probe(member.flavor, member.folder / "s", servers.ADMIN)) as probe:
        assert probe.activity(Deadline(5)).attempts > 0
        assert probe.write(Deadline(5))
    assert digest(member) == before
    if member.flavor is Flavor.MYSQL:
        run(
            member,
            "SET transaction_read_only = 0, max_execution_time = 0",
            "CREATE TABLE app.hidden (v INT) ENGINE=InnoDB",
        )
        rewinder = Rewinder(member.flavor, member.folder / "s", servers.ADMIN)
        columns = [name for name, _ in rewinder.columns("app", "hidden", Deadline(5))]
        assert columns == ["my_row_id", "v"], "as its rows are in the binlog"
    own = {each.split(" = ")[0] for each in session_settings(state.version)}
    given = {"div_precision_increment", "time_zone", "foreign_key_checks"}
    given |= {"character_set_client", "character_set_connection"}
    left = set(hostile) - own - given - {"sql_require_primary_key"}
    assert left <= {"sql_generate_invisible_primary_key"}, "what no session of ours sets"
