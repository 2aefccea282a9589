"""A server with transactions that the primary lacks is rewound, whatever they did, and follows again."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.core.gtid import Flavor
from holdfast.errors import HoldfastError, Refused
from holdfast.server.base import Deadline
from holdfast.server.data.rewind import RewindRepair
from tests.integration.rewinding import Died, Patient, content, gtids
from tests.integration.servers import ADMIN, BareServer, bare_servers

TABLES = ("t", "nopk", "uq", "uqn", "p", "ch", "casc")
SCHEMA = (
    "CREATE TABLE t (id int PRIMARY KEY, u int unsigned, s varchar(400), c char(10), tx text, "
    "b longblob, j json, bt bit(11), e enum('a','b','it''s'), st set('x','y','z'), d decimal(30,10), "
    "dt datetime(6), ts timestamp(3) NULL, tm time(2), dd date, y year, f float, db double, "
    "g int GENERATED ALWAYS AS (id * 2) STORED, v bigint GENERATED ALWAYS AS (u + 1) VIRTUAL, "
    "ti tinyint unsigned, mi mediumint, bi bigint unsigned, vb varbinary(20), KEY (v))",
    "CREATE TABLE nopk (a int, b varchar(10))",
    "CREATE TABLE uq (id int PRIMARY KEY, k int NOT NULL, UNIQUE KEY (k))",
    "CREATE TABLE uqn (a int, k int, UNIQUE KEY (k))",
    "CREATE TABLE p (id int PRIMARY KEY)",
    "CREATE TABLE ch (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES p (id))",
    "CREATE TABLE casc (id int PRIMARY KEY, p int, "
    "FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)",
)
ROW = (
    "INSERT INTO t (id,u,s,c,tx,b,j,bt,e,st,d,dt,ts,tm,dd,y,f,db,ti,mi,bi,vb) VALUES "
    "({id}, 4000000000, 'it''s', 'chä', 'text\\nline', x'00ff10', '{{\"a\": [1, 2.5, null]}}', "
    "b'10101010101', 'it''s', 'x,z', -12345.6789, '2026-01-02 03:04:05.678901', "
    "'2026-01-02 03:04:05.678', '-12:34:56.78', '2026-01-02', 2026, 1.5, -2.25, 200, -8388608, "
    "18446744073709551615, x'deadbeef')"
)
COMMON = (
    ROW.format(id=1),
    ROW.format(id=2),
    "INSERT INTO nopk VALUES (1, 'a'), (1, 'a'), (2, NULL)",
    "INSERT INTO uq VALUES (1, 1), (2, 2), (3, 3), (4, 4)",
    "INSERT INTO uqn VALUES (1, 1), (2, 2), (3, 3)",
    "INSERT INTO p VALUES (1), (2), (3)",
    "INSERT INTO ch VALUES (1, 1)",
    "INSERT INTO casc VALUES (3, 3)",
)
EVERYTHING = (
    ROW.format(id=3),
    "UPDATE t SET u = 1, s = NULL, e = 'a', b = repeat('x', 300000), j = '[]' WHERE id <= 2",
    "DELETE FROM t WHERE id = 1",
    "UPDATE uq SET k = k + 1 ORDER BY k DESC",
    "UPDATE uqn SET k = k + 1 ORDER BY k DESC",
    "UPDATE nopk SET b = 'zz'",
    "DELETE FROM nopk WHERE a = 1 LIMIT 1",
    "BEGIN",
    "DELETE FROM ch",
    "DELETE FROM p WHERE id = 1",
    "SAVEPOINT a",
    "INSERT INTO p VALUES (9)",
    "ROLLBACK TO SAVEPOINT a",
    "INSERT INTO p VALUES (10)",
    "COMMIT",
    "INSERT INTO nopk SELECT a, b FROM nopk",
)


@pytest.fixture(scope="module")
def pair(flavor: Flavor) -> Iterator[list[BareServer]]:
    with bare_servers(flavor, 2) as servers:
        primary, replica = servers
        primary.sql("SET GLOBAL read_only = 0")
        yield [primary, replica]


@pytest.fixture
def patient(pair: list[BareServer], tmp_path: Path) -> Patient:
    """A replica that has what its primary has: tables with some rows."""
    primary, replica = pair
    made = Patient(primary, replica, tmp_path / "state")
    primary.sql("DROP DATABASE app", "CREATE DATABASE app", "USE app", *SCHEMA, *COMMON)
    if not gtids(primary).contains(gtids(replica)):  # a test has left it so
        made.part()
        made.let_write()
        replica.sql("SET sql_log_bin = 0", "DROP DATABASE app", "DROP DATABASE IF EXISTS holdfast")
        start_over(replica)
        primary.sql(reset(primary.flavor))
        primary.sql("CREATE DATABASE IF NOT EXISTS app", "DROP DATABASE app", "CREATE DATABASE app")
        primary.sql("USE app", *SCHEMA, *COMMON)
    made.catch_up()
    made.part()
    assert content(replica, *TABLES) == content(primary, *TABLES)
    return made


def reset(flavor: Flavor) -> str:
    return "RESET MASTER" if flavor is Flavor.MARIADB else "RESET BINARY LOGS AND GTIDS"


def start_over(server: BareServer) -> None:
    server.sql(reset(server.flavor))
    if server.flavor is Flavor.MARIADB:
        server.sql("SET GLOBAL gtid_slave_pos = ''")


def assert_identical(patient: Patient) -> None:
    patient.catch_up()
    assert content(patient.server, *TABLES) == content(patient.primary, *TABLES)
    assert gtids(patient.server) == gtids(patient.primary)
    patient.part()


def test_all_kinds_of_changes_are_saved_undone_and_forgotten(patient: Patient) -> None:
    before, had = content(patient.server, *TABLES), gtids(patient.server)
    patient.errant(*EVERYTHING)
    assert content(patient.server, *TABLES) != before
    patient.rewind()
    assert content(patient.server, *TABLES) == before
    assert gtids(patient.server) == had
    assert patient.published.state.unfit == ""
    assert patient.published.state.suspects == tuple(
        f"app.{t}" for t in ("casc", "ch", "nopk", "p", "t", "uq", "uqn")
    )
    (text,) = patient.texts()
    assert "INSERT app.t (id=3, u=4000000000, s='it\\'s', c='chä'" in text
    assert "e='it's', st='x,z', d=-12345.6789000000, dt='2026-01-02 03:04:05.678901'" in text
    assert "tm='-12:34:56.78', dd='2026-01-02', y=2026, f=1.5, db=-2.25" in text
    assert "ti=200, mi=-8388608, bi=18446744073709551615, vb=0xDEADBEEF" in text
    assert "UPDATE app.uq (id=4, k=4) -> (id=4, k=5)" in text
    assert "DELETE app.p (id=1)" in text
    assert text.count("TRANSACTION") == 9
    told = patient.published.state.tail
    assert Path(told.saved).read_text() == text
    assert told.transactions == 9
    assert_identical(patient)


def test_what_was_saved_can_be_carried_out_again_as_the_page_says(patient: Patient) -> None:
    """On the primary, by the server's own tools; from there it reaches all members."""
    # MySQL itself cannot replicate an update that passes values on, where only a key that may be NULL is unique
    carried = [statement for statement in EVERYTHING if "uqn" not in statement]
    patient.errant(*carried, "INSERT INTO uq VALUES (50, 50)")
    wanted = content(patient.server, *TABLES)
    patient.rewind()
    (saved,) = (patient.folder / "pending").glob("*.binlog")
    tree, mariadb = patient.server.tree, patient.server.flavor is Flavor.MARIADB
    options = ["--skip-gtid-strict-mode"] if mariadb else ["--skip-gtids"]
    tool = [*tree.tool("mysqlbinlog"), "--no-defaults", *options, str(saved)]
    script = subprocess.run(tool, check=True, capture_output=True).stdout
    if mariadb:
        own = re.compile(rb"(/\*M?!\d+ )?SET @@session\.(gtid|server_id)")
        script = b"".join(line for line in script.splitlines(True) if not own.match(line))
    client = [*tree.tool("mysql"), "--no-defaults", "-uholdfast", f"-S{patient.primary.socket}"]
    subprocess.run(client, input=script, check=True, env={"MYSQL_PWD": ADMIN.password})
    assert content(patient.primary, *TABLES) == wanted
    assert_identical(patient)


