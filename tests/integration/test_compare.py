"""A member's tables compared with its primary's at one moment, while clients write."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from holdfast.agent.board import Board
from holdfast.agent.comparing import Comparing
from holdfast.agent.digesting import Digests, add_digests
from holdfast.agent.fitness import Fitness
from holdfast.agent.job import Jobs
from holdfast.core.commands import Compare, Promise
from holdfast.core.gtid import Flavor
from holdfast.core.view import MemberState
from holdfast.errors import Refused
from holdfast.server.base import Deadline
from holdfast.server.digest import ABSENT, Digester, Place
from holdfast.server.rewind import Repair
from holdfast.serving import HttpServer, listening
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
        self.board = Board(MemberState("m1", replica.flavor))
        self.fitness = Fitness(folder, self.board)
        self.jobs = Jobs(self.board)
        digester = Digester(replica.flavor, replica.socket, ADMIN)
        self.comparing = Comparing(
            self.jobs,
            replica.adapter,
            digester,
            self.fitness,
            Credentials(),
            lambda: None,
            folder,
        )
        self.command = Compare("m0", url)

    def suspect(self, *tables: str) -> None:
        self.fitness.begin_rewind(Repair("x", "", ""), tables)
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
    add_digests(app, Digests(Digester(primary.flavor, primary.socket, ADMIN)))
    http = HttpServer(app)
    with listening("127.0.0.1:0") as listener:
        thread = threading.Thread(target=http.run, kwargs={"sockets": [listener.dup()]})
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield Pair(primary, replica, tmp_path, f"http://127.0.0.1:{port}")
        finally:
            http.should_exit = True
            thread.join()
    wait_until(lambda: gtids(replica).contains(gtids(primary)), 20, "the replica has everything")


@contextmanager
def writers(primary: BareServer) -> Iterator[list[float]]:
    """Clients that insert and update; gives how long each of their statements took."""
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
    assert pair.board.state.suspects == (), pair.board.state
    assert pair.board.state.unfit == ""
    assert max(took) < 2
    wait_until(pair.applier_runs, 5, "the applier runs")
    assert not pair.comparing.held


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
    assert table in pair.board.state.unfit
    assert not any(other in pair.board.state.unfit for other in SUSPECTS if other != table)
    assert pair.board.state.suspects == tuple(sorted(SUSPECTS))
    again = Board(MemberState("m1", pair.replica.flavor))
    Fitness(pair.fitness.path.parent, again)
    assert again.state.unfit == pair.board.state.unfit
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
            lambda: not pair.applier_runs() or bool(pair.board.state.progress), 5, "it is under way"
        )
        pair.comparing.admit(Promise(), Deadline(5))
        assert pair.applier_runs()
        assert pair.jobs.running == ""
        cursor.execute("UNLOCK TABLES")
    assert pair.board.state.suspects == ("app.t",)
    pair.compare()
    assert pair.board.state.suspects == ()


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
            digester.apply_until(Place(server_id, "0-9-999999", "binlog.000001", 4), deadline)
    pair.replica.adapter.follow(pair.primary.source(pair.replica), True, deadline)
    wait_until(pair.applier_runs, 5, "the applier runs")


def test_an_unknown_table_and_a_wrong_name(pair: Pair) -> None:
    digester = Digester(pair.primary.flavor, pair.primary.socket, ADMIN)
    places: list[Place] = []
    found = digester.take([("app", "nothing"), ("no", "where")], Deadline(10), places.append)
    assert set(found.values()) == {ABSENT}
    answer = httpx.post(f"{pair.command.agent}/v1/digest", json={"tables": ["nodot"]})
    assert answer.status_code != 200
