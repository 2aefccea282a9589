"""A member's tables compared with its primary's at one moment, while clients write."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from holdfast.agent.api.digests import add_digests
from holdfast.agent.api.verify_api import add_verify
from holdfast.agent.rewind.applier_hold import ApplierHold
from holdfast.agent.rewind.compare import Comparing
from holdfast.agent.rewind.fitness import Fitness
from holdfast.agent.rewind.table_results import Findings, TableResult
from holdfast.agent.rewind.verify import Verifying
from holdfast.agent.runtime.job import Jobs
from holdfast.agent.runtime.published_state import PublishedState
from holdfast.clock import SYSTEM_CLOCK
from holdfast.core.commands import Compare, Promise, Verify
from holdfast.core.gtid import Flavor
from holdfast.core.observed.comparison import Difference
from holdfast.core.view import MemberState
from holdfast.errors import Refused
from holdfast.http.serving import HttpServer, listening
from holdfast.server.base import Deadline
from holdfast.server.data.chunks import ChunkDigester
from holdfast.server.data.digest import ABSENT, Digester, HistoryPlace
from holdfast.server.data.rewind import RewindRepair
from holdfast.tls import Credentials
from tests.integration.rewinding import gtids
from tests.integration.servers import ADMIN, BareServer, bare_servers, wait_until

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS t (id int AUTO_INCREMENT PRIMARY KEY, k int, s varchar(50), f float, "
    "d datetime(6) DEFAULT CURRENT_TIMESTAMP(6), j json, b bit(9), e enum('x','y'), bin blob, KEY (k))",
    "CREATE TABLE IF NOT EXISTS `od``d.name` (a int, b varchar(9))",
    "CREATE TABLE IF NOT EXISTS big (id int AUTO_INCREMENT PRIMARY KEY, filler varchar(200))",
)
SUSPECTS = ("app.t", "`app`.`od``d.name`", "app.gone")


class Pair:
    """A primary whose agent answers over HTTP, and a replica with what compares it."""

    def __init__(self, primary: BareServer, replica: BareServer, folder: Path, url: str) -> None:
        self.primary, self.replica = primary, replica
        self.published = PublishedState(MemberState("m1", replica.flavor))
        self.fitness = Fitness(folder, self.published)
        self.jobs = Jobs(self.published)
        digester = Digester(replica.flavor, replica.socket, ADMIN)
        self.hold = ApplierHold(replica.adapter, digester, lambda: None, folder)
        self.comparing = Comparing(self.jobs, self.hold, digester, self.fitness, Credentials())
        self._folder, self._digester = folder, digester
        self.verifying = self.another_agent()
        self.command = Compare("m0", url)

    def another_agent(self) -> Verifying:
        """A new agent, with what is on disk."""
        shown, parts = Credentials(), (self.published, self.jobs, self.hold)
        return Verifying(*parts, ChunkDigester(self._digester), self.fitness, shown, self._folder)

    def verify(self, **wishes: Any) -> Findings:
        self.verifying.begin(Verify("m0", self.command.agent, **wishes))
        assert self.jobs.wait(60)
        return self.verifying.findings

    def suspect(self, *tables: str) -> None:
        self.fitness.begin_rewind(RewindRepair("x", "", ""), tables)
        self.fitness.end_rewind()

    def compare(self) -> None:
        self.comparing.begin(self.command)
        assert self.jobs.wait(30)

    def applier_runs(self) -> bool:
        row = self.replica.sql("SHOW REPLICA STATUS")[0]
        return row.get("Replica_SQL_Running", row.get("Slave_SQL_Running")) == "Yes"


@pytest.fixture(scope="module")
def servers(flavor: Flavor) -> Iterator[list[BareServer]]:
    with bare_servers(flavor, 2) as made:
        primary, replica = made
        primary.sql("SET GLOBAL read_only = 0", "USE app", *SCHEMA)
        primary.sql(
            "INSERT INTO app.t (k, s, f, j, b, e, bin) VALUES (1, 'a', 1.1, '[1]', b'1', 'x', x'00')"
        )
        primary.sql("INSERT INTO app.`od``d.name` VALUES (1, NULL), (1, ''), (NULL, 'x')")
        replica.adapter.follow(primary.source(replica), True, Deadline(20))
        yield made


@pytest.fixture
def pair(servers: list[BareServer], tmp_path: Path) -> Iterator[Pair]:
    primary, replica = servers
    app = FastAPI()
    digester = Digester(primary.flavor, primary.socket, ADMIN)
    add_digests(app, digester, SYSTEM_CLOCK)
    http = HttpServer(app)
    with listening("127.0.0.1:0") as listener:
        thread = threading.Thread(target=http.run, kwargs={"sockets": [listener.dup()]})
        thread.start()
        port = listener.getsockname()[1]
        try:
            made = Pair(primary, replica, tmp_path, f"http://127.0.0.1:{port}")
            add_verify(app, ChunkDigester(digester), made.verifying, SYSTEM_CLOCK)
            yield made
        finally:
            http.should_exit = True
            thread.join()
    wait_until(lambda: gtids(replica).contains(gtids(primary)), 20, "the replica has everything")


@contextmanager
def writers(primary: BareServer) -> Iterator[list[float]]:
    """Clients that insert and update; yields how long each of their statements took."""
    took: list[float] = []
    ended = threading.Event()

    def write(number: int) -> None:
        with closing(primary.connect()) as connection, connection.cursor() as cursor:
            while not ended.is_set():
                begun = time.monotonic()
                cursor.execute("INSERT INTO app.t (k, s) VALUES (%s, 'w')", (number,))
                cursor.execute("UPDATE app.t SET k = k + 1 ORDER BY id DESC LIMIT 3")
                took.append(time.monotonic() - begun)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(took) > 20, 10, "clients write")
        yield took
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_equal_tables_are_found_equal_under_load_and_the_applier_runs_on(pair: Pair) -> None:
    pair.suspect(*SUSPECTS)
    with writers(pair.primary) as took:
        pair.compare()
    assert pair.published.state.suspects == (), pair.published.state
    assert pair.published.state.unfit == ""
    assert max(took) < 2
    wait_until(pair.applier_runs, 5, "the applier runs")
    assert not pair.hold.held


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ("UPDATE app.t SET f = 1.1000001 WHERE id = 1", "app.t"),
        ("UPDATE app.`od``d.name` SET b = NULL WHERE b = ''", "`app`.`od``d.name`"),
        ("INSERT INTO app.`od``d.name` VALUES (1, '')", "`app`.`od``d.name`"),
        ("CREATE TABLE app.gone (a int)", "app.gone"),
    ],
    ids=["float", "null", "twice", "table"],
)
def test_tables_that_differ_make_the_member_unfit(pair: Pair, change: str, table: str) -> None:
    pair.suspect(*SUSPECTS)
    lax = ["SET GLOBAL super_read_only = 0"] if pair.replica.flavor is Flavor.MYSQL else []
    # not on the primary, and not in any binlog; taken back below
    back = pair.replica.sql("SELECT * FROM app.`od``d.name`")
    pair.replica.sql(*lax, "SET sql_log_bin = 0", change)
    pair.compare()
    assert table in pair.published.state.unfit
    assert not any(other in pair.published.state.unfit for other in SUSPECTS if other != table)
    assert pair.published.state.suspects == tuple(sorted(SUSPECTS))
    again = PublishedState(MemberState("m1", pair.replica.flavor))
    Fitness(pair.fitness.path.parent, again)
    assert again.state.unfit == pair.published.state.unfit
    rows = ", ".join(
        f"({', '.join('NULL' if value is None else repr(value) for value in row.values())})"
        for row in back
    )
    pair.replica.sql(
        "SET sql_log_bin = 0",
        "DROP TABLE IF EXISTS app.gone",
        "DELETE FROM app.`od``d.name`",
        f"INSERT INTO app.`od``d.name` VALUES {rows}",
        "UPDATE app.t SET f = 1.1 WHERE id = 1",
    )


def test_a_command_ends_a_comparison_and_the_applier_runs_before_it_is_carried_out(
    pair: Pair,
) -> None:
    """A promise stops the receiver; on MariaDB an applier that is started after that would cost the relay log."""
    pair.suspect("app.t")
    with closing(pair.primary.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLES app.t WRITE")  # so that the primary cannot answer
        pair.comparing.begin(pair.command)
        wait_until(
            lambda: not pair.applier_runs() or bool(pair.published.state.progress),
            5,
            "it is under way",
        )
        pair.comparing.admit(Promise(), Deadline(5))
        assert pair.applier_runs()
        assert pair.jobs.running == ""
        cursor.execute("UNLOCK TABLES")
    assert pair.published.state.suspects == ("app.t",)
    pair.compare()
    assert pair.published.seen()[0].suspects == ()


def test_an_agent_that_was_killed_amid_a_comparison_lets_the_applier_run_at_the_next_command(
    pair: Pair,
) -> None:
    pair.replica.adapter.hold_applier(Deadline(5))
    (pair.fitness.path.parent / "holding").touch()
    pair.comparing.admit(Promise(), Deadline(5))
    assert pair.applier_runs()
    assert not (pair.fitness.path.parent / "holding").exists()


def test_with_the_receiver_stopped_the_applier_is_not_started_where_that_drops_the_relay_log(
    pair: Pair,
) -> None:
    deadline = Deadline(10)
    pair.replica.adapter.hold_applier(deadline)
    pair.replica.adapter.stop_receiver(deadline)
    digester = Digester(pair.replica.flavor, pair.replica.socket, ADMIN)
    digester.release(deadline)
    mysql = pair.replica.flavor is Flavor.MYSQL
    assert pair.applier_runs() is mysql
    if not mysql:
        server_id = int(pair.primary.value("SELECT @@server_id"))
        with pytest.raises(Refused, match="receiver"):
            digester.apply_until(
                HistoryPlace(server_id, "0-9-999999", "binlog.000001", 4), deadline
            )
    pair.replica.adapter.follow(pair.primary.source(pair.replica), True, deadline)
    wait_until(pair.applier_runs, 5, "the applier runs")


def test_an_unknown_table_and_a_wrong_name(pair: Pair) -> None:
    digester = Digester(pair.primary.flavor, pair.primary.socket, ADMIN)
    places: list[HistoryPlace] = []
    found = digester.take([("app", "nothing"), ("no", "where")], Deadline(10), places.append)
    assert set(found.values()) == {ABSENT}
    answer = httpx.post(f"{pair.command.agent}/v1/digest", json={"tables": ["nodot"]})
    assert answer.status_code != 200


# -- all tables, a piece at a time ----------------------------------------------------------------

ODD = "`app`.`od``d.name`"
NUMBERS = (
    "CREATE TABLE app.numbers (id int PRIMARY KEY, v varchar(20))",
    "INSERT INTO app.numbers WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 900) "
    "SELECT n * 2, CONCAT('row ', n) FROM r",
)


@pytest.fixture
def numbers(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """900 rows in pieces of 100 at first."""
    monkeypatch.setattr("holdfast.agent.rewind.verify.FIRST_ROWS", 100)
    monkeypatch.setattr("holdfast.agent.rewind.verify.MOST_ROWS", 100)
    pair.primary.sql("DELETE FROM app.t WHERE id > 1", "DROP TABLE IF EXISTS app.numbers", *NUMBERS)
    wait_until(lambda: gtids(pair.replica).contains(gtids(pair.primary)), 20, "the replica has it")
    yield pair
    assert pair.applier_runs()


def lax(pair: Pair) -> list[str]:
    """An administrator writes on the replica, without its binlog."""
    mysql = pair.replica.flavor is Flavor.MYSQL
    return [*(["SET GLOBAL super_read_only = 0"] if mysql else []), "SET sql_log_bin = 0"]


def test_all_tables_are_verified_under_load_in_pieces(numbers: Pair) -> None:
    with writers(numbers.primary) as took:
        found = numbers.verify(anew=True)
    assert found.ended >= found.began > 0, numbers.published.state
    assert found.results["app.numbers"] == TableResult(rows=900, pieces=10)
    assert {"app.t", ODD, "app.big"} <= found.results.keys()
    assert not any(name.startswith(("mysql.", "sys.")) for name in found.results)
    assert found.different() == []
    assert numbers.published.state.verified == found.told()
    assert max(took) < 2


def test_a_row_that_differs_is_found_in_its_range_and_stays_known_until_it_is_mended(
    numbers: Pair,
) -> None:
    numbers.replica.sql(*lax(numbers), "UPDATE app.numbers SET v = 'other' WHERE id = 500")
    numbers.replica.sql(*lax(numbers), "INSERT INTO app.`od``d.name` VALUES (9, 'x')")
    numbers.replica.sql(*lax(numbers), "CREATE TABLE app.only_here (id int PRIMARY KEY)")
    found = numbers.verify(anew=True)
    assert found.results["app.numbers"].ranges == ("id behind 400 up to 600",)
    assert found.results[ODD].ranges == ("somewhere in the whole table",)
    known: tuple[Difference, ...] = (
        Difference(ODD, "somewhere in the whole table"),
        Difference("app.numbers", "id behind 400 up to 600"),
        Difference("app.only_here", "somewhere in the whole table"),
    )
    assert numbers.published.state.differs == known
    again = PublishedState(MemberState("m1", numbers.replica.flavor))
    Fitness(numbers.fitness.path.parent, again)
    assert again.state.differs == known
    numbers.replica.sql(*lax(numbers), "UPDATE app.numbers SET v = 'row 250' WHERE id = 500")
    numbers.replica.sql(*lax(numbers), "DROP TABLE app.only_here")
    numbers.verify(tables=("app.numbers",))
    assert numbers.published.state.differs == known[:1] + known[2:]
    numbers.replica.sql(*lax(numbers), "DELETE FROM app.`od``d.name` WHERE a = 9")
    numbers.verify(anew=True)
    assert numbers.published.state.differs == ()


def test_interrupted_by_another_command_it_goes_on_from_there(numbers: Pair) -> None:
    numbers.verifying.begin(Verify("m0", numbers.command.agent, rate=2000, anew=True))

    def rows() -> int:
        return numbers.verifying.findings.results.get("app.numbers", TableResult()).rows

    wait_until(lambda: 0 < rows() < 900, 20, "it is amid the table")
    numbers.verifying.admit(Promise(), Deadline(5))
    assert numbers.jobs.running == ""
    assert numbers.applier_runs()
    before = rows()
    assert 0 < before < 900
    assert numbers.verifying.findings.under_way
    assert numbers.published.state.verified
    assert numbers.published.state.verified.halted == "called off by the command Promise"
    assert not numbers.published.state.verified.failed
    numbers.verifying = numbers.another_agent()
    assert numbers.published.state.verified
    assert numbers.published.state.verified.ended == 0
    assert rows() == before
    found = numbers.verify()
    assert found.results["app.numbers"] == TableResult(rows=900, pieces=9 + 1)
    assert found.ended


def test_one_that_nobody_answers_is_interrupted_at_once(
    numbers: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover must not wait for the agent of a host that is frozen."""
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        numbers.verifying.begin(
            Verify("m0", f"http://127.0.0.1:{mute.getsockname()[1]}", anew=True)
        )
        wait_until(lambda: bool(numbers.jobs.running), 5, "it is under way")
        begun = time.monotonic()
        numbers.verifying.admit(Promise(), Deadline(5))
        assert time.monotonic() - begun < 0.5
    assert numbers.applier_runs()
    numbers.verifying.begin(Verify("m0", "", stop=True))
    assert numbers.verifying.findings.ended


def test_it_waits_while_a_server_has_too_much_to_do_and_refuses_a_table_that_is_not_there(
    numbers: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = iter([9, 9])
    monkeypatch.setattr(ChunkDigester, "running", lambda *_: next(load, 1))
    found = numbers.verify(tables=("app.numbers",), max_load=4, anew=True)
    assert found.results == {"app.numbers": TableResult(rows=900, pieces=10)}
    assert next(load, None) is None
    found = numbers.verify(tables=("app.nothing",))
    assert (found.halted, found.failed) == ("there is no table app.nothing", True)
    assert found.ended
    assert numbers.published.state.reason == ""  # the member is as well as before
