"""What managers and store reported meanwhile, and what the servers hold at the end."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pymysql

from holdfast.core.gtid import parse
from holdfast.errors import DeadlinePassed, HoldfastError
from holdfast.sandbox.lab.lab import Lab
from tests.chaos.history import Ending, Holding
from tests.chaos.store import versions

LOOK_SECONDS = 0.2
SETTLE_SECONDS = 30.0
QUERY_SECONDS = 120.0
PROOFS = "holdfast.proof"


@dataclass(frozen=True, slots=True)
class Look:
    """One answer of the leading manager; only ``reason`` when there was none."""

    at: float
    term: int = 0
    primary: str = ""
    writable: bool = False
    whole: bool = False
    reason: str = ""


class Witness:
    """Asks the leading manager a few times a second, and keeps what changed."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness", daemon=True)
        self.looks: list[Look] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def primaries(self) -> tuple[str, ...]:
        """The recorded primaries that it saw, in order; one that reigned only for a moment may be missing."""
        return tuple(name for name, _ in groupby(look.primary for look in self.looks if look.term))

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            look = self._look()
            last = self.looks[-1] if self.looks else None
            if last is None or _but_time(look) != _but_time(last):
                self.looks.append(look)

    def _look(self) -> Look:
        at = time.monotonic()
        try:
            found = self._lab.status()
        except HoldfastError as error:
            return Look(at, reason=str(error))
        primary = str(found["primary"] or "")
        writable, whole = bool(found["writable"]), bool(found["whole"])
        return Look(at, int(found["term"]), primary, writable, whole, str(found["reason"]))


def _but_time(look: Look) -> tuple[int, str, bool, bool, str]:
    return look.term, look.primary, look.writable, look.whole, look.reason


# -- the store's memory ----------------------------------------------------------------------------


def reigns(lab: Lab, since: int = 0) -> tuple[str, ...] | None:
    """The primaries of all records that etcd ever held, in order; None where there is no etcd.

    :param since: leave out those of lower terms
    """
    if not any(host.startswith("etcd") for host in lab.hosts()):
        return None
    try:
        with lab.inside():
            records = [record for _, record, _ in versions(lab)]
    except (OSError, HoldfastError, ValueError, KeyError):
        return None
    names = [str(record["primary"]) for record in reversed(records) if int(record["term"]) >= since]
    return tuple(name for name, _ in groupby(names)) or None


# -- the servers -----------------------------------------------------------------------------------


def ending(
    lab: Lab, table: str, whole_seconds: float | None, why: str, reigned: tuple[str, ...] | None
) -> Ending:
    """What all servers hold once they have applied the same, or after a while even if they have not."""
    executed = _settle(lab)
    holdings = {}
    for member in lab.members():
        try:
            with closing(lab.connect(member.name, read_timeout=QUERY_SECONDS)) as connection:
                holdings[member.name] = _holding(connection, table, executed[member.name])
        except (pymysql.err.MySQLError, OSError) as error:
            holdings[member.name] = Holding({}, executed[member.name], f"unreadable: {error}")
    return Ending(holdings, whole_seconds, reigned, why)


def _settle(lab: Lab) -> dict[str, str]:
    """The GTIDs that each member has applied, by its agent."""

    def sets(status: dict[str, Any]) -> dict[str, str]:
        flavor = lab.plan.flavor
        return {each["name"]: str(parse(flavor, each["applied"])) for each in status["members"]}

    found: dict[str, str] = {member.name: "never asked" for member in lab.members()}

    def same(status: dict[str, Any]) -> bool:
        found.update(sets(status))
        return len(set(found.values())) == 1

    try:
        # the manager reads positions from time to time: equality must be seen twice
        lab.wait_until(same, SETTLE_SECONDS)
        time.sleep(1.0)
        lab.wait_until(same, SETTLE_SECONDS)
    except DeadlinePassed:
        pass
    return found


def _holding(connection: pymysql.Connection[Any], table: str, executed: str) -> Holding:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT writer, n FROM {table} ORDER BY writer, n")
        rows = {
            writer: tuple(n for _, n in group)
            for writer, group in groupby(cursor.fetchall(), key=lambda row: row[0])
        }
        cursor.execute(f"SELECT k, half, version FROM {table}_registers")
        said = {(key, half): version for key, half, version in cursor.fetchall()}
        registers = {key: (said.get((key, 0)), said.get((key, 1))) for key, _ in said}
        cursor.execute(f"SELECT k, v FROM {table}_counters")
        counters = dict(cursor.fetchall())
        cursor.execute(f"CHECKSUM TABLE {table} EXTENDED")
        return Holding(rows, executed, str(cursor.fetchone()[1]), registers, counters)
