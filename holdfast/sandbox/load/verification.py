"""Checks what clients were told against what the servers hold, on every member."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pymysql
from pymysql.constants import ER

from holdfast.core.gtid import parse
from holdfast.errors import DeadlinePassed
from holdfast.sandbox.load.journal import Row, WriteReport
from holdfast.sandbox.load.target import Written
from holdfast.sandbox.local.accounts import SCHEMA
from holdfast.sandbox.waiting import Status

SETTLE_SECONDS = 30.0
QUERY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class MemberCheck:
    """:ivar lost: acknowledged rows that this member does not hold
    :ivar unacknowledged: rows that it holds without any acknowledgement to a client: allowed
    :ivar checksums: of each table of the schema"""

    name: str
    lost: tuple[Row, ...]
    unacknowledged: int
    checksums: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class WriteVerification:
    members: tuple[MemberCheck, ...]

    @property
    def lost(self) -> int:
        """How many acknowledged rows are missing somewhere."""
        return len({row for member in self.members for row in member.lost})

    @property
    def identical(self) -> bool:
        return len({member.checksums for member in self.members}) == 1

    @property
    def good(self) -> bool:
        return not self.lost and self.identical


def settle(cluster: Written, seconds: float = SETTLE_SECONDS) -> Status:
    """Wait until every member has applied the same transactions; writers must have stopped.

    :raises DeadlinePassed: they do not agree in time
    """

    def same(status: Status) -> bool:
        applied = [parse(cluster.spec.flavor, each["applied"]) for each in status["members"]]
        return bool(status["whole"]) and all(each == applied[0] for each in applied)

    # the manager reads positions from time to time: equality must be seen twice
    cluster.wait_until(same, seconds, "all members to have applied the same")
    time.sleep(0.3)
    return cluster.wait_until(same, seconds, "all members to have applied the same")


def verify(cluster: Written, report: WriteReport, checksums: bool = True) -> WriteVerification:
    """Compare one run with the tables of every member. Settle first.

    :raises DeadlinePassed: a server does not answer
    """
    acknowledged = set(report.acknowledged_rows())
    checks = []
    for member in cluster.members():
        try:
            with cluster.connect(member.name, read_timeout=QUERY_SECONDS) as connection:
                present = _rows(connection, report.run)
                sums = tuple(_checksums(connection)) if checksums else ()
        except (pymysql.err.OperationalError, OSError) as error:
            raise DeadlinePassed(f"reading {member.name}: {error}", QUERY_SECONDS) from None
        lost = tuple(sorted(acknowledged - present))
        checks.append(MemberCheck(member.name, lost, len(present - acknowledged), sums))
    return WriteVerification(tuple(checks))


def _rows(connection: pymysql.Connection[Any], run: int) -> set[Row]:
    with connection.cursor() as cursor:
        try:
            cursor.execute("SELECT writer, n FROM app.writes WHERE run = %s", (run,))
        except pymysql.err.ProgrammingError as error:
            if error.args[0] != ER.NO_SUCH_TABLE:
                raise
            return set()  # no client has written here yet
        return set(cursor.fetchall())


def _checksums(connection: pymysql.Connection[Any]) -> Iterable[tuple[str, int]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s ORDER BY 1",
            (SCHEMA,),
        )
        tables = [str(row[0]) for row in cursor.fetchall()]
        for table in tables:
            cursor.execute(f"CHECKSUM TABLE `{SCHEMA}`.`{table}` EXTENDED")
            row = cursor.fetchone()
            yield table, int(row[1] or 0)