def test_what_the_primary_did_meanwhile_is_fetched_after_it(patient: Patient) -> None:
    patient.follow()
    patient.errant("INSERT INTO uq VALUES (100, 100)")
    patient.primary.sql("USE app", "UPDATE uq SET k = k + 1000", "INSERT INTO nopk VALUES (7, 'p')")
    if patient.server.flavor is Flavor.MYSQL:
        patient.catch_up()  # its binlog mixes errant and replicated ones
        patient.errant("DELETE FROM uq WHERE id = 2")
    patient.part()
    patient.rewind()
    assert "INSERT app.uq (id=100, k=100)" in patient.texts()[0]
    assert "id=7" not in patient.texts()[0]
    assert_identical(patient)


def test_nothing_is_done_to_a_server_without_errant_transactions(patient: Patient) -> None:
    had = gtids(patient.server)
    patient.rewind()
    assert gtids(patient.server) == had
    assert not (patient.folder / "pending").exists()
    # the statement with which it left its source
    assert patient.rewinder.statements == ["RESET REPLICA ALL"]


def test_transactions_in_several_files_are_undone_after_a_crash_of_the_server(
    patient: Patient,
) -> None:
    before = content(patient.server, *TABLES)
    patient.errant("INSERT INTO uq VALUES (5, 5)", "FLUSH BINARY LOGS", "UPDATE uq SET k = -k")
    patient.server.restart()
    patient.errant("DELETE FROM uq WHERE k = -5", "INSERT INTO uq VALUES (6, 5)")
    patient.rewind()
    assert content(patient.server, *TABLES) == before
    assert_identical(patient)


