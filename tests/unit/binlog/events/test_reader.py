"""Reading single binlog files: formats, endings of transactions, and what is refused."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.binlog.events.group import Group, GroupEnding
from holdfast.binlog.events.gtid_event import MYSQL_GTID_TAGGED, MariadbFlags, parse_opening
from holdfast.binlog.events.reader import BinlogEvent, Torn, Unreadable, open_binlog
from holdfast.core.gtid import Flavor
from tests.unit.binlog.events.test_builder import (
    INNODB,
    STATUS_XID,
    Builder,
    gtid,
    mariadb,
    mysql,
    read,
)

# The body of an event that Percona Server 8.4.11 wrote, without its checksum.
REAL_TAGGED_BODY = bytes.fromhex(
    "027c00000202ee45034102580269032"
    "2c5036902824102350"
    "2dcbedc350204040610746573745f746167"
    "08000a040c7f003e8900fa5b061045"
    "0512dbd009"
)


def test_a_gtid_reads_as_the_server_prints_it() -> None:
    assert str(mysql(5)) == "3e11fa47-71ca-11e1-9e33-c80aa9429562:5"
    assert str(mysql(5, "t")) == "3e11fa47-71ca-11e1-9e33-c80aa9429562:t:5"
    assert str(mariadb(5)) == "0-7-5"


def test_a_tagged_gtid_of_a_real_server_is_decoded() -> None:
    opening = parse_opening(MYSQL_GTID_TAGGED, 1, REAL_TAGGED_BODY)
    assert str(opening.gtid) == "77d1902c-01da-11f1-9a41-908d6e5f6e8d:test_tag:1"


@pytest.mark.parametrize("length", range(len(REAL_TAGGED_BODY) - 25))
def test_a_tagged_gtid_that_is_cut_short_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match="GTID"):
        parse_opening(MYSQL_GTID_TAGGED, 1, REAL_TAGGED_BODY[:length])


@pytest.mark.parametrize("flavor", Flavor)
@pytest.mark.parametrize("checksum", [True, False])
def test_the_format_description_tells_flavor_checksum_and_use(
    tmp_path: Path, flavor: Flavor, checksum: bool
) -> None:
    path = Builder(flavor, checksum).write(tmp_path / "b.000001")
    with open_binlog(path) as log:
        assert (log.format.flavor, log.format.checksum) == (flavor, checksum)
        assert log.format.in_use
        assert log.format.server_version in ("10.11.19-MariaDB-log", "9.7.4")


@pytest.mark.parametrize(
    ("build", "ending"),
    [
        (lambda b: b.transaction(mysql(1)), GroupEnding.XID),
        (lambda b: b.opening(mysql(1)).query("BEGIN").query("COMMIT"), GroupEnding.COMMIT),
        (lambda b: b.opening(mysql(1)).query("CREATE TABLE t (a INT)"), GroupEnding.STATEMENT),
        (
            lambda b: b.opening(mysql(1)).query("XA START X'61',X'',1").query("XA END").event(38),
            GroupEnding.XA_PREPARE,
        ),
        (lambda b: b.opening(mysql(1)).event(40, b"zstd"), GroupEnding.COMPRESSED),
        (lambda b: b.opening(mysql(1)).query("BEGIN").query("DELETE FROM t"), GroupEnding.TORN),
    ],
)
def test_how_a_mysql_transaction_ends(
    tmp_path: Path, build: Callable[[Builder], Builder], ending: GroupEnding
) -> None:
    groups, _ = read(build(Builder(Flavor.MYSQL)).write(tmp_path / "b.000001"))
    assert [group.ending for group in groups] == [ending]


def test_a_mariadb_statement_outside_a_transaction_ends_with_its_query(tmp_path: Path) -> None:
    builder = Builder(Flavor.MARIADB)
    builder.opening(mariadb(1), MariadbFlags.STANDALONE | MariadbFlags.DDL).query("DROP TABLE t")
    builder.opening(mariadb(2), MariadbFlags.STANDALONE).event(5, bytes(9)).query("INSERT INTO m …")
    builder.opening(mariadb(3), 0).query("INSERT INTO m …").query("COMMIT")
    groups, _ = read(builder.write(tmp_path / "b.000001"))
    assert [group.ending for group in groups] == [
        GroupEnding.STATEMENT,
        GroupEnding.STATEMENT,
        GroupEnding.COMMIT,
    ]
    assert [group.ddl for group in groups] == [True, False, False]
    assert not any(group.transactional for group in groups)


def test_an_atomic_ddl_is_known_by_the_id_among_its_status_variables(tmp_path: Path) -> None:
    others = b"\x00" + bytes(4) + b"\x06\x03std" + b"\x0c\x02a\0bb\0" + b"\x0b\x01u\x01h"
    builder = Builder(Flavor.MYSQL)
    builder.opening(mysql(1)).query("DROP TABLE t", others + STATUS_XID)
    builder.opening(mysql(2)).query("DROP TABLE m", others)
    builder.opening(mysql(3)).query("DROP TABLE m", b"\x7f" + STATUS_XID)
    groups, _ = read(builder.write(tmp_path / "b.000001"))
    assert [group.query and group.query.atomic_ddl for group in groups] == [True, False, False]


def test_positions_go_on_past_four_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "b.000001"
    builder = Builder(Flavor.MARIADB, checksum=False)
    builder.transaction(mariadb(1)).opening(mariadb(2))
    path.write_bytes(builder.data)
    sizes = [2**31 - 1, 2**31 - 1, 5000]
    for size in sizes:
        with path.open("r+b") as file:
            start = file.seek(0, os.SEEK_END)
            head = Builder(Flavor.MARIADB, checksum=False)
            head.data = bytearray()
            head.event(30)
            head.data[9:13] = size.to_bytes(4, "little")
            head.data[13:17] = ((start + size) & 0xFFFFFFFF).to_bytes(4, "little")
            file.write(head.data)
            file.truncate(start + size)  # a hole: takes no space
    tail = Builder(Flavor.MARIADB, checksum=False)
    tail.data = bytearray()
    tail.event(16, bytes(8))
    with path.open("r+b") as file:
        start = file.seek(0, os.SEEK_END)
        tail.data[13:17] = ((start + len(tail.data)) & 0xFFFFFFFF).to_bytes(4, "little")
        file.write(tail.data)

    tracemalloc.start()
    groups, end = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert groups[1].end == end.size == len(builder.data) + sum(sizes) + len(tail.data) > 2**32
    assert groups[1].gtid == mariadb(2)
    assert peak < 1_000_000


@pytest.mark.parametrize("flavor", Flavor)
def test_a_blank_end_counts_as_torn(tmp_path: Path, flavor: Flavor) -> None:
    builder = Builder(flavor).transaction(gtid(flavor, 1))
    whole = len(builder.data)
    builder.data += bytes(100_000)
    path = builder.write(tmp_path / "b.000001")
    groups, _ = read(path)
    assert [(group.offset, group.complete) for group in groups][1:] == [(whole, False)]
    with open_binlog(path) as log:
        assert list(log.events())[-1] == Torn(whole)


def damaged_size(builder: Builder) -> None:
    builder.data += b"\1" * 9 + (5).to_bytes(4, "little") + bytes(40)


def damaged_position(builder: Builder) -> None:
    builder.data += b"\1" * 19 + bytes(40)


def damaged_gtid(builder: Builder) -> None:
    start = len(builder.data)
    builder.opening(mariadb(2))
    builder.data[start + 20] ^= 0xFF


def nested(builder: Builder) -> None:
    builder.opening(mariadb(2)).opening(mariadb(3))


def closed_inside(builder: Builder) -> None:
    builder.opening(mariadb(2)).rotate()


def without_opening(builder: Builder) -> None:
    builder.query("INSERT INTO t VALUES (1)")


def encrypted(builder: Builder) -> None:
    builder.event(164, bytes(17))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (damaged_size, "an event of 5 bytes"),
        (damaged_position, "says it ends at"),
        (damaged_gtid, "checksum is wrong"),
        (nested, "inside another"),
        (closed_inside, "closed inside"),
        (without_opening, "belongs to no transaction"),
        (encrypted, "encrypted"),
    ],
)
def test_what_cannot_be_understood_is_refused(
    tmp_path: Path, spoil: Callable[[Builder], object], said: str
) -> None:
    builder = Builder(Flavor.MARIADB).transaction(mariadb(1))
    spoil(builder)
    with pytest.raises(Unreadable, match=said):
        read(builder.write(tmp_path / "b.000001"))


@pytest.mark.parametrize("content", [b"", b"\xfebin", b"\xfdbin" + bytes(600), b"# text file\n"])
def test_what_is_no_plain_binlog_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.000001"
    path.write_bytes(content)
    with pytest.raises(Unreadable), open_binlog(path):
        pass


def test_events_carry_what_their_headers_say(tmp_path: Path) -> None:
    path = Builder(Flavor.MARIADB).event(16, bytes(8), server_id=9).write(tmp_path / "b.000001")
    with open_binlog(path) as log:
        description, event = log.events()
    assert isinstance(description, BinlogEvent)
    assert event == BinlogEvent(description.end, 31, 16, 9, 1_700_000_000, 0)
    assert MariadbFlags.TRANSACTIONAL == INNODB == 4


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("torn", [0, 1, 20, 60, 200])
def test_the_last_transactions_are_found_without_reading_all(
    flavor: Flavor, torn: int, tmp_path: Path
) -> None:
    """Also across the pieces in which a file is read, and whatever is left of its end."""
    builder, begins = Builder(flavor), [4]
    for number in range(1, 500):
        begins.append(len(builder.data))
        builder.transaction(gtid(flavor, number), rows=1 + number % 7)
    del builder.data[len(builder.data) - torn :]
    builder.write(tmp_path / "log")
    with open_binlog(tmp_path / "log") as log:
        groups = [item for item in log.groups() if isinstance(item, Group)]
        for count in (1, 2, 77, 498, 499):
            start = log.last_transactions(count)
            assert start == begins[-count]
            assert [i for i in log.groups(start) if isinstance(i, Group)] == groups[-count:]
        assert log.last_transactions(500) == log.last_transactions(9999) == 4


def test_a_damaged_file_is_refused_from_its_last_transactions_on(tmp_path: Path) -> None:
    builder = Builder(Flavor.MYSQL)
    for number in range(1, 9):
        builder.transaction(mysql(number))
    builder.data[-300:-200] = bytes(100)
    builder.write(tmp_path / "log")
    with open_binlog(tmp_path / "log") as log, pytest.raises(Unreadable):
        list(log.groups(log.last_transactions(3)))
