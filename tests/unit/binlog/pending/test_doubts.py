"""The end of a crashed server's binlog, which its tables may lack."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.binlog.events.gtid_event import MariadbFlags, MariadbGtid, parse_opening
from holdfast.binlog.pending.doubts import IN_FLIGHT, Doubts, XaEnd, doubts
from holdfast.core.gtid import Flavor
from holdfast.core.observed.xid import sql_form
from tests.unit.binlog.events.test_builder import Builder

X = sql_form(1, b"x", b"br")


Write = Callable[..., Path]


@pytest.fixture
def binlogs(tmp_path: Path) -> Write:
    def write(*builders: Builder) -> Path:
        names = [f"binlog.{number:06d}" for number in range(1, len(builders) + 1)]
        for name, builder in zip(names, builders, strict=True):
            builder.write(tmp_path / name)
        index = tmp_path / "binlog.index"
        index.write_text("".join(f"./{name}\n" for name in names))
        return index

    return write


def xa(builder: Builder, number: int, ending: str, xid: bytes = b"x") -> Builder:
    """An XA PREPARE, COMMIT or ROLLBACK, as MariaDB logs it."""
    flags = MariadbFlags.TRANSACTIONAL
    flags |= MariadbFlags.PREPARED_XA if ending == "PREPARE" else MariadbFlags.COMPLETED_XA
    if ending != "PREPARE":
        flags |= MariadbFlags.STANDALONE
    name = struct.pack("<IBB", 1, len(xid), 2) + xid + b"br"
    builder.event(162, struct.pack("<QIB", number, 0, flags) + name)
    if ending == "PREPARE":
        return builder.query("XA END X'78',X'6272',1").event(38, bytes(12))
    return builder.query(f"XA {ending} X'78',X'6272',1")


def test_the_last_word_on_an_xa_transaction_counts(binlogs: Write) -> None:
    first = xa(Builder(Flavor.MARIADB), 1, "PREPARE")
    assert doubts(binlogs(first)).xa == {X: XaEnd.PREPARED}
    xa(xa(first, 2, "PREPARE", b"y"), 3, "COMMIT")
    y = sql_form(1, b"y", b"br")
    assert doubts(binlogs(first)).xa == {X: XaEnd.COMMITTED, y: XaEnd.PREPARED}
    second = xa(Builder(Flavor.MARIADB), 4, "ROLLBACK", b"y")
    found = doubts(binlogs(first.rotate(), second))
    assert found.xa == {X: XaEnd.COMMITTED, y: XaEnd.ROLLED_BACK}, "files are read newest first"
    assert doubts(binlogs(first, second.stop())) == Doubts(), "it was shut down in order"


def test_only_what_may_have_been_under_way_is_in_doubt(binlogs: Write) -> None:
    builder = xa(Builder(Flavor.MARIADB), 1, "PREPARE")
    for number in range(2, IN_FLIGHT + 1):
        builder.transaction(MariadbGtid(0, 7, number))
    assert doubts(binlogs(builder)).xa == {X: XaEnd.PREPARED}
    del builder.opening(MariadbGtid(0, 7, IN_FLIGHT + 1)).data[-9:]  # it was not written whole
    assert doubts(binlogs(builder)).xa == {X: XaEnd.PREPARED}
    builder = xa(Builder(Flavor.MARIADB), 1, "PREPARE")
    for number in range(2, IN_FLIGHT + 2):
        builder.transaction(MariadbGtid(0, 7, number))
    assert doubts(binlogs(builder)).xa == {}


def test_a_statement_on_tables_that_know_no_transactions_names_none(binlogs: Write) -> None:
    plain = 0
    builder = Builder(Flavor.MARIADB).opening(MariadbGtid(0, 7, 1), plain)
    builder.query("INSERT INTO m VALUES (1)").query("COMMIT")
    assert doubts(binlogs(builder)).unknown == "INSERT INTO m VALUES (1)"
    alone = MariadbFlags.STANDALONE
    harmless = Builder(Flavor.MARIADB).opening(MariadbGtid(0, 7, 1), alone)
    harmless.query("FLUSH ERROR LOGS")
    harmless.opening(MariadbGtid(0, 7, 2), alone | MariadbFlags.DDL).query("CREATE TABLE n (a INT)")
    assert doubts(binlogs(harmless)) == Doubts(crashed=True)


def test_the_name_stands_behind_the_commit_id_where_there_is_one() -> None:
    flags = MariadbFlags.COMPLETED_XA | MariadbFlags.GROUP_COMMIT_ID
    name = struct.pack("<IBB", 1, 1, 2) + b"xbr"
    body = struct.pack("<QIBQ", 9, 0, flags, 77) + name
    assert parse_opening(162, 7, body).xid == X
    without = struct.pack("<QIB", 9, 0, MariadbFlags.PREPARED_XA) + name
    assert parse_opening(162, 7, without).xid == X
    assert parse_opening(162, 7, struct.pack("<QIB6x", 9, 0, MariadbFlags.TRANSACTIONAL)).xid == ""