def test_a_server_that_dies_at_any_statement_is_rewound_when_asked_again(patient: Patient) -> None:
    before, had = content(patient.server, *TABLES), gtids(patient.server)
    seen: list[str] = []
    number = 0
    while True:
        patient.errant("INSERT INTO uq VALUES (5, 5)", "UPDATE uq SET k = k + 1 ORDER BY k DESC")
        patient.rewinder.statements.clear()
        patient.rewinder.die_behind = number
        try:
            patient.rewind()
        except Died:
            seen.append(patient.rewinder.statements[-1])
        else:
            break
        patient.rewinder.die_behind = -1
        patient.server.start()
        patient.start_agent()
        patient.settle()
        # never an empty set: its source would send everything again
        assert gtids(patient.server), seen[-1]
        patient.rewind()
        assert content(patient.server, *TABLES) == before, seen[-1]
        assert gtids(patient.server) == had, seen[-1]
        assert patient.fitness.repair is None
        assert patient.published.state.unfit == ""
        assert "app.uq" in patient.published.state.suspects
        number += 1
    patient.rewinder.die_behind = -1
    assert any("COMMIT" in each for each in seen)
    assert any("RESET" in each for each in seen)
    assert any("gtid_" in each for each in seen)
    assert any("DROP" in each for each in seen)
    assert_identical(patient)


