"""A data directory is made once, and every copy of it is a server without a history."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest

from holdfast.errors import BadInput, Refused
from holdfast.sandbox.servers import template, trees

ACCOUNTS = [
    "CREATE USER 'holdfast'@'127.0.0.1' IDENTIFIED BY 'a;secret'",
    "CREATE USER 'repl'@'%' IDENTIFIED BY 'other';",
]
GTIDS = {"mariadb": "SELECT @@gtid_binlog_pos", "mysql": "SELECT @@gtid_executed"}
BINLOG = {
    "mariadb": ["--log-bin=binlog", "--server-id=1"],
    "mysql": ["--log-bin=binlog", "--server-id=1", "--gtid-mode=ON", "--enforce-gtid-consistency"],
}


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def tree(request: pytest.FixtureRequest) -> trees.ServerTree:
    return trees.find(request.param)


@pytest.fixture(scope="module")
def made(tree: trees.ServerTree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template.make_template(tree, ACCOUNTS, tmp_path_factory.mktemp("templates"))


def connect(port: int, server: subprocess.Popen[bytes]) -> pymysql.Connection[Any]:
    deadline = time.monotonic() + 30
    while True:
        try:
            return pymysql.connect(
                host="127.0.0.1", port=port, user="holdfast", password="a;secret", connect_timeout=5
            )
        except pymysql.err.OperationalError as error:
            if error.args[0] != 2003 or server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def running(tree: trees.ServerTree, datadir: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    options = [f"--datadir={datadir}", "--bind-address=127.0.0.1", f"--port={port}"]
    options += [f"--tmpdir={datadir.parent}", "--socket=s", "--pid-file=pid", *BINLOG[tree.flavor]]
    with (datadir.parent / "log").open("wb") as log:
        server = subprocess.Popen(
            [*tree.command, "--no-defaults", *tree.arguments, *options], stdout=log, stderr=log
        )
    try:
        yield server, port
    finally:
        if server.poll() is None:
            server.kill()
            server.wait(10)


def query(connection: pymysql.Connection[Any], sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def test_a_copy_has_the_accounts_and_no_past(
    tree: trees.ServerTree, made: Path, tmp_path: Path
) -> None:
    datadir = tmp_path / "data"
    template.copy_template(made, datadir)
    assert not list(datadir.glob("*bin.*"))
    with running(tree, datadir) as (server, port):
        with closing(connect(port, server)) as connection:
            assert query(connection, GTIDS[tree.flavor]) == (("",),)
            version = query(connection, "SELECT VERSION()")[0][0]
            assert version.startswith(".".join(map(str, tree.version)))
        server.terminate()
        assert server.wait(30) == 0


def test_a_template_is_made_once(tree: trees.ServerTree, made: Path) -> None:
    begun = time.monotonic()
    assert template.make_template(tree, ACCOUNTS, made.parent) == made
    assert time.monotonic() - begun < 0.1
    assert not (made / "auto.cnf").exists()
    assert [path.name for path in made.parent.iterdir() if path.is_dir()] == [made.name]


def test_a_directory_with_something_in_it_is_left_alone(made: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(BadInput, match="not empty"):
        template.copy_template(made, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_wrong_statement_is_named_and_leaves_nothing(
    tree: trees.ServerTree, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="error in your SQL syntax"):
        template.make_template(tree, ["CREATE NONSENSE"], tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_statement_over_two_lines_is_refused(tree: trees.ServerTree, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="one line"):
        template.make_template(tree, ["SELECT\n1"], tmp_path)


@pytest.mark.parametrize("name", ["mysql", "mysqldump", "mariadb-binlog"])
def test_the_tools_of_a_server_run(tree: trees.ServerTree, name: str) -> None:
    done = subprocess.run(
        [*tree.tool(name), "--version"], capture_output=True, timeout=20, check=True
    )
    assert b"Ver" in done.stdout
