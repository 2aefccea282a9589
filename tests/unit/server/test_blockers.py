"""Which of a server's sessions would delay a switchover: an agent's own writes are no client's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.core.gtid import Flavor
from holdfast.server.base import Deadline
from holdfast.server.connection.sql import Connection
from holdfast.server.primary.blockers import blockers
from holdfast.server.primary.probe import WRITE

PROOF = "INSERT INTO holdfast.proof (term, serial) VALUES (3, 4)"


@pytest.mark.parametrize(
    ("statement", "holds"),
    [(WRITE, False), (PROOF, False), ("INSERT INTO holdfast_app.proof VALUES (1)", True)],
)
def test_an_agents_own_row_that_waits_for_its_acknowledgement(statement: str, holds: bool) -> None:
    row: dict[str, Any] = {"id": 7, "user": "holdfast", "host": "localhost", "command": "Query"}
    row |= {"statement": statement, "statement_seconds": 9.0, "transaction_seconds": 9.0}
    row |= {"changes": 3, "idle_seconds": 9.0, "writes": 1, "locks": 0}
    connection = cast(Connection, SimpleNamespace(look=lambda *_: [row]))
    assert bool(blockers(connection, Flavor.MYSQL, (), 2.0, Deadline(1))) is holds
