"""Tables read in pieces: every row is in one piece and no other, and a piece differs where a row in it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from holdfast.core.gtid import Flavor
from holdfast.server.base import Deadline
from holdfast.server.data.chunks import (
    Chunk,
    ChunkDigester,
    Key,
    TableFacts,
    absent,
    beyond,
    described,
    rows_of,
)
from holdfast.server.data.digest import Digester, HistoryPlace
from tests.integration.servers import ADMIN, BareServer, bare_servers

SECONDS = 30.0
TABLES = (
    "CREATE TABLE numbers (id bigint unsigned PRIMARY KEY, v varchar(20))",
    "CREATE TABLE pairs (a int, `per%cent` varchar(9) COLLATE utf8mb4_general_ci, c datetime(6), v int, "
    "PRIMARY KEY (a, `per%cent`, c))",
    "CREATE TABLE hashes (h binary(4) PRIMARY KEY, v int)",
    "CREATE TABLE prices (p decimal(10,3), f float, v int, PRIMARY KEY (p, f))",
    "CREATE TABLE bare (v int)",
    "CREATE TABLE lost (id int PRIMARY KEY) ENGINE=MEMORY",
)
ROWS = (
    "INSERT INTO numbers VALUES (18446744073709551615, 'last')",
    "INSERT INTO numbers SELECT seq.n * 7, CONCAT('row ', seq.n) FROM seq",
    "INSERT INTO pairs SELECT n DIV 10, CONCAT('k', n MOD 10), '2026-01-01' + INTERVAL n MICROSECOND, n FROM seq",
    "INSERT INTO pairs VALUES (3, 'it''s', '2026-01-01', 1), (4, '%s', '2026-01-01', 1)",
    "INSERT INTO hashes SELECT UNHEX(LEFT(SHA2(n, 256), 8)), n FROM seq",
    "INSERT INTO prices SELECT n / 8, n, n FROM seq",
    "INSERT INTO bare SELECT n FROM seq",
)


@pytest.fixture(scope="module")
def server(flavor: Flavor) -> Iterator[BareServer]:
    with bare_servers(flavor, 1) as (made,):
        made.sql("SET GLOBAL read_only = 0", "CREATE DATABASE pieces", "USE pieces", *TABLES)
        made.sql(
            "USE pieces",
            "CREATE TABLE seq (n int PRIMARY KEY)",
            "INSERT INTO seq WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 200) "
            "SELECT n FROM r",
            *ROWS,
            "DROP TABLE seq",
        )
        yield made


def digester(server: BareServer) -> ChunkDigester:
    return ChunkDigester(Digester(server.flavor, server.socket, ADMIN))


def in_pieces(server: BareServer, table: str, rows: int) -> list[tuple[Chunk, str]]:
    """As the primary divides it."""
    found: list[tuple[Chunk, str]] = []
    whole, after, last = ("pieces", table), Key(), Key()
    while True:
        ends: list[tuple[Key, Key]] = []

        def begun(
            place: HistoryPlace, upto: Key, last: Key, ends: list[tuple[Key, Key]] = ends
        ) -> None:
            assert place.gtids
            ends.append((upto, last))

        digest, _ = digester(server).take_chunk(whole, after, rows, Deadline(SECONDS), begun, last)
        upto, last = ends[0]
        found.append((Chunk(whole, after, upto), digest))
        if not upto:
            return found
        after = upto


@pytest.mark.parametrize(
    ("table", "rows", "key"),
    [
        ("numbers", 201, ("id",)),
        ("pairs", 202, ("a", "per%cent", "c")),
        ("hashes", 200, ("h",)),
        ("prices", 200, ("p",)),
    ],
)
def test_each_row_is_in_one_piece(
    server: BareServer, table: str, rows: int, key: tuple[str, ...]
) -> None:
    facts = {each.table[1]: each for each in digester(server).tables(Deadline(SECONDS))}
    assert facts[table].key == key
    pieces = in_pieces(server, table, 17)
    assert len(pieces) == rows // 17 + 1
    assert sum(rows_of(digest) for _, digest in pieces) == rows
    assert {rows_of(digest) for _, digest in pieces[:-1]} == {17}
    for chunk, digest in pieces:
        assert digester(server).chunk_here(chunk, Deadline(SECONDS)) == digest
    (_, whole), *none = in_pieces(server, table, 1000)
    assert (rows_of(whole), none) == (rows, [])


def test_only_the_piece_with_the_changed_row_differs(server: BareServer) -> None:
    before = in_pieces(server, "numbers", 17)
    server.sql("UPDATE pieces.numbers SET v = 'another' WHERE id = 700")
    changed = [
        described(chunk, ("id",))
        for chunk, digest in before
        if digester(server).chunk_here(chunk, Deadline(SECONDS)) != digest
    ]
    assert changed == ["id behind 595 up to 714"]
    server.sql("UPDATE pieces.numbers SET v = 'row 100' WHERE id = 700")
    last = before[-1][0]
    server.sql("INSERT INTO pieces.numbers VALUES (18446744073709551614, 'new')")
    assert digester(server).chunk_here(last, Deadline(SECONDS)) != before[-1][1]
    server.sql("DELETE FROM pieces.numbers WHERE id = 18446744073709551614")


def test_tables_without_a_key_are_read_whole_and_what_holds_no_data_is_not_read(
    server: BareServer,
) -> None:
    facts = {each.table[1]: each for each in digester(server).tables(Deadline(SECONDS))}
    assert facts["bare"] == TableFacts(("pieces", "bare"), facts["bare"].rows, ())
    assert facts["lost"].skipped == "its rows are lost at each restart"
    assert not {each.table[0] for each in facts.values()} & {"mysql", "sys"}
    ((chunk, digest),) = in_pieces(server, "bare", 17)
    assert rows_of(digest) == 200
    assert described(chunk, ()) == "somewhere in the whole table"
    ((_, gone),) = in_pieces(server, "gone", 17)
    assert absent(gone)


def test_a_piece_is_read_by_its_range_of_the_index(server: BareServer) -> None:
    """However many columns the key has: else each piece would read the whole table."""
    chunk, _ = in_pieces(server, "pairs", 17)[6]
    key = ("a", "per%cent", "c")
    (behind, first), (upto, last) = beyond(key, chunk.after, ">"), beyond(key, chunk.upto, "<")
    with closing(server.connect()) as at, at.cursor() as cursor:
        how = "" if server.flavor is Flavor.MARIADB else "FORMAT=TRADITIONAL "
        where = f"FORCE INDEX (PRIMARY) WHERE {behind} AND {upto}"
        asked = f"EXPLAIN {how}SELECT * FROM pieces.pairs {where}"
        cursor.execute(asked, [*first, *last])
        plan = cursor.fetchone()
    assert plan is not None
    assert plan["type"] == "range"
    assert int(plan["rows"]) <= 40


def test_how_many_threads_are_at_work(server: BareServer) -> None:
    assert digester(server).running(Deadline(SECONDS)) >= 1


def test_what_is_appended_meanwhile_is_in_the_last_piece(server: BareServer) -> None:
    table, keys = ("pieces", "numbers"), list[Key]()

    def begun(_: HistoryPlace, upto: Key, last: Key) -> None:
        keys[:] = upto, last

    own = digester(server)
    own.take_chunk(("pieces", "hashes"), (), 17, Deadline(SECONDS), begun)
    server.sql("DELETE FROM pieces.numbers WHERE id > 1400")
    own.take_chunk(table, (), 150, Deadline(SECONDS), begun)
    server.sql("INSERT INTO pieces.numbers VALUES (1500, 'new'), (1501, 'new')")
    digest, _ = own.take_chunk(table, keys[0], 60, Deadline(SECONDS), begun, keys[1])
    assert (keys[0], rows_of(digest)) == ((), 52)
