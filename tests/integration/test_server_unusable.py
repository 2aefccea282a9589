"""What real servers log of data files that they cannot use, and how that is distinguished from other causes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.core.check.unusable import unusable
from holdfast.core.gtid import Flavor
from holdfast.server.process import last_words as words
from tests.integration.servers import BareServer, bare_servers

Damage = Callable[[Path], None]


def overwritten(folder: Path, pattern: str, data: bytes) -> None:
    for file in folder.glob(pattern):
        if not file.name.endswith("_tmp"):
            with file.open("r+b") as opened:
                opened.write(data)


def removed(folder: Path, pattern: str) -> None:
    sorted(folder.glob(pattern))[-1].unlink()


def short(folder: Path) -> None:
    os.truncate(folder / "ibdata1", 1 << 20)


DAMAGES: dict[Flavor, dict[str, tuple[Damage, str]]] = {
    Flavor.MARIADB: {
        "redo gone": (lambda d: removed(d, "ib_logfile0"), "ib_logfile0 was not found"),
        "redo": (lambda d: overwritten(d, "ib_logfile0", b"\xff" * 65536), "header checksum"),
        "space": (lambda d: overwritten(d, "ibdata1", bytes(1 << 20)), "wrong space ID"),
        "short": (short, "different size"),
        "space gone": (lambda d: removed(d, "ibdata1"), "existing redo log"),
        "binlog": (lambda d: removed(d, "binlog.[0-9]*[0-9]"), "Failed to open log"),
        "aria": (lambda d: overwritten(d, "aria_log_control", b"\xff" * 64), "aria control file"),
    },
    Flavor.MYSQL: {
        "redo": (
            lambda d: overwritten(d, "#innodb_redo/#ib_redo*", b"\xff" * 65536),
            "header checksum",
        ),
        "space": (lambda d: overwritten(d, "ibdata1", bytes(1 << 20)), "zero bytes"),
        "space gone": (lambda d: removed(d, "ibdata1"), "'open' returned OS error"),
        "binlog": (lambda d: removed(d, "binlog.[0-9]*[0-9]"), "Can't init tc log"),
    },
}
LOGS_NOTHING = "ALTER INSTANCE DISABLE INNODB REDO_LOG"


@pytest.fixture(scope="module")
def crashed(flavor: Flavor) -> Iterator[tuple[BareServer, Path]]:
    """A server that was killed, and its data as they were then."""
    with bare_servers(flavor, 1) as (server,):
        server.sql("SET GLOBAL read_only = 0", "CREATE DATABASE d", "CREATE TABLE d.t (n INT)")
        server.sql("FLUSH BINARY LOGS", "INSERT INTO d.t VALUES (1)")
        server.kill()
        kept = server.datadir.with_name("kept")
        shutil.copytree(server.datadir, kept)
        yield server, kept


def said_at_a_start(server: BareServer) -> tuple[tuple[str, ...], str]:
    """All errors, and the one that explains; nothing where it came up."""
    since = words.size(server.error_log)
    try:
        server.start()
    except AssertionError:
        pass
    else:
        server.kill()
        return (), ""
    output = server.error_log.with_name("server.out")
    return (
        words.errors(output, server.error_log, since),
        words.last_words(output, server.error_log, since),
    )


def test_data_files_that_cannot_be_used_are_known_by_what_the_server_says(
    crashed: tuple[BareServer, Path],
) -> None:
    server, kept = crashed
    for name, (damage, expected) in DAMAGES[server.flavor].items():
        shutil.rmtree(server.datadir)
        shutil.copytree(kept, server.datadir)
        damage(server.datadir)
        errors, _ = said_at_a_start(server)
        assert expected in unusable(errors), (name, errors)


def test_an_option_that_it_does_not_know_says_nothing_of_its_data(
    crashed: tuple[BareServer, Path],
) -> None:
    server, kept = crashed
    shutil.rmtree(server.datadir)
    shutil.copytree(kept, server.datadir)
    options = server.option_file.read_text()
    server.option_file.write_text(f"{options}\nno_such_option = 1\n")
    errors, explained = said_at_a_start(server)
    server.option_file.write_text(options)
    assert "unknown variable 'no_such_option=1'" in explained
    assert not unusable(errors)


def test_mysql_killed_without_its_redo_log(crashed: tuple[BareServer, Path]) -> None:
    server, kept = crashed
    if server.flavor is Flavor.MARIADB:
        with pytest.raises(Exception, match="syntax"):
            _kill_without_redo(server, kept)
        return
    _kill_without_redo(server, kept)
    errors, explained = said_at_a_start(server)
    assert "redo logging was disabled" in unusable(errors)
    assert "redo logging was disabled" in explained


def _kill_without_redo(server: BareServer, kept: Path) -> None:
    shutil.rmtree(server.datadir)
    shutil.copytree(kept, server.datadir)
    server.start()
    try:
        server.sql(LOGS_NOTHING)
    finally:
        server.kill()
