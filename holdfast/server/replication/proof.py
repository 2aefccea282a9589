"""Holdfast's own tables: one whose rows prove that everything before them was acknowledged, and one that is written to
in order to see whether that is possible."""

from __future__ import annotations

from dataclasses import replace

from pymysql.constants import ER

from holdfast.core.rules.releases import acknowledged
from holdfast.core.view import SemiSync
from holdfast.errors import Refused
from holdfast.server.base import Deadline
from holdfast.server.connection.sessions import Sessions
from holdfast.server.connection.sql import StatementRefused
from holdfast.server.replication import waiting
from holdfast.server.replication.dialect import Dialect, ProofWriter

AGAIN_SECONDS = 0.02
"""The first pause between two rows, while semi-sync is degraded."""

ROW = "INSERT INTO holdfast.proof (term, serial) VALUES (%s, %s)"
NO_TABLE = frozenset({ER.BAD_DB_ERROR, ER.NO_SUCH_TABLE})

PROBE_TABLE = (
    "CREATE DATABASE IF NOT EXISTS holdfast",
    "CREATE TABLE IF NOT EXISTS holdfast.probe ("
    "id smallint unsigned NOT NULL PRIMARY KEY, "
    "at timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB",
)

PROOF_SCHEMA = (
    "CREATE DATABASE IF NOT EXISTS holdfast",
    "CREATE TABLE IF NOT EXISTS holdfast.proof ("
    "id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, "
    "term bigint unsigned NOT NULL, "
    "serial bigint unsigned NOT NULL, "
    "at timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)) ENGINE=InnoDB",
    PROBE_TABLE[-1],
)
"""Created at the first proof if it is missing; better created with the data directory: MariaDB cannot roll DDL back, if
a crash leaves the first proof pending."""


class ProofRows:
    """Implements ``ProofWriter``."""

    def __init__(self, sessions: Sessions, dialect: Dialect) -> None:
        self._sessions = sessions
        self._dialect = dialect

    def promoted(self, domains: frozenset[int]) -> None:
        """Nothing to do: the GTIDs of its rows are new in any case."""

    def commit(self, term: int, serial: int, deadline: Deadline) -> None:
        for _ in range(3):
            try:
                return self._sessions.proof.run(ROW, deadline, (term, serial))
            except StatementRefused as error:
                if error.code == ER.OPTION_PREVENTS_STATEMENT:
                    self._let_write(deadline)
                elif error.code in NO_TABLE:
                    self._make_table(deadline)
                else:
                    raise
        raise Refused("holdfast.proof was made and is not there: somebody drops it")

    def _make_table(self, deadline: Deadline) -> None:
        self._let_write(deadline)
        for statement in PROOF_SCHEMA:
            self._sessions.proof.run(statement, deadline)

    def _let_write(self, deadline: Deadline) -> None:
        self._sessions.commands.set_global(self._dialect.administrator_writes, deadline)


def prove(
    rows: ProofWriter,
    row: tuple[int, int],
    sessions: Sessions,
    names: waiting.Names,
    deadline: Deadline,
    insist: bool,
) -> SemiSync:
    """See ``Server.prove``. :param row: term and serial"""
    pause = AGAIN_SECONDS
    while True:
        begun = waiting.look_at(sessions.commands, names, deadline)
        rows.commit(*row, deadline)
        if not begun.source:
            return begun
        ended = waiting.look_at(sessions.commands, names, deadline)
        if acknowledged(begun, ended):
            return begun
        if not insist:
            return replace(begun, degraded=True)
        deadline.check("waiting for a row to be acknowledged: commits were let through")
        deadline.clock.sleep(pause)
        pause = min(2 * pause, AGAIN_SECONDS * 16)
