"""Of everything that a server logs when it gives up, the error that explains it."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.core.gtid import Flavor
from holdfast.server.process.last_words import last_words, log_of, size

MARIADB = """\
2026-11-29 10:00:00 0 [Note] Starting MariaDB 10.11.19-MariaDB source revision  as process 7
2026-11-29 10:00:00 0 [ERROR] InnoDB: Unable to lock ./ibdata1 error: 11
2026-11-29 10:00:01 0 [ERROR] Plugin 'InnoDB' registration as a STORAGE ENGINE failed.
2026-11-29 10:00:01 0 [Note] Plugin 'FEEDBACK' is disabled.
2026-11-29 10:00:01 0 [ERROR] Unknown/unsupported storage engine: InnoDB
2026-11-29 10:00:01 0 [ERROR] Aborting
"""
MYSQL = """\
2026-11-29T10:00:00.1Z 0 [System] [MY-010116] [Server] mysqld (mysqld 9.7.4) starting as process 7
2026-11-29T10:00:00.2Z 0 [ERROR] [MY-000067] [Server] unknown variable 'no_such=1'.
2026-11-29T10:00:00.3Z 0 [ERROR] [MY-010119] [Server] Aborting
2026-11-29T10:00:00.4Z 0 [System] [MY-010910] [Server] mysqld: Shutdown complete (mysqld 9.7.4)
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (MARIADB, "InnoDB: Unable to lock ./ibdata1 error: 11"),
        (MYSQL, "unknown variable 'no_such=1'."),
        ("only a note\n\n", "only a note"),
        ("[ERROR] Aborting\n", "[ERROR] Aborting"),
        ("", ""),
    ],
)
def test_the_cause_is_told_and_not_what_follows_from_it(
    log: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "error.log").write_text(log)
    assert last_words(tmp_path / "out", tmp_path / "error.log") == said
    (tmp_path / "out").write_text(log)
    assert last_words(tmp_path / "out") == said


def test_what_an_earlier_run_said_is_not_told(tmp_path: Path) -> None:
    log, out = tmp_path / "error.log", tmp_path / "out"
    log.write_text(MARIADB)
    before = size(log)
    out.write_text("[ERROR] mariadbd: unknown variable 'no_such=1'\n")
    assert last_words(out, log, before) == "unknown variable 'no_such=1'"
    with log.open("a") as file:
        file.write("[ERROR] Can't start server: Bind on TCP/IP port. Got error: 98\n")
    assert last_words(out, log, before).startswith("Can't start server")
    log.write_text("[ERROR] it was rotated\n")
    assert last_words(out, log, before) == "it was rotated"


def test_where_its_log_is(tmp_path: Path) -> None:
    option_file = tmp_path / "my.cnf"
    for line, found in (
        ("log_error = error.log", tmp_path / "error.log"),
        ("log-error=/var/log/x.err", Path("/var/log/x.err")),
        ("log_error = stderr", None),
        ("port = 1", None),
    ):
        option_file.write_text(f"[mysqld]\n{line}\n")
        assert log_of(Flavor.MYSQL, option_file, tmp_path) == found
