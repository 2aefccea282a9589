"""Row events reversed, and what makes that impossible; on binlogs that are built here."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.binlog.events.gtid_event import MariadbFlags
from holdfast.binlog.events.reader import Unreadable, open_binlog
from holdfast.binlog.events.rows import KINDS, Action, Row, pack, parse_rows, split, undo
from holdfast.binlog.events.table_map import UnknownColumn, parse_table_map
from holdfast.binlog.files import history
from holdfast.binlog.pending import errant, save
from holdfast.binlog.undo import describe
from holdfast.binlog.undo.describe import ColumnName
from holdfast.binlog.undo.rewind import format_statement, undo_statements
from holdfast.core.gtid import Flavor, GtidSet, parse
from tests.unit.binlog.events.test_builder import UUID_A, Builder, gtid, mariadb

TABLE = 77
INSERT, UPDATE, DELETE = 30, 31, 32


def table_body(types: bytes = b"\x03\x0f", meta: bytes = b"\x28\x00", name: bytes = b"t") -> bytes:
    """A table map of ``app.t``; by default an int and a varchar(40)."""
    head = TABLE.to_bytes(6, "little") + bytes(2) + b"\x03app\0" + bytes([len(name)]) + name + b"\0"
    return (
        head
        + bytes([len(types)])
        + types
        + bytes([len(meta)])
        + meta
        + bytes((len(types) + 7) // 8)
    )


def image(number: int, text: str | None) -> bytes:
    if text is None:
        return b"\x02" + struct.pack("<i", number)
    return b"\0" + struct.pack("<i", number) + bytes([len(text.encode())]) + text.encode()


def rows_body(code: int, rows: list[Row], columns: int = 2, present: bytes = b"\x03") -> bytes:
    kind = KINDS[code]
    body = TABLE.to_bytes(6, "little") + bytes(2)
    body += struct.pack("<H", 2) if kind.version == 2 else b""
    body += bytes([columns]) + present * (2 if kind.action is Action.UPDATE else 1)
    return body + b"".join((row.before or b"") + (row.after or b"") for row in rows)


images = st.builds(image, st.integers(-(2**31), 2**31 - 1), st.none() | st.text(max_size=9))
changed = st.sampled_from([23, 24, 25, 30, 31, 32]).flatmap(
    lambda code: st.tuples(
        st.just(code),
        st.lists(
            st.builds(
                Row,
                st.none() if KINDS[code].action is Action.INSERT else images,
                st.none() if KINDS[code].action is Action.DELETE else images,
            ),
            min_size=1,
            max_size=6,
        ),
    )
)


@given(changed)
def test_to_undo_the_undoing_is_to_do_it_again(event: tuple[int, list[Row]]) -> None:
    code, rows = event
    table = parse_table_map(table_body())
    body = rows_body(code, rows)
    done = parse_rows(code, body)
    assert list(split(done, table)) == rows
    back = parse_rows(*undo(done, rows, table))
    assert list(split(back, table)) == [Row(r.after, r.before) for r in reversed(rows)]
    again = parse_rows(*undo(back, list(split(back, table)), table))
    assert (again.action, again.version) == (done.action, done.version)
    assert again.data == done.data


@given(st.integers(0, 4096))
def test_the_width_of_a_table_is_packed_as_it_is_read(width: int) -> None:
    body = TABLE.to_bytes(6, "little") + bytes(2) + pack(width) + b"\xff" * ((width + 7) // 8)
    assert parse_rows(23, body).width == width
    assert parse_rows(23, body).whole


@given(changed, st.data())
def test_a_row_event_that_was_shortened_is_refused_or_ends_with_a_whole_row(
    event: tuple[int, list[Row]], data: st.DataObject
) -> None:
    code, rows = event
    body = rows_body(code, rows)
    body = body[: data.draw(st.integers(0, len(body)))]
    try:
        found = list(split(parse_rows(code, body), parse_table_map(table_body())))
    except ValueError:
        return
    assert found == rows[: len(found)]


def test_a_column_of_an_unknown_type_is_told() -> None:
    with pytest.raises(UnknownColumn, match="type 99"):
        parse_table_map(table_body(b"\x03\x63", b""))


def transaction(builder: Builder, number: int, *events: tuple[int, bytes]) -> Builder:
    builder.opening(gtid(builder.flavor, number))
    if builder.flavor is Flavor.MYSQL:
        builder.query("BEGIN")
    for code, body in events:
        builder.event(19, table_body()).event(code, body)
    return builder.event(16, bytes(8))


def begun(flavor: Flavor, upto: int = 0, **more: Any) -> Builder:
    """A file whose head says that 1 to ``upto`` came before it."""
    builder = Builder(flavor, **more)
    if flavor is Flavor.MARIADB:
        listed = struct.pack("<IIIQ", 1, 0, 7, upto) if upto else struct.pack("<I", 0)
        return builder.event(163, listed)
    if not upto:
        return builder.event(35, struct.pack("<Q", 0))
    uuid = bytes.fromhex(UUID_A.replace("-", ""))
    return builder.event(35, struct.pack("<Q16sQQQ", 1, uuid, 1, 1, upto + 1))


def indexed(folder: Path, *builders: Builder) -> Path:
    names = [f"binlog.{number:06}" for number in range(1, len(builders) + 1)]
    for name, builder in zip(names, builders, strict=True):
        builder.write(folder / name)
    index = folder / "binlog.index"
    index.write_text("".join(f"./{name}\n" for name in names))
    return index


def present(flavor: Flavor, upto: int, *more: int) -> GtidSet:
    if flavor is Flavor.MARIADB:
        return parse(flavor, f"0-7-{upto}")
    return parse(flavor, ",".join(f"{UUID_A}:{span}" for span in (f"1-{upto}", *more)))


INSERTED = (INSERT, rows_body(INSERT, [Row(None, image(1, "a")), Row(None, image(2, None))]))
UPDATED = (UPDATE, rows_body(UPDATE, [Row(image(1, "a"), image(1, "b"))]))


@pytest.mark.parametrize("flavor", Flavor)
@pytest.mark.parametrize("checksum", [True, False])
def test_everything_from_the_first_errant_transaction_on_is_undone_last_first(
    tmp_path: Path, flavor: Flavor, checksum: bool
) -> None:
    first = begun(flavor, 1, checksum=checksum)
    transaction(first, 2, INSERTED)
    transaction(first, 3, INSERTED)
    second = begun(flavor, 3, checksum=checksum)
    transaction(second, 4, UPDATED)
    index = indexed(tmp_path, first.rotate(), second)
    had = present(flavor, 2) if flavor is Flavor.MARIADB else present(flavor, 2, 4)
    found = errant.find(index, had)
    expected = (2, 0) if flavor is Flavor.MARIADB else (1, 1)
    assert (found.transactions, found.again) == expected
    assert found.first == gtid(flavor, 3)
    assert found.obstacle == ""
    if flavor is Flavor.MARIADB:
        assert str(found.before) == "0-7-2"
    else:
        assert str(found.undone) == f"{UUID_A}:3-4"
    examined = errant.examine(found)
    assert examined.tables == {("app", "t")}
    assert examined.obstacle == ""
    assert [code for code, _ in events(format_statement(found), checksum)] == [15]
    (statement,) = undo_statements(found)
    assert [code for code, _ in events(statement, checksum)] == [19, UPDATE, 19, DELETE]
    assert len([one for s in undo_statements(found, True) for one in events(s, checksum)]) == 6
    bodies = [body for code, body in events(statement, checksum) if code == DELETE]
    (gone,) = [
        list(split(parse_rows(DELETE, body), parse_table_map(table_body()))) for body in bodies
    ]
    assert gone == [Row(image(2, None), None), Row(image(1, "a"), None)]


def events(statement: str, checksum: bool) -> list[tuple[int, bytes]]:
    """The events in a BINLOG statement; their checksums are right."""
    found = re.fullmatch(r"BINLOG '([A-Za-z0-9+/=\n]+)'", statement)
    assert found is not None
    raw = b"".join(base64.b64decode(line) for line in found[1].split("\n"))
    made = []
    while raw:
        _, code, _, size, _, _ = struct.unpack_from("<IBIIIH", raw)
        event, raw = raw[:size], raw[size:]
        if checksum and code != 15:
            assert zlib.crc32(event[:-4]) == int.from_bytes(event[-4:], "little")
        made.append((code, event[19 : -4 if checksum else None]))
    return made


@pytest.mark.parametrize("flavor", Flavor)
def test_a_server_without_errant_transactions_has_none_found(
    tmp_path: Path, flavor: Flavor
) -> None:
    index = indexed(tmp_path, transaction(begun(flavor), 1, INSERTED))
    found = errant.find(index, present(flavor, 9))
    assert found.transactions == 0
    assert found.stretches == ()


@pytest.mark.parametrize("flavor", Flavor)
def test_what_began_in_a_purged_file_cannot_be_undone_but_the_rest_is_found(
    tmp_path: Path, flavor: Flavor
) -> None:
    index = indexed(tmp_path, transaction(begun(flavor, 5), 6, INSERTED))
    found = errant.find(index, present(flavor, 3))
    assert found.transactions == 1
    assert "no longer" in found.obstacle
    assert found.before is None


@pytest.mark.parametrize(
    ("events_", "said"),
    [
        ([(39, b"partial")], "event of type 39"),
        ([(30, rows_body(INSERT, [], present=b"\x01"))], "not logged whole"),
        ([(2, b"\0" * 13 + b"\0" + b"DELETE FROM t")], "a statement, DELETE FROM t"),
    ],
)
def test_what_cannot_be_turned_round_is_an_obstacle(
    tmp_path: Path, events_: list[tuple[int, bytes]], said: str
) -> None:
    index = indexed(tmp_path, transaction(begun(Flavor.MYSQL, 1), 2, INSERTED, *events_))
    found = errant.find(index, present(Flavor.MYSQL, 1))
    assert said in errant.examine(found).obstacle


def test_a_data_definition_and_what_does_not_roll_back_are_obstacles(tmp_path: Path) -> None:
    ddl = begun(Flavor.MARIADB, 1)
    ddl.opening(mariadb(2), MariadbFlags.STANDALONE | MariadbFlags.DDL).query("DROP TABLE t")
    found = errant.find(indexed(tmp_path, ddl), present(Flavor.MARIADB, 1))
    assert "DROP TABLE t" in errant.examine(found).obstacle
    aria = begun(Flavor.MARIADB, 1).opening(mariadb(2), 0)
    aria.event(19, table_body()).event(*INSERTED).query("COMMIT")
    found = errant.find(indexed(tmp_path, aria), present(Flavor.MARIADB, 1))
    assert "do not know transactions" in errant.examine(found).obstacle


@pytest.mark.parametrize("flavor", Flavor)
def test_what_the_primary_lacks_and_only_that_is_saved_and_described(
    tmp_path: Path, flavor: Flavor
) -> None:
    file = begun(flavor, 1)
    transaction(file, 2, INSERTED)
    transaction(file, 3, UPDATED)
    index = indexed(tmp_path, file)
    had = present(flavor, 1) if flavor is Flavor.MARIADB else present(flavor, 1, 3)
    found = errant.find(index, had)
    save.save_errant(found, tmp_path / "saved.000001")
    (stretch,) = found.stretches
    with open_binlog(stretch.file) as log:
        head = save.format_description(log)
        pieces = [log.read_at(start, end - start) for start, end in stretch.errant()]
    assert len(pieces) == (2 if flavor is Flavor.MARIADB else 1)
    assert (tmp_path / "saved.000001").read_bytes() == b"".join([b"\xfebin", head, *pieces])
    describe.describe(found, tmp_path / "x.txt", ["head"], describe.nameless)
    text = (tmp_path / "x.txt").read_text()
    assert text.startswith("# head\n")
    assert f"TRANSACTION {gtid(flavor, 2)} at 2023-11-14 22:13:20 UTC by server 7" in text
    assert "  INSERT app.t (@1=1, @2='a')\n  INSERT app.t (@1=2, @2=NULL)\n" in text
    assert ("UPDATE" in text) is (flavor is Flavor.MARIADB)
    names = [ColumnName("id", "int(10) unsigned"), ColumnName("note", "varchar(40)")]
    describe.describe(found, tmp_path / "x.txt", [], lambda schema, table: names)
    assert "  INSERT app.t (id=1, note='a')\n" in (tmp_path / "x.txt").read_text()


def test_the_head_of_a_file_with_tagged_gtids_is_read(tmp_path: Path) -> None:
    uuid = bytes.fromhex(UUID_A.replace("-", ""))
    head = 1 << 56 | 2 << 8 | 1
    body = struct.pack("<Q", head)
    body += uuid + b"\x00" + struct.pack("<QQQ", 1, 1, 6)
    body += uuid + bytes([4 << 1]) + b"blue" + struct.pack("<QQQQQ", 2, 1, 3, 7, 8)
    file = Builder(Flavor.MYSQL).event(35, body).write(tmp_path / "b.000001")
    assert history.beginning(file) == parse(Flavor.MYSQL, f"{UUID_A}:1-5,{UUID_A}:blue:1-2:7")
    silent = Builder(Flavor.MYSQL).write(tmp_path / "b.000002")
    with pytest.raises(Unreadable, match="does not say"):
        history.beginning(silent)
