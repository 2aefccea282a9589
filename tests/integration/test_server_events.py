"""Events follow the primary: enabled there, disabled elsewhere; what an operator has disabled stays so."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from holdfast.agent.promise.disabled_events import DisabledEvents
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState, ServerStatus
from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection
from holdfast.server.primary.events import write_down
from tests.integration.servers import ADMIN, BareServer, bare_servers, wait_until

ON_REPLICAS = {Flavor.MARIADB: "SLAVESIDE_DISABLED", Flavor.MYSQL: "REPLICA_SIDE_DISABLED"}
UNCHANGED = ("DEFINER", "TIME_ZONE", "SQL_MODE", "EVENT_DEFINITION", "INTERVAL_VALUE")


@pytest.fixture(scope="module")
def servers(flavor: Flavor) -> Iterator[list[BareServer]]:
    with bare_servers(flavor, 2) as made:
        primary, replica = made
        replica.adapter.follow(primary.source(replica), True, Deadline(10))
        primary.adapter.prepare_primary(1, Deadline(10))
        primary.adapter.wait_for_ackers(1, Deadline(10))
        primary.adapter.prove(1, 1, Deadline(10))
        primary.adapter.open(Deadline(10))
        every = "ON SCHEDULE EVERY 1 SECOND"
        # a definer who may write on a read-only server
        insert = "DO INSERT INTO app.t (n) VALUES"
        primary.sql(
            "CREATE TABLE app.t (id INT AUTO_INCREMENT PRIMARY KEY, n VARCHAR(20), "
            "server INT DEFAULT NULL)",
            "SET time_zone = '+03:00'",
            "SET SESSION sql_mode = 'ANSI_QUOTES'",
            f"CREATE DEFINER=app@`%` EVENT app.plain {every} {insert} ('plain')",
            f"CREATE EVENT app.`odd ``%s name` {every} {insert} ('odd')",
            f"CREATE EVENT app.never {every} DISABLE {insert} ('never')",
            f"CREATE EVENT app.off {every} STARTS CURRENT_TIMESTAMP + INTERVAL 1 DAY {insert} ('off')",
            "ALTER EVENT app.off DISABLE",
            "SET GLOBAL event_scheduler = ON",
        )
        yield made


def statuses(server: BareServer) -> dict[str, str]:
    return {name: row["STATUS"] for name, row in events(server).items()}


def events(server: BareServer) -> dict[str, dict[str, Any]]:
    rows = server.sql("SELECT * FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'app'")
    return {row["EVENT_NAME"]: row for row in rows}


def applied(server: BareServer) -> str:
    return server.adapter.observe(Deadline(5)).applied


def switch(old: BareServer, new: BareServer) -> list[str]:
    """With all that the agents do for events; returns what could not be altered."""
    failed: list[str] = []
    deadline = Deadline(20)
    old.adapter.freeze(Deadline(3), lambda _: None, lambda _: None)
    last = applied(old)
    new.adapter.drain(deadline, last)
    new.adapter.prepare_primary(0, deadline, following=True)
    new.adapter.open(deadline, following=True)
    new.adapter.leave(deadline)
    assert applied(old) == last  # the scheduler has written nothing meanwhile
    old.adapter.stop_events(deadline)
    old.adapter.follow(new.source(old), True, deadline)
    new.adapter.wait_for_ackers(1, deadline)
    new.adapter.set_acks(1, deadline)
    new.adapter.start_events(deadline, failed.append)
    old.adapter.drain(deadline, applied(new))
    return failed


def count(server: BareServer, name: str) -> int:
    return int(server.value(f"SELECT COUNT(*) FROM app.t WHERE n = '{name}'"))


def runs(server: BareServer, name: str) -> None:
    before = count(server, name)
    wait_until(lambda: count(server, name) > before, 15, f"the event {name} runs")


def test_they_run_on_the_new_primary_alone_as_they_were_on_the_former_one(
    servers: list[BareServer],
) -> None:
    old, new = servers
    runs(old, "plain")
    before = events(old)
    assert {name: row["STATUS"] for name, row in before.items()} == {
        "plain": "ENABLED",
        "odd `%s name": "ENABLED",
        "never": "DISABLED",
        "off": "DISABLED",
    }
    assert set(statuses(new).values()) == {ON_REPLICAS[old.flavor]}  # these too, so it cannot tell
    assert switch(old, new) == []
    after = events(new)
    for name, row in before.items():
        assert after[name]["STATUS"] == row["STATUS"], name
        assert [after[name][each] for each in UNCHANGED] == [row[each] for each in UNCHANGED]
    assert set(statuses(old).values()) == {ON_REPLICAS[old.flavor]}
    assert old.value("SELECT @@event_scheduler") == "OFF"
    assert new.value("SELECT @@event_scheduler") == "ON"
    runs(new, "plain")
    assert count(new, "never") == count(new, "off") == 0

    # an operator changes their mind, and back it goes
    new.sql(
        # the scheduler writes ENABLED again where it is just beginning to run that event: see docs/servers.md
        "SET GLOBAL event_scheduler = OFF",
        "ALTER EVENT app.never ENABLE",
        "ALTER DEFINER=app@`%` EVENT app.plain DISABLE",
        "SET GLOBAL event_scheduler = ON",
    )
    assert switch(new, old) == []
    assert statuses(old) == {
        "plain": "DISABLED",
        "odd `%s name": "ENABLED",
        "never": "ENABLED",
        "off": "DISABLED",
    }
    runs(old, "never")
    assert old.value("SELECT @@read_only") == 0


def test_no_replication_broke_on_the_way(servers: list[BareServer]) -> None:
    primary, replica = servers
    replica.adapter.drain(Deadline(10), applied(primary))
    found = replica.adapter.observe(Deadline(5))
    assert found.replication.error == ""
    assert not found.writable


def test_what_was_disabled_stays_so_after_a_crash_as_well(servers: list[BareServer]) -> None:
    """The last test of this file: the primary dies."""
    primary, replica = servers
    primary.sql("SET GLOBAL event_scheduler = OFF", "ALTER EVENT app.never DISABLE")
    before = statuses(primary)
    assert before["never"] == "DISABLED"
    session = Connection(primary.socket, ADMIN)
    published = PublishedState(
        MemberState("m1", primary.flavor, server=ServerStatus.UP, writable=True)
    )
    keep = DisabledEvents(published, partial(write_down, session))
    keep.step()
    written = applied(primary)
    keep.step()
    assert applied(primary) == written, "nothing has changed: nothing is written"
    session.close()
    deadline = Deadline(20)
    replica.adapter.drain(deadline, written)
    primary.kill()
    replica.adapter.stop_receiver(deadline)
    replica.adapter.drain(deadline)
    replica.adapter.prepare_primary(0, deadline)
    replica.adapter.open(deadline)
    failed: list[str] = []
    replica.adapter.start_events(deadline, failed.append)
    assert (statuses(replica), failed) == (before, [])
