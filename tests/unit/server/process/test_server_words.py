"""Quotations of a server or a statement: the same failure gives the same text, and no placeholder is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import DeadlinePassed
from holdfast.server.base import Account, Deadline
from holdfast.server.connection.sql import Connection
from holdfast.server.replication.progress import lasting


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "error connecting to master 'repl_m2@db1:3306' - retry-time: 1  maximum-retries: 100000  message: "
            "Access denied, this account is locked",
            "error connecting to master 'repl_m2@db1:3306': Access denied, this account is locked",
        ),
        (
            "error reconnecting to master 'repl_m2@db1:3306' - retry-time: 1  retries: 17  message: no route",
            "error reconnecting to master 'repl_m2@db1:3306': no route",
        ),
        (
            "Error connecting to source 'repl_m2@db1:3306'. This was attempt 17/100000, with a delay of 1 seconds "
            "between attempts. Message: Can't connect to MySQL server on 'db1:3306' (111)",
            "Error connecting to source 'repl_m2@db1:3306': Can't connect to MySQL server on 'db1:3306' (111)",
        ),
        ("Got fatal error 1236 from source", "Got fatal error 1236 from source"),
        ("", ""),
    ],
)
def test_a_receivers_error_does_not_count_its_attempts(said: str, told: str) -> None:
    assert lasting(said) == told


def test_a_statement_is_named_without_placeholders_and_without_what_stood_for_them() -> None:
    session = Connection(Path("/nowhere"), Account("holdfast", "secret"))
    with session._turn, pytest.raises(DeadlinePassed) as late:
        session.run("ALTER USER %s@%s IDENTIFIED BY %s", Deadline(0.01), ("a", "b", "pw"))
    assert "ALTER USER …@… IDENTIFIED BY …" in str(late.value)
    assert "pw" not in str(late.value)
