"""Members that are cloned by real agents: from nothing, from behind, from another history; and interrupted anywhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.commands import Clone, Cut, Drain, Fence, Promise, Promote, Start
from holdfast.core.gtid import Flavor, parse
from holdfast.core.view import MemberState, ServerStatus
from tests.integration import test_agent_real as real
from tests.integration.test_agent_real import Member, rows, write

ENDLESS = 2**63 - 2


@pytest.fixture
def pair(flavor: Flavor) -> Iterator[list[Member]]:
    """m1 is the primary, alone, with rows in app.t; m2 is a host with nothing running."""
    with tempfile.TemporaryDirectory(prefix="hf") as folder:  # short: sockets live in it
        made: list[Member] = []
        try:
            for number in (1, 2):
                made.append(Member(Path(folder) / f"m{number}", flavor, number))
            begin(made[0])
            yield made
        finally:
            for each in made:
                each.end()


def begin(first: Member) -> None:
    first.boot(1)
    if first.flavor is Flavor.MYSQL:
        with closing(admin(first)) as session, session.cursor() as cursor:
            for number in (1, 2, 3):
                cursor.execute("SET sql_log_bin = 0")
                cursor.execute("SET GLOBAL super_read_only = 0")
                cursor.execute(f"GRANT BACKUP_ADMIN ON *.* TO 'repl{number}'@'%'")
    first.do(1, Promote(acks=0, serial=1))
    with closing(first.client()) as client, client.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n INT PRIMARY KEY)")
    write(first, 1, 2, 3)


def admin(member: Member) -> Any:
    import pymysql

    from tests.integration import servers

    return pymysql.connect(
        unix_socket=str(member.folder / "s"),
        user=servers.ADMIN.user,
        password=servers.ADMIN.password,
        autocommit=True,
    )


def value(member: Member, sql: str) -> Any:
    with closing(admin(member)) as session, session.cursor() as cursor:
        cursor.execute(sql)
        row = cursor.fetchone()
        return row and row[0]


def present(primary: Member) -> str:
    """What the primary has, and all that it will ever issue."""
    state = primary.until(lambda state: state.up and state.applied)
    own = f"{state.origin}:1-{ENDLESS}" if primary.flavor is Flavor.MYSQL else f"{state.origin}-{ENDLESS}"
    return str(state.applied_set().union(parse(primary.flavor, own)))


def clone(donor: Member, discard: bool = False) -> Clone:
    url = f"http://127.0.0.1:{donor.agent_port}"
    name = f"m{donor.number}"
    return Clone(name, "127.0.0.1", donor.port, url, present(donor), discard)


def cloned(member: Member, seconds: float = 60) -> MemberState:
    """Wait for the end of a clone, and that it is a good one."""
    state = member.until(lambda state: state.progress is None, seconds)
    assert (state.unfit, state.reason) == ("", ""), log(member)
    assert state.up
    assert not state.writable
    assert state.replication.source == ""
    assert not (member.folder / "state" / "cloning").exists()
    assert not (member.datadir / ".holdfast-incoming").exists()
    return state


def log(member: Member) -> str:
    return (member.folder / "agent.log").read_text()[-6000:]


def test_an_empty_member_is_cloned_and_follows(pair: list[Member]) -> None:
    first, second = pair
    shutil.rmtree(second.datadir)
    second.datadir.mkdir(mode=0o700)
    second.until(lambda state: state.unfit == "its data directory is empty")
    for command in (Cut("m1", present(first)), Start()):
        assert "has to be cloned" in second.ask(1, command).message
    before = second.until(lambda state: True).incarnation
    second.do(1, clone(first))
    state = cloned(second)
    assert state.incarnation not in ("", before)
    assert parse(second.flavor, state.applied) == parse(
        first.flavor, first.until(lambda state: state.up).applied
    )
    assert rows(second) == [1, 2, 3]
    second.do(1, second.follow(first))
    write(first, 4)
    second.until(lambda state: 4 in rows(second))