def test_compressed_transactions_are_undone_as_well(patient: Patient) -> None:
    before = content(patient.server, *TABLES)
    mariadb = patient.server.flavor is Flavor.MARIADB
    switch = "GLOBAL log_bin_compress" if mariadb else "SESSION binlog_transaction_compression"
    patient.errant(
        f"SET {switch} = 1",
        "UPDATE t SET tx = repeat('long', 5000)",
        "INSERT INTO nopk SELECT id, 'x' FROM t",
        f"SET {switch} = 0",
    )
    patient.rewind()
    assert content(patient.server, *TABLES) == before
    assert "INSERT app.nopk (a=2, b='x')" in patient.texts()[0]
    assert_identical(patient)


def test_what_a_foreign_key_changed_along_is_suspect(patient: Patient) -> None:
    """A cascade is in no binlog: only the comparison can show that the child's row is missing."""
    patient.errant("DELETE FROM p WHERE id = 3")
    patient.rewind()
    assert patient.published.state.suspects == ("app.casc", "app.p")
    assert content(patient.server, "p") == content(patient.primary, "p")


def test_rows_that_are_not_as_the_binlog_left_them_make_it_unfit_and_nothing_is_undone(
    patient: Patient,
) -> None:
    had = gtids(patient.server)
    patient.errant("INSERT INTO uq VALUES (5, 5)", "INSERT INTO p VALUES (50)")
    patient.errant("SET sql_log_bin = 0", "DELETE FROM uq WHERE id = 5")
    left = content(patient.server, *TABLES)
    with pytest.raises(Refused, match="not as the binlog left them"):
        patient.rewind()
    assert content(patient.server, *TABLES) == left
    assert gtids(patient.server) != had
    assert "cannot be rewound" in patient.published.state.unfit
    patient.start_agent()
    assert "cannot be rewound" in patient.published.state.unfit
    assert "INSERT app.uq (id=5, k=5)" in patient.texts()[0]


def test_a_write_behind_the_undoing_is_found_before_its_gtid_would_be_forgotten(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.errant("INSERT INTO uq VALUES (5, 5)")
    repair = patient.rewinder.repair

    def disturbed(plan: RewindRepair, deadline: Deadline) -> None:
        patient.errant("INSERT INTO nopk VALUES (9, 'late')")
        repair(plan, deadline)

    monkeypatch.setattr(patient.rewinder, "repair", disturbed)
    with pytest.raises(Refused, match="clients wrote here"):
        patient.rewind()
    had = gtids(patient.server)
    assert not gtids(patient.primary).contains(had)  # a clone finds, and saves, the late one
    patient.start_agent()
    assert "clients wrote here" in patient.published.state.unfit
    with pytest.raises(Refused, match="clients wrote here"):
        patient.settle()  # so it is never allowed to follow


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["DROP TABLE uq"], "DROP TABLE"),
        (["ALTER TABLE uq ADD COLUMN more int"], "ALTER TABLE"),
        (
            ["SET SESSION binlog_format = 'STATEMENT'", "DELETE FROM uq WHERE id = 1"],
            "DELETE FROM uq",
        ),
        (
            ["SET SESSION binlog_row_image = 'MINIMAL'", "UPDATE uq SET k = 77 WHERE id = 1"],
            "not logged whole",
        ),
    ],
    ids=["drop", "alter", "statement", "minimal"],
)
def test_what_cannot_be_undone_is_saved_and_the_member_is_to_be_cloned(
    patient: Patient, statements: list[str], said: str
) -> None:
    patient.errant("INSERT INTO nopk VALUES (5, 'last')", *statements)
    had, left = gtids(patient.server), content(patient.server, "nopk", "p")
    with pytest.raises(HoldfastError):
        patient.rewind()
    assert said in patient.published.state.unfit
    assert gtids(patient.server) == had
    assert content(patient.server, "nopk", "p") == left
    (text,) = patient.texts()
    assert "INSERT app.nopk (a=5, b='last')" in text
    if said != "not logged whole":
        assert f"STATEMENT in app: {said}" in text
    (raw,) = (patient.folder / "pending").glob("*.binlog")
    assert raw.stat().st_size > 200
